//! W3C Trace Context: `traceparent: 00-<32 hex>-<16 hex>-<2 hex>`.

use http::HeaderValue;

/// The context of a request in a distributed trace. The gateway is a span of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The id of the whole trace.
    pub trace_id: u128,
    /// The id of the gateway's span.
    pub span_id: u64,
    /// The received flags; `sampled` for a trace that begins here, since its id is in the access log.
    pub flags: u8,
    /// Whether the trace was received with the request; if not, a `tracestate` must not be forwarded.
    pub continued: bool,
}

impl Trace {
    /// Continues the trace of a valid `traceparent`, or starts one.
    pub fn continue_or_start(came: Option<&[u8]>) -> Self {
        let span_id = fastrand::u64(1..);
        match came.and_then(parse) {
            Some((trace_id, flags)) => Self { trace_id, span_id, flags, continued: true },
            None => Self { trace_id: fastrand::u128(1..), span_id, flags: 1, continued: false },
        }
    }

    /// Returns the `traceparent` for the target.
    pub fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        for (pair, byte) in text[3..35].chunks_exact_mut(2).zip(self.trace_id.to_be_bytes()) {
            pair.copy_from_slice(&hex(byte));
        }
        for (pair, byte) in text[36..52].chunks_exact_mut(2).zip(self.span_id.to_be_bytes()) {
            pair.copy_from_slice(&hex(byte));
        }
        text[53..].copy_from_slice(&hex(self.flags));
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Returns two lower-case hexadecimal digits.
pub(super) fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// Parses the trace id and the flags (section 3.2.2); versions above 00 may have more fields behind a dash.
fn parse(text: &[u8]) -> Option<(u128, u8)> {
    let text = std::str::from_utf8(text).ok()?;
    let lower = |t: &str| t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut parts = text.splitn(4, '-');
    let (version, trace, span, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = rest.get(..2)?;
    let tail_fine = rest.len() == 2 || (version != "00" && rest.as_bytes().get(2) == Some(&b'-'));
    let lengths = version.len() == 2 && trace.len() == 32 && span.len() == 16;
    if !lengths || !tail_fine || version == "ff" || ![version, trace, span, flags].iter().all(|t| lower(t)) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((trace_id, u8::from_str_radix(flags, 16).ok()?))
}

/// The maximum number of members of a `tracestate` (W3C Trace Context, section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// The decision about the `tracestate` of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceState {
    /// It is forwarded as received.
    Valid,
    /// This value is forwarded: several lines joined, without members of a repeated key.
    Other(HeaderValue),
    /// It is not forwarded.
    Invalid,
}

/// Parses the lines of a `tracestate` (section 3.3.1). A malformed member, or more members than allowed, invalidates
/// it as a whole (section 3.3.1.5).
pub fn tracestate(lines: &http::header::GetAll<'_, HeaderValue>) -> TraceState {
    let mut members: [&[u8]; MAX_MEMBERS] = [&[]; MAX_MEMBERS];
    let (mut count, mut repeated) = (0, false);
    let mut lines_seen = 0;
    for line in lines {
        lines_seen += 1;
        for member in line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|m| !m.is_empty()) {
            let Some(key) = member_key(member) else { return TraceState::Invalid };
            if members[..count].iter().any(|known| member_key(known) == Some(key)) {
                // One entry for each key; the first is the newest.
                repeated = true;
            } else if count == MAX_MEMBERS {
                return TraceState::Invalid;
            } else {
                members[count] = member;
                count += 1;
            }
        }
    }
    match (count, lines_seen, repeated) {
        (0, ..) => TraceState::Invalid,
        (_, 1, false) => TraceState::Valid,
        _ => HeaderValue::from_bytes(&members[..count].join(&b","[..])).map_or(TraceState::Invalid, TraceState::Other),
    }
}

/// Returns the key of a well-formed member (W3C Trace Context Level 2, section 3.3.1.3.1, which gives `@` no special
/// place).
fn member_key(member: &[u8]) -> Option<&[u8]> {
    let at = memchr::memchr(b'=', member)?;
    let (key, value) = (&member[..at], &member[at + 1..]);
    let start = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let rest = |b: &u8| start(*b) || matches!(b, b'_' | b'-' | b'*' | b'/' | b'@');
    let is_key = key.first().is_some_and(|b| start(*b)) && key.len() <= 256 && key.iter().all(rest);
    let is_value =
        (1..=256).contains(&value.len()) && value.iter().all(|b| matches!(b, 0x20..=0x7e) && !matches!(b, b',' | b'='));
    (is_key && is_value).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_a_valid_trace_and_restarts_any_other() {
        let came = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::continue_or_start(Some(came));
        assert!(trace.continued);
        let header = trace.header();
        let text = header.to_str().expect("ascii");
        assert!(text.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && text.ends_with("-01"));
        assert!(!text.contains("00f067aa0ba902b7"));
        for wrong in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf9-00f067aa0ba902b7-01",
        ] {
            assert!(!Trace::continue_or_start(Some(wrong.as_bytes())).continued, "{wrong}");
        }
        assert!(Trace::continue_or_start(Some(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")).continued);
    }

    fn state(lines: &[&str]) -> TraceState {
        let mut headers = http::HeaderMap::new();
        lines.iter().for_each(|line| _ = headers.append("tracestate", HeaderValue::from_str(line).expect("a value")));
        tracestate(&headers.get_all("tracestate"))
    }

    #[test]
    fn a_state_is_passed_on_when_it_is_well_formed() {
        let long = |count: usize| (0..count).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        for valid in [
            "foo=1",
            "foo=1,bar=2",
            "foo=1 \t , \t bar=2, \t baz=3",
            "foo=1,,bar=2,",
            "a_-*/0@z_-*/=!+~ x",
            &long(32),
            &format!("{}=1", "z".repeat(256)),
            &format!("{}@{}=1", "t".repeat(241), "v".repeat(14)),
            &format!("t@{}=1", "v".repeat(254)),
            "foo@=1,bar=2",
            "foo@bar@baz=1",
            &format!("foo={}", "v".repeat(256)),
        ] {
            assert_eq!(state(&[valid]), TraceState::Valid, "{valid}");
        }
        for invalid in [
            "",
            "foo",
            "foo=",
            "=1",
            "foo =1",
            "FOO=1",
            "foo.bar=1",
            "@foo=1,bar=2",
            "foo=bar=baz",
            "foo=,bar=3",
            "foo=a\tb",
            &long(33),
            &format!("{}=1", "z".repeat(257)),
            &format!("{}@v=1", "t".repeat(255)),
            &format!("foo={}", "v".repeat(257)),
        ] {
            assert_eq!(state(&[invalid]), TraceState::Invalid, "{invalid}");
        }
        let other = |text: &'static str| TraceState::Other(HeaderValue::from_static(text));
        assert_eq!(state(&["foo=1", "", "bar=2"]), other("foo=1,bar=2"));
        assert_eq!(state(&["foo=1,bar=2, foo=3"]), other("foo=1,bar=2"));
        assert_eq!(state(&["foo=1", "FOO=2"]), TraceState::Invalid);
    }
}
