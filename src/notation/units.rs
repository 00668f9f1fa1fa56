//! Durations, sizes and rates as people write them: `30s`, `1MiB`, `100/s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::rules::limits::CalendarUnit;

/// Splits `text` into its leading number and the unit after it.
fn number_and_unit(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text.get(..end)?.parse().ok()?;
    Some((number, text.get(end..)?.trim()))
}

/// Parses a length of time: a number and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// Returns what was expected when the text is anything else, or over 100 years.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || "a length of time such as 500ms, 30s, 5m, 1h or 1d".to_owned();
    let (number, unit) = number_and_unit(text.trim()).ok_or_else(wrong)?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3_600.0,
        "d" => number * 86_400.0,
        _ => return Err(wrong()),
    };
    if seconds > 3_153_600_000.0 {
        return Err("a length of time under 100 years".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Parses a size in bytes: a number and one of `B`, `KB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`.
///
/// # Errors
/// Returns what was expected when the text is anything else.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || "a size such as 64KiB, 1MiB, 10MB or 2GiB".to_owned();
    let (number, unit) = number_and_unit(text.trim()).ok_or_else(wrong)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = number * factor as f64;
    if bytes > 1e15 { Err(wrong()) } else { Ok(bytes as u64) }
}

/// Parses a number of bytes per second: a size and `/s`.
///
/// # Errors
/// Returns what was expected when the text is anything else.
pub fn parse_byte_rate(text: &str) -> Result<u64, String> {
    let wrong = || "a rate of bytes such as 64KiB/s or 1MiB/s".to_owned();
    let size = text.trim().strip_suffix("/s").ok_or_else(wrong)?;
    parse_size(size.trim()).ok().filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

/// Parses an offset from UTC: a sign, hours and minutes. Returns it in seconds.
///
/// # Errors
/// Returns what was expected when the text is anything else.
pub fn parse_utc_offset(text: &str) -> Result<i64, String> {
    let wrong = || "an offset from UTC such as +02:00 or -05:30".to_owned();
    let (sign, rest) = match text.trim().split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        _ => return Err(wrong()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str, most: i64| {
        let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<i64>().ok().filter(|n| digits && *n <= most).ok_or_else(wrong)
    };
    Ok(sign * (number(hours, 14)? * 3_600 + number(minutes, 59)? * 60))
}

/// A number in a period, as of a rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// The number that is allowed in one period; at least 1.
    pub count: u32,
    /// The period.
    pub period: Duration,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a rate such as 10/s, 100/m, 1000/h, 5000/d or 20/10s".to_owned();
        let (count, period) = text.trim().split_once('/').ok_or_else(wrong)?;
        let count: u32 = count.trim().parse().map_err(|_| wrong())?;
        let period = match period.trim() {
            unit @ ("s" | "m" | "h" | "d") => parse_duration(&format!("1{unit}")),
            other => parse_duration(other),
        }
        .map_err(|_| wrong())?;
        if count == 0 || period.is_zero() {
            return Err("a rate of at least 1 in a period longer than nothing".to_owned());
        }
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1.0, "s"), (60.0, "m"), (3_600.0, "h"), (86_400.0, "d")];
        let seconds = self.period.as_secs_f64();
        match units.iter().find(|(length, _)| *length == seconds) {
            Some((_, unit)) => write!(f, "{}/{unit}", self.count),
            None => write!(f, "{}/{seconds}s", self.count),
        }
    }
}

/// A number in a calendar window, as of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    /// The number that is allowed in one window; at least 1.
    pub count: u64,
    /// The window.
    pub window: CalendarUnit,
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a quota such as 1000/hour, 5000/day, 20000/week or 1000000/month".to_owned();
        let (count, window) = text.trim().split_once('/').ok_or_else(wrong)?;
        let count = count.trim().parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?;
        let unit = |unit: &CalendarUnit| unit.word() == window.trim();
        let window = CalendarUnit::ALL.into_iter().find(unit).ok_or_else(wrong)?;
        Ok(Self { count, window })
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.window.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_sizes_and_rates() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_size("1MiB"), Ok(1_048_576));
        assert_eq!(parse_size("10KB"), Ok(10_000));
        for text in ["100/s", "5/m", "20/10s", "1/0.5s", "7/d"] {
            assert_eq!(text.parse::<Rate>().expect("a rate").to_string(), text);
        }
        assert_eq!("100/s".parse(), Ok(Rate { count: 100, period: Duration::from_secs(1) }));
        assert_eq!("20/10s".parse(), Ok(Rate { count: 20, period: Duration::from_secs(10) }));
        for wrong in ["", "5", "s", "1w", "-1s", "1 e", "5/", "/s", "0/s", "1/0s", "200000d"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
        assert_eq!(parse_byte_rate("1MiB/s"), Ok(1 << 20));
        assert_eq!(parse_utc_offset("-05:30"), Ok(-(5 * 3_600 + 30 * 60)));
        for wrong in ["", "1MiB", "1MiB/m", "0B/s", "+2:00", "02:00", "+15:00", "+02:60", "+0a:00"] {
            assert!(parse_byte_rate(wrong).is_err() && parse_utc_offset(wrong).is_err(), "{wrong}");
        }
        for text in ["1/hour", "5000/day", "7/week", "1000000/month"] {
            assert_eq!(text.parse::<Quota>().expect("a quota").to_string(), text);
        }
        for wrong in ["", "5", "0/day", "-1/day", "1/d", "1/2day", "1.5/day"] {
            assert!(wrong.parse::<Quota>().is_err(), "{wrong}");
        }
        for wrong in ["", "1", "1k", "1mib", "-1B", "999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
