//! Times, durations and field masks as texts (ProtoJSON, "Well-known types").

use std::fmt::Write;

/// The range of `google.protobuf.Timestamp`: from the year 1 to the year 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// The longest `google.protobuf.Duration`: about 10,000 years.
const MAX_DURATION: i64 = 315_576_000_000;

/// Returns the days since 1970 of a date of the Gregorian calendar.
fn days_of((year, month, day): (i64, i64, i64)) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Returns the date of a day since 1970.
fn date_of(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Returns the number that `text` is, if it has that many digits.
fn digits(text: &str, count: usize) -> Option<i64> {
    let fine = text.len() == count && text.bytes().all(|b| b.is_ascii_digit());
    fine.then(|| text.parse().ok()).flatten()
}

/// Returns the billionths of a fraction of a second, which has at most nine digits.
fn nanos_of(fraction: &str) -> Option<i32> {
    let fine = (1..=9).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
    let value: i32 = fine.then(|| fraction.parse().ok()).flatten()?;
    Some(value * 10_i32.pow(9 - fraction.len() as u32))
}

/// Parses a time (RFC 3339) into its seconds and nanoseconds since 1970.
pub fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let (date, rest) = text.split_at_checked(10)?;
    let (year, month, day) = (digits(date.get(..4)?, 4)?, digits(date.get(5..7)?, 2)?, digits(date.get(8..)?, 2)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if date.as_bytes()[4] != b'-' || date.as_bytes()[7] != b'-' || !(1..=12).contains(&month) {
        return None;
    }
    let rest = rest.strip_prefix(['T', 't'])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let (hour, minute, second) = (digits(time.get(..2)?, 2)?, digits(time.get(3..5)?, 2)?, digits(time.get(6..)?, 2)?);
    if time.as_bytes()[2] != b':' || time.as_bytes()[5] != b':' || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, zone) = match rest.strip_prefix('.') {
        Some(rest) => {
            let end = rest.find(|c: char| !c.is_ascii_digit())?;
            (nanos_of(&rest[..end])?, &rest[end..])
        }
        None => (0, rest),
    };
    let offset = match zone {
        "Z" | "z" => 0,
        _ => {
            let (sign, zone) = zone.split_at_checked(1)?;
            let (hours, minutes) = zone.split_once(':')?;
            let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
            let offset = (hours * 60 + minutes) * 60;
            match sign {
                _ if hours > 23 || minutes > 59 => return None,
                "+" => offset,
                "-" => -offset,
                _ => return None,
            }
        }
    };
    let seconds = days_of((year, month, day)) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    ((1..=last).contains(&day) && SECONDS.contains(&seconds)).then_some((seconds, nanos))
}

/// Appends a time, in UTC.
///
/// # Errors
/// Fails where it is out of range.
pub fn write_timestamp(seconds: i64, nanos: i32, out: &mut String) -> Result<(), ()> {
    if !SECONDS.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return Err(());
    }
    let (year, month, day) = date_of(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    write_fraction(nanos, out);
    out.push('Z');
    Ok(())
}

/// Appends no, three, six or nine digits.
fn write_fraction(nanos: i32, out: &mut String) {
    let _ = match nanos {
        0 => Ok(()),
        _ if nanos % 1_000_000 == 0 => write!(out, ".{:03}", nanos / 1_000_000),
        _ if nanos % 1_000 == 0 => write!(out, ".{:06}", nanos / 1_000),
        _ => write!(out, ".{nanos:09}"),
    };
}

/// Parses a duration such as `1.5s` into seconds and nanoseconds, which have the same sign.
pub fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, nanos) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, nanos_of(fraction)?),
        None => (text, 0),
    };
    let seconds = digits(whole, whole.len()).filter(|_| !whole.is_empty() && whole.len() <= 12)?;
    let fine = seconds < MAX_DURATION || seconds == MAX_DURATION && nanos == 0;
    fine.then_some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// Appends a duration.
///
/// # Errors
/// Fails where it is out of range, or the signs differ.
pub fn write_duration(seconds: i64, nanos: i32, out: &mut String) -> Result<(), ()> {
    let signs_differ = seconds > 0 && nanos < 0 || seconds < 0 && nanos > 0;
    if seconds.unsigned_abs() > MAX_DURATION as u64 || nanos.unsigned_abs() > 999_999_999 || signs_differ {
        return Err(());
    }
    if seconds < 0 || nanos < 0 {
        out.push('-');
    }
    let _ = write!(out, "{}", seconds.unsigned_abs());
    write_fraction(nanos.abs(), out);
    out.push('s');
    Ok(())
}

/// Returns the paths of a field mask, with the names of the `.proto` file. A lenient reader accepts these in the text,
/// too.
pub fn parse_field_mask(text: &str, is_lenient: bool) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',')
        .map(|path| {
            let mut out = String::with_capacity(path.len() + 4);
            for c in path.chars() {
                match c {
                    '_' if !is_lenient => return None,
                    'A'..='Z' => {
                        out.push('_');
                        out.push(c.to_ascii_lowercase());
                    }
                    'a'..='z' | '0'..='9' | '.' | '_' => out.push(c),
                    _ => return None,
                }
            }
            Some(out).filter(|path| !path.is_empty())
        })
        .collect()
}

/// Appends a path of a field mask with the names of JSON.
///
/// # Errors
/// Fails where the path would not come back.
pub fn write_mask_path(path: &str, out: &mut String) -> Result<(), ()> {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '_' => out.push(chars.next().filter(char::is_ascii_lowercase).ok_or(())?.to_ascii_uppercase()),
            'a'..='z' | '0'..='9' | '.' => out.push(c),
            _ => return Err(()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_come_back(seconds in SECONDS, nanos in 0_i32..1_000_000_000) {
            let mut text = String::new();
            prop_assert!(write_timestamp(seconds, nanos, &mut text).is_ok());
            prop_assert_eq!(parse_timestamp(&text), Some((seconds, nanos)), "{}", text);
            let date = chrono::DateTime::parse_from_rfc3339(&text).expect("a date");
            prop_assert_eq!((date.timestamp(), date.timestamp_subsec_nanos() as i32), (seconds, nanos));
        }

        #[test]
        fn durations_come_back(seconds in -MAX_DURATION + 1..MAX_DURATION, nanos in 0_i32..1_000_000_000) {
            let nanos = if seconds < 0 { -nanos } else { nanos };
            let mut text = String::new();
            prop_assert!(write_duration(seconds, nanos, &mut text).is_ok());
            prop_assert_eq!(parse_duration(&text), Some((seconds, nanos)), "{}", text);
        }

        #[test]
        fn no_text_is_a_panic(text in "\\PC{0,40}") {
            let _ = (parse_timestamp(&text), parse_duration(&text), parse_field_mask(&text, true));
        }
    }

    #[test]
    fn times_are_those_of_the_rfc() {
        assert_eq!(parse_timestamp("1972-01-01T10:00:20.021Z"), Some((63_108_020, 21_000_000)));
        assert_eq!(parse_timestamp("1970-01-01T01:00:00.5+01:00"), Some((0, 500_000_000)));
        assert_eq!(parse_timestamp("2000-02-29T00:00:00Z"), Some((951_782_400, 0)));
        for wrong in [
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01 00:00:00Z",
            "1970-13-01T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.0123456789Z",
            "0000-01-01T00:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-01:00",
            "1970-01-01T00:00:00+1:00",
            "1970-01-01T00:00:00Zx",
            "",
            "é970-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(wrong), None, "{wrong}");
        }
        let mut out = String::new();
        assert!(write_timestamp(SECONDS.end() + 1, 0, &mut out).is_err());
        assert!(write_timestamp(0, -1, &mut out).is_err());
    }

    #[test]
    fn durations_are_seconds() {
        assert_eq!(parse_duration("1.5s"), Some((1, 500_000_000)));
        assert_eq!(parse_duration("-0.000000001s"), Some((0, -1)));
        for wrong in ["1", "1.s", ".5s", "1m", "s", "--1s", "1e3s", "315576000001s", "+1s", "1.0000000001s"] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
        let mut out = String::new();
        assert!(write_duration(1, -1, &mut out).is_err());
    }

    #[test]
    fn masks_change_their_case() {
        let paths = |text, lenient| parse_field_mask(text, lenient).map(|paths| paths.join(","));
        assert_eq!(paths("displayName,a.fooBar", false).as_deref(), Some("display_name,a.foo_bar"));
        assert_eq!(paths("display_name", false), None);
        assert_eq!(paths("display_name", true).as_deref(), Some("display_name"));
        assert_eq!(paths("", true).as_deref(), Some(""));
        assert_eq!(paths("a,,b", true), None);
        let mut out = String::new();
        assert!(write_mask_path("a.foo_bar", &mut out).is_ok());
        assert_eq!(out, "a.fooBar");
        assert!(write_mask_path("fooBar", &mut out).is_err() && write_mask_path("a__b", &mut out).is_err());
    }
}
