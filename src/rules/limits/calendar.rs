//! Windows of the calendar: an hour, a day, a week (from Monday, ISO 8601) or a month, in UTC or at a fixed offset
//! from it.

/// A unit of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CalendarUnit {
    /// From the full hour on.
    Hour,
    /// From midnight on.
    Day,
    /// From Monday on.
    Week,
    /// From the first of the month on.
    Month,
}

impl CalendarUnit {
    /// All units.
    pub const ALL: [Self; 4] = [Self::Hour, Self::Day, Self::Week, Self::Month];

    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

/// A window of the calendar, in seconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CalendarWindow {
    /// Its first second.
    pub start: i64,
    /// The first second after it.
    pub end: i64,
}

const DAY: i64 = 86_400;

impl CalendarWindow {
    /// Returns the window of that unit in which the time `now` is, in seconds since 1970; `offset` is the number of
    /// seconds by which the clock of the calendar is ahead of UTC.
    pub fn at(unit: CalendarUnit, now: i64, offset: i64) -> Self {
        let local = now.saturating_add(offset);
        let day = local.div_euclid(DAY);
        let (start, end) = match unit {
            CalendarUnit::Hour => {
                let start = local.div_euclid(3_600) * 3_600;
                (start, start + 3_600)
            }
            CalendarUnit::Day => (day * DAY, (day + 1) * DAY),
            CalendarUnit::Week => {
                // 1970-01-01 was a Thursday.
                let monday = day - (day + 3).rem_euclid(7);
                (monday * DAY, (monday + 7) * DAY)
            }
            CalendarUnit::Month => {
                let (year, month) = month_of(day);
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (first_day(year, month) * DAY, first_day(next.0, next.1) * DAY)
            }
        };
        Self { start: start - offset, end: end - offset }
    }
}

/// Returns the year and the month of a day since 1970, in the Gregorian calendar. Years begin in March here, so that
/// the day that is added to a leap year is the last one.
fn month_of(day: i64) -> (i64, i64) {
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let day_of_era = day.rem_euclid(146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let year = year + era * 400;
    if month < 10 { (year, month + 3) } else { (year + 1, month - 9) }
}

/// Returns the first day of a month, in days since 1970.
fn first_day(year: i64, month: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month + 2) / 5 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Datelike, Timelike};
    use proptest::prelude::*;

    proptest! {
        /// Compared with `chrono`: the window has the time in it, begins where its unit does, and the second before
        /// its end is of the same unit, while that after it is not.
        #[test]
        fn windows_are_those_of_the_calendar(now in -3_000_000_000_i64..8_000_000_000, hours in -12_i64..15) {
            let offset = hours * 3_600;
            let date = |at: i64| DateTime::from_timestamp(at + offset, 0).expect("a time").naive_utc();
            let same = |unit: CalendarUnit, a: i64, b: i64| {
                let (a, b) = (date(a), date(b));
                match unit {
                    CalendarUnit::Hour => (a.date(), a.hour()) == (b.date(), b.hour()),
                    CalendarUnit::Day => a.date() == b.date(),
                    CalendarUnit::Week => a.iso_week() == b.iso_week(),
                    CalendarUnit::Month => (a.year(), a.month()) == (b.year(), b.month()),
                }
            };
            for unit in CalendarUnit::ALL {
                let window = CalendarWindow::at(unit, now, offset);
                prop_assert!(window.start <= now && now < window.end);
                prop_assert!(same(unit, window.start, now) && same(unit, window.end - 1, now));
                prop_assert!(!same(unit, window.start - 1, now) && !same(unit, window.end, now));
            }
        }
    }
}
