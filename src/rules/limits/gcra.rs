//! The generic cell rate algorithm: an exact token bucket in one number per key.
//!
//! With T = period / limit and a burst of B: allowed if now ≥ TAT − T·(B−1), and then
//! TAT = max(now, TAT) + T (ITU-T I.371, annex A; the virtual scheduling form).

use std::time::Duration;

use super::Decision;

/// A rate limit. Times are nanoseconds since an origin that the caller chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Gcra {
    /// T: the interval between two requests at the steady rate, in nanoseconds.
    interval: u64,
    /// B: the number of requests that may come at once.
    burst: u32,
}

impl Gcra {
    /// Returns a limit of `count` per `period`, of which `burst` (`count` by default) may come at once.
    pub fn new(count: u32, period: Duration, burst: Option<u32>) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / u64::from(count.max(1))).max(1);
        Self { interval, burst: burst.unwrap_or(count).max(1) }
    }

    /// Returns the burst.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns the duration of a full burst, in nanoseconds.
    fn full(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst))
    }

    /// Converts the usage `ahead` of a key under the limit `before` (`None` if unknown) to this limit: the same
    /// number of requests is counted, but no more than the burst.
    pub fn carry_over(&self, ahead: u64, before: Option<Self>) -> u64 {
        let interval = before.map_or(self.interval, |before| before.interval.max(1));
        let counted = u128::from(ahead) * u128::from(self.interval) / u128::from(interval);
        u64::try_from(counted).unwrap_or(u64::MAX).min(self.full())
    }

    /// Decides at `now` on a request of that cost for a key whose theoretical arrival time is `tat` (0 for a new key).
    /// Returns the key's new theoretical arrival time with the decision, or `None` if the request is rejected. One
    /// that costs more than the burst is never allowed.
    pub fn decide(&self, tat: u64, now: u64, cost: u32) -> (Option<u64>, Decision) {
        let (ahead, full) = (tat.saturating_sub(now), self.full());
        let after = ahead.saturating_add(self.interval.saturating_mul(u64::from(cost)));
        if after > full {
            let wait = if u64::from(cost) > u64::from(self.burst) { ahead.max(1) } else { after - full };
            return (None, self.describe(ahead, Duration::from_nanos(wait)));
        }
        (Some(now.saturating_add(after)), self.describe(after, Duration::ZERO))
    }

    /// Returns the theoretical arrival time after a request of that cost that was allowed elsewhere, whether or not
    /// there was room for it.
    pub fn count(&self, tat: u64, now: u64, cost: u64) -> u64 {
        tat.max(now).saturating_add(self.interval.saturating_mul(cost))
    }

    /// Returns the number of requests that are counted for a key that is `ahead` by as many nanoseconds; a part of
    /// one is one.
    pub fn counted(&self, ahead: u64) -> u64 {
        ahead.div_ceil(self.interval)
    }

    /// Returns whether not one more request would be allowed.
    pub fn is_exhausted(&self, ahead: u64) -> bool {
        ahead.saturating_add(self.interval) > self.full()
    }

    /// Returns in how many nanoseconds the request behind `before` others would be allowed.
    pub fn wait(&self, tat: u64, now: u64, before: u64) -> u64 {
        let ahead = tat.saturating_sub(now).saturating_add(self.interval.saturating_mul(before.saturating_add(1)));
        ahead.saturating_sub(self.full())
    }

    fn describe(&self, ahead: u64, retry_after: Duration) -> Decision {
        let room = self.full().saturating_sub(ahead) / self.interval;
        Decision { remaining: u32::try_from(room).unwrap_or(u32::MAX), retry_after, reset: Duration::from_nanos(ahead) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn limit(count: u32, seconds: u64, burst: Option<u32>) -> Gcra {
        Gcra::new(count, Duration::from_secs(seconds), burst)
    }

    #[test]
    fn exactly_n_then_one_each_interval() {
        let gcra = limit(5, 1, None);
        let mut tat = 0;
        for left in (0..5).rev() {
            let (next, decision) = gcra.decide(tat, SECOND, 1);
            assert_eq!(decision.remaining, left);
            tat = next.expect("within the limit");
        }
        let (next, rejected) = gcra.decide(tat, SECOND, 1);
        assert_eq!(next, None);
        assert_eq!(rejected.retry_after, Duration::from_millis(200));
        assert_eq!(rejected.reset, Duration::from_secs(1));
        assert!(gcra.decide(tat, SECOND + SECOND / 5, 1).0.is_some());
    }

    #[test]
    fn what_was_counted_by_another_limit_is_counted_and_no_more() {
        let slow = limit(3, 3600, None);
        let spent = (0..3).fold(SECOND, |tat, _| slow.decide(tat, SECOND, 1).0.expect("within the limit"));
        for (count, seconds, left) in [(3, 1, 0), (2, 3600, 0), (5, 3600, 2), (1000, 60, 997)] {
            let other = limit(count, seconds, None);
            let mut tat = SECOND + other.carry_over(spent - SECOND, Some(slow));
            assert!(tat <= SECOND + other.full(), "no more than all of it is to be paid back");
            for _ in 0..left {
                tat = other.decide(tat, SECOND, 1).0.expect("what is left");
            }
            assert_eq!(other.decide(tat, SECOND, 1).0, None, "{count} in {seconds} s");
        }
        assert_eq!(slow.carry_over(u64::MAX, None), slow.full());
    }

    /// A token bucket in exact arithmetic: one token is `interval` units, and one unit is added per nanosecond.
    struct Bucket {
        units: u64,
        at: u64,
    }

    proptest! {
        #[test]
        fn agrees_with_a_token_bucket(
            count in 1_u32..50, burst in 1_u32..60,
            steps in proptest::collection::vec((0_u64..400_000_000, 1_u32..9), 1..120),
        ) {
            let gcra = limit(count, 1, Some(burst));
            let full = gcra.interval * u64::from(burst);
            let (mut now, mut tat) = (SECOND * 100, 0);
            let mut bucket = Bucket { units: full, at: now };
            for (step, cost) in steps {
                now += step;
                let units = gcra.interval * u64::from(cost);
                bucket.units = full.min(bucket.units + (now - bucket.at));
                bucket.at = now;
                let allowed = bucket.units >= units;
                if allowed {
                    bucket.units -= units;
                }
                let before = gcra.wait(tat, now, 0);
                prop_assert_eq!(before == 0, gcra.decide(tat, now, 1).0.is_some());
                prop_assert_eq!(gcra.is_exhausted(tat.saturating_sub(now)), before > 0);
                let (next, decision) = gcra.decide(tat, now, cost);
                prop_assert_eq!(next.is_some(), allowed);
                prop_assert_eq!(u64::from(decision.remaining), bucket.units / gcra.interval);
                if let Some(next) = next {
                    prop_assert_eq!(next, gcra.count(tat, now, u64::from(cost)));
                    tat = next;
                } else if cost <= burst {
                    let wait = u64::try_from(decision.retry_after.as_nanos()).expect("short");
                    prop_assert!(gcra.decide(tat, now + wait, cost).0.is_some());
                    prop_assert!(gcra.decide(tat, now + wait - 1, cost).0.is_none());
                }
            }
        }
    }
}
