//! The store of the HTTP cache: heads and bodies by key and variant, in memory and on disk, bounded in bytes.
//!
//! Nothing here knows when a response may be stored or served (RFC 9111): a head says until when it is fresh, and the
//! store keeps it, finds it, evicts it and purges it. A reader may follow a response while it is being received.
//!
//! # What must never be
//!
//! * A lock that all workers share on the way of a hit, or a copy of a body there.
//! * A response that was purged, once the purge has returned.

mod body;
mod budget;
mod filling;
mod head;
mod memory;
mod purges;
mod slots;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use body::{BodyError, StoredBody, StoredResponse, StoredTier};
pub use filling::Filling;
pub use head::{HeadMemo, StoredHead, StoredKey};
pub use purges::{Generation, Purge};

use budget::Reserved;
use filling::{Fill, FillStart};
use memory::{Memory, Stored, StoredParts};
use purges::{Purges, Standing};

/// The size of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most bytes in memory: heads, bodies, the index, and what is being received.
    pub memory: u64,
    /// The most bytes of one body.
    pub max_object: u64,
}

/// A cache.
#[derive(Debug)]
pub struct Cache {
    name: String,
    memory: Memory,
    purges: Purges,
    max_object: AtomicU64,
    next_fill: AtomicU64,
}

impl Cache {
    /// Returns an empty cache.
    pub fn new(name: &str, settings: &CacheSettings) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            memory: Memory::new(settings.memory),
            purges: Purges::default(),
            max_object: AtomicU64::new(settings.max_object),
            next_fill: AtomicU64::new(1),
        })
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the most bytes of one body: a longer one is passed on and not stored.
    pub fn max_object(&self) -> u64 {
        self.max_object.load(Ordering::Relaxed)
    }

    /// Changes the size. What no longer fits is evicted.
    pub fn resize(&self, settings: &CacheSettings) {
        self.max_object.store(settings.max_object, Ordering::Relaxed);
        self.memory.budget.set_limit(settings.memory);
        self.memory.trim();
    }

    /// Returns the present generation. A request takes it when it begins, and what it stores has it: purges that come
    /// later reach it.
    pub fn generation(&self) -> Generation {
        self.purges.generation()
    }

    /// Finds the response of a key; `variant` is the digest of the request's fields that select it, if it varies. A
    /// response that is still being received is found too.
    pub async fn find(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<StoredResponse> {
        self.find_in_memory(key, variant)
    }

    /// Finds what is in memory.
    fn find_in_memory(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<StoredResponse> {
        let (found, fill) = {
            let shard = self.memory.shard(key).read();
            let fill = if shard.fills.is_empty() { None } else { shard.fills.get(key) };
            let open = |fill: &&Arc<Fill>| fill.variant.as_ref() == variant && fill.is_shared();
            let fill = fill.and_then(|fills| fills.iter().rev().find(open)).cloned();
            (shard.slots.find(key, variant).cloned(), fill)
        };
        // What is being received is newer.
        let following = fill.and_then(|fill| {
            let standing = self.purges.standing(fill.marks.as_ref()?, &fill.head.url);
            if standing == Standing::Dead {
                return None;
            }
            let body = StoredBody::of_fill(fill.reader()?);
            Some((Arc::clone(&fill.head), body, standing, StoredTier::Filling))
        });
        let complete = || {
            let stored = found?;
            let standing = self.purges.standing(&stored.marks, &stored.head.url);
            let body = StoredBody::of_parts(Arc::clone(&stored.body));
            Some((Arc::clone(&stored.head), body, standing, StoredTier::Memory))
        };
        let (head, body, standing, tier) = following.or_else(complete)?;
        match standing {
            Standing::Dead => None,
            Standing::Valid => Some(StoredResponse { head, body, stale_since: None, tier }),
            Standing::Stale(since) => Some(StoredResponse { head, body, stale_since: Some(since), tier }),
        }
    }

    /// Begins to store a response, whose request began in that generation.
    pub fn begin(
        self: &Arc<Self>,
        key: StoredKey,
        variant: Option<StoredKey>,
        head: StoredHead,
        started: Generation,
    ) -> Filling {
        let mut reserved = Reserved::nothing(&self.memory.budget);
        let has_memory = self.reserve(&mut reserved, head.cost());
        let start = FillStart {
            id: self.next_fill.fetch_add(1, Ordering::Relaxed),
            variant,
            marks: self.purges.marks(&head, started),
            head,
            reserved: has_memory.then_some(reserved),
        };
        Filling::new(Arc::clone(self), key, start)
    }

    /// Returns a reader of the fill with that number, from its beginning. A purge does not end it for those who read
    /// it already.
    pub fn follow(&self, key: &StoredKey, fill: u64) -> Option<StoredResponse> {
        let fill = {
            let shard = self.memory.shard(key).read();
            Arc::clone(shard.fills.get(key)?.iter().find(|known| known.id == fill)?)
        };
        let body = StoredBody::of_fill(fill.reader()?);
        Some(StoredResponse { head: Arc::clone(&fill.head), body, stale_since: None, tier: StoredTier::Filling })
    }

    /// Replaces the head of a stored response after a validation (RFC 9111, section 4.3.4), whose request began in
    /// that generation. Returns false if the response is gone.
    pub fn replace_head(
        &self,
        key: &StoredKey,
        variant: Option<&StoredKey>,
        head: StoredHead,
        started: Generation,
    ) -> bool {
        let mut reserved = Reserved::nothing(&self.memory.budget);
        let Some(marks) = self.purges.marks(&head, started) else { return false };
        if !self.reserve(&mut reserved, head.cost()) {
            return false;
        }
        let mut shard = self.memory.shard(key).write();
        let Some(known) = shard.slots.get_mut(key, variant) else { return false };
        let is_gone = self.purges.standing(&known.marks, &known.head.url) == Standing::Dead
            || self.purges.is_invalidated(key, known.marks.generation());
        if is_gone {
            return false;
        }
        let stored = Stored { head: Arc::new(head), body: Arc::clone(&known.body), marks: Arc::new(marks), reserved };
        *known = Arc::new(stored);
        true
    }

    /// Removes all responses of a key (RFC 9111, section 4.4). What is being received for it is not stored.
    pub async fn invalidate(&self, key: &StoredKey) {
        self.purges.invalidate(key);
        let mut shard = self.memory.shard(key).write();
        let removed = shard.slots.remove_all(key);
        for fill in shard.fills.get(key).into_iter().flatten() {
            fill.is_cancelled.store(true, Ordering::Release);
        }
        drop(shard);
        drop(removed);
    }

    /// Makes a purge. When it returns, no request finds what it reaches; with `soft` it is found, and is stale.
    ///
    /// # Errors
    /// When it cannot be made durable, so that a restart would bring back what is on disk.
    pub async fn purge(&self, purge: &Purge, soft: bool) -> Result<(), String> {
        self.purges.purge(purge, soft);
        Ok(())
    }

    /// Reserves memory, for which others are evicted.
    fn reserve(&self, reserved: &mut Reserved, more: u64) -> bool {
        self.memory.reserve(reserved, more).0
    }

    /// Stores what is complete, unless a purge has reached it. Returns whether it did.
    fn commit(&self, key: StoredKey, fill: &Arc<Fill>, body: StoredParts, reserved: Reserved) -> bool {
        let Some(marks) = fill.marks.clone() else { return false };
        let bytes = reserved.bytes() + body.reserved.bytes();
        let (head, body) = (Arc::clone(&fill.head), Arc::new(body));
        let mut shard = self.memory.shard(&key).write();
        // Under the lock: an invalidation either is seen here, or finds the entry.
        let is_gone = fill.is_cancelled.load(Ordering::Acquire)
            || self.purges.is_invalidated(&key, marks.generation())
            || self.purges.standing(&marks, &head.url) == Standing::Dead;
        if is_gone {
            return false;
        }
        let stored = Arc::new(Stored { head, body, marks, reserved });
        let replaced = shard.slots.insert(key, fill.variant, stored, bytes);
        drop(shard);
        drop(replaced);
        true
    }

    /// Removes a fill that has ended.
    fn end_fill(&self, key: &StoredKey, fill: &Arc<Fill>) {
        let mut shard = self.memory.shard(key).write();
        if let Some(fills) = shard.fills.get_mut(key) {
            fills.retain(|known| known.id != fill.id);
            if fills.is_empty() {
                shard.fills.remove(key);
            }
        }
    }
}
