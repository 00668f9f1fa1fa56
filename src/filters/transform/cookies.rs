//! Attributes of the cookies that a target sets (RFC 6265, section 4.1).

use http::HeaderValue;
use http::header::SET_COOKIE;
use pingora::http::ResponseHeader;

use super::config::{CookieAttributes, SameSite};

/// The name for every cookie.
const EVERY: &str = "*";

/// Changes the cookies of a response: those of a name as it says, and all others as `*` says.
pub(super) fn edit_cookies(response: &mut ResponseHeader, changes: &[(String, CookieAttributes)]) {
    if changes.is_empty() || !response.headers.contains_key(SET_COOKIE) {
        return;
    }
    let lines: Vec<HeaderValue> = response.headers.get_all(SET_COOKIE).iter().cloned().collect();
    response.remove_header(&SET_COOKIE);
    for line in lines {
        let name = line.as_bytes().split(|byte| matches!(byte, b'=' | b';')).next().unwrap_or_default().trim_ascii();
        let change = changes.iter().find(|(known, _)| known.as_bytes() == name);
        let change = change.or_else(|| changes.iter().find(|(known, _)| known == EVERY));
        let edited = match change {
            None => Some(line),
            Some((_, attributes)) if attributes.remove => None,
            Some((_, attributes)) => HeaderValue::from_bytes(&edited(line.as_bytes(), attributes)).ok(),
        };
        edited.into_iter().for_each(|line| _ = response.append_header(SET_COOKIE, line));
    }
}

/// Returns the line of a cookie with these attributes in place of its own.
fn edited(line: &[u8], attributes: &CookieAttributes) -> Vec<u8> {
    let mut parts = line.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let mut out = parts.next().unwrap_or_default().to_vec();
    let flag = |set: Option<bool>, name: &'static str| set.map(|set| (name, set.then(|| name.to_owned())));
    let text = |value: &Option<String>, name: &'static str| {
        value.as_ref().map(|value| (name, (!value.is_empty()).then(|| format!("{name}={value}"))))
    };
    let same_site = attributes.same_site.map(|site| {
        let word = match site {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        };
        ("SameSite", Some(format!("SameSite={word}")))
    });
    let changes = [
        text(&attributes.domain, "Domain"),
        text(&attributes.path, "Path"),
        flag(attributes.secure, "Secure"),
        flag(attributes.http_only, "HttpOnly"),
        same_site,
    ];
    let changed = |part: &&[u8]| {
        let name = part.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        !changes.iter().flatten().any(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()))
    };
    for part in parts.filter(|part| !part.is_empty()).filter(changed) {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(part);
    }
    for text in changes.into_iter().flatten().filter_map(|(_, text)| text) {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(text.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_replaced_and_the_rest_stays() {
        let mut response = ResponseHeader::build(200, None).expect("a response");
        for line in ["s=1; Path=/; domain=old.example; secure; Max-Age=9", "t=a b;HttpOnly", "gone=1", "u=2"] {
            response.append_header(SET_COOKIE, line).expect("a header");
        }
        let session = CookieAttributes {
            domain: Some(String::new()),
            path: Some("/app".to_owned()),
            secure: Some(true),
            same_site: Some(SameSite::Lax),
            ..CookieAttributes::default()
        };
        let gone = CookieAttributes { remove: true, ..CookieAttributes::default() };
        let every = CookieAttributes { http_only: Some(false), ..CookieAttributes::default() };
        let changes = [("s".to_owned(), session), ("gone".to_owned(), gone), ("*".to_owned(), every)];
        edit_cookies(&mut response, &changes);
        let lines: Vec<_> =
            response.headers.get_all(SET_COOKIE).iter().map(|line| line.to_str().expect("text")).collect();
        assert_eq!(lines, ["s=1; Max-Age=9; Path=/app; Secure; SameSite=Lax", "t=a b", "u=2"]);
    }
}
