//! What is counted of a cache.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::cells::Cells;

/// How a look-up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupOutcome {
    /// It was found in memory.
    Memory,
    /// It was found on disk.
    Disk,
    /// It was found while it is received.
    Filling,
    /// It was not found.
    Miss,
}

impl LookupOutcome {
    /// All of them, in the order of their cells, with their labels.
    pub const ALL: [(Self, &'static str); 4] =
        [(Self::Memory, "memory"), (Self::Disk, "disk"), (Self::Filling, "filling"), (Self::Miss, "miss")];
}

/// The counts of a cache.
#[derive(Debug, Default)]
pub struct CacheCounts {
    lookups: Cells<4>,
    stored: AtomicU64,
    evicted: AtomicU64,
    purges: AtomicU64,
}

impl CacheCounts {
    /// Counts a look-up.
    pub fn lookup(&self, outcome: LookupOutcome) {
        self.lookups.add(outcome as usize, 1);
    }

    /// Counts a response that was stored.
    pub fn stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts evictions from memory.
    pub fn evicted(&self, count: u64) {
        if count > 0 {
            self.evicted.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts a purge.
    pub fn purged(&self) {
        self.purges.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the look-ups in the order of [`LookupOutcome::ALL`].
    pub fn lookups(&self) -> [u64; 4] {
        self.lookups.sums()
    }

    /// Returns the responses that were stored, evictions from memory, and purges.
    pub fn others(&self) -> [u64; 3] {
        [&self.stored, &self.evicted, &self.purges].map(|count| count.load(Ordering::Relaxed))
    }
}
