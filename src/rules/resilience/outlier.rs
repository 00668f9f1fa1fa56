//! Passive health: which targets deviate from the others, and for how long they are ejected.
//!
//! After Envoy's outlier detection, with its defaults
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>).

/// The conditions under which a target is ejected, and the duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutlierShape {
    /// The number of failures in a row, 5xx responses included; 0 is never.
    pub failures: u32,
    /// The number of gateway failures in a row (no connection, reset, time-out, 502, 503, 504); 0 is never.
    pub gateway_failures: u32,
    /// The time between two comparisons, in nanoseconds.
    pub interval: u64,
    /// The duration of the first ejection, in nanoseconds; the n-th takes n times as long.
    pub base: u64,
    /// The maximum duration of an ejection, in nanoseconds.
    pub max: u64,
    /// The maximum percentage of targets that may be ejected; at least one target always may.
    pub max_percent: u32,
    /// The comparison of every target's share of failures with a bound.
    pub failure_share: Option<FailureShare>,
    /// The comparison of every target's share of successes with that of all.
    pub deviation: Option<Deviation>,
}

/// A bound on the share of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailureShare {
    /// The percentage of an interval's requests.
    pub percent: u32,
    /// The number of targets that need enough requests.
    pub min_targets: u32,
    /// The number of requests that are enough.
    pub min_requests: u32,
}

/// A bound on how far below the mean a share of successes may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deviation {
    /// The factor in thousandths of a standard deviation.
    pub factor: u32,
    /// The number of targets that need enough requests.
    pub min_targets: u32,
    /// The number of requests that are enough.
    pub min_requests: u32,
}

/// The counts of a target's requests in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that succeeded.
    pub good: u32,
    /// Requests that failed.
    pub bad: u32,
}

impl Tally {
    fn total(self) -> u32 {
        self.good + self.bad
    }
}

/// Returns the outliers of an interval, each with the reason.
pub fn outliers(shape: &OutlierShape, tallies: &[Tally]) -> Vec<(usize, &'static str)> {
    let enough = |least: u32| tallies.iter().enumerate().filter(move |(_, t)| t.total() >= least.max(1));
    let mut found = Vec::new();
    if let Some(share) = shape.failure_share
        && enough(share.min_requests).count() >= share.min_targets as usize
    {
        let over = |t: &Tally| u64::from(t.bad) * 100 >= u64::from(share.percent) * u64::from(t.total());
        found.extend(enough(share.min_requests).filter(|(_, t)| over(t)).map(|(i, _)| (i, "failure_percentage")));
    }
    if let Some(deviation) = shape.deviation {
        let rates: Vec<(usize, f64)> =
            enough(deviation.min_requests).map(|(i, t)| (i, f64::from(t.good) / f64::from(t.total()))).collect();
        if rates.len() >= (deviation.min_targets as usize).max(2) {
            let count = rates.len() as f64;
            let mean = rates.iter().map(|(_, r)| r).sum::<f64>() / count;
            let variance = rates.iter().map(|(_, r)| (r - mean).powi(2)).sum::<f64>() / count;
            let least = mean - variance.sqrt() * f64::from(deviation.factor) / 1_000.0;
            let below = rates.iter().filter(|(i, rate)| *rate < least && !found.iter().any(|(f, _)| f == i));
            let below: Vec<_> = below.map(|(i, _)| (*i, "success_rate")).collect();
            found.extend(below);
        }
    }
    found
}

/// Returns whether one more of `total` targets may be ejected.
pub fn may_eject(total: usize, ejected: usize, max_percent: u32) -> bool {
    ejected < (total * max_percent as usize / 100).max(1)
}

/// The ejection state of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejection {
    times: u32,
    until: Option<u64>,
}

impl Ejection {
    /// Returns the state of a target that is ejected until the given time, for that many times in a row.
    pub fn restored(times: u32, until: u64) -> Self {
        Self { times, until: Some(until) }
    }

    /// Returns the number of ejections in a row, as far as they are remembered.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Returns the end of the ejection.
    pub fn until(&self) -> Option<u64> {
        self.until
    }

    /// Ejects the target.
    pub fn eject(&mut self, shape: &OutlierShape, now: u64) {
        self.times = self.times.saturating_add(1);
        let time = shape.base.saturating_mul(u64::from(self.times)).min(shape.max.max(shape.base));
        self.until = Some(now + time);
    }

    /// Ends the ejection if its time is over. Returns whether it ended.
    pub fn expire_ejection(&mut self, now: u64) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            self.until = None;
        }
        over
    }

    /// Ends the ejection at once, since a probe has succeeded. Returns whether it ended.
    pub fn end_ejection(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// Records an interval without an ejection: the next ejection is shorter again.
    pub fn decay_ejections(&mut self) {
        if self.until.is_none() {
            self.times = self.times.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const SHAPE: OutlierShape = OutlierShape {
        failures: 5,
        gateway_failures: 5,
        interval: 10 * S,
        base: 30 * S,
        max: 300 * S,
        max_percent: 10,
        failure_share: Some(FailureShare { percent: 85, min_targets: 5, min_requests: 50 }),
        deviation: Some(Deviation { factor: 1_900, min_targets: 5, min_requests: 100 }),
    };

    #[test]
    fn ejections_grow_are_bounded_and_are_forgotten() {
        let mut ejection = Ejection::default();
        ejection.eject(&SHAPE, 0);
        assert_eq!(ejection.until(), Some(30 * S));
        assert!(!ejection.expire_ejection(29 * S) && ejection.expire_ejection(30 * S) && ejection.until().is_none());
        ejection.eject(&SHAPE, 30 * S);
        assert_eq!(ejection.until(), Some(90 * S));
        (0..50).for_each(|_| ejection.eject(&SHAPE, 0));
        assert_eq!(ejection.until(), Some(300 * S));
        assert!(ejection.end_ejection());
        (0..60).for_each(|_| ejection.decay_ejections());
        ejection.eject(&SHAPE, 0);
        assert_eq!(ejection.until(), Some(30 * S));
    }

    #[test]
    fn at_least_one_and_at_most_the_share() {
        assert!(may_eject(3, 0, 10) && !may_eject(3, 1, 10));
        assert!(may_eject(50, 4, 10) && !may_eject(50, 5, 10));
    }

    #[test]
    fn those_that_stand_out_are_found() {
        let good = Tally { good: 100, bad: 0 };
        let mut tallies = vec![good; 9];
        assert_eq!(outliers(&SHAPE, &tallies), []);
        tallies.push(Tally { good: 70, bad: 30 });
        assert_eq!(outliers(&SHAPE, &tallies), [(9, "success_rate")]);
        tallies[0] = Tally { good: 5, bad: 95 };
        assert_eq!(outliers(&SHAPE, &tallies), [(0, "failure_percentage")]);
        // With too few targets that have enough requests, no target is ejected by comparison.
        assert_eq!(outliers(&SHAPE, &tallies[..4]), []);
        assert_eq!(outliers(&SHAPE, &[]), []);
    }
}
