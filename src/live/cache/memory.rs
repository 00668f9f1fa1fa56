//! The memory store: what is complete, and what is being filled.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::AHashMap;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::budget::{Budget, Reserved};
use super::filling::Fill;
use super::head::{StoredHead, StoredKey};
use super::purges::Marks;
use super::slots::Slots;
use bytes::Bytes;

const SHARDS: usize = 64;

/// A complete response in memory.
#[derive(Debug)]
pub struct Stored {
    /// Its head.
    pub head: Arc<StoredHead>,
    /// Its body.
    pub body: Arc<StoredParts>,
    /// By what it is purged.
    pub marks: Arc<Marks>,
    /// The memory of all but the body.
    pub reserved: Reserved,
}

/// A body in memory.
#[derive(Debug)]
pub struct StoredParts {
    /// The parts, none of which is empty.
    pub parts: SmallVec<[Bytes; 1]>,
    /// Their length.
    pub length: u64,
    /// Their memory.
    pub reserved: Reserved,
}

/// A part of the memory store.
#[derive(Debug, Default)]
pub struct MemoryShard {
    /// What is complete.
    pub slots: Slots<Arc<Stored>>,
    /// The fills by their keys, the latest last.
    pub fills: AHashMap<StoredKey, SmallVec<[Arc<Fill>; 1]>>,
}

/// The memory store.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[RwLock<MemoryShard>]>,
    /// The shard of which an entry is evicted next.
    turn: AtomicUsize,
    /// The memory of all that is stored and filled.
    pub budget: Arc<Budget>,
}

impl Memory {
    /// Returns a store of that many bytes.
    pub fn new(limit: u64) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, turn: AtomicUsize::new(0), budget: Budget::new(limit) }
    }

    /// Returns the shard of a key.
    pub fn shard(&self, key: &StoredKey) -> &RwLock<MemoryShard> {
        &self.shards[(key.number() >> 40) as usize % SHARDS]
    }

    /// Returns all shards.
    pub fn shards(&self) -> &[RwLock<MemoryShard>] {
        &self.shards
    }

    /// Reserves more memory, for which entries are evicted. Returns false if it is too much, or what is evicted is
    /// still being read. No lock of a shard may be held. Returns the number of evicted entries too.
    pub fn reserve(&self, reserved: &mut Reserved, more: u64) -> (bool, u64) {
        let (mut freed, mut evicted) = (0, 0);
        while !reserved.try_grow(more) {
            // What is evicted frees its memory with its last reader: no more is evicted than could be enough.
            if more > self.budget.limit() || freed > 2 * more + (1 << 20) {
                return (false, evicted);
            }
            let Some(bytes) = self.evict() else { return (false, evicted) };
            freed += bytes;
            evicted += 1;
        }
        (true, evicted)
    }

    /// Evicts one entry. Returns its size; `None` if there is none.
    fn evict(&self) -> Option<u64> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        (0..SHARDS).find_map(|step| {
            let evicted = self.shards[(first + step) % SHARDS].write().slots.evict();
            evicted.map(|(_, _, stored)| stored.reserved.bytes() + stored.body.reserved.bytes())
        })
    }

    /// Evicts entries until all are within the limit. Returns their number.
    pub fn trim(&self) -> u64 {
        let mut evicted = 0;
        while self.budget.used() > self.budget.limit() && self.evict().is_some() {
            evicted += 1;
        }
        evicted
    }
}
