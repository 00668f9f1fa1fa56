//! The pace of bytes: how long each part of a body waits, so that no more than the rate goes out.

use std::sync::atomic::{AtomicU64, Ordering};

/// A rate of bytes with a burst. Times are nanoseconds since an origin that the caller chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytePace {
    /// Bytes per second.
    rate: u64,
    /// The nanoseconds that the burst takes at the rate.
    burst: u64,
}

const SECOND: u64 = 1_000_000_000;

impl BytePace {
    /// Returns a pace of so many bytes per second, of which `burst` bytes may go at once.
    pub fn new(rate: u64, burst: u64) -> Self {
        let rate = rate.max(1);
        Self { rate, burst: time(burst, rate) }
    }

    /// Takes the turn of a part of so many bytes. Returns the time at which all before it and itself are due, from the
    /// time `due` for those before it, and how many nanoseconds it waits.
    pub fn take(&self, due: u64, bytes: u64, now: u64) -> (u64, u64) {
        let due = due.max(now).saturating_add(time(bytes, self.rate));
        (due, (due - now).saturating_sub(self.burst))
    }
}

/// A pace that several bodies may share.
#[derive(Debug)]
pub struct Pacer {
    pace: BytePace,
    /// When all parts that have taken their turns are due.
    due: AtomicU64,
}

impl Pacer {
    /// Returns a pacer whose parts so far are due at `due`.
    pub fn new(pace: BytePace, due: u64) -> Self {
        Self { pace, due: AtomicU64::new(due) }
    }

    /// Returns its pace.
    pub fn pace(&self) -> BytePace {
        self.pace
    }

    /// Returns when all parts that have taken their turns are due.
    pub fn due(&self) -> u64 {
        self.due.load(Ordering::Relaxed)
    }

    /// Takes the turn of a part of so many bytes. Returns how many nanoseconds it has to wait.
    pub fn delay(&self, bytes: u64, now: u64) -> u64 {
        let mut wait = 0;
        let _ = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| {
            let (due, needed) = self.pace.take(due, bytes, now);
            wait = needed;
            Some(due)
        });
        wait
    }
}

/// Returns the nanoseconds that so many bytes take.
fn time(bytes: u64, rate: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(SECOND) / u128::from(rate)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// In no stretch of time is more sent than the rate and the burst allow, and nothing waits longer than that
        /// needs.
        #[test]
        fn no_stretch_has_more_than_the_rate(
            rate in 1_000_u64..100_000, burst in 5_000_u64..50_000,
            parts in proptest::collection::vec((1_u64..5_000, 0_u64..300_000_000), 1..60),
        ) {
            let pace = BytePace::new(rate, burst);
            let (mut now, mut due) = (SECOND, 0);
            let mut sent: Vec<(u64, u64)> = Vec::new();
            for (bytes, pause) in parts {
                now += pause;
                let (next, wait) = pace.take(due, bytes, now);
                due = next;
                now += wait;
                sent.push((now, bytes));
                let mut sum = 0;
                let mut is_needed = wait == 0;
                for (at, bytes) in sent.iter().rev() {
                    sum += bytes;
                    let most = |span: u64| burst + rate * span / SECOND;
                    prop_assert!(sum <= most(now - at) + 2, "{} in {} ns", sum, now - at);
                    is_needed |= sum + 2 > most((now - at).saturating_sub(SECOND / rate + 1));
                }
                prop_assert!(is_needed);
            }
        }
    }
}
