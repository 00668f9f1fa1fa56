//! Which target a client's session is on, by a hash of what the client comes with.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::heritage::{Heritable, Part};
use super::shelf::Shelf;
use crate::exchange::clock;

/// Shards, so that workers seldom meet.
const SHARDS: usize = 16;

/// The most sessions of a shard. Over it the oldest of a few are forgotten: their clients are balanced
/// anew.
const MAX: usize = 32_768;

#[derive(Clone, Copy, Debug)]
struct Session {
    tag: u128,
    seen: u64,
}

/// The sessions of one upstream: at most 524,288, about 40 bytes each.
#[derive(Debug)]
pub struct Sessions {
    shards: [Mutex<HashMap<u64, Session, ahash::RandomState>>; SHARDS],
    /// When a successor was told of them last.
    given: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(HashMap::with_hasher(ahash::RandomState::new())));
        Self { shards, given: AtomicU64::new(0) }
    }
}

impl Sessions {
    fn shard(&self, key: u64) -> &Mutex<HashMap<u64, Session, ahash::RandomState>> {
        &self.shards[(key >> 60) as usize % SHARDS]
    }

    /// The tag of a key's target, if the session has been used within `ttl` nanoseconds.
    pub fn find(&self, key: u64, ttl: u64, now: u64) -> Option<u128> {
        let mut shard = self.shard(key).lock();
        let session = shard.get_mut(&key).filter(|s| now.saturating_sub(s.seen) <= ttl)?;
        session.seen = now;
        Some(session.tag)
    }

    /// Binds a key to a target.
    pub fn bind(&self, key: u64, tag: u128, now: u64) {
        let mut shard = self.shard(key).lock();
        if shard.len() >= MAX && !shard.contains_key(&key) {
            // A hash map has no order: its first few are as good as drawn.
            let oldest = shard.iter().take(8).min_by_key(|(_, s)| s.seen).map(|(k, _)| *k);
            if let Some(oldest) = oldest {
                shard.remove(&oldest);
            }
        }
        shard.insert(key, Session { tag, seen: now });
    }
}

/// A session in a hand-over: its key, its tag in hexadecimal, and how many nanoseconds ago it was used.
type GivenSession = (u64, String, u64);

/// The sessions of one upstream, in a hand-over.
#[derive(Serialize, Deserialize)]
struct Given {
    upstream: String,
    sessions: Vec<GivenSession>,
}

impl Sessions {
    fn give(&self, part: Part, now: u64) -> Vec<GivenSession> {
        let before = self.given.swap(now, Ordering::AcqRel);
        let since = if part == Part::Whole { 0 } else { before };
        let mut given = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let fresh = shard.iter().filter(|(_, s)| s.seen >= since);
            given.extend(fresh.map(|(key, s)| (*key, format!("{:032x}", s.tag), now.saturating_sub(s.seen))));
        }
        given
    }
}

impl Heritable for Shelf<String, Sessions> {
    fn kind(&self) -> &'static str {
        "sessions"
    }

    fn version(&self) -> u32 {
        1
    }

    fn give(&self, part: Part) -> serde_json::Result<Option<Vec<u8>>> {
        let now = clock::now();
        let all = self.all().into_iter().map(|(upstream, all)| Given { sessions: all.give(part, now), upstream });
        let given: Vec<Given> = all.filter(|given| !given.sessions.is_empty()).collect();
        if given.is_empty() { Ok(None) } else { serde_json::to_vec(&given).map(Some) }
    }

    fn take(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<Given> = serde_json::from_slice(form)?;
        let now = clock::now();
        for upstream in &given {
            let Some(sessions) = self.inherit(&upstream.upstream, || Arc::new(Sessions::default())) else { continue };
            for (key, tag, age) in &upstream.sessions {
                if let Ok(tag) = u128::from_str_radix(tag, 16) {
                    sessions.bind(*key, tag, now.saturating_sub(*age));
                }
            }
        }
        Ok(given.iter().map(|g| g.sessions.len()).sum())
    }

    fn settle(&self) {
        self.settle();
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
    fn a_successor_knows_them_and_their_age() {
        let (old, new): (Shelf<String, Sessions>, Shelf<String, Sessions>) = Default::default();
        let sessions = old.get_or(&"users".to_owned(), Arc::default);
        sessions.bind(7, 1 << 100, clock::now());
        assert_eq!(new.take(&old.give(Part::Whole).expect("given").expect("a form")).expect("taken"), 1);
        sessions.bind(8, 2, clock::now());
        new.take(&old.give(Part::Late).expect("given").expect("a form")).expect("taken");
        let heir = new.get_or(&"users".to_owned(), Arc::default);
        let day = 86_400_000_000_000;
        assert_eq!((heir.find(7, day, clock::now()), heir.find(8, day, clock::now())), (Some(1 << 100), Some(2)));
        assert_eq!(heir.find(7, 1, clock::now() + day), None);
    }

    #[test]
    fn there_is_a_bound() {
        let sessions = Sessions::default();
        for key in 0..MAX as u64 + 100 {
            sessions.bind(key, 1, key);
        }
        assert_eq!(sessions.shards[0].lock().len(), MAX);
    }
}
