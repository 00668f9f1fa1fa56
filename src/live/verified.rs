//! A cache of verified tokens.

use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use parking_lot::RwLock;

const SHARDS: usize = 16;

/// The most tokens of one shard; together 65536.
const MAX_PER_SHARD: usize = 4_096;

/// The claims of verified tokens, by the SHA-256 digest of the whole token.
///
/// An entry is valid only until the token's own expiry, and only while the key set that verified it is the present
/// one.
#[derive(Debug)]
pub struct VerifiedTokens<T> {
    shards: Box<[RwLock<TokenShard<T>>]>,
    hasher: RandomState,
    /// The most tokens of one shard.
    most: usize,
}

#[derive(Debug)]
struct TokenShard<T> {
    tokens: AHashMap<[u8; 32], VerifiedToken<T>>,
    /// The second in which it was last cleared of expired entries.
    cleared: u64,
}

impl<T> Default for TokenShard<T> {
    fn default() -> Self {
        Self { tokens: AHashMap::new(), cleared: 0 }
    }
}

#[derive(Debug)]
struct VerifiedToken<T> {
    claims: Arc<T>,
    expires: u64,
    generation: u64,
}

impl<T> Default for VerifiedTokens<T> {
    fn default() -> Self {
        Self::of_at_most(SHARDS * MAX_PER_SHARD)
    }
}

impl<T> VerifiedTokens<T> {
    /// Returns an empty cache of about that many tokens at most.
    pub fn of_at_most(tokens: usize) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        Self { shards, hasher: RandomState::new(), most: (tokens / SHARDS).max(1) }
    }

    /// Returns the claims, if key set `generation` verified the token and it has not expired at `now` (seconds).
    pub fn get(&self, digest: &[u8; 32], generation: u64, now: u64) -> Option<Arc<T>> {
        let shard = self.shards[self.shard(digest)].read();
        let entry = shard.tokens.get(digest)?;
        (entry.generation == generation && now < entry.expires).then(|| Arc::clone(&entry.claims))
    }

    /// Caches a verified token.
    pub fn insert(&self, digest: [u8; 32], claims: Arc<T>, generation: u64, expires: u64, now: u64) {
        let mut shard = self.shards[self.shard(&digest)].write();
        if shard.tokens.len() >= self.most && shard.cleared != now {
            shard.tokens.retain(|_, e| e.generation == generation && now < e.expires);
            shard.cleared = now;
        }
        if shard.tokens.len() >= self.most {
            // All are current: any of them can go, it is only verified once more.
            if let Some(any) = shard.tokens.keys().next().copied() {
                shard.tokens.remove(&any);
            }
        }
        shard.tokens.insert(digest, VerifiedToken { claims, expires, generation });
    }

    fn shard(&self, digest: &[u8; 32]) -> usize {
        self.hasher.hash_one(digest) as usize % SHARDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_beyond_expiry_or_a_key_change() {
        let tokens = VerifiedTokens::default();
        tokens.insert([1; 32], Arc::new("claims"), 7, 100, 0);
        assert!(tokens.get(&[1; 32], 7, 99).is_some());
        assert!(tokens.get(&[1; 32], 7, 100).is_none());
        assert!(tokens.get(&[1; 32], 8, 50).is_none());
        assert!(tokens.get(&[2; 32], 7, 50).is_none());
    }

    #[test]
    fn bounded() {
        let tokens = VerifiedTokens::default();
        for n in 0..100_000_u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            tokens.insert(digest, Arc::new(()), 1, 1_000, 0);
        }
        assert!(tokens.shards.iter().all(|s| s.read().tokens.len() <= MAX_PER_SHARD));
        let few = VerifiedTokens::of_at_most(160);
        for n in 0..10_000_u64 {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&n.to_be_bytes());
            few.insert(digest, Arc::new(()), 1, 1_000, 0);
        }
        assert!(few.shards.iter().all(|s| s.read().tokens.len() <= 10));
    }
}
