//! The dates of HTTP (RFC 9110, section 5.6.7), read strictly: freshness depends on them, and what is no date means
//! that a response is stale (RFC 9111, section 5.3).

const MONTHS: [&[u8]; 12] =
    [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];

/// Returns a date in seconds since 1970; `None` for what is none. The case of letters is ignored, and so is the day of
/// the week.
pub fn parse_http_date(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    let comma = memchr::memchr(b',', text);
    match comma {
        // Sun, 06 Nov 1994 08:49:37 GMT
        Some(3) if text.len() == 29 => {
            let (day, month) = (number(&text[5..7])?, month(&text[8..11])?);
            is(text, 4, b' ')?;
            is(text, 7, b' ')?;
            is(text, 11, b' ')?;
            is(text, 16, b' ')?;
            gmt(&text[25..])?;
            seconds(number(&text[12..16])?, month, day, &text[17..25])
        }
        // Sunday, 06-Nov-94 08:49:37 GMT
        Some(at) if (6..=9).contains(&at) && text.len() == at + 24 => {
            let rest = &text[at + 1..];
            is(rest, 0, b' ')?;
            is(rest, 3, b'-')?;
            is(rest, 7, b'-')?;
            is(rest, 10, b' ')?;
            gmt(&rest[19..])?;
            let year = number(&rest[8..10])?;
            let century = if year < 70 { 2000 } else { 1900 };
            seconds(century + year, month(&rest[4..7])?, number(&rest[1..3])?, &rest[11..19])
        }
        // Sun Nov  6 08:49:37 1994
        None if text.len() == 24 => {
            is(text, 3, b' ')?;
            is(text, 7, b' ')?;
            is(text, 10, b' ')?;
            is(text, 19, b' ')?;
            let day = if text[8] == b' ' { number(&text[9..10])? } else { number(&text[8..10])? };
            seconds(number(&text[20..24])?, month(&text[4..7])?, day, &text[11..19])
        }
        _ => None,
    }
}

fn is(text: &[u8], at: usize, byte: u8) -> Option<()> {
    (text.get(at) == Some(&byte)).then_some(())
}

fn gmt(text: &[u8]) -> Option<()> {
    text.eq_ignore_ascii_case(b" gmt").then_some(())
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
}

fn month(name: &[u8]) -> Option<i64> {
    let at = MONTHS.iter().position(|known| known.eq_ignore_ascii_case(name))?;
    i64::try_from(at + 1).ok()
}

fn seconds(year: i64, month: i64, day: i64, time: &[u8]) -> Option<i64> {
    is(time, 2, b':')?;
    is(time, 5, b':')?;
    let (hour, minute, second) = (number(&time[..2])?, number(&time[3..5])?, number(&time[6..8])?);
    // A leap second is 60.
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Returns the days since 1970 (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn three_forms_and_nothing_else() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "SUN, 06 nOV 1994 08:49:37 gMT",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text.as_bytes()), Some(784_111_777), "{text}");
        }
        for text in [
            "0",
            "",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 06 Nov 94 08:49:37 GMT",
            "Sun 06 Nov 1994 08:49:37 GMT",
            "Sun, 06  Nov  1994 08:49:37 GMT",
            "Sun, 06-Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 08.49.37 GMT",
            "Sun, 06 Nov 1994 8:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Foo 1994 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_date(text.as_bytes()), None, "{text}");
        }
        assert_eq!(
            parse_http_date(b"Thursday, 18-Aug-50 02:01:18 GMT"),
            parse_http_date(b"Thu, 18 Aug 2050 02:01:18 GMT")
        );
    }

    proptest! {
        #[test]
        fn reads_what_another_writes(seconds in 0_i64..253_402_300_799) {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.cast_unsigned());
            prop_assert_eq!(parse_http_date(httpdate::fmt_http_date(time).as_bytes()), Some(seconds));
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_http_date(&text);
        }
    }
}
