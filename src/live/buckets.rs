//! The state of one rate limit: the states of its windows by key, exact, bounded, in shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

use crate::rules::limits::{KeyState, Windows, WindowsDecision};

const SHARDS: usize = 16;

/// Keys that one shard holds: 16 × 65536 is about a million keys.
const MAX_KEYS_PER_SHARD: usize = 65_536;

/// The keys that are looked at for one to drop.
const EVICTION_SAMPLE: usize = 64;

/// The most windows of one limit that a shard keeps for the states that were counted by them; more than this, and
/// those that no key has are dropped.
const MAX_KNOWN_WINDOWS: usize = 64;

/// The states of all keys of a limit.
///
/// A key of one window takes about 100 bytes, so the bound is some 110 MB. At the bound the keys for which nothing is
/// counted any more are dropped first, which changes nothing for them; if there are none, of a sample the one that is
/// nearest to that and not exhausted. Where all of the sample are exhausted, new keys count together, by a key of
/// their own for each shard: no client that is over its limit is ever let in because others came.
#[derive(Debug)]
pub struct Buckets {
    pub(super) shards: Box<[Mutex<BucketShard>]>,
    hasher: RandomState,
    /// Whether anything was noted for a successor since the last hand-over.
    pub(super) noted: AtomicBool,
}

/// The states of a key, and by which windows they are counted. One window needs no memory of its own.
#[derive(Debug)]
pub(super) enum Entry {
    One { tag: u32, state: [KeyState; 1] },
    Several { tag: u32, states: Box<[KeyState]> },
}

impl Entry {
    pub(super) fn new(tag: u32, states: &[KeyState]) -> Self {
        match states {
            [state] => Self::One { tag, state: [*state] },
            states => Self::Several { tag, states: states.into() },
        }
    }

    pub(super) fn tag(&self) -> u32 {
        let (Self::One { tag, .. } | Self::Several { tag, .. }) = self;
        *tag
    }

    pub(super) fn states(&self) -> &[KeyState] {
        match self {
            Self::One { state, .. } => state,
            Self::Several { states, .. } => states,
        }
    }

    pub(super) fn states_mut(&mut self) -> &mut [KeyState] {
        match self {
            Self::One { state, .. } => state,
            Self::Several { states, .. } => states,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct BucketShard {
    pub(super) keys: AHashMap<Box<[u8]>, Entry>,
    /// The costs that were added to keys since the last hand-over, if there is a successor.
    pub(super) added: Option<AHashMap<Box<[u8]>, u64>>,
    /// The windows by which keys are counted, by their tags.
    pub(super) windows: AHashMap<u32, Arc<Windows>>,
    /// When it was last cleared of keys for which nothing is counted.
    cleared: u64,
}

/// The key that keys for which there is no room count by together. No other key is empty.
const TOGETHER: &[u8] = &[];

impl Default for Buckets {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            noted: AtomicBool::new(false),
        }
    }
}

impl Buckets {
    /// Counts `cost` for `key` at `now` (nanoseconds) in all windows, if each allows it. Decision and count are one
    /// step under the shard's lock, so a limit of N admits N and not N+1.
    pub fn admit(&self, windows: &Arc<Windows>, key: &[u8], cost: u32, now: u64) -> WindowsDecision {
        let mut shard = self.shard(key).lock();
        let shard = &mut *shard;
        let (decision, counted) = match shard.keys.get_mut(key) {
            Some(entry) => {
                if entry.tag() != windows.tag() {
                    carry_over(entry, &mut shard.windows, windows, now);
                }
                (windows.decide(entry.states_mut(), now, cost), key)
            }
            None => shard.admit_new(windows, key, cost, now),
        };
        if let (true, Some(added)) = (decision.is_allowed, &mut shard.added) {
            *added.entry(counted.into()).or_default() += u64::from(cost);
            self.noted.store(true, Ordering::Release);
        }
        decision
    }

    pub(super) fn shard(&self, key: &[u8]) -> &Mutex<BucketShard> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().keys.len()).sum()
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Counts a key by other windows from now on. Its tag leads to those of before, unless they are long forgotten.
fn carry_over(entry: &mut Entry, known: &mut AHashMap<u32, Arc<Windows>>, windows: &Arc<Windows>, now: u64) {
    let states = match known.get(&entry.tag()) {
        Some(before) => windows.carry_over(before, entry.states(), now),
        None => vec![KeyState::default(); windows.list().len()],
    };
    known.entry(windows.tag()).or_insert_with(|| Arc::clone(windows));
    *entry = Entry::new(windows.tag(), &states);
}

impl BucketShard {
    /// Decides on the first request of a key. Returns also the key by which it is counted.
    fn admit_new<'k>(
        &mut self,
        windows: &Arc<Windows>,
        key: &'k [u8],
        cost: u32,
        now: u64,
    ) -> (WindowsDecision, &'k [u8]) {
        let key = if self.has_room(now) { key } else { TOGETHER };
        if let Some(entry) = self.keys.get_mut(key) {
            if entry.tag() != windows.tag() {
                carry_over(entry, &mut self.windows, windows, now);
            }
            return (windows.decide(entry.states_mut(), now, cost), key);
        }
        let mut states = [KeyState::default(); crate::rules::limits::MAX_WINDOWS];
        let states = &mut states[..windows.list().len()];
        let decision = windows.decide(states, now, cost);
        if decision.is_allowed {
            self.insert(windows, key, states);
        }
        (decision, key)
    }

    /// Sets the states of a key, which has room.
    pub(super) fn insert(&mut self, windows: &Arc<Windows>, key: &[u8], states: &[KeyState]) {
        if !self.windows.contains_key(&windows.tag()) {
            self.know(windows);
        }
        self.keys.insert(key.into(), Entry::new(windows.tag(), states));
    }

    fn know(&mut self, windows: &Arc<Windows>) {
        if self.windows.len() >= MAX_KNOWN_WINDOWS && self.windows.len() == self.windows.capacity() {
            let used: ahash::AHashSet<u32> = self.keys.values().map(Entry::tag).collect();
            self.windows.retain(|tag, _| used.contains(tag));
        }
        self.windows.insert(windows.tag(), Arc::clone(windows));
    }

    /// Makes room for a key: at most once a second by a scan of all keys, otherwise by a sample, so that a flood of
    /// keys costs the same for each. Returns false where there is none: all that were looked at are exhausted.
    pub(super) fn has_room(&mut self, now: u64) -> bool {
        const SECOND: u64 = 1_000_000_000;
        if self.keys.len() < MAX_KEYS_PER_SHARD {
            return true;
        }
        let known = &self.windows;
        let windows_of = |entry: &Entry| known.get(&entry.tag());
        if now.saturating_sub(self.cleared) >= SECOND {
            let is_idle = |entry: &Entry| windows_of(entry).is_none_or(|windows| windows.is_idle(entry.states(), now));
            self.keys.retain(|_, entry| !is_idle(entry));
            self.cleared = now;
            if self.keys.len() < MAX_KEYS_PER_SHARD {
                return true;
            }
        }
        let reset = |entry: &Entry| match windows_of(entry) {
            Some(windows) if windows.is_exhausted(entry.states(), now) => None,
            Some(windows) => Some(windows.reset(entry.states(), now)),
            None => Some(0),
        };
        let sample = self.keys.iter().take(EVICTION_SAMPLE).filter_map(|(key, entry)| Some((reset(entry)?, key)));
        let Some(nearest) = sample.min_by_key(|(reset, _)| *reset).map(|(_, key)| key.clone()) else { return false };
        self.keys.remove(&nearest);
        true
    }
}

#[cfg(test)]
#[path = "buckets_tests.rs"]
mod tests;
