//! The part of a URL that tells stored responses apart, and the form of URLs by which they are purged.

use std::borrow::Cow;

use super::key::KeyRules;
use crate::rules::path::normalise;
use crate::rules::routing::form_decode;

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

    fn matches(&self, name: &[u8]) -> bool {
        if self.is_prefix { name.starts_with(self.text.as_bytes()) } else { *name == *self.text.as_bytes() }
    }
}

/// Returns the decoded name of a parameter, as a target reads it.
fn name_of(parameter: &str) -> Cow<'_, [u8]> {
    form_decode(parameter.split_once('=').map_or(parameter, |(name, _)| name).as_bytes())
}

/// Returns what the rules keep of a query, without the parameters of the names `dropped`. A parameter with a semicolon
/// is kept in any case: some targets read it as several.
pub fn kept_query<'q>(query: Option<&'q str>, rules: &KeyRules, dropped: &[&str]) -> Option<Cow<'q, str>> {
    let query = query.filter(|_| rules.query != QueryRule::None)?;
    if rules.query == QueryRule::All && !rules.sorted && dropped.is_empty() {
        return Some(Cow::Borrowed(query));
    }
    let is_kept = |parameter: &&str| {
        let name = name_of(parameter);
        if dropped.iter().any(|dropped| *name == *dropped.as_bytes()) {
            return false;
        }
        let matches = |patterns: &[NamePattern]| patterns.iter().any(|pattern| pattern.matches(&name));
        parameter.contains(';')
            || match &rules.query {
                QueryRule::Only(patterns) => matches(patterns),
                QueryRule::Without(patterns) => !matches(patterns),
                QueryRule::All | QueryRule::None => true,
            }
    };
    let mut parameters: Vec<&str> = query.split('&').filter(|text| !text.is_empty()).filter(is_kept).collect();
    if rules.sorted {
        // By name alone: the order of several values of one name may matter.
        parameters.sort_by_cached_key(|parameter| name_of(parameter).into_owned());
    }
    (!parameters.is_empty()).then(|| Cow::Owned(parameters.join("&")))
}

/// Returns the URL by which a stored response is purged: in the form that all spellings of it have (RFC 3986, section
/// 6.2.2), without a query that is empty.
pub fn purge_url(scheme: &str, authority: &str, path: &str, query: Option<&str>) -> Box<str> {
    let mut url = String::with_capacity(scheme.len() + authority.len() + path.len() + query.map_or(0, str::len) + 4);
    url.push_str(scheme);
    url.push_str("://");
    url.push_str(authority);
    match normalise(path.as_bytes()) {
        Ok(normal) => url.push_str(&normal),
        Err(_) => url.push_str(path),
    }
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        url.push('?');
        push_normal_query(query, &mut url);
    }
    url.into_boxed_str()
}

/// Returns the form of such a URL that the rules make of it.
pub fn url_by_rules(url: &str, rules: &KeyRules) -> Box<str> {
    let Some((before, query)) = url.split_once('?') else { return url.into() };
    match kept_query(Some(query), rules, &[]) {
        Some(kept) => format!("{before}?{kept}").into_boxed_str(),
        None => before.into(),
    }
}

/// Appends a query whose escapes are in upper case, and are decoded where they stand for what needs none.
fn push_normal_query(query: &str, out: &mut String) {
    let mut rest = query;
    while let Some((before, escaped)) = rest.split_once('%') {
        out.push_str(before);
        let code = escaped.get(..2).filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let Some(code) = code else {
            out.push('%');
            rest = escaped;
            continue;
        };
        match u8::from_str_radix(code, 16) {
            Ok(byte) if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') => {
                out.push(byte.into());
            }
            _ => {
                out.push('%');
                out.push_str(&code.to_ascii_uppercase());
            }
        }
        rest = &escaped[2..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::super::key::normal_authority;
    use super::*;

    #[test]
    fn urls_have_one_form() {
        let of = |path: &str, query: Option<&str>| purge_url("https", "a.test", path, query).into_string();
        assert_eq!(
            &*purge_url("https", &normal_authority("A.test:443", "https"), "/x", Some("y")),
            "https://a.test/x?y"
        );
        assert_eq!(normal_authority("a.test:8443", "https"), "a.test:8443");
        assert_eq!(of("/%7ea/./b/../c%2f", Some("")), "https://a.test/~a/c%2F");
        assert_eq!(of("/", Some("a=%7e%2f%zz%4&b=%61")), "https://a.test/?a=~%2F%zz%4&b=a");
    }

    #[test]
    fn urls_by_rules() {
        let without = QueryRule::Without(vec![NamePattern::parse("utm_*").unwrap()]);
        let rules = |query: QueryRule, sorted| KeyRules { query, sorted, ..KeyRules::default() };
        let by = |url: &str, rules: &KeyRules| url_by_rules(url, rules).into_string();
        assert_eq!(by("http://a/x?utm_a=1&b", &rules(without.clone(), false)), "http://a/x?b");
        assert_eq!(by("http://a/x?utm_a=1", &rules(without, false)), "http://a/x");
        assert_eq!(by("http://a/x?b=1&a=2", &rules(QueryRule::All, true)), "http://a/x?a=2&b=1");
        assert_eq!(by("http://a/x?b=1", &rules(QueryRule::None, false)), "http://a/x");
    }

    #[test]
    fn credentials_are_dropped() {
        let kept = |query: &'static str| kept_query(Some(query), &KeyRules::default(), &["key"]);
        assert_eq!(kept("a=1&key=x&%6bey=y&key").as_deref(), Some("a=1"));
        assert_eq!(kept("key=x;a"), None);
    }
}
