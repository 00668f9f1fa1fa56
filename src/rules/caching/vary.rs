//! Responses that vary with the request (RFC 9111, section 4.1): which fields they vary with, and the form in which
//! the values of two requests are compared.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, ACCEPT_LANGUAGE, HeaderName, HeaderValue, VARY};

/// The most fields that a stored response may vary with.
pub const MAX_VARY: usize = 16;

/// The fields that differ for every request, or every client, as the target gets them.
static OF_EACH_REQUEST: [HeaderName; 6] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("forwarded"),
];

/// Returns whether a field differs for every request, or every client, so that what varies with it is of no use to
/// others.
pub fn is_of_each_request(name: &HeaderName) -> bool {
    OF_EACH_REQUEST.contains(name)
}

/// Returns the names of the fields that a response varies with, in order and each once; `None` if it varies with
/// anything (`*`), or with what is no name.
pub fn vary_names(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for value in headers.get_all(VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name == "*" {
                return None;
            }
            names.push(name.parse::<HeaderName>().ok()?);
        }
    }
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    Some(names)
}

/// Appends the form in which values of these fields of a request are compared. The forms of two requests differ unless
/// a response to the one may be used for the other. A field that is not there differs from an empty one.
pub fn write_variant<'n>(names: impl IntoIterator<Item = &'n HeaderName>, request: &HeaderMap, out: &mut Vec<u8>) {
    for name in names {
        write_length(name.as_str().len(), out);
        out.extend_from_slice(name.as_str().as_bytes());
        if !request.contains_key(name) {
            write_length(usize::MAX, out);
            continue;
        }
        let value = if *name == ACCEPT_ENCODING { codings(request) } else { joined(request, name) };
        write_length(value.len(), out);
        out.extend_from_slice(&value);
    }
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(length as u64).to_be_bytes());
}

/// Returns the lines of a field as one list, without white space round its members.
fn joined(request: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut out = Vec::new();
    for value in request.get_all(name) {
        let mut quoted = false;
        for part in value.as_bytes().split_inclusive(|byte| {
            quoted ^= *byte == b'"';
            *byte == b',' && !quoted
        }) {
            // Empty members of a list have no meaning (RFC 9110, section 5.6.1).
            let member = part.strip_suffix(b",").unwrap_or(part).trim_ascii();
            if !(out.is_empty() || member.is_empty()) {
                out.push(b',');
            }
            out.extend_from_slice(member);
        }
    }
    if *name == ACCEPT_LANGUAGE {
        // Tags of languages have no case (RFC 9110, section 8.5.1).
        out.make_ascii_lowercase();
    }
    out
}

/// Returns the content codings that a request accepts, in order, and apart from them those that it does not: how much
/// it prefers one is left out, as any that it accepts may be sent (RFC 9110, section 12.5.3).
fn codings(request: &HeaderMap) -> Vec<u8> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for value in request.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes) {
        for member in value.split(|byte| *byte == b',') {
            let mut parts = member.split(|byte| *byte == b';');
            let name = parts.next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
            if name.is_empty() {
                continue;
            }
            let mut name = if name == b"x-gzip" { b"gzip".to_vec() } else { name };
            if parts.any(|part| is_zero(part.trim_ascii())) {
                name.extend_from_slice(b";q=0");
            }
            all.push(name);
        }
    }
    all.sort();
    all.dedup();
    all.join(&b","[..])
}

/// Returns whether a parameter is a weight of 0.
fn is_zero(parameter: &[u8]) -> bool {
    let Some((name, weight)) = parameter.split_at_checked(2) else { return false };
    name.eq_ignore_ascii_case(b"q=") && weight.first() == Some(&b'0') && weight.iter().all(|b| matches!(b, b'0' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn variant(names: &[&'static str], lines: &[(&'static str, &str)]) -> Vec<u8> {
        let names: Vec<HeaderName> = names.iter().map(|name| HeaderName::from_static(name)).collect();
        let mut out = Vec::new();
        write_variant(&names, &map(lines), &mut out);
        out
    }

    #[test]
    fn names_are_a_set() {
        let of = |lines: &[(&'static str, &str)]| vary_names(&map(lines));
        assert_eq!(of(&[]), Some(vec![]));
        assert_eq!(of(&[("vary", "B, a,, b"), ("vary", "A")]).unwrap(), ["a", "b"]);
        assert_eq!(of(&[("vary", "a, *")]), None);
        assert_eq!(of(&[("vary", "a b")]), None);
    }

    #[test]
    fn values_that_mean_the_same_are_the_same() {
        let a = |value: &str| variant(&["a"], &[("a", value)]);
        assert_eq!(a("1, 2"), a("1,2"));
        assert_eq!(a("1, 2"), variant(&["a"], &[("a", "1"), ("a", "2")]));
        assert_ne!(a("1, 2"), a("2, 1"));
        assert_ne!(a("\"1, 2\""), a("\"1,2\""));
        assert_ne!(a(""), variant(&["a"], &[]));
        let coding = |value: &str| variant(&["accept-encoding"], &[("accept-encoding", value)]);
        assert_eq!(coding("gzip, br"), coding("BR;q=0.5,x-gzip"));
        assert_ne!(coding("gzip, br"), coding("gzip"));
        assert_ne!(coding("gzip"), coding("gzip;q=0.0"));
        assert_ne!(coding(""), variant(&["accept-encoding"], &[]));
    }

    proptest! {
        /// No two requests of which the fields differ have one variant: lengths keep values apart.
        #[test]
        fn different_values_never_meet(one in "[ab,]{0,4}", two in "[ab,]{0,4}", other in "[ab]{0,3}") {
            let of = |value: &str, second: &str| variant(&["a", "b"], &[("a", value), ("b", second)]);
            let members = |text: &str| {
                text.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect::<Vec<_>>()
            };
            prop_assert_eq!(of(&one, &other) == of(&two, &other), members(&one) == members(&two));
        }
    }
}
