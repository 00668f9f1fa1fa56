//! A cache as operators see it.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use smallvec::SmallVec;

use super::Cache;
use super::counts::LookupOutcome;
use super::head::{StoredHead, StoredKey};
use super::purges::Standing;

/// The most entries of a URL that are shown.
const MAX_SHOWN: usize = 100;

/// The state of a cache.
#[derive(Clone, Debug)]
pub struct CacheView {
    /// The name.
    pub name: String,
    /// Entries, bytes and the limit in memory.
    pub memory: (usize, u64, u64),
    /// Files, bytes and the limit on disk, if it has files.
    pub disk: Option<(usize, u64, u64)>,
    /// Whether all files are known.
    pub is_scanned: bool,
    /// Responses that wait to be written to disk.
    pub waiting: usize,
    /// Fills under way.
    pub fills: usize,
    /// Look-ups by their outcomes.
    pub lookups: Vec<(&'static str, u64)>,
    /// Responses that were stored.
    pub stored: u64,
    /// Evictions from memory.
    pub evicted: u64,
    /// Purges.
    pub purges: u64,
    /// Of the disk: evictions, damaged files, failures, and responses that were not written.
    pub disk_counts: [u64; 4],
}

/// An entry of a URL.
#[derive(Clone, Debug)]
pub struct EntryView {
    /// The key.
    pub key: StoredKey,
    /// The variant.
    pub variant: Option<StoredKey>,
    /// The head.
    pub head: std::sync::Arc<StoredHead>,
    /// The length of the body.
    pub length: u64,
    /// Since when it is stale by a soft purge.
    pub stale_since: Option<SystemTime>,
}

impl Cache {
    /// Returns the state.
    pub fn view(&self) -> CacheView {
        let (mut entries, mut fills) = (0, 0);
        for shard in self.memory.shards() {
            let shard = shard.read();
            entries += shard.slots.count();
            fills += shard.fills.values().map(SmallVec::len).sum::<usize>();
        }
        let (disk, [stored, evicted, purges]) = (self.disk.get(), self.counts.others());
        let counts = disk.map(|disk| {
            let counts = disk.counts();
            [&counts.evicted, &counts.damaged, &counts.failures, &counts.not_written]
                .map(|count| count.load(Ordering::Relaxed))
        });
        let lookups = LookupOutcome::ALL.into_iter().zip(self.counts.lookups());
        CacheView {
            name: self.name.clone(),
            memory: (entries, self.memory.budget.used(), self.memory.budget.limit()),
            disk: disk.map(super::disk::Disk::size),
            is_scanned: disk.is_none_or(super::disk::Disk::is_scanned),
            waiting: disk.map_or(0, super::disk::Disk::waiting),
            fills,
            lookups: lookups.map(|((_, label), count)| (label, count)).collect(),
            stored,
            evicted,
            purges,
            disk_counts: counts.unwrap_or_default(),
        }
    }

    /// Returns the entries of a URL that are in memory. It looks at all entries, and takes a while.
    pub fn entries_of(&self, url: &str) -> Vec<EntryView> {
        let mut found = Vec::new();
        for shard in self.memory.shards() {
            let shard = shard.read();
            for (key, variant, stored) in shard.slots.all().filter(|(_, _, stored)| &*stored.head.url == url) {
                let stale_since = match self.purges.standing(&stored.marks, url) {
                    Standing::Dead => continue,
                    Standing::Valid => None,
                    Standing::Stale(since) => Some(since),
                };
                if found.len() < MAX_SHOWN {
                    let head = std::sync::Arc::clone(&stored.head);
                    found.push(EntryView { key, variant, head, length: stored.body.length, stale_since });
                }
            }
        }
        found
    }
}
