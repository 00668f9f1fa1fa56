//! The use of each version of an API by each consumer, so that it is known who is affected when a version ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::{AHashMap, RandomState};
use parking_lot::RwLock;
use prometheus::proto::MetricFamily;

use super::catalogue::API_REQUESTS;
use super::family::Series;

/// The consumers of one version that have a count of their own; all others share `consumer="(other)"`.
const MAX_CONSUMERS: usize = 1_000;

/// The parts of a table of counts: requests of different consumers seldom meet.
const SHARDS: usize = 8;

/// The label of requests without a consumer.
const ANONYMOUS: &str = "(none)";

/// The label of consumers above the maximum.
const OTHER: &str = "(other)";

/// The counts of one version.
#[derive(Debug)]
pub struct VersionUsage {
    shards: [RwLock<AHashMap<Box<str>, AtomicU64>>; SHARDS],
    hasher: RandomState,
    anonymous: AtomicU64,
    others: AtomicU64,
}

impl Default for VersionUsage {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| RwLock::default());
        Self { shards, hasher: RandomState::new(), anonymous: AtomicU64::new(0), others: AtomicU64::new(0) }
    }
}

impl VersionUsage {
    /// Counts a request of a consumer, or of none.
    pub fn count(&self, consumer: Option<&str>) {
        let Some(consumer) = consumer else {
            self.anonymous.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let shard = &self.shards[self.hasher.hash_one(consumer) as usize % SHARDS];
        if let Some(count) = shard.read().get(consumer) {
            count.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut table = shard.write();
        let is_full = table.len() >= MAX_CONSUMERS / SHARDS && !table.contains_key(consumer);
        let count = if is_full { &self.others } else { &*table.entry(consumer.into()).or_default() };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts by consumer, those above 0.
    fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for shard in &self.shards {
            let shard = shard.read();
            counts.extend(shard.iter().map(|(name, count)| (name.to_string(), count.load(Ordering::Relaxed))));
        }
        for (name, count) in [(ANONYMOUS, &self.anonymous), (OTHER, &self.others)] {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                counts.insert(name.to_owned(), count);
            }
        }
        counts
    }
}

/// The counts of all versions, by API and version.
pub type AllVersions = BTreeMap<(String, String), Arc<VersionUsage>>;

/// Returns the family of all counts.
pub(super) fn family(all: &AllVersions) -> MetricFamily {
    let mut series = Series::of(&API_REQUESTS);
    for ((api, version), usage) in all {
        usage.counts().iter().for_each(|(consumer, count)| series.add(&[api, consumer, version], *count as f64));
    }
    series.family()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_have_counts_of_their_own_up_to_the_maximum() {
        let usage = VersionUsage::default();
        usage.count(None);
        (0..3).for_each(|_| usage.count(Some("one")));
        (0..3 * MAX_CONSUMERS).for_each(|number| usage.count(Some(&format!("c{number}"))));
        let counts = usage.counts();
        assert_eq!((counts[ANONYMOUS], counts["one"]), (1, 3));
        assert!(counts.len() <= MAX_CONSUMERS + 2, "{}", counts.len());
        assert_eq!(counts.values().sum::<u64>(), 4 + 3 * MAX_CONSUMERS as u64);
    }
}
