//! How a target is picked out of those that may be picked.
//!
//! A [`Balance`] is built from the eligible targets and rebuilt, off the request path, when one
//! becomes eligible, ceases to be, or changes its weight. So a pick never skips over the dead, and a
//! table (a sequence, a ring, Maglev) always describes the living. Whatever varies from request to
//! request comes in through [`Ask`]. A pick takes no lock, and its cost does not grow with the number
//! of targets: those that compare loads look at all of a few, and at a few of many.

mod ewma;
mod hash;
mod least;
mod maglev;
mod random;
mod ring;
mod round_robin;

use std::fmt;

pub use ewma::Ewma;
pub use hash::{Hashed, hash_key};
pub use least::{Cost, Least};
pub use maglev::Maglev;
pub use random::Random;
pub use ring::Ring;
pub use round_robin::RoundRobin;

/// One eligible target, as an algorithm sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The same number for the same target at all times and in all gateways: tables hang on it.
    pub id: u64,
    /// Its share, relative to the others; at least 1.
    pub weight: u32,
    /// The part of its weight that it has while it is started slowly, of [`WHOLE_PART`].
    pub part: u32,
}

/// A whole part.
pub const WHOLE_PART: u32 = 1_000;

impl Seat {
    /// A target with all of its weight.
    pub fn new(id: u64, weight: u32) -> Self {
        Self { id, weight, part: WHOLE_PART }
    }

    /// Its weight in parts.
    fn parts(&self) -> u64 {
        u64::from(self.weight.max(1)) * u64::from(self.part.clamp(1, WHOLE_PART))
    }
}

/// What a target does at the moment. Implemented by whoever counts.
pub trait Loads {
    /// Requests that the target at this index is working on.
    fn active(&self, index: usize) -> u32;

    /// Its recent response time in seconds, decayed to now.
    fn latency(&self, index: usize) -> f64;

    /// Requests that all targets together are working on.
    fn total(&self) -> u32;
}

/// One question: which target for this request?
pub struct Ask<'a> {
    /// What a hash is taken over (an address, a header, a cookie …), already hashed.
    pub key: Option<u64>,
    /// A fresh random number.
    pub random: u64,
    /// The targets' present loads.
    pub loads: &'a dyn Loads,
    /// Targets that are not to be picked: this request has tried them, or they are full.
    pub tried: &'a [usize],
}

impl Ask<'_> {
    /// Whether the target is not to be picked.
    pub fn was_tried(&self, index: usize) -> bool {
        self.tried.contains(&index)
    }
}

/// An algorithm over a fixed list of eligible targets.
pub trait Balance: Send + Sync {
    /// The index of the target to use; `None` when every target was tried.
    fn pick(&self, ask: &Ask<'_>) -> Option<usize>;
}

/// The algorithms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// In turn; by smooth interleaving when weights differ.
    #[default]
    RoundRobin,
    /// The fewest requests in flight for its weight.
    LeastConnections,
    /// The shortest expected answer: peak EWMA of the response time × requests in flight.
    LeastResponseTime,
    /// By chance, in proportion to weight.
    Random,
    /// The less loaded of two that are drawn by chance.
    PowerOfTwo,
    /// The same key to the same target, by a ring of hashes.
    Ring {
        /// The most that one target may have of the average load, in percent; 0 is no bound.
        load_factor: u32,
    },
    /// The same key to the same target, by a Maglev table.
    Maglev {
        /// The most that one target may have of the average load, in percent; 0 is no bound.
        load_factor: u32,
    },
}

impl fmt::Display for Algorithm {
    /// As the configuration names it.
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
    pub fn build(self, seats: &[Seat]) -> Box<dyn Balance> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::new(seats)),
            Self::LeastConnections => Box::new(Least::new(seats, Cost::Requests)),
            Self::LeastResponseTime => Box::new(Least::new(seats, Cost::Time)),
            Self::Random => Box::new(Random::new(seats)),
            Self::PowerOfTwo => Box::new(Least::of_two(seats)),
            Self::Ring { load_factor } => Box::new(Hashed::new(Ring::new(seats), seats, load_factor)),
            Self::Maglev { load_factor } => Box::new(Hashed::new(Maglev::new(seats), seats, load_factor)),
        }
    }
}

#[cfg(test)]
mod tests;
