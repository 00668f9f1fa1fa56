//! The keys of stored responses (RFC 9111, section 2).

use aws_lc_rs::digest::{SHA256, digest as digest_of};
use http::HeaderMap;
use http::header::{COOKIE, HeaderName};

use super::query::QueryRule;
use super::vary::write_variant;

/// What trusted proxies say of the client's request, and targets make links of.
static PROXY_FIELDS: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
];

/// The digest by which a response is found. Responses with one key stand for each other, so it is a strong one.
pub type KeyDigest = [u8; 16];

/// The rules for the key, beside scheme, host and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRules {
    /// The query.
    pub query: QueryRule,
    /// Whether the order of parameters is ignored.
    pub sorted: bool,
    /// Fields of the request.
    pub headers: Vec<HeaderName>,
    /// Cookies.
    pub cookies: Vec<Box<str>>,
    /// Whether each consumer has its own responses.
    pub consumer: bool,
}

/// The facts about a request of which its key is made.
#[derive(Clone, Copy, Debug)]
pub struct KeyFacts<'r> {
    /// What keeps apart the routes that share a store.
    pub scope: &'r str,
    /// The listener, which may have filters of its own.
    pub listener: &'r str,
    /// The version of the API that the request is for.
    pub version: &'r str,
    /// `http` or `https`.
    pub scheme: &'r str,
    /// The host in lower case, with its port unless that is the scheme's own.
    pub authority: &'r str,
    /// The path in its normal form.
    pub path: &'r str,
    /// What the rules keep of the query.
    pub query: Option<&'r str>,
    /// The method and the target that is sent, where they are not those of the client.
    pub sent: Option<&'r str>,
    /// The fields.
    pub headers: &'r HeaderMap,
    /// Whether what a proxy says of the client's request is sent on.
    pub trusts_proxy: bool,
    /// The consumer.
    pub consumer: Option<&'r str>,
}

/// Appends a text with its length, so that no two lists of texts are written alike.
fn put(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u64).to_be_bytes());
    out.extend_from_slice(text);
}

/// Writes the key into `out`, and returns its digest.
pub fn primary_key(facts: &KeyFacts<'_>, rules: &KeyRules, out: &mut Vec<u8>) -> KeyDigest {
    out.clear();
    for text in [facts.scope, facts.listener, facts.version, facts.scheme, facts.authority, facts.path] {
        put(text.as_bytes(), out);
    }
    put_option(facts.query.map(str::as_bytes), out);
    put_option(facts.sent.map(str::as_bytes), out);
    out.push(u8::from(facts.trusts_proxy));
    if facts.trusts_proxy {
        write_variant(&PROXY_FIELDS, facts.headers, out);
    }
    write_variant(&rules.headers, facts.headers, out);
    for name in &rules.cookies {
        cookies(facts.headers, name).for_each(|value| put(value, out));
        put_option(None, out);
    }
    if rules.consumer {
        put(facts.consumer.unwrap_or_default().as_bytes(), out);
        out.push(u8::from(facts.consumer.is_some()));
    }
    digest(out)
}

/// Returns the digest of the values of these fields of a request, by which variants of a response are found.
pub fn variant_key<'n>(
    names: impl IntoIterator<Item = &'n HeaderName>,
    request: &HeaderMap,
    out: &mut Vec<u8>,
) -> KeyDigest {
    out.clear();
    write_variant(names, request, out);
    digest(out)
}

fn digest(text: &[u8]) -> KeyDigest {
    let mut key = KeyDigest::default();
    key.copy_from_slice(&digest_of(&SHA256, text).as_ref()[..16]);
    key
}

/// Appends a text that may be absent.
fn put_option(text: Option<&[u8]>, out: &mut Vec<u8>) {
    match text {
        Some(text) => put(text, out),
        None => out.extend_from_slice(&u64::MAX.to_be_bytes()),
    }
}

/// Returns the values of the cookies of that name.
fn cookies<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.filter_map(move |pair| {
        let pair = pair.trim_ascii();
        let end = pair.iter().position(|byte| *byte == b'=')?;
        (pair[..end].trim_ascii_end() == name.as_bytes()).then(|| &pair[end + 1..])
    })
}

/// Returns whether there is a cookie of that name.
pub fn has_cookie(headers: &HeaderMap, name: &str) -> bool {
    cookies(headers, name).next().is_some()
}

/// Returns an authority without the port that is the scheme's own, in lower case.
pub fn normal_authority(text: &str, scheme: &str) -> String {
    let default = if scheme == "https" { ":443" } else { ":80" };
    text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::query::{NamePattern, kept_query};
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn facts<'r>(path: &'r str, headers: &'r HeaderMap) -> KeyFacts<'r> {
        KeyFacts {
            scope: "r",
            listener: "l",
            version: "",
            scheme: "http",
            authority: "a",
            path,
            query: None,
            sent: None,
            headers,
            trusts_proxy: false,
            consumer: Some("c"),
        }
    }

    fn key(path: &str, query: Option<&str>, headers: &HeaderMap, rules: &KeyRules) -> KeyDigest {
        let query = kept_query(query, rules, &[]);
        primary_key(&KeyFacts { query: query.as_deref(), ..facts(path, headers) }, rules, &mut Vec::new())
    }

    #[test]
    fn each_fact_keeps_responses_apart() {
        let (none, rules) = (HeaderMap::new(), KeyRules::default());
        let mut proxied = HeaderMap::new();
        proxied.insert("x-forwarded-host", HeaderValue::from_static("b"));
        let of = |facts: &KeyFacts<'_>| primary_key(facts, &rules, &mut Vec::new());
        let plain = facts("/", &none);
        let all = [
            of(&plain),
            of(&KeyFacts { listener: "m", ..plain }),
            of(&KeyFacts { version: "2", ..plain }),
            of(&KeyFacts { sent: Some("GET /x"), ..plain }),
            of(&KeyFacts { headers: &proxied, trusts_proxy: true, ..plain }),
            of(&KeyFacts { trusts_proxy: true, ..plain }),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
        assert_eq!(of(&KeyFacts { headers: &proxied, ..plain }), all[0]);
    }

    #[test]
    fn every_cookie_of_a_name_counts() {
        let of = |lines: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            lines.iter().for_each(|line| _ = headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap()));
            key("/", None, &headers, &KeyRules { cookies: vec!["a".into(), "b".into()], ..KeyRules::default() })
        };
        assert_ne!(of(&[b"a=1; a=2"]), of(&[b"a=1; a=3"]));
        assert_ne!(of(&[b"a=1", b"a=2"]), of(&[b"a=1"]));
        assert_ne!(of(&[b"x=\xff; a=1"]), of(&[b"x=\xff; a=2"]));
        assert_ne!(of(&[b"a=1"]), of(&[b"b=1"]));
        assert_eq!(of(&[b"a=1; c=1"]), of(&[b"c=2; a=1"]));
    }

    #[test]
    fn the_query_by_rule() {
        let none = HeaderMap::new();
        let of = |query: Option<&str>, rule: QueryRule, sorted| {
            key("/", query, &none, &KeyRules { query: rule, sorted, ..KeyRules::default() })
        };
        let patterns = |list: &[&str]| list.iter().map(|text| NamePattern::parse(text).unwrap()).collect::<Vec<_>>();
        assert_ne!(of(Some("a=1"), QueryRule::All, false), of(Some("a=2"), QueryRule::All, false));
        assert_ne!(of(Some("a=1&b=2"), QueryRule::All, false), of(Some("b=2&a=1"), QueryRule::All, false));
        assert_eq!(of(Some("a=1&b=2"), QueryRule::All, true), of(Some("b=2&a=1"), QueryRule::All, true));
        assert_ne!(of(Some("a=1&a=2"), QueryRule::All, true), of(Some("a=2&a=1"), QueryRule::All, true));
        assert_eq!(of(Some("a=1"), QueryRule::None, false), of(None, QueryRule::None, false));
        let without = || QueryRule::Without(patterns(&["utm_*", "fbclid"]));
        assert_eq!(of(Some("utm_a=1&x=2&fbclid"), without(), false), of(Some("x=2"), without(), false));
        assert_eq!(of(Some("utm_a=1"), without(), false), of(None, without(), false));
        let only = || QueryRule::Only(patterns(&["x"]));
        assert_eq!(of(Some("y=1&x=2"), only(), false), of(Some("x=2&z"), only(), false));
        assert!(NamePattern::parse("a*b").is_err() && NamePattern::parse("").is_err());
        // A target decodes names, takes one of several values, and some take a semicolon for a separator.
        assert_ne!(of(Some("%78=1"), only(), false), of(None, only(), false));
        assert_ne!(of(Some("x=1&x=2"), only(), false), of(Some("x=1"), only(), false));
        assert_ne!(of(Some("y=1;x=2"), only(), false), of(Some("y=1"), only(), false));
        assert_ne!(of(Some("utm_a=1;x=2"), without(), false), of(None, without(), false));
        assert_eq!(of(Some("%75tm_a=1&x=2"), without(), false), of(Some("x=2"), without(), false));
    }

    #[test]
    fn configured_parts_keep_responses_apart() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_static("a=1; b=2"));
        headers.insert("x", HeaderValue::from_static("1"));
        let none = HeaderMap::new();
        let rules = KeyRules { headers: vec!["x".parse().unwrap()], ..KeyRules::default() };
        assert_ne!(key("/", None, &headers, &rules), key("/", None, &none, &rules));
        let rules = KeyRules { cookies: vec!["b".into()], ..KeyRules::default() };
        assert_ne!(key("/", None, &headers, &rules), key("/", None, &none, &rules));
        let rules = KeyRules::default();
        assert_eq!(key("/", None, &headers, &rules), key("/", None, &none, &rules));
    }

    proptest! {
        #[test]
        fn parts_never_run_into_each_other(
            one in "/[ab]{0,3}", two in "/[ab]{0,3}", x in "[ab]{0,2}", y in "[ab]{0,2}",
        ) {
            let none = HeaderMap::new();
            let of = |path: &str, query: &str| key(path, Some(query), &none, &KeyRules::default());
            prop_assert_eq!(of(&one, &x) == of(&two, &y), one == two && x == y);
        }
    }
}
