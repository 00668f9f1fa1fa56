//! Conditional requests (RFC 9110, section 13).

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};

use super::date::parse_date;
use super::validators::Validators;

/// What the conditions of a GET or HEAD request lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The request is served.
    Met,
    /// The client has the representation: 304.
    NotModified,
    /// The representation is another one than the client expects: 412.
    Failed,
}

/// Evaluates the conditions of a GET or HEAD request in the order of RFC 9110, section 13.2.2.
pub fn evaluate_conditions(headers: &HeaderMap, validators: &Validators) -> Precondition {
    let expected = if headers.contains_key(IF_MATCH) {
        lists(headers, &IF_MATCH, validators, is_strongly_equal)
    } else {
        // No later than that date; without a date of the file the condition is ignored.
        date_of(headers, &IF_UNMODIFIED_SINCE).zip(validators.modified).is_none_or(|(date, own)| own <= date)
    };
    if !expected {
        return Precondition::Failed;
    }
    let known = if headers.contains_key(IF_NONE_MATCH) {
        lists(headers, &IF_NONE_MATCH, validators, is_weakly_equal)
    } else {
        date_of(headers, &IF_MODIFIED_SINCE).zip(validators.modified).is_some_and(|(date, own)| own <= date)
    };
    if known { Precondition::NotModified } else { Precondition::Met }
}

/// Returns whether a field is `*`, or lists the tag of the representation.
fn lists(headers: &HeaderMap, name: &HeaderName, validators: &Validators, is_equal: fn(&[u8], &[u8]) -> bool) -> bool {
    let own = validators.etag.as_ref().map(HeaderValue::as_bytes);
    headers.get_all(name).iter().any(|value| {
        let value = value.as_bytes().trim_ascii();
        value == b"*" || own.is_some_and(|own| EntityTags(value).any(|tag| is_equal(tag, own)))
    })
}

/// Returns the date of a field, if it is one field with a valid date; others are ignored.
fn date_of(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    parse_date(value.as_bytes())
}

/// Returns whether two entity tags are equal by the strong comparison (RFC 9110, section 8.8.3.2).
pub fn is_strongly_equal(one: &[u8], other: &[u8]) -> bool {
    one == other && !one.starts_with(b"W/")
}

/// Returns whether two entity tags are equal by the weak comparison.
fn is_weakly_equal(one: &[u8], other: &[u8]) -> bool {
    opaque_tag(one) == opaque_tag(other)
}

fn opaque_tag(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// The entity tags of a list, up to the first thing in it that is none.
struct EntityTags<'v>(&'v [u8]);

impl<'v> Iterator for EntityTags<'v> {
    type Item = &'v [u8];

    fn next(&mut self) -> Option<&'v [u8]> {
        while let [b' ' | b'\t' | b',', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let start = if self.0.starts_with(b"W/") { 2 } else { 0 };
        let quoted = self.0.get(start..)?.strip_prefix(b"\"")?;
        let length = start + 1 + memchr::memchr(b'"', quoted)? + 1;
        let (tag, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODIFIED: i64 = 784_111_777;
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn of(fields: &[(&HeaderName, &str)]) -> Precondition {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append((*name).clone(), HeaderValue::from_str(value).expect("a value"));
        }
        let own = Validators { etag: Some(HeaderValue::from_static("\"a\"")), modified: Some(MODIFIED) };
        evaluate_conditions(&headers, &own)
    }

    #[test]
    fn each_condition() {
        use Precondition::{Failed, Met, NotModified};
        for (name, value, wanted) in [
            (&IF_NONE_MATCH, "\"a\"", NotModified),
            (&IF_NONE_MATCH, "W/\"a\"", NotModified),
            (&IF_NONE_MATCH, "\"b\", \"a\"", NotModified),
            (&IF_NONE_MATCH, "\"b,\",\"a\"", NotModified),
            (&IF_NONE_MATCH, "*", NotModified),
            (&IF_NONE_MATCH, "\"b\"", Met),
            (&IF_NONE_MATCH, "a", Met),
            (&IF_NONE_MATCH, "\"a", Met),
            (&IF_NONE_MATCH, "", Met),
            (&IF_MATCH, "\"a\"", Met),
            (&IF_MATCH, "\"b\", \"a\"", Met),
            (&IF_MATCH, "*", Met),
            (&IF_MATCH, "W/\"a\"", Failed),
            (&IF_MATCH, "\"b\"", Failed),
            (&IF_MODIFIED_SINCE, DATE, NotModified),
            (&IF_MODIFIED_SINCE, AFTER, NotModified),
            (&IF_MODIFIED_SINCE, BEFORE, Met),
            (&IF_MODIFIED_SINCE, "yesterday", Met),
            (&IF_UNMODIFIED_SINCE, DATE, Met),
            (&IF_UNMODIFIED_SINCE, BEFORE, Failed),
            (&IF_UNMODIFIED_SINCE, "yesterday", Met),
        ] {
            assert_eq!(of(&[(name, value)]), wanted, "{name}: {value}");
        }
    }

    #[test]
    fn tags_count_before_dates_and_expectations_before_caches() {
        use Precondition::{Failed, Met, NotModified};
        assert_eq!(of(&[(&IF_NONE_MATCH, "\"b\""), (&IF_MODIFIED_SINCE, DATE)]), Met);
        assert_eq!(of(&[(&IF_MATCH, "\"a\""), (&IF_UNMODIFIED_SINCE, BEFORE)]), Met);
        assert_eq!(of(&[(&IF_MATCH, "\"b\""), (&IF_NONE_MATCH, "\"a\"")]), Failed);
        assert_eq!(of(&[(&IF_MATCH, "\"a\""), (&IF_NONE_MATCH, "\"a\"")]), NotModified);
        assert_eq!(of(&[(&IF_NONE_MATCH, "\"b\""), (&IF_NONE_MATCH, "\"a\"")]), NotModified);
        assert_eq!(of(&[(&IF_MODIFIED_SINCE, DATE), (&IF_MODIFIED_SINCE, DATE)]), Met, "two dates are none");
        assert_eq!(evaluate_conditions(&HeaderMap::new(), &Validators::default()), Met);
    }

    proptest! {
        #[test]
        fn lists_of_tags_are_read_like_a_naive_split(
            tags in proptest::collection::vec("(W/)?\"[a-c]{0,2}\"", 0..5), gap in "[ ,\t]{0,3}",
        ) {
            let text = tags.iter().map(|tag| format!("{gap},{tag}")).collect::<String>();
            let read: Vec<&[u8]> = EntityTags(text.as_bytes()).collect();
            prop_assert_eq!(read, tags.iter().map(String::as_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = EntityTags(&text).count();
        }
    }
}
