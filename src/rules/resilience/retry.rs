//! Retries: how long to wait, and how many there may be.

use std::sync::atomic::{AtomicU64, Ordering};

/// The pause before the `attempt`-th retry (1 is the first), in nanoseconds: uniform in
/// [0, min(cap, (2^attempt − 1) · base)), as Envoy's fully jittered backoff.
pub fn backoff(attempt: u32, base: u64, cap: u64, random: u64) -> u64 {
    let most = base.saturating_mul((1_u64 << attempt.min(32)) - 1).min(cap);
    if most == 0 { 0 } else { random % most }
}

/// Seconds that a budget looks back.
const SECONDS: u64 = 10;

const SECOND: u64 = 1_000_000_000;

/// Retries that there may be: a share of the requests of the last ten seconds, so that retries cannot
/// multiply the load of an upstream that is failing because of load (Finagle's `RetryBudget`). Unlike a
/// share of the requests under way, it lets all be tried again that were on a target as it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Percent of the requests.
    pub percent: u32,
    /// As many a second are always allowed.
    pub min: u32,
}

impl Budget {
    /// Whether one more retry may begin after so many requests and retries in the time that counts.
    pub fn allows(&self, requests: u64, retries: u64) -> bool {
        retries < requests * u64::from(self.percent) / 100 + u64::from(self.min) * SECONDS
    }
}

/// Events of the last ten seconds, counted by all workers without a lock.
#[derive(Debug, Default)]
pub struct Recent {
    /// Each slot is a second's number above 32 bits, and its count below.
    slots: [AtomicU64; SECONDS as usize],
}

impl Recent {
    /// Counts one at `now`.
    pub fn add(&self, now: u64) {
        let second = (now / SECOND) & 0xffff_ffff;
        let slot = &self.slots[(second % SECONDS) as usize];
        let add = |value: u64| Some(if value >> 32 == second { value + 1 } else { second << 32 | 1 });
        // An update that always has a value cannot fail.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// How many there were.
    pub fn count(&self, now: u64) -> u64 {
        let second = (now / SECOND) & 0xffff_ffff;
        let slots = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots.filter(|value| second.wrapping_sub(value >> 32) < SECONDS).map(|value| value & 0xffff_ffff).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn backoff_stays_within_its_bounds(attempt in 1_u32..70, random: u64) {
            let pause = backoff(attempt, 25, 250, random);
            prop_assert!(pause < 250);
            prop_assert!(u128::from(pause) < ((1_u128 << attempt.min(100)) - 1) * 25);
        }
    }

    #[test]
    fn a_fifth_of_the_requests_and_a_few_a_second() {
        let budget = Budget { percent: 20, min: 3 };
        assert!(budget.allows(0, 29) && !budget.allows(0, 30));
        assert!(budget.allows(1_000, 229) && !budget.allows(1_000, 230));
    }

    #[test]
    fn what_is_over_ten_seconds_old_is_forgotten() {
        let recent = Recent::default();
        (0..20).for_each(|second| recent.add(second * SECOND));
        assert_eq!(recent.count(19 * SECOND), 10);
        assert_eq!(recent.count(24 * SECOND), 5);
        assert_eq!(recent.count(60 * SECOND), 0);
    }
}
