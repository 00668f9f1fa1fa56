//! The clock of everything that counts time: nanoseconds since the process began, and a day, so that
//! 0 is long ago.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

const DAY: u64 = 86_400_000_000_000;

/// Now.
pub fn now() -> u64 {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    DAY + nanos(ORIGIN.elapsed())
}

/// A length of time on this clock.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - DAY)
}
