//! How a target is picked out of those that may be picked.
//!
//! A [`Balance`] is built from the weights of the eligible targets and rebuilt, off the request
//! path, when a target becomes eligible, ceases to be, or changes its weight. So a pick never
//! skips over the dead, and a table (a sequence, a ring, Maglev) always describes the living.
//! Whatever varies from request to request comes in through [`Ask`].

mod least_connections;
mod round_robin;

pub use least_connections::LeastConnections;
pub use round_robin::RoundRobin;

/// What a target does at the moment. Implemented by whoever counts.
pub trait Loads {
    /// Requests that the target at this index is working on.
    fn active(&self, index: usize) -> u32;

    /// Its recent response time in seconds, decayed to now.
    fn latency(&self, index: usize) -> f64;
}

/// One question: which target for this request?
pub struct Ask<'a> {
    /// What a hash is taken over (an address, a header, a cookie …), already hashed.
    pub key: Option<u64>,
    /// A fresh random number.
    pub random: u64,
    /// The targets' present loads.
    pub loads: &'a dyn Loads,
    /// Targets that this request has tried already.
    pub tried: &'a [usize],
}

impl Ask<'_> {
    /// Whether this request has tried the target.
    pub fn was_tried(&self, index: usize) -> bool {
        self.tried.contains(&index)
    }
}

/// An algorithm over a fixed list of eligible targets.
pub trait Balance: Send + Sync {
    /// The index of the target to use; `None` when every target was tried.
    fn pick(&self, ask: &Ask<'_>) -> Option<usize>;
}

/// The algorithms that a configuration can name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// In turn; by smooth interleaving when weights differ.
    #[default]
    RoundRobin,
    /// The fewest requests in flight for its weight.
    LeastConnections,
}

impl Algorithm {
    /// Builds the algorithm for targets of these weights (each at least 1).
    pub fn build(self, weights: &[u32]) -> Box<dyn Balance> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::new(weights)),
            Self::LeastConnections => Box::new(LeastConnections::new(weights)),
        }
    }
}

#[cfg(test)]
mod tests;
