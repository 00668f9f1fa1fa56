//! The form of a head in a file: fields of fixed order, each text with its length before it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Version;
use pingora::http::ResponseHeader;

use crate::live::cache::head::{HeadMemo, StoredHead, StoredKey};

/// Appends a text with its length.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text);
}

fn put_key(out: &mut Vec<u8>, key: Option<&[u8; 16]>) {
    out.push(u8::from(key.is_some()));
    out.extend_from_slice(key.unwrap_or(&[0; 16]));
}

/// Times are in microseconds of Unix time.
fn put_time(out: &mut Vec<u8>, time: SystemTime) {
    let micros = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    out.extend_from_slice(&micros.to_le_bytes());
}

/// Returns the form of a head with its key and variant.
pub fn write_head(key: &StoredKey, variant: Option<&StoredKey>, head: &StoredHead) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    put_key(&mut out, Some(&key.0));
    put_key(&mut out, variant.map(|variant| &variant.0));
    put_key(&mut out, head.variance.as_ref());
    [head.created, head.updated, head.age_from, head.fresh_until].into_iter().for_each(|t| put_time(&mut out, t));
    out.extend_from_slice(&head.stale_while_revalidate.to_le_bytes());
    out.extend_from_slice(&head.stale_if_error.to_le_bytes());
    put_text(&mut out, head.url.as_bytes());
    out.extend_from_slice(&u32::try_from(head.tags.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.tags.iter().for_each(|tag| put_text(&mut out, tag.as_bytes()));
    let response = &head.response;
    out.extend_from_slice(&response.status.as_u16().to_le_bytes());
    out.push(match response.version {
        Version::HTTP_10 => 10,
        Version::HTTP_2 => 20,
        Version::HTTP_3 => 30,
        _ => 11,
    });
    put_text(&mut out, response.get_reason_phrase().unwrap_or_default().as_bytes());
    out.push(u8::from(response.has_case()));
    out.extend_from_slice(&u32::try_from(response.headers.len()).unwrap_or(u32::MAX).to_le_bytes());
    if response.has_case() {
        for (name, value) in response.case_header_iter() {
            put_text(&mut out, name.as_slice());
            put_text(&mut out, value.as_bytes());
        }
    } else {
        for (name, value) in &response.headers {
            put_text(&mut out, name.as_str().as_bytes());
            put_text(&mut out, value.as_bytes());
        }
    }
    out
}

/// What is left of a form.
struct Form<'f>(&'f [u8]);

impl<'f> Form<'f> {
    fn take(&mut self, count: usize) -> Option<&'f [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'f [u8]> {
        let length = self.number()?;
        self.take(usize::try_from(length).ok()?)
    }

    fn str(&mut self) -> Option<&'f str> {
        std::str::from_utf8(self.text()?).ok()
    }

    fn flag(&mut self) -> Option<bool> {
        self.array().map(|[flag]: [u8; 1]| flag != 0)
    }

    fn key(&mut self) -> Option<Option<[u8; 16]>> {
        let is_some = self.flag()?;
        let key = self.array()?;
        Some(is_some.then_some(key))
    }

    fn time(&mut self) -> Option<SystemTime> {
        let micros = i64::from_le_bytes(self.array()?);
        let distance = Duration::from_micros(micros.unsigned_abs());
        if micros < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
    }
}

/// Returns the key, the variant and the head of a form; `None` if it is no such form.
pub fn read_head(form: &[u8]) -> Option<(StoredKey, Option<StoredKey>, StoredHead)> {
    let mut form = Form(form);
    let (key, variant, variance) = (StoredKey(form.key()??), form.key()?.map(StoredKey), form.key()?);
    let (created, updated, age_from, fresh_until) = (form.time()?, form.time()?, form.time()?, form.time()?);
    let (stale_while_revalidate, stale_if_error) = (form.number()?, form.number()?);
    let url = form.str()?.into();
    let tags = form.number()?;
    let tags = (0..tags).map(|_| form.str().map(Into::into)).collect::<Option<Vec<_>>>()?;
    let response = read_response(&mut form)?;
    let head = StoredHead {
        response,
        url,
        tags,
        created,
        updated,
        age_from,
        fresh_until,
        stale_while_revalidate,
        stale_if_error,
        variance,
        memo: HeadMemo::default(),
    };
    form.0.is_empty().then_some((key, variant, head))
}

fn read_response(form: &mut Form<'_>) -> Option<ResponseHeader> {
    let status = u16::from_le_bytes(form.array()?);
    let version = match form.array()? {
        [10] => Version::HTTP_10,
        [20] => Version::HTTP_2,
        [30] => Version::HTTP_3,
        _ => Version::HTTP_11,
    };
    let (reason, has_case, count) = (form.str()?, form.flag()?, usize::try_from(form.number()?).ok()?);
    let hint = Some(count.min(256));
    let mut response = match has_case {
        true => ResponseHeader::build(status, hint).ok()?,
        false => ResponseHeader::build_no_case(status, hint).ok()?,
    };
    response.set_version(version);
    if !reason.is_empty() {
        response.set_reason_phrase(Some(reason)).ok()?;
    }
    for _ in 0..count {
        let (name, value) = (form.text()?, form.text()?);
        response.append_header(Bytes::copy_from_slice(name), value).ok()?;
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::cache::tests::{head, key};

    #[test]
    fn what_is_read_is_what_was_written() {
        for has_case in [true, false] {
            let mut given = head("https://a.test/b?c", &["one", "two"]);
            let build = if has_case { ResponseHeader::build } else { ResponseHeader::build_no_case };
            given.response = build(203_u16, None).expect("a head");
            given.response.append_header("X-ODD-Case", "1").expect("added");
            given.response.append_header("Set-Cookie", "a=b").expect("added");
            given.response.append_header("x-odd-case", &b"\xff2"[..]).expect("added");
            given.response.set_reason_phrase(Some("Perhaps")).expect("set");
            given.variance = Some([7; 16]);
            let form = write_head(&key(1), Some(&key(2)), &given);
            let (of, variant, read) = read_head(&form).expect("a head");
            assert_eq!((of, variant, read.variance), (key(1), Some(key(2)), Some([7; 16])));
            assert_eq!((&read.url, &read.tags), (&given.url, &given.tags));
            let wire = |head: &StoredHead| {
                let mut wire = Vec::new();
                head.response.header_to_h1_wire(&mut wire);
                wire
            };
            assert_eq!(wire(&read), wire(&given));
            assert_eq!(read.response.get_reason_phrase(), Some("Perhaps"));
            // Microseconds are kept.
            let difference = given.fresh_until.duration_since(read.fresh_until).expect("no later");
            assert!(difference < Duration::from_micros(1));
            // No shorter form is one, and none makes it panic.
            (0..form.len()).for_each(|end| assert!(read_head(&form[..end]).is_none()));
        }
    }
}
