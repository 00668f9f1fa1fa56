//! The targets of clients' sessions, by a hash of the session's key.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// The number of shards, so that workers seldom contend.
const SHARDS: usize = 16;

/// The most sessions of a shard. Over it the oldest of a few are dropped: their clients are balanced anew.
const MAX_SESSIONS_PER_SHARD: usize = 32_768;

#[derive(Clone, Copy, Debug)]
struct StoredSession {
    tag: u128,
    seen: u64,
}

/// The sessions of one upstream: at most 524,288, about 40 bytes each.
#[derive(Debug)]
pub struct Sessions {
    shards: [Mutex<HashMap<u64, StoredSession, ahash::RandomState>>; SHARDS],
    /// When they were last handed to a successor.
    given: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(ahash::RandomState::new())));
        Self { shards, given: AtomicU64::new(0) }
    }
}

impl Sessions {
    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, StoredSession, ahash::RandomState>> {
        &self.shards[(key >> 60) as usize % SHARDS]
    }

    /// Returns the tag of a key's target, if the session has been used within `ttl` nanoseconds.
    pub fn find(&self, key: u64, ttl: u64, now: u64) -> Option<u128> {
        let mut shard = self.shard(key).lock();
        let session = shard.get_mut(&key).filter(|s| now.saturating_sub(s.seen) <= ttl)?;
        session.seen = now;
        Some(session.tag)
    }

    /// Binds a key to a target.
    pub fn bind(&self, key: u64, tag: u128, now: u64) {
        let mut shard = self.shard(key).lock();
        if shard.len() >= MAX_SESSIONS_PER_SHARD && !shard.contains_key(&key) {
            // A hash map has no order: its first few are as good as random ones.
            let oldest = shard.iter().take(8).min_by_key(|(_, s)| s.seen).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                shard.remove(&oldest);
            }
        }
        shard.insert(key, StoredSession { tag, seen: now });
    }

    /// Returns the sessions for a hand-over, each with its key, its tag and the nanoseconds since it was used: all of
    /// them, or those that were used since the last call.
    pub fn for_successor(&self, whole: bool, now: u64) -> Vec<(u64, u128, u64)> {
        let before = self.given.swap(now, Ordering::AcqRel);
        let since = if whole { 0 } else { before };
        let mut given = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let fresh = shard.iter().filter(|(_, s)| s.seen >= since);
            given.extend(fresh.map(|(key, s)| (*key, s.tag, now.saturating_sub(s.seen))));
        }
        given
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_last_while_they_are_used() {
        let sessions = Sessions::default();
        sessions.bind(7, 1, 0);
        assert_eq!(sessions.find(7, 10, 10), Some(1));
        assert_eq!(sessions.find(7, 10, 20), Some(1));
        assert_eq!(sessions.find(7, 10, 31), None);
        assert_eq!(sessions.find(8, 10, 0), None);
    }

    #[test]
    fn there_is_a_bound() {
        let sessions = Sessions::default();
        for key in 0..MAX_SESSIONS_PER_SHARD as u64 + 100 {
            sessions.bind(key, 1, key);
        }
        assert_eq!(sessions.shards[0].lock().len(), MAX_SESSIONS_PER_SHARD);
    }
}
