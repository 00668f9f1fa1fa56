//! The least loaded target: least connections, least response time, power of two choices.

use super::{Ask, Balance, Seat};

/// The number of targets up to which all are compared.
const ALL: usize = 32;

/// The number of random targets that are compared where there are more. One of eight samples is in the best half of
/// all with a probability of 255 in 256 ("The Power of Two Choices in Randomized Load Balancing", M. Mitzenmacher,
/// explains why few are enough).
const DRAWS: usize = 8;

/// The quantity that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// (requests in flight + 1) / weight.
    Requests,
    /// Response time × (requests in flight + 1) / weight.
    Time,
}

/// Picks the target of the lowest cost. Among equals it picks a different one each time, so that an idle pool does
/// not send everything to its first target.
#[derive(Debug)]
pub struct Least {
    weights: Box<[f64]>,
    cost: Cost,
    /// Pools of up to this size are compared completely.
    all: usize,
    draws: usize,
}

impl Least {
    /// Builds the algorithm for these targets.
    pub fn new(seats: &[Seat], cost: Cost) -> Self {
        Self { weights: seats.iter().map(|s| s.parts() as f64).collect(), cost, all: ALL, draws: DRAWS }
    }

    /// Builds the algorithm that compares two random targets.
    pub fn of_two(seats: &[Seat]) -> Self {
        Self { all: 2, draws: 2, ..Self::new(seats, Cost::Requests) }
    }

    /// Returns the cost of a target. Equal ratios of small integers are equal as floating-point numbers too, so ties
    /// are exact.
    fn cost(&self, ask: &Ask<'_>, index: usize) -> f64 {
        let load = (f64::from(ask.loads.active(index)) + 1.0) / self.weights[index];
        match self.cost {
            Cost::Requests => load,
            Cost::Time => load * ask.loads.latency(index),
        }
    }

    fn best(&self, ask: &Ask<'_>, among: impl Iterator<Item = usize>) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for index in among {
            if !ask.tried.is_empty() && ask.was_tried(index) {
                continue;
            }
            let cost = self.cost(ask, index);
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((index, cost));
            }
        }
        best.map(|(index, _)| index)
    }
}

impl Balance for Least {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let count = self.weights.len();
        let start = (ask.random % count.max(1) as u64) as usize;
        let all = (start..count).chain(0..start);
        if count <= self.all {
            return self.best(ask, all);
        }
        let mut random = fastrand::Rng::with_seed(ask.random);
        // The second of two samples is never the first again.
        let mut last = usize::MAX;
        let draws = (0..self.draws).map(|_| {
            let mut index = random.usize(..count);
            if index == last {
                index = (index + 1) % count;
            }
            last = index;
            index
        });
        // If all samples were tried before, any other target is acceptable.
        self.best(ask, draws).or_else(|| all.into_iter().find(|index| !ask.was_tried(*index)))
    }
}
