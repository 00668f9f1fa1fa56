//! The counts of limits in a hand-over.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ahash::AHashMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::buckets::{BucketShard, Buckets, Entry};
use super::heritable::{HandoverPart, Heritable};
use super::shelf::Shelf;
use crate::exchange::clock;
use crate::rules::limits::Windows;

/// All counts of one limit in a hand-over. Keys are in base64; the numbers behind them are the indexes of their
/// windows.
#[derive(Serialize, Deserialize)]
struct SavedBuckets {
    limit: String,
    windows: Vec<Windows>,
    /// The states of keys, while no other process counts.
    states: Vec<(String, usize, Vec<(u64, u64)>)>,
    /// The costs that were counted for keys since the last hand-over.
    added: Vec<(String, usize, u64)>,
}

impl Buckets {
    /// Returns the states of all keys or of those that have changed, or what was counted since the last call.
    fn collect(&self, limit: String, part: HandoverPart, now: u64) -> SavedBuckets {
        let mut saved = SavedBuckets { limit, windows: Vec::new(), states: Vec::new(), added: Vec::new() };
        if part == HandoverPart::Late && !self.noted.swap(false, Ordering::AcqRel) {
            return saved;
        }
        let mut indexes = AHashMap::new();
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            let added = shard.added.replace(AHashMap::new());
            let (keys, known) = (&shard.keys, &shard.windows);
            let mut windows_of = |entry: &Entry| {
                let windows = known.get(&entry.tag())?;
                let index = *indexes.entry(entry.tag()).or_insert_with(|| {
                    saved.windows.push(Windows::clone(windows));
                    saved.windows.len() - 1
                });
                Some((index, windows))
            };
            let mut state = |key: &[u8], entry: &Entry| {
                let (index, windows) = windows_of(entry)?;
                let states = entry.states();
                (!windows.is_idle(states, now)).then(|| (STANDARD.encode(key), index, windows.saved(states, now)))
            };
            match (part, added) {
                (HandoverPart::Late, Some(added)) => {
                    let mut more = |key: &[u8], more| Some((STANDARD.encode(key), windows_of(keys.get(key)?)?.0, more));
                    saved.added.extend(added.iter().filter_map(|(key, count)| more(key, *count)));
                }
                (HandoverPart::Last, Some(added)) => {
                    saved.states.extend(added.keys().filter_map(|key| state(key, keys.get(key)?)));
                }
                _ => saved.states.extend(keys.iter().filter_map(|(key, entry)| state(key, entry))),
            }
        }
        saved
    }

    /// Takes over counts of another process. Returns the number of keys.
    fn restore(&self, saved: &SavedBuckets, now: u64) -> usize {
        let windows: Vec<Arc<Windows>> = saved.windows.iter().cloned().map(Arc::new).collect();
        let mut taken = 0;
        for (key, index, states) in &saved.states {
            let (Ok(key), Some(windows)) = (STANDARD.decode(key), windows.get(*index)) else { continue };
            self.shard(&key).lock().restore(windows, &key, now, |own| *own = windows.restored(states, own, now));
            taken += 1;
        }
        for (key, index, more) in &saved.added {
            let (Ok(key), Some(windows)) = (STANDARD.decode(key), windows.get(*index)) else { continue };
            self.shard(&key).lock().add(windows, &key, now, *more);
            taken += 1;
        }
        taken
    }
}

impl BucketShard {
    fn restore(
        &mut self,
        windows: &Arc<Windows>,
        key: &[u8],
        now: u64,
        change: impl FnOnce(&mut Vec<crate::rules::limits::KeyState>),
    ) {
        // A key that is counted by other windows here already was counted by them after the predecessor's.
        let known = self.keys.get(key).filter(|entry| entry.tag() == windows.tag());
        let mut states = known.map(|entry| entry.states().to_vec());
        if states.is_none() && (self.keys.contains_key(key) || !self.has_room(now)) {
            return;
        }
        let states = states.get_or_insert_with(|| vec![Default::default(); windows.list().len()]);
        change(states);
        self.insert(windows, key, states);
    }

    /// Counts by the windows that the key has here, which may be others than the predecessor's.
    fn add(&mut self, windows: &Arc<Windows>, key: &[u8], now: u64, more: u64) {
        let known = self.keys.get_mut(key).and_then(|entry| Some((self.windows.get(&entry.tag())?, entry)));
        match known {
            Some((own, entry)) => own.count(entry.states_mut(), now, more),
            None => self.restore(windows, key, now, |states| windows.count(states, now, more)),
        }
    }
}

impl Heritable for Shelf<String, Buckets> {
    fn kind(&self) -> &'static str {
        "rate_limits"
    }

    fn version(&self) -> u32 {
        3
    }

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        let now = clock::now();
        let all = self.all().into_iter().map(|(limit, buckets)| buckets.collect(limit, part, now));
        let given: Vec<SavedBuckets> =
            all.filter(|saved| !saved.states.is_empty() || !saved.added.is_empty()).collect();
        if given.is_empty() { Ok(None) } else { serde_json::to_vec(&given).map(Some) }
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<SavedBuckets> = serde_json::from_slice(form)?;
        let now = clock::now();
        let taken = given.iter().filter_map(|saved| {
            let buckets = self.inherit(&saved.limit, || Arc::new(Buckets::default()))?;
            Some(buckets.restore(saved, now))
        });
        Ok(taken.sum())
    }

    fn cancel(&self) {
        for (_, buckets) in self.all() {
            buckets.shards.iter().for_each(|shard| shard.lock().added = None);
        }
    }

    fn drop_unused(&self) {
        self.drop_unused();
    }
}
