//! Range requests (RFC 9110, section 14).

use http::header::{HeaderMap, IF_RANGE, RANGE};

use super::conditions::is_strongly_equal;
use super::date::parse_date;
use super::validators::Validators;

/// The part of a representation that a GET request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeChoice {
    /// All of it.
    Whole,
    /// These bytes, the second position excluded: 206.
    Part(u64, u64),
    /// Bytes that it does not have: 416.
    Unsatisfiable,
}

/// Returns which part of a representation of that length a GET request asks for.
///
/// Several ranges, another unit and what is malformed are served with the whole, as RFC 9110, section 14.2, allows; so
/// is a range whose `If-Range` names another representation (section 13.1.5).
pub fn choose_range(headers: &HeaderMap, validators: &Validators, length: u64) -> RangeChoice {
    let mut values = headers.get_all(RANGE).iter();
    let Some(value) = values.next().filter(|_| values.next().is_none()) else { return RangeChoice::Whole };
    if !is_of_same_representation(headers, validators) {
        return RangeChoice::Whole;
    }
    parse_range(value.as_bytes(), length).unwrap_or(RangeChoice::Whole)
}

/// Returns whether `If-Range` is not there, or names the present representation by a strong validator.
fn is_of_same_representation(headers: &HeaderMap, validators: &Validators) -> bool {
    let mut values = headers.get_all(IF_RANGE).iter();
    let Some(value) = values.next() else { return true };
    if values.next().is_some() {
        return false;
    }
    let value = value.as_bytes().trim_ascii();
    if value.ends_with(b"\"") {
        return validators.etag.as_ref().is_some_and(|etag| is_strongly_equal(value, etag.as_bytes()));
    }
    parse_date(value).is_some_and(|date| validators.modified == Some(date))
}

/// Parses a `Range` of one range of bytes.
fn parse_range(value: &[u8], length: u64) -> Option<RangeChoice> {
    let value = std::str::from_utf8(value).ok()?;
    let (unit, set) = value.split_once('=')?;
    let (first, last) = set.trim_matches([' ', '\t']).split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // What is larger than any file is as good as the largest number.
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        return Some(match number(last)? {
            0 => RangeChoice::Unsatisfiable,
            _ if length == 0 => RangeChoice::Whole,
            suffix => RangeChoice::Part(length.saturating_sub(suffix), length),
        });
    }
    let start = number(first)?;
    let end = if last.is_empty() { u64::MAX } else { number(last)? };
    if end < start {
        return None;
    }
    if start >= length {
        return Some(RangeChoice::Unsatisfiable);
    }
    Some(RangeChoice::Part(start, end.saturating_add(1).min(length)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(range: &str, if_range: Option<&str>, length: u64) -> RangeChoice {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_str(range).expect("a value"));
        if let Some(value) = if_range {
            headers.insert(IF_RANGE, HeaderValue::from_str(value).expect("a value"));
        }
        let own = Validators { etag: Some(HeaderValue::from_static("\"a\"")), modified: Some(784_111_777) };
        choose_range(&headers, &own, length)
    }

    #[test]
    fn ranges() {
        use RangeChoice::{Part, Unsatisfiable, Whole};
        for (range, wanted) in [
            ("bytes=0-0", Part(0, 1)),
            ("bytes=2-4", Part(2, 5)),
            ("bytes=2-", Part(2, 10)),
            ("bytes=9-99", Part(9, 10)),
            ("Bytes=2-4", Part(2, 5)),
            ("bytes= 2-4 ", Part(2, 5)),
            ("bytes=-3", Part(7, 10)),
            ("bytes=-99", Part(0, 10)),
            ("bytes=0-99999999999999999999999", Part(0, 10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=4-2", Whole),
            ("bytes=0-1,3-4", Whole),
            ("bytes=a-b", Whole),
            ("bytes=-", Whole),
            ("bytes=+1-2", Whole),
            ("bytes", Whole),
            ("pages=1-2", Whole),
            ("", Whole),
        ] {
            assert_eq!(of(range, None, 10), wanted, "{range}");
        }
        assert_eq!((of("bytes=0-", None, 0), of("bytes=-5", None, 0)), (Unsatisfiable, Whole));
    }

    #[test]
    fn a_range_is_of_the_representation_that_the_client_has() {
        use RangeChoice::{Part, Whole};
        for (validator, wanted) in [
            ("\"a\"", Part(0, 1)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Part(0, 1)),
            ("\"b\"", Whole),
            ("W/\"a\"", Whole),
            ("Sun, 06 Nov 1994 08:49:38 GMT", Whole),
            ("a", Whole),
            ("", Whole),
        ] {
            assert_eq!(of("bytes=0-0", Some(validator), 10), wanted, "{validator}");
        }
    }

    proptest! {
        #[test]
        fn a_range_has_the_bytes_that_a_naive_reader_takes(
            first in proptest::option::of(0_u64..40), last in proptest::option::of(0_u64..40), length in 0_u64..30,
        ) {
            let text = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
            let choice = of(&format!("bytes={}-{}", text(first), text(last)), None, length);
            let wanted: Vec<u64> = (0..length)
                .filter(|at| match (first, last) {
                    (Some(first), last) => *at >= first && last.is_none_or(|last| *at <= last),
                    (None, last) => *at + last.unwrap_or(0) >= length,
                })
                .collect();
            match choice {
                RangeChoice::Part(from, to) => prop_assert_eq!((from..to).collect::<Vec<_>>(), wanted),
                RangeChoice::Unsatisfiable => prop_assert!(wanted.is_empty()),
                RangeChoice::Whole => prop_assert!(
                    first.is_none() && (last.is_none() || length == 0)
                        || first.zip(last).is_some_and(|(first, last)| last < first)
                ),
            }
        }

        #[test]
        fn never_panics(text in "bytes=[0-9,-]{0,30}", length in any::<u64>()) {
            if let RangeChoice::Part(from, to) = of(&text, None, length) {
                prop_assert!(from < to && to <= length);
            }
        }
    }
}
