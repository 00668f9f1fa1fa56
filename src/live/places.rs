//! The places of a limit of concurrency: how many requests are under way, by key.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// The number of requests under way by key. A key is there only while one of its requests is, so that their number is
/// that of requests at most.
#[derive(Debug)]
pub struct Places {
    shards: Box<[Mutex<AHashMap<Arc<[u8]>, u32>>]>,
    hasher: RandomState,
}

impl Default for Places {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

/// The place of a request, which is free again once this is dropped.
#[derive(Debug)]
pub struct TakenPlace {
    places: Arc<Places>,
    key: Arc<[u8]>,
}

impl Places {
    fn shard(&self, key: &[u8]) -> &Mutex<AHashMap<Arc<[u8]>, u32>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Takes a place of `key`, if fewer than `most` are taken. Returns also how many are taken now.
    pub fn take(self: &Arc<Self>, key: &[u8], most: u32) -> (Option<TakenPlace>, u32) {
        let mut shard = self.shard(key).lock();
        let known = shard.get_key_value(key).map(|(key, taken)| (Arc::clone(key), *taken));
        let (key, taken) = known.unwrap_or_else(|| (key.into(), 0));
        if taken >= most {
            return (None, taken);
        }
        shard.insert(Arc::clone(&key), taken + 1);
        (Some(TakenPlace { places: Arc::clone(self), key }), taken + 1)
    }

    /// Returns the number of keys.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Drop for TakenPlace {
    fn drop(&mut self) {
        let mut shard = self.places.shard(&self.key).lock();
        if let Some(taken) = shard.get_mut(&self.key) {
            *taken -= 1;
            if *taken == 0 {
                shard.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_limit_are_taken_and_nothing_is_left_behind() {
        let places = Arc::new(Places::default());
        let most_at_once = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..16_u8 {
                let (places, most_at_once) = (&places, &most_at_once);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let (place, taken) = places.take(&[thread % 2], 3);
                        assert!(taken <= 3);
                        most_at_once.fetch_max(taken, std::sync::atomic::Ordering::Relaxed);
                        drop(place);
                    }
                });
            }
        });
        assert_eq!(places.len(), 0);
        let held: Vec<_> = (0..3).map(|_| places.take(b"a", 3).0.expect("a place")).collect();
        assert!(places.take(b"a", 3).0.is_none() && places.take(b"b", 3).0.is_some());
        drop(held);
        assert!(places.take(b"a", 1).0.is_some());
    }
}
