//! `balance` of an upstream, and the keys by which requests are kept together.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::KeyBy;

/// How a target is picked.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceConfig {
    /// In turn; by smooth interleaving when weights differ.
    #[default]
    RoundRobin,
    /// The fewest requests in flight for its weight.
    LeastConnections,
    /// The shortest expected response: peak EWMA of the response time × requests in flight.
    LeastResponseTime,
    /// At random, in proportion to weight.
    Random,
    /// The less loaded of two that are picked at random.
    PowerOfTwo,
    /// The same key to the same target.
    Hash(HashBalance),
}

/// The same key to the same target; when a target goes, only its keys move.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashBalance {
    /// What is hashed. A request without it goes to a random target. Default `address`.
    #[serde(default)]
    pub by: KeyBy,
    /// Default `maglev`.
    #[serde(default)]
    pub table: HashTable,
    /// The most load that one target may have, in percent of the average; further requests of its keys go to the next
    /// target. Default: no bound.
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
