//! The dates of HTTP (RFC 9110, section 5.6.7), in seconds since 1970.

use chrono::{DateTime, NaiveDateTime};

/// The form that is sent.
const SENT: &str = "%a, %d %b %Y %H:%M:%S GMT";

/// The forms that are accepted: that one, and two obsolete ones.
const ACCEPTED: [&str; 3] = [SENT, "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Returns the text of a date.
pub fn format_date(seconds: i64) -> Option<String> {
    let date = DateTime::from_timestamp(seconds, 0).filter(|_| (0..=MAX_SECONDS).contains(&seconds))?;
    Some(date.format(SENT).to_string())
}

/// The end of the year 9999: the year has four digits.
const MAX_SECONDS: i64 = 253_402_300_799;

/// Parses a date; returns `None` for what is no date.
pub fn parse_date(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let read = |form| NaiveDateTime::parse_from_str(text, form).ok();
    Some(ACCEPTED.into_iter().find_map(read)?.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_three_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in
            ["", "yesterday", "784111777", "Sun, 06 Nov 1994 08:49:37", "Mon, 06 Nov 1994 08:49:37 GMT", "\u{e9}"]
        {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(format_date(784_111_777).as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
        assert_eq!((format_date(-1), format_date(i64::MAX)), (None, None));
    }

    proptest! {
        #[test]
        fn a_date_that_is_sent_is_accepted(seconds in 0..=MAX_SECONDS) {
            let text = format_date(seconds).expect("a date");
            prop_assert_eq!((text.len(), parse_date(text.as_bytes())), (29, Some(seconds)));
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_date(&text);
        }
    }
}
