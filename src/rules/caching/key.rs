//! The keys of stored responses (RFC 9111, section 2).

use aws_lc_rs::digest::{SHA256, digest as digest_of};
use http::HeaderMap;
use http::header::{COOKIE, HeaderName, HeaderValue};

use super::vary::write_variant;

/// The digest by which a response is found. Responses with one key stand for each other, so it is a strong one.
pub type KeyDigest = [u8; 16];

/// The parameters of the query that are part of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum QueryRule {
    /// All, as they are.
    #[default]
    All,
    /// None.
    None,
    /// Those that one of these matches.
    Only(Vec<NamePattern>),
    /// All but those that one of these matches.
    Without(Vec<NamePattern>),
}

/// The name of a parameter, or its beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern {
    text: Box<str>,
    is_prefix: bool,
}

impl NamePattern {
    /// Parses `name` or `prefix*`.
    ///
    /// # Errors
    /// Returns what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, is_prefix) = text.strip_suffix('*').map_or((text, false), |prefix| (prefix, true));
        if name.contains('*') || text.is_empty() || name.contains(['&', '=', '#']) {
            return Err(format!("expected the name of a parameter, or its beginning with *, found \"{text}\""));
        }
        Ok(Self { text: name.into(), is_prefix })
    }

    fn matches(&self, name: &str) -> bool {
        if self.is_prefix { name.starts_with(&*self.text) } else { *name == *self.text }
    }
}

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
    /// `http` or `https`.
    pub scheme: &'r str,
    /// The host in lower case, with its port unless that is the scheme's own.
    pub authority: &'r str,
    /// The path in its normal form.
    pub path: &'r str,
    /// The query.
    pub query: Option<&'r str>,
    /// The fields.
    pub headers: &'r HeaderMap,
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
    for text in [facts.scope, facts.scheme, facts.authority, facts.path] {
        put(text.as_bytes(), out);
    }
    write_query(facts.query, rules, out);
    write_variant(&rules.headers, facts.headers, out);
    for name in &rules.cookies {
        match cookie(facts.headers, name) {
            Some(value) => put(value.as_bytes(), out),
            None => out.extend_from_slice(&u64::MAX.to_be_bytes()),
        }
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

fn write_query(query: Option<&str>, rules: &KeyRules, out: &mut Vec<u8>) {
    let Some(query) = query.filter(|_| rules.query != QueryRule::None) else {
        return out.extend_from_slice(&u64::MAX.to_be_bytes());
    };
    if rules.query == QueryRule::All && !rules.sorted {
        return put(query.as_bytes(), out);
    }
    let is_chosen = |parameter: &&str| {
        let name = parameter.split_once('=').map_or(*parameter, |(name, _)| name);
        match &rules.query {
            QueryRule::Only(patterns) => patterns.iter().any(|pattern| pattern.matches(name)),
            QueryRule::Without(patterns) => !patterns.iter().any(|pattern| pattern.matches(name)),
            QueryRule::All | QueryRule::None => true,
        }
    };
    let mut parameters: Vec<&str> = query.split('&').filter(|text| !text.is_empty()).filter(is_chosen).collect();
    if rules.sorted {
        // By name alone: the order of several values of one name may matter.
        parameters.sort_by_key(|parameter| parameter.split_once('=').map_or(*parameter, |(name, _)| name));
    }
    if parameters.is_empty() {
        return out.extend_from_slice(&u64::MAX.to_be_bytes());
    }
    put(parameters.join("&").as_bytes(), out);
}

/// Returns the first cookie of that name.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line: &HeaderValue| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).find_map(|pair| {
        let (known, value) = pair.trim().split_once('=')?;
        (known == name).then_some(value)
    })
}

/// Writes the URL by which a stored response is purged, and returns it.
pub fn purge_url(scheme: &str, authority: &str, path: &str, query: Option<&str>) -> Box<str> {
    let mut url = String::with_capacity(scheme.len() + authority.len() + path.len() + query.map_or(0, str::len) + 4);
    url.push_str(scheme);
    url.push_str("://");
    url.push_str(authority);
    url.push_str(path);
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    url.into_boxed_str()
}

/// Returns an authority without the port that is the scheme's own, in lower case.
pub fn normal_authority(text: &str, scheme: &str) -> String {
    let default = if scheme == "https" { ":443" } else { ":80" };
    text.strip_suffix(default).unwrap_or(text).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(path: &str, query: Option<&str>, headers: &HeaderMap, rules: &KeyRules) -> KeyDigest {
        let facts = KeyFacts { scope: "r", scheme: "http", authority: "a", path, query, headers, consumer: Some("c") };
        primary_key(&facts, rules, &mut Vec::new())
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

    #[test]
    fn urls_for_purges() {
        assert_eq!(
            &*purge_url("https", &normal_authority("A.test:443", "https"), "/x", Some("y")),
            "https://a.test/x?y"
        );
        assert_eq!(normal_authority("a.test:8443", "https"), "a.test:8443");
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
