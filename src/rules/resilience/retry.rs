//! Retries: the backoff, and the budget.

use std::sync::atomic::{AtomicU64, Ordering};

/// Returns the pause before the `attempt`-th retry (1 is the first), in nanoseconds: uniform in [0, min(cap,
/// (2^attempt − 1) · base)), as Envoy's fully jittered backoff.
pub fn backoff(attempt: u32, base: u64, cap: u64, random: u64) -> u64 {
    let most = base.saturating_mul((1_u64 << attempt.min(32)) - 1).min(cap);
    if most == 0 { 0 } else { random % most }
}

/// The number of seconds that a budget looks back.
const BUDGET_SECONDS: u64 = 10;

const SECOND: u64 = 1_000_000_000;

/// The retry budget: a share of the requests of the last ten seconds, so that retries cannot multiply the load of an
/// upstream that fails because of load (Finagle's `RetryBudget`). Unlike a share of the requests in flight, it allows
/// all requests to be retried that were on a target when it crashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryBudget {
    /// The percentage of the requests.
    pub percent: u32,
    /// The number of retries per second that are always allowed.
    pub min: u32,
}

impl RetryBudget {
    /// Returns whether one more retry may begin after so many requests and retries in the last ten seconds.
    pub fn allows(&self, requests: u64, retries: u64) -> bool {
        retries < requests * u64::from(self.percent) / 100 + u64::from(self.min) * BUDGET_SECONDS
    }
}

/// A count of the events of the last ten seconds, without a lock.
#[derive(Debug, Default)]
pub struct RecentCount {
    /// The number of a second in the upper 32 bits of each slot, and its count in the lower ones.
    slots: [AtomicU64; BUDGET_SECONDS as usize],
}

impl RecentCount {
    /// Counts an event at `now`.
    pub fn add(&self, now: u64) {
        let second = (now / SECOND) & 0xffff_ffff;
        let slot = &self.slots[(second % BUDGET_SECONDS) as usize];
        let add = |value: u64| Some(if value >> 32 == second { value + 1 } else { second << 32 | 1 });
        // An update that always returns a value cannot fail.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Returns the number of events in the last ten seconds.
    pub fn count(&self, now: u64) -> u64 {
        let second = (now / SECOND) & 0xffff_ffff;
        let slots = self.slots.iter().map(|slot| slot.load(Ordering::Relaxed));
        slots.filter(|value| second.wrapping_sub(value >> 32) < BUDGET_SECONDS).map(|value| value & 0xffff_ffff).sum()
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
        let budget = RetryBudget { percent: 20, min: 3 };
        assert!(budget.allows(0, 29) && !budget.allows(0, 30));
        assert!(budget.allows(1_000, 229) && !budget.allows(1_000, 230));
    }

    #[test]
    fn what_is_over_ten_seconds_old_is_forgotten() {
        let recent = RecentCount::default();
        (0..20).for_each(|second| recent.add(second * SECOND));
        assert_eq!(recent.count(19 * SECOND), 10);
        assert_eq!(recent.count(24 * SECOND), 5);
        assert_eq!(recent.count(60 * SECOND), 0);
    }
}
