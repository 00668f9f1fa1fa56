//! The monotonic clock: nanoseconds since the process began, plus a day, so that 0 is long ago.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

const DAY: u64 = 86_400_000_000_000;

/// Returns the present time.
pub fn now() -> u64 {
    #[cfg(test)]
    if let Some(now) = VIRTUAL.get() {
        return now;
    }
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    DAY + nanos(ORIGIN.elapsed())
}

/// Returns a duration in the unit of this clock.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - DAY)
}

#[cfg(test)]
thread_local! {
    static VIRTUAL: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// A clock for this thread that stands still until it is set, for as long as this value lives.
#[cfg(test)]
pub struct VirtualClock(());

#[cfg(test)]
impl VirtualClock {
    /// Starts the virtual clock at one day.
    pub fn start() -> Self {
        VIRTUAL.set(Some(DAY));
        Self(())
    }

    /// Sets the clock.
    pub fn set(&self, now: u64) {
        VIRTUAL.set(Some(now));
    }
}

#[cfg(test)]
impl Drop for VirtualClock {
    fn drop(&mut self) {
        VIRTUAL.set(None);
    }
}
