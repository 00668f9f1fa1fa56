//! The least loaded target: least connections, least response time, power of two choices.

use super::{Balancer, PickInput, Seat};

/// The number of targets up to which all are compared.
const COMPARE_ALL: usize = 32;

/// The number of random targets that are compared where there are more. One of eight samples is in the best half of
/// all with a probability of 255 in 256 ("The Power of Two Choices in Randomized Load Balancing", M. Mitzenmacher,
/// explains why few are enough).
const SAMPLES: usize = 8;

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
    samples: usize,
}

impl Least {
    /// Builds the algorithm for these targets.
    pub fn new(seats: &[Seat], cost: Cost) -> Self {
        Self {
            weights: seats.iter().map(|s| s.effective_weight() as f64).collect(),
            cost,
            all: COMPARE_ALL,
            samples: SAMPLES,
        }
    }

    /// Builds the algorithm that compares two random targets.
    pub fn two_choices(seats: &[Seat]) -> Self {
        Self { all: 2, samples: 2, ..Self::new(seats, Cost::Requests) }
    }

    /// Returns the cost of a target. Equal ratios of small integers are equal as floating-point numbers too, so ties
    /// are exact.
    fn cost(&self, input: &PickInput<'_>, index: usize) -> f64 {
        let load = (f64::from(input.loads.active(index)) + 1.0) / self.weights[index];
        match self.cost {
            Cost::Requests => load,
            Cost::Time => load * input.loads.latency(index),
        }
    }

    fn best(&self, input: &PickInput<'_>, among: impl Iterator<Item = usize>) -> Option<usize> {
        let mut best: Option<(usize, f64)> = None;
        for index in among {
            if !input.tried.is_empty() && input.was_tried(index) {
                continue;
            }
            let cost = self.cost(input, index);
            if best.is_none_or(|(_, least)| cost < least) {
                best = Some((index, cost));
            }
        }
        best.map(|(index, _)| index)
    }
}

impl Balancer for Least {
    fn pick(&self, input: &PickInput<'_>) -> Option<usize> {
        let count = self.weights.len();
        let start = (input.random % count.max(1) as u64) as usize;
        let all = (start..count).chain(0..start);
        if count <= self.all {
            return self.best(input, all);
        }
        let mut random = fastrand::Rng::with_seed(input.random);
        // The second of two samples is never the first again.
        let mut last = usize::MAX;
        let samples = (0..self.samples).map(|_| {
            let mut index = random.usize(..count);
            if index == last {
                index = (index + 1) % count;
            }
            last = index;
            index
        });
        // If all samples were tried before, any other target is acceptable.
        self.best(input, samples).or_else(|| all.into_iter().find(|index| !input.was_tried(*index)))
    }
}
