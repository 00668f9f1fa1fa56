//! Lines of the log that clients can cause, at most one a second.

use std::sync::atomic::{AtomicU64, Ordering};

/// The least number of milliseconds between two lines.
const LINE_INTERVAL: u64 = 1_000;

/// The limit of one kind of line.
#[derive(Debug)]
pub struct RareLine {
    /// When the last line was written, in milliseconds of the coarse clock; 0 before the first.
    last: AtomicU64,
    skipped: AtomicU64,
}

impl RareLine {
    /// Returns a limit that has let nothing pass.
    pub const fn new() -> Self {
        Self { last: AtomicU64::new(0), skipped: AtomicU64::new(0) }
    }

    /// Returns the number of lines that were skipped since the last one, if another may be written now.
    pub fn next(&self, now: u64) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= LINE_INTERVAL;
        let written = || self.last.compare_exchange(last, now.max(1), Ordering::Relaxed, Ordering::Relaxed);
        if is_due && written().is_ok() {
            return Some(self.skipped.swap(0, Ordering::Relaxed));
        }
        self.skipped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_counts_the_others() {
        let line = RareLine::new();
        let times = [5, 5, 900, 1_004, 1_005, 1_006, 9_000];
        let written = times.map(|now| line.next(now));
        assert_eq!(written, [Some(0), None, None, None, Some(3), None, Some(1)]);
    }
}
