//! Passive health: which targets behave unlike the others, and for how long they are left out.
//!
//! After Envoy's outlier detection, with its defaults
//! (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/outlier>).

/// When a target is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OutlierShape {
    /// Answers of 5xx and failures in a row; 0 is never.
    pub failures: u32,
    /// Failures of the way to it in a row (no connection, reset, time-out, 502, 503, 504); 0 is never.
    pub gateway_failures: u32,
    /// Time between two comparisons, in nanoseconds.
    pub interval: u64,
    /// The first ejection's time, in nanoseconds; the n-th takes n times as long.
    pub base: u64,
    /// The longest ejection, in nanoseconds.
    pub max: u64,
    /// The most of all targets that may be ejected, in percent; always at least one target.
    pub max_percent: u32,
    /// Compares every target's share of failures with a bound.
    pub failure_share: Option<FailureShare>,
    /// Compares every target's share of successes with that of all.
    pub deviation: Option<Deviation>,
}

/// A bound on the share of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FailureShare {
    /// Percent of an interval's requests.
    pub percent: u32,
    /// Targets that have to have enough requests.
    pub min_targets: u32,
    /// Requests that are enough.
    pub min_requests: u32,
}

/// A bound on how far below the mean a share of successes may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Deviation {
    /// Thousandths of a standard deviation.
    pub factor: u32,
    /// Targets that have to have enough requests.
    pub min_targets: u32,
    /// Requests that are enough.
    pub min_requests: u32,
}

/// A target's requests in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// That succeeded.
    pub good: u32,
    /// That failed.
    pub bad: u32,
}

impl Tally {
    fn total(self) -> u32 {
        self.good + self.bad
    }
}

/// The targets that stand out in an interval, with the reason.
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
        let rates: Vec<(usize, f64)> = enough(deviation.min_requests).map(|(i, t)| (i, f64::from(t.good) / f64::from(t.total()))).collect();
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

/// Whether one more of `total` targets may be ejected.
pub fn may_eject(total: usize, ejected: usize, max_percent: u32) -> bool {
    ejected < (total * max_percent as usize / 100).max(1)
}

/// A target's ejections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ejection {
    times: u32,
    until: Option<u64>,
}

impl Ejection {
    /// One that is out until then, for that many times in a row.
    pub fn until_then(times: u32, until: u64) -> Self {
        Self { times, until: Some(until) }
    }

    /// How many times in a row, as far as they are remembered.
    pub fn times(&self) -> u32 {
        self.times
    }

    /// Until when.
    pub fn until(&self) -> Option<u64> {
        self.until
    }

    /// Ejects it.
    pub fn eject(&mut self, shape: &OutlierShape, now: u64) {
        self.times = self.times.saturating_add(1);
        let time = shape.base.saturating_mul(u64::from(self.times)).min(shape.max.max(shape.base));
        self.until = Some(now + time);
    }

    /// Lets it back when its time is over. Whether it came back.
    pub fn release(&mut self, now: u64) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        if over {
            self.until = None;
        }
        over
    }

    /// Lets it back at once: a probe has succeeded. Whether it came back.
    pub fn pardon(&mut self) -> bool {
        self.until.take().is_some()
    }

    /// An interval went by in which it was not ejected: the next time is shorter again.
    pub fn calm(&mut self) {
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
        assert!(!ejection.release(29 * S) && ejection.release(30 * S) && ejection.until().is_none());
        ejection.eject(&SHAPE, 30 * S);
        assert_eq!(ejection.until(), Some(90 * S));
        (0..50).for_each(|_| ejection.eject(&SHAPE, 0));
        assert_eq!(ejection.until(), Some(300 * S));
        assert!(ejection.pardon());
        (0..60).for_each(|_| ejection.calm());
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
        // Too few targets with enough requests: nobody is judged by comparison.
        assert_eq!(outliers(&SHAPE, &tallies[..4]), []);
        assert_eq!(outliers(&SHAPE, &[]), []);
    }
}
