//! The paces that requests of one key share.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

use crate::rules::limits::{BytePace, Pacer};

const SHARDS: usize = 16;

/// Keys of one shard. Beyond them a request has a pace of its own.
const MAX_KEYS_PER_SHARD: usize = 4_096;

/// The paces of a limit of bandwidth, by key. At the bound those are dropped that no request uses and that have no
/// part under way.
#[derive(Debug)]
pub struct Pacers {
    shards: Box<[Mutex<AHashMap<Box<[u8]>, Arc<Pacer>>>]>,
    hasher: RandomState,
}

impl Default for Pacers {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Pacers {
    /// Returns the pacer of a key. One that had another pace goes on from what is due there.
    pub fn get(&self, key: &[u8], pace: BytePace, now: u64) -> Arc<Pacer> {
        let mut shard = self.shards[self.hasher.hash_one(key) as usize % SHARDS].lock();
        let due = match shard.get(key) {
            Some(known) if known.pace() == pace => return Arc::clone(known),
            Some(known) => known.due(),
            None => 0,
        };
        let fresh = Arc::new(Pacer::new(pace, due));
        if shard.len() >= MAX_KEYS_PER_SHARD {
            shard.retain(|_, pacer| Arc::strong_count(pacer) > 1 || pacer.due() > now);
        }
        if shard.len() < MAX_KEYS_PER_SHARD {
            shard.insert(key.into(), Arc::clone(&fresh));
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_pace_and_keys_are_bounded() {
        let (pacers, pace) = (Pacers::default(), BytePace::new(1_000, 1_000));
        let now = 1_000_000_000;
        assert_eq!(pacers.get(b"a", pace, now).delay(2_000, now), 1_000_000_000);
        assert_eq!(pacers.get(b"a", pace, now).delay(1_000, now), 2_000_000_000);
        assert_eq!(pacers.get(b"b", pace, now).delay(1_000, now), 0);
        // A reload with another rate forgets nothing.
        assert_eq!(pacers.get(b"a", BytePace::new(2_000, 1_000), now).delay(1_000, now), 3_000_000_000);
        for key in 0..200_000_u32 {
            pacers.get(&key.to_be_bytes(), pace, now);
        }
        let kept: usize = pacers.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(kept <= SHARDS * MAX_KEYS_PER_SHARD);
        assert!(pacers.get(b"a", BytePace::new(2_000, 1_000), now).due() > now, "one that is due is kept");
    }
}
