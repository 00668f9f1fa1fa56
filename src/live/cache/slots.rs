//! An index of entries by key and variant, with the order in which they are evicted: S3-FIFO ("FIFO queues are all you
//! need for cache eviction", SOSP 2023).
//!
//! New entries pass through a short queue, and only those that are asked for again there reach the long one, so that a
//! scan evicts nothing that is in use. A hit changes one byte of the entry and needs no exclusive lock.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, Ordering};

use ahash::{AHashMap, AHashSet};
use smallvec::SmallVec;

use super::head::StoredKey;

/// The most variants of one key, that without one included.
pub const MAX_VARIANTS: usize = 16;

/// The share of the short queue: one in ten bytes.
const SMALL_SHARE: u64 = 10;

/// The most hits of an entry that count.
const MAX_FREQUENCY: u8 = 3;

/// An entry in the index.
#[derive(Debug)]
pub struct Held<T> {
    id: u64,
    variant: Option<StoredKey>,
    frequency: AtomicU8,
    is_small: bool,
    bytes: u64,
    /// The entry.
    pub value: T,
}

/// A place in a queue. The entry may have been removed meanwhile.
#[derive(Clone, Copy, Debug)]
struct QueuePlace {
    key: StoredKey,
    id: u64,
}

type Variants<T> = SmallVec<[Held<T>; 1]>;

/// A part of an index.
#[derive(Debug)]
pub struct Slots<T> {
    groups: AHashMap<StoredKey, Variants<T>>,
    small: VecDeque<QueuePlace>,
    main: VecDeque<QueuePlace>,
    /// The keys that the short queue has evicted a while ago.
    ghosts: VecDeque<u64>,
    ghost_set: AHashSet<u64>,
    next_id: u64,
    count: usize,
    small_bytes: u64,
    bytes: u64,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            groups: AHashMap::new(),
            small: VecDeque::new(),
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_set: AHashSet::new(),
            next_id: 0,
            count: 0,
            small_bytes: 0,
            bytes: 0,
        }
    }
}

fn ghost(key: &StoredKey, variant: Option<&StoredKey>) -> u64 {
    key.number() ^ variant.map_or(0, |variant| variant.number().rotate_left(32))
}

impl<T> Slots<T> {
    /// Returns the number of entries.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the bytes of all entries.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns an entry, and counts the hit.
    pub fn find(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<&T> {
        let held = self.held(key, variant)?;
        let frequency = held.frequency.load(Ordering::Relaxed);
        if frequency < MAX_FREQUENCY {
            held.frequency.store(frequency + 1, Ordering::Relaxed);
        }
        Some(&held.value)
    }

    /// Returns an entry, and counts nothing.
    pub fn peek(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<&T> {
        self.held(key, variant).map(|held| &held.value)
    }

    fn held(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<&Held<T>> {
        self.groups.get(key)?.iter().find(|held| held.variant.as_ref() == variant)
    }

    /// Returns an entry, to change it.
    pub fn get_mut(&mut self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<&mut T> {
        let group = self.groups.get_mut(key)?;
        group.iter_mut().find(|held| held.variant.as_ref() == variant).map(|held| &mut held.value)
    }

    /// Returns the entries of a key, each with its variant.
    pub fn variants(&self, key: &StoredKey) -> impl Iterator<Item = (Option<StoredKey>, &T)> {
        self.groups.get(key).into_iter().flatten().map(|held| (held.variant, &held.value))
    }

    /// Returns all entries.
    pub fn all(&self) -> impl Iterator<Item = (StoredKey, Option<StoredKey>, &T)> {
        self.groups.iter().flat_map(|(key, group)| group.iter().map(|held| (*key, held.variant, &held.value)))
    }

    /// Adds an entry. Returns the one that it replaces, or for which there is no room among the variants of its key,
    /// with its variant.
    pub fn insert(
        &mut self,
        key: StoredKey,
        variant: Option<StoredKey>,
        value: T,
        bytes: u64,
    ) -> Option<(Option<StoredKey>, T)> {
        let (replaced, known) = match self.remove(&key, variant.as_ref()) {
            Some((value, frequency)) => (Some((variant, value)), frequency > 0),
            None => (self.remove_oldest_variant(&key), false),
        };
        let is_small = !known && !self.forget_ghost(ghost(&key, variant.as_ref()));
        let id = self.next_id;
        self.next_id += 1;
        let queue = if is_small { &mut self.small } else { &mut self.main };
        queue.push_back(QueuePlace { key, id });
        self.small_bytes += if is_small { bytes } else { 0 };
        self.bytes += bytes;
        self.count += 1;
        let held = Held { id, variant, frequency: AtomicU8::new(0), is_small, bytes, value };
        self.groups.entry(key).or_default().push(held);
        self.compact();
        replaced
    }

    /// Returns the oldest variant of a key that has as many as it may, which is removed. The one without a variant
    /// stays, since the others are found by it.
    fn remove_oldest_variant(&mut self, key: &StoredKey) -> Option<(Option<StoredKey>, T)> {
        let group = self.groups.get(key).filter(|group| group.len() >= MAX_VARIANTS)?;
        let oldest = group.iter().filter(|held| held.variant.is_some()).min_by_key(|held| held.id)?.variant;
        self.remove(key, oldest.as_ref()).map(|(value, _)| (oldest, value))
    }

    /// Removes an entry. Returns it with the number of its hits.
    pub fn remove(&mut self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<(T, u8)> {
        let group = self.groups.get_mut(key)?;
        let at = group.iter().position(|held| held.variant.as_ref() == variant)?;
        let held = group.swap_remove(at);
        if group.is_empty() {
            self.groups.remove(key);
        }
        self.count_out(held.is_small, held.bytes);
        Some((held.value, held.frequency.load(Ordering::Relaxed)))
    }

    /// Removes all entries of a key.
    pub fn remove_all(&mut self, key: &StoredKey) -> Vec<(Option<StoredKey>, T)> {
        let group = self.groups.remove(key).unwrap_or_default();
        group.iter().for_each(|held| self.count_out(held.is_small, held.bytes));
        group.into_iter().map(|held| (held.variant, held.value)).collect()
    }

    /// Removes the entries for which `stays` is false.
    pub fn retain(&mut self, mut stays: impl FnMut(&StoredKey, &T) -> bool) -> Vec<(StoredKey, Option<StoredKey>, T)> {
        let mut gone = Vec::new();
        for (key, group) in &self.groups {
            gone.extend(group.iter().filter(|held| !stays(key, &held.value)).map(|held| (*key, held.variant)));
        }
        let removed = gone.into_iter().filter_map(|(key, variant)| {
            let (value, _) = self.remove(&key, variant.as_ref())?;
            Some((key, variant, value))
        });
        removed.collect()
    }

    fn count_out(&mut self, is_small: bool, bytes: u64) {
        self.small_bytes -= if is_small { bytes } else { 0 };
        self.bytes -= bytes;
        self.count -= 1;
    }

    /// Evicts one entry, and returns it.
    pub fn evict(&mut self) -> Option<(StoredKey, Option<StoredKey>, T)> {
        while self.count > 0 {
            let from_small = self.small_bytes * SMALL_SHARE > self.bytes || self.bytes == self.small_bytes;
            let (first, second) =
                if from_small { (&mut self.small, &mut self.main) } else { (&mut self.main, &mut self.small) };
            let place = first.pop_front().or_else(|| second.pop_front())?;
            if let Some(evicted) = self.evict_from(place) {
                return Some(evicted);
            }
        }
        None
    }

    /// Evicts the entry at a place, unless it has been asked for.
    fn evict_from(&mut self, place: QueuePlace) -> Option<(StoredKey, Option<StoredKey>, T)> {
        let group = self.groups.get_mut(&place.key)?;
        let held = group.iter_mut().find(|held| held.id == place.id)?;
        let frequency = held.frequency.get_mut();
        if *frequency > 0 {
            *frequency = if held.is_small { 0 } else { *frequency - 1 };
            if held.is_small {
                self.small_bytes -= held.bytes;
                held.is_small = false;
            }
            self.main.push_back(place);
            return None;
        }
        let (variant, is_small) = (held.variant, held.is_small);
        let (value, _) = self.remove(&place.key, variant.as_ref())?;
        if is_small {
            self.add_ghost(ghost(&place.key, variant.as_ref()));
        }
        Some((place.key, variant, value))
    }

    fn add_ghost(&mut self, hash: u64) {
        if self.ghost_set.insert(hash) {
            self.ghosts.push_back(hash);
        }
        while self.ghosts.len() > self.count.max(16) {
            if let Some(oldest) = self.ghosts.pop_front() {
                self.ghost_set.remove(&oldest);
            }
        }
    }

    fn forget_ghost(&mut self, hash: u64) -> bool {
        // Its place in the queue stays until it is the oldest.
        self.ghost_set.remove(&hash)
    }

    /// Removes the places of entries that are gone, once they are as many as the entries.
    fn compact(&mut self) {
        if self.small.len() + self.main.len() <= 2 * self.count + 64 {
            return;
        }
        let groups = &self.groups;
        let is_there = |place: &QueuePlace| groups.get(&place.key).is_some_and(|g| g.iter().any(|h| h.id == place.id));
        self.small.retain(is_there);
        self.main.retain(is_there);
    }
}
