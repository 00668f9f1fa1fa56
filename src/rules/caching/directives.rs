//! The directives of `Cache-Control` (RFC 9111, section 5.2) and of `CDN-Cache-Control` (RFC 9213).

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, PRAGMA};

/// The field that is for caches that act for the origin (RFC 9213, section 3.1).
pub const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// The largest number of seconds; a larger one counts as this (RFC 9111, section 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// The most fields that one directive may name; a directive with more is one without names, which is stricter.
const MAX_FIELDS: usize = 32;

/// A directive that is for the whole response, or for some of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// It is not there.
    #[default]
    Absent,
    /// It is for the whole response.
    Whole,
    /// It is for these fields (the qualified form, RFC 9111, sections 5.2.2.4 and 5.2.2.7).
    Fields(Vec<HeaderName>),
}

impl Scope {
    fn of(argument: Option<&str>) -> Self {
        let Some(list) = argument else { return Self::Whole };
        let names: Option<Vec<HeaderName>> =
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(|name| name.parse().ok()).collect();
        match names {
            Some(names) if !names.is_empty() && names.len() <= MAX_FIELDS => Self::Fields(names),
            // What cannot be read is taken for the stricter form.
            _ => Self::Whole,
        }
    }

    fn join(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Whole, _) | (_, Self::Absent) => {}
            (Self::Fields(all), Self::Fields(more)) if all.len() + more.len() <= MAX_FIELDS => all.extend(more),
            (Self::Fields(_), Self::Fields(_)) => *self = Self::Whole,
            (_, other) => *self = other,
        }
    }

    /// Returns the names of the fields, if the directive is for some.
    pub fn fields(&self) -> &[HeaderName] {
        if let Self::Fields(names) = self { names } else { &[] }
    }
}

/// The directives of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseDirectives {
    /// It must not be stored.
    pub no_store: bool,
    /// It must not be used without validation.
    pub no_cache: Scope,
    /// It must not be stored by a shared cache.
    pub private: Scope,
    /// It may be stored although it would not be otherwise.
    pub public: bool,
    /// It must not be used once it is stale.
    pub must_revalidate: bool,
    /// The same, of shared caches.
    pub proxy_revalidate: bool,
    /// It may be stored only by a cache that understands its status.
    pub must_understand: bool,
    /// For how many seconds it is fresh.
    pub max_age: Option<u64>,
    /// The same, in shared caches.
    pub s_maxage: Option<u64>,
    /// For how many seconds it may be used stale while it is validated (RFC 5861, section 3).
    pub stale_while_revalidate: Option<u64>,
    /// For how many seconds it may be used stale when the origin fails (RFC 5861, section 4).
    pub stale_if_error: Option<u64>,
}

/// The directives of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestDirectives {
    /// Nothing of the exchange may be stored.
    pub no_store: bool,
    /// A stored response must be validated first.
    pub no_cache: bool,
    /// The age that a stored response may have.
    pub max_age: Option<u64>,
    /// For how many seconds a stored response has to remain fresh.
    pub min_fresh: Option<u64>,
    /// For how many seconds a stored response may be stale; without a number, for any.
    pub max_stale: Option<u64>,
    /// Only a stored response is wanted.
    pub only_if_cached: bool,
    /// For how many seconds a stored response may be stale when the origin fails (RFC 5861, section 4).
    pub stale_if_error: Option<u64>,
}

impl ResponseDirectives {
    /// Returns the directives that hold for this cache: those of `CDN-Cache-Control` if the response has a valid one,
    /// which then stands for `Cache-Control` and `Expires` (RFC 9213, section 2.2), else those of `Cache-Control`.
    /// Returns true where they are the former.
    pub fn of(headers: &HeaderMap) -> (Self, bool) {
        if headers.contains_key(CDN_CACHE_CONTROL)
            && let Some(targeted) = targeted(headers)
        {
            return (targeted, true);
        }
        let mut all = Self::default();
        each(headers.get_all(CACHE_CONTROL), |name, argument| all.take(name, argument));
        (all, false)
    }

    fn take(&mut self, name: &str, argument: Option<&str>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache.join(Scope::of(argument));
        } else if is("private") {
            self.private.join(Scope::of(argument));
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("max-age") {
            take_seconds(&mut self.max_age, argument);
        } else if is("s-maxage") {
            take_seconds(&mut self.s_maxage, argument);
        } else if is("stale-while-revalidate") {
            take_seconds(&mut self.stale_while_revalidate, argument);
        } else if is("stale-if-error") {
            take_seconds(&mut self.stale_if_error, argument);
        }
    }

    /// Returns whether a stale response must not be used by a shared cache (RFC 9111, section 4.2.4).
    pub fn forbids_stale(&self) -> bool {
        self.must_revalidate || self.proxy_revalidate || self.s_maxage.is_some() || self.no_cache == Scope::Whole
    }

    /// Returns whether a shared cache may store the response to a request with `Authorization` (RFC 9111, section
    /// 3.5).
    pub fn permits_authorized(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }
}

impl RequestDirectives {
    /// Returns the directives of a request. `Pragma: no-cache` counts where there is no `Cache-Control` (RFC 9111,
    /// section 5.4).
    pub fn of(headers: &HeaderMap) -> Self {
        let mut all = Self::default();
        if headers.contains_key(CACHE_CONTROL) {
            each(headers.get_all(CACHE_CONTROL), |name, argument| all.take(name, argument));
        } else if headers.contains_key(PRAGMA) {
            each(headers.get_all(PRAGMA), |name, _| all.no_cache |= name.eq_ignore_ascii_case("no-cache"));
        }
        all
    }

    fn take(&mut self, name: &str, argument: Option<&str>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("max-age") {
            take_seconds(&mut self.max_age, argument);
        } else if is("min-fresh") {
            take_seconds(&mut self.min_fresh, argument);
        } else if is("max-stale") {
            match argument {
                None => self.max_stale = Some(u64::MAX),
                Some(_) => take_seconds(&mut self.max_stale, argument),
            }
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("stale-if-error") {
            take_seconds(&mut self.stale_if_error, argument);
        }
    }
}

/// Takes a number of seconds. Of several the least counts, and what is no number counts as 0: either leads to a
/// validation more, and never to the use of what is stale (RFC 9111, section 4.2.1).
fn take_seconds(place: &mut Option<u64>, argument: Option<&str>) {
    let seconds = argument.and_then(parse_seconds).unwrap_or(0);
    *place = Some(place.map_or(seconds, |known| known.min(seconds)));
}

/// Parses a number of seconds (RFC 9111, section 1.2.2).
pub fn parse_seconds(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().map_or(MAX_SECONDS, |seconds: u64| seconds.min(MAX_SECONDS)))
}

/// Calls `take` with the name and the argument of each directive. A comma within a quoted string separates nothing.
fn each<'v>(values: impl IntoIterator<Item = &'v HeaderValue>, mut take: impl FnMut(&str, Option<&str>)) {
    for value in values {
        // A value with other bytes than text is not valid; nothing of it can be relied on.
        let Ok(mut rest) = std::str::from_utf8(value.as_bytes()) else {
            take("no-store", None);
            continue;
        };
        while !rest.is_empty() {
            let (member, after) = split_member(rest);
            rest = after;
            let (name, argument) = match member.split_once('=') {
                // No white space is allowed round it (RFC 9111, section 5.2); with some the argument is not valid.
                Some((name, argument)) => (name, Some(argument)),
                None => (member, None),
            };
            let unquoted =
                argument.map(|text| text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text));
            take(name, unquoted);
        }
    }
}

/// Splits a list behind its first member.
fn split_member(list: &str) -> (&str, &str) {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return (list[..at].trim(), &list[at + 1..]),
            _ => {}
        }
    }
    (list.trim(), "")
}

/// Returns the directives of `CDN-Cache-Control`, a dictionary of structured fields. One that is not valid, or empty,
/// is ignored as a whole (RFC 9213, section 2.1).
fn targeted(headers: &HeaderMap) -> Option<ResponseDirectives> {
    let mut text = Vec::new();
    for value in headers.get_all(CDN_CACHE_CONTROL) {
        if !text.is_empty() {
            text.extend_from_slice(b", ");
        }
        text.extend_from_slice(value.as_bytes());
    }
    let dictionary = sfv::Parser::new(&text).parse::<sfv::Dictionary>().ok()?;
    if dictionary.is_empty() {
        return None;
    }
    let mut all = ResponseDirectives::default();
    for (key, entry) in &dictionary {
        let sfv::ListEntry::Item(item) = entry else { continue };
        match &item.bare_item {
            sfv::BareItem::Boolean(true) => all.take(key.as_str(), None),
            sfv::BareItem::Integer(number) => {
                // A number below 0 is none.
                all.take(key.as_str(), Some(&i64::from(*number).to_string()));
            }
            // Lists of fields are strings; a number never is one.
            sfv::BareItem::String(text) if matches!(key.as_str(), "private" | "no-cache") => {
                all.take(key.as_str(), Some(text.as_str()));
            }
            _ => {}
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    fn of(text: &str) -> ResponseDirectives {
        ResponseDirectives::of(&headers(&[("cache-control", text)])).0
    }

    #[test]
    fn numbers_are_digits_and_the_least_counts() {
        for (text, wanted) in [
            ("max-age=60", Some(60)),
            ("MaX-aGe=60", Some(60)),
            ("max-age=\"60\"", Some(60)),
            ("max-age=0060", Some(60)),
            ("max-age=99999999999999999999999", Some(MAX_SECONDS)),
            ("max-age=-60", Some(0)),
            ("max-age='60'", Some(0)),
            ("max-age=60.0", Some(0)),
            ("max-age=6a", Some(0)),
            ("max-age", Some(0)),
            ("max-age= 60", Some(0)),
            ("max-age =60", None),
            ("max-age=1800, max-age=1", Some(1)),
            ("max-age=1, max-age=1800", Some(1)),
            ("extension=\"max-age=3600\", max-age=1", Some(1)),
            ("a=\"b\\\"c, max-age=5\", x", None),
            (",, max-age=7 ,", Some(7)),
            ("xmax-age=7", None),
        ] {
            assert_eq!(of(text).max_age, wanted, "{text}");
        }
        let lines = headers(&[("cache-control", "max-age=9"), ("cache-control", "s-maxage=3")]);
        let (all, targeted) = ResponseDirectives::of(&lines);
        assert_eq!((all.max_age, all.s_maxage, targeted), (Some(9), Some(3), false));
    }

    #[test]
    fn the_qualified_form_names_fields() {
        let names = |list: &[&str]| Scope::Fields(list.iter().map(|name| name.parse().unwrap()).collect());
        assert_eq!(of("private=\"a, b\"").private, names(&["a", "b"]));
        assert_eq!(of("private=\"a\", private=\"b\"").private, names(&["a", "b"]));
        assert_eq!(of("private=\"a\", private").private, Scope::Whole);
        assert_eq!(of("no-cache=x-y").no_cache, names(&["x-y"]));
        assert_eq!(of("no-cache=\"\"").no_cache, Scope::Whole);
        assert_eq!(of("no-cache=\"a b\"").no_cache, Scope::Whole);
    }

    #[test]
    fn a_targeted_field_replaces_the_others_if_it_is_valid() {
        let of = |text: &str| {
            ResponseDirectives::of(&headers(&[("cache-control", "max-age=1"), ("cdn-cache-control", text)]))
        };
        assert_eq!(of("max-age=60"), (ResponseDirectives { max_age: Some(60), ..Default::default() }, true));
        assert!(of("no-store").0.no_store);
        for ignored in ["max-age=60, &", "", "max-age=", "Max-Age=60", "max-age = 60"] {
            assert_eq!(of(ignored).0.max_age, Some(1), "{ignored}");
        }
        assert_eq!(of("max-age=\"60\"").0.max_age, None);
        assert_eq!(of("private=\"a\"").0.private.fields(), ["a"]);
        assert_eq!(of("max-age=60.5").0.max_age, None, "another type than a number is ignored");
    }

    #[test]
    fn of_requests() {
        let of = |text: &str| RequestDirectives::of(&headers(&[("cache-control", text)]));
        assert_eq!(of("max-stale").max_stale, Some(u64::MAX));
        assert_eq!(of("max-stale=5").max_stale, Some(5));
        assert!(of("only-if-cached, no-store").only_if_cached);
        let pragma = headers(&[("pragma", "no-cache")]);
        assert!(RequestDirectives::of(&pragma).no_cache);
        let both = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]);
        assert!(!RequestDirectives::of(&both).no_cache);
    }

    proptest! {
        #[test]
        fn never_panics_and_never_grows(text in "[ -~]{0,60}") {
            let read = of(&text);
            prop_assert!(read.private.fields().len() <= MAX_FIELDS);
            prop_assert!(read.max_age.is_none_or(|age| age <= MAX_SECONDS));
        }
    }
}
