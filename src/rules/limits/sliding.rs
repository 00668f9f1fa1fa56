//! The sliding window with two buckets: what was counted in the previous window counts by the part of it that the
//! sliding window still covers.
//!
//! With the previous window's count P, the present one's C, a window of W of which E has passed, and a limit of N: a
//! request of cost c is allowed if P·(W − E) + (C + c)·W ≤ N·W, in exact arithmetic. A key's windows begin with its
//! first request.

use std::time::Duration;

use super::Decision;

/// A limit by a sliding window. Times are nanoseconds since an origin that the caller chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct SlidingWindow {
    /// W, in nanoseconds.
    window: u64,
    /// N.
    limit: u32,
}

/// The counts of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounts {
    /// When its present window has begun; before the origin, it is the two's complement.
    pub start: u64,
    /// What was counted in the window before it.
    pub previous: u32,
    /// What has been counted in it.
    pub present: u32,
}

impl WindowCounts {
    /// Returns how much of its present window has passed, which is nothing where another thread's clock was ahead.
    pub fn elapsed(&self, now: u64) -> u64 {
        u64::try_from((now as i64).saturating_sub(self.start as i64)).unwrap_or(0)
    }

    /// Returns when a window has begun of which so much has passed.
    pub fn start_of(elapsed: u64, now: u64) -> u64 {
        (now as i64).saturating_sub(i64::try_from(elapsed).unwrap_or(i64::MAX)) as u64
    }
}

impl SlidingWindow {
    /// Returns a limit of `limit` in any window of that length, as far as two buckets show it.
    pub fn new(limit: u32, window: Duration) -> Self {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self { window: window.max(1), limit: limit.max(1) }
    }

    /// Returns the limit.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Returns the counts as they are at `now`.
    pub fn roll(&self, counts: WindowCounts, now: u64) -> WindowCounts {
        match counts.elapsed(now) / self.window {
            _ if (counts.previous, counts.present) == (0, 0) => WindowCounts { start: now, ..counts },
            0 => counts,
            1 => WindowCounts { start: counts.start.wrapping_add(self.window), previous: counts.present, present: 0 },
            _ => WindowCounts { start: now, previous: 0, present: 0 },
        }
    }

    /// Decides at `now` on a request of that cost. Returns the key's new counts with the decision, or `None` if the
    /// request is rejected.
    pub fn decide(&self, counts: WindowCounts, now: u64, cost: u32) -> (Option<WindowCounts>, Decision) {
        let counts = self.roll(counts, now);
        let after = WindowCounts { present: counts.present.saturating_add(cost), ..counts };
        if self.weight(after, now) <= self.most() {
            return (Some(after), self.describe(after, now, 0));
        }
        (None, self.describe(counts, now, self.wait(counts, now, cost)))
    }

    /// Returns the counts after a request of that cost that was allowed elsewhere.
    pub fn count(&self, counts: WindowCounts, now: u64, cost: u64) -> WindowCounts {
        let counts = self.roll(counts, now);
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        WindowCounts { present: counts.present.saturating_add(cost), ..counts }
    }

    /// Returns how much is counted; a part of one is one.
    pub fn counted(&self, counts: WindowCounts, now: u64) -> u64 {
        let weight = self.weight(self.roll(counts, now), now);
        u64::try_from(weight.div_ceil(u128::from(self.window))).unwrap_or(u64::MAX)
    }

    /// The weighted count, times the window.
    fn weight(&self, counts: WindowCounts, now: u64) -> u128 {
        let left = self.window.saturating_sub(counts.elapsed(now));
        u128::from(counts.previous) * u128::from(left) + u128::from(counts.present) * u128::from(self.window)
    }

    fn most(&self) -> u128 {
        u128::from(self.limit) * u128::from(self.window)
    }

    /// Returns in how many nanoseconds a request of that cost would be allowed, which is not allowed now.
    fn wait(&self, counts: WindowCounts, now: u64, cost: u32) -> u64 {
        let until = self.window.saturating_sub(counts.elapsed(now));
        // The part of a window that may be left for `count` to weigh no more than `room` requests.
        let left = |count: u32, room: u32| match u128::from(room) * u128::from(self.window) {
            _ if count == 0 => self.window,
            room => u64::try_from(room / u128::from(count)).unwrap_or(u64::MAX).min(self.window),
        };
        if let Some(room) = self.limit.checked_sub(counts.present.saturating_add(cost)) {
            return until - left(counts.previous, room).min(until);
        }
        match self.limit.checked_sub(cost) {
            Some(room) => until + (self.window - left(counts.present, room)),
            // It costs more than the limit, and is never allowed.
            None => until.saturating_add(self.window),
        }
    }

    fn describe(&self, counts: WindowCounts, now: u64, wait: u64) -> Decision {
        let room = self.most().saturating_sub(self.weight(counts, now)) / u128::from(self.window);
        let until = self.window.saturating_sub(counts.elapsed(now));
        let reset = match (counts.present, counts.previous) {
            (0, 0) => 0,
            (0, _) => until,
            _ => until.saturating_add(self.window),
        };
        Decision {
            remaining: u32::try_from(room).unwrap_or(u32::MAX),
            retry_after: Duration::from_nanos(wait),
            reset: Duration::from_nanos(reset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    proptest! {
        /// The model keeps every request, and counts those of the present and of the previous window anew each time.
        #[test]
        fn agrees_with_a_log_of_all_requests(
            limit in 1_u32..40,
            steps in proptest::collection::vec((0_u64..700_000_000, 1_u32..6), 1..150),
        ) {
            let rule = SlidingWindow::new(limit, Duration::from_secs(1));
            let (mut now, mut start) = (SECOND * 100, 0_u64);
            let mut log: Vec<(u64, u32)> = Vec::new();
            let mut counts = WindowCounts::default();
            for (step, cost) in steps {
                now += step;
                // Windows follow one another from a request that is allowed on, and begin anew after a pause.
                let begun = start;
                if now - start >= 2 * SECOND {
                    start = now;
                } else if now - start >= SECOND {
                    start += SECOND;
                }
                let sum = |from: u64, to: u64| -> u64 {
                    log.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, cost)| u64::from(*cost)).sum()
                };
                let (previous, present) = (sum(start - SECOND, start), sum(start, now + 1));
                let weight = u128::from(previous) * u128::from(SECOND - (now - start))
                    + u128::from(present + u64::from(cost)) * u128::from(SECOND);
                let allowed = weight <= u128::from(limit) * u128::from(SECOND);
                let (next, decision) = rule.decide(counts, now, cost);
                prop_assert_eq!(next.is_some(), allowed);
                if let Some(next) = next {
                    prop_assert_eq!(next, rule.count(counts, now, u64::from(cost)));
                    log.push((now, cost));
                    counts = next;
                } else {
                    start = begun;
                }
                if !allowed && cost <= limit {
                    let wait = u64::try_from(decision.retry_after.as_nanos()).expect("short");
                    prop_assert!(rule.decide(counts, now + wait, cost).0.is_some());
                    prop_assert!(wait > 0 && rule.decide(counts, now + wait - 1, cost).0.is_none());
                }
                let more = (0..).take_while(|more| rule.decide(counts, now, more + 1).0.is_some()).count();
                prop_assert_eq!(decision.remaining as usize, more);
            }
        }
    }
}
