//! Balancing: how a target is picked among the eligible ones.
//!
//! A [`Balancer`] is built from the eligible targets and rebuilt, off the request path, when a target becomes
//! eligible, ceases to be, or changes its weight. So a pick never skips ineligible targets, and a table (a sequence,
//! a ring, Maglev) always describes the present ones. Whatever varies between requests comes in through
//! [`PickInput`]. A pick takes no lock, and its cost does not grow with the number of targets: algorithms that
//! compare loads look at all of a few targets, and at a few of many.

mod ewma;
mod hash;
mod least;
mod maglev;
mod random;
mod ring;
mod round_robin;
mod zones;

use std::fmt;

pub use ewma::Ewma;
pub use hash::{Hashed, hash_key};
pub use least::{Cost, Least};
pub use maglev::Maglev;
pub use random::Random;
pub use ring::Ring;
pub use round_robin::RoundRobin;
#[cfg(test)]
pub use zones::ZoneShare;
pub use zones::{WHOLE_LOAD, ZoneCapacity, ZoneRule, together};

/// One eligible target, as an algorithm sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// An id that is the same for the same target at all times and in all gateways: tables depend on it.
    pub id: u64,
    /// The weight relative to the other targets; at least 1.
    pub weight: u32,
    /// The fraction of its weight that the target has during a slow start, in units of 1 / [`WHOLE_WEIGHT`].
    pub ramp: u32,
}

/// The value of [`Seat::ramp`] for a target with all of its weight.
pub const WHOLE_WEIGHT: u32 = 1_000;

impl Seat {
    /// Returns a target with all of its weight.
    pub fn new(id: u64, weight: u32) -> Self {
        Self { id, weight, ramp: WHOLE_WEIGHT }
    }

    /// Returns the effective weight.
    fn effective_weight(&self) -> u64 {
        u64::from(self.weight.max(1)) * u64::from(self.ramp.clamp(1, WHOLE_WEIGHT))
    }
}

/// The present loads of targets, implemented by the caller that counts requests.
pub trait Loads {
    /// Returns the number of requests in flight on the target at this index.
    fn active(&self, index: usize) -> u32;

    /// Returns the target's recent response time in seconds, decayed to now.
    fn latency(&self, index: usize) -> f64;

    /// Returns the number of requests in flight on all targets together.
    fn total(&self) -> u32;
}

/// The loads for a choice by weight alone.
#[derive(Clone, Copy, Debug)]
pub struct NoLoads;

impl Loads for NoLoads {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn latency(&self, _: usize) -> f64 {
        0.0
    }

    fn total(&self) -> u32 {
        0
    }
}

/// The input of one pick.
pub struct PickInput<'a> {
    /// The hash key (of an address, a header, a cookie …), already hashed.
    pub key: Option<u64>,
    /// A fresh random number.
    pub random: u64,
    /// The present loads of the targets.
    pub loads: &'a dyn Loads,
    /// Targets that must not be picked, because this request has tried them or they are full.
    pub tried: &'a [usize],
}

impl PickInput<'_> {
    /// Returns whether the target must not be picked.
    pub fn was_tried(&self, index: usize) -> bool {
        self.tried.contains(&index)
    }
}

/// A balancing algorithm over a fixed list of eligible targets.
pub trait Balancer: Send + Sync {
    /// Returns the index of the target to use, or `None` when every target was tried.
    fn pick(&self, input: &PickInput<'_>) -> Option<usize>;
}

/// The balancing algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn, smoothly interleaved when weights differ.
    #[default]
    RoundRobin,
    /// The fewest requests in flight relative to the weight.
    LeastConnections,
    /// The shortest expected response time: peak EWMA of the response time × requests in flight.
    LeastResponseTime,
    /// At random, in proportion to the weights.
    Random,
    /// The less loaded of two random targets.
    PowerOfTwo,
    /// Consistent hashing over a ring.
    Ring {
        /// The bound on a target's load in percent of the average load; 0 is no bound.
        load_factor: u32,
    },
    /// Consistent hashing with a Maglev table.
    Maglev {
        /// The bound on a target's load in percent of the average load; 0 is no bound.
        load_factor: u32,
    },
}

impl fmt::Display for Algorithm {
    /// Writes the name that the configuration uses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::LeastResponseTime => "least_response_time",
            Self::Random => "random",
            Self::PowerOfTwo => "power_of_two",
            Self::Ring { .. } => "hash over a ring",
            Self::Maglev { .. } => "hash over a Maglev table",
        })
    }
}

impl Algorithm {
    /// Builds the algorithm for these targets.
    pub fn build(self, seats: &[Seat]) -> Box<dyn Balancer> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::new(seats)),
            Self::LeastConnections => Box::new(Least::new(seats, Cost::Requests)),
            Self::LeastResponseTime => Box::new(Least::new(seats, Cost::Time)),
            Self::Random => Box::new(Random::new(seats)),
            Self::PowerOfTwo => Box::new(Least::two_choices(seats)),
            Self::Ring { load_factor } => Box::new(Hashed::new(Ring::new(seats), seats, load_factor)),
            Self::Maglev { load_factor } => Box::new(Hashed::new(Maglev::new(seats), seats, load_factor)),
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod zones_tests;
