//! A coarse clock for deadlines, which each request reads at the cost of one load.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often the clock is set and the deadlines are checked.
pub const TICK: Duration = Duration::from_millis(50);

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
static NOW: AtomicU64 = AtomicU64::new(1);

/// Returns the milliseconds since the process began, at most a [`TICK`] old.
pub fn now() -> u64 {
    NOW.load(Ordering::Relaxed)
}

/// Sets the clock and returns its time.
pub fn tick() -> u64 {
    let now = 1 + u64::try_from(ORIGIN.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
    NOW.store(now, Ordering::Relaxed);
    now
}
