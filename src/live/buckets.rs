//! The state of one rate limit: a number per key, exact, bounded, in shards.

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

use crate::rules::limits::{Decision, Gcra};

const SHARDS: usize = 16;

/// Keys that one shard holds: 16 × 65536 is about a million keys.
const MAX_KEYS_PER_SHARD: usize = 65_536;

/// The theoretical arrival times of all keys of a limit.
///
/// A key takes about 100 bytes with a short name, so the bound is some 100 MB. Over it the keys that
/// are back at their full burst go first, which changes nothing for them; if there are none, the one
/// that is nearest to it.
#[derive(Debug)]
pub struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Shard {
    keys: AHashMap<Box<[u8]>, u64>,
    /// When it was last cleared of keys that are back at their full burst.
    cleared: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }
}

impl Buckets {
    /// Counts one more for `key` at `now` (nanoseconds), if the limit allows it. Decision and
    /// decrement are one step under the shard's lock, so a limit of N admits N and not N+1.
    pub fn admit(&self, gcra: Gcra, key: &[u8], now: u64) -> Decision {
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        let mut shard = self.shards[shard].lock();
        if let Some(tat) = shard.keys.get_mut(key) {
            let decision = gcra.decide(*tat, now);
            if let Some(next) = decision.tat {
                *tat = next;
            }
            return decision;
        }
        let decision = gcra.decide(0, now);
        if let Some(tat) = decision.tat {
            if shard.keys.len() >= MAX_KEYS_PER_SHARD {
                evict(&mut shard, now);
            }
            shard.keys.insert(key.into(), tat);
        }
        decision
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().keys.len()).sum()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Makes room: at most once a second by a look at all keys, otherwise by a sample, so that a flood of
/// keys costs the same for each.
fn evict(shard: &mut Shard, now: u64) {
    const SECOND: u64 = 1_000_000_000;
    if now.saturating_sub(shard.cleared) >= SECOND {
        shard.keys.retain(|_, tat| *tat > now);
        shard.cleared = now;
    }
    if shard.keys.len() >= MAX_KEYS_PER_SHARD {
        let nearest = shard.keys.iter().take(64).min_by_key(|(_, tat)| **tat).map(|(key, _)| key.clone());
        if let Some(key) = nearest {
            shard.keys.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    fn limit(count: u32) -> Gcra {
        Gcra::new(crate::notation::Rate { count, period: Duration::from_secs(3600) }, None)
    }

    #[test]
    fn exact_under_a_hundred_threads() {
        let (buckets, admitted) = (Buckets::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        if buckets.admit(limit(77), b"one", 1).tat.is_some() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 77);
    }

    #[test]
    fn keys_are_bounded() {
        let buckets = Buckets::default();
        let hour = 3_600_000_000_000;
        for key in 0..(SHARDS * MAX_KEYS_PER_SHARD + 50_000) as u64 {
            buckets.admit(limit(1), &key.to_be_bytes(), hour + key);
        }
        assert!(buckets.len() <= SHARDS * MAX_KEYS_PER_SHARD);
    }
}
