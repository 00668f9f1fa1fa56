//! `balance` of an upstream, and the keys by which requests are kept together.

use std::collections::BTreeMap;

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

/// How load is divided among the zones of targets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ZonesConfig {
    /// Zones are ignored.
    Ignore,
    /// The gateway's own zone receives what it can handle (1.4 × its healthy share), then the zones of this list in
    /// their order, and the others the rest.
    SpillOver(Vec<String>),
    /// The gateways of all zones together load every target alike, with as little traffic between zones as possible
    /// (Envoy's zone-aware routing). It needs `process.zone` and `process.gateways`, and applies to priority 0.
    Aware(AwareZones),
    /// The share of each zone, in proportion to these weights and to its health (weight × min(1, 1.4 × its healthy
    /// share)). A zone of weight 0 receives load only when no other zone has a healthy target.
    Weights(BTreeMap<String, u32>),
}

impl Default for ZonesConfig {
    fn default() -> Self {
        Self::SpillOver(Vec::new())
    }
}

/// The settings of zone-aware division.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AwareZones {
    /// With fewer targets of priority 0 than these, zones are ignored. Default 6.
    #[schemars(range(max = 100000))]
    pub min_targets: u32,
}

impl Default for AwareZones {
    fn default() -> Self {
        Self { min_targets: 6 }
    }
}
