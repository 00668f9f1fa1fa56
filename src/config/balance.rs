//! `balance` of an upstream, and the keys by which requests are kept together.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::KeyBy;

/// How a target is picked.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
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
    /// The same key to the same target.
    Hash(HashBalance),
}

/// The same key to the same target, and when a target goes only its keys move.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashBalance {
    /// What is hashed. A request without it goes to a target drawn by chance. Default `address`.
    #[serde(default)]
    pub by: KeyBy,
    /// Default `maglev`.
    #[serde(default)]
    pub table: HashTable,
    /// The most that one target may have of the average load, in percent; further requests of its
    /// keys go to the next target. Default: no bound.
    #[schemars(range(min = 101, max = 10000))]
    pub load_factor: Option<u32>,
}

/// The table behind a hash.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashTable {
    /// The most even shares; a few keys more than needed move when targets change.
    #[default]
    Maglev,
    /// A ring of hashes: no key moves that need not, shares are within about a tenth.
    Ring,
}
