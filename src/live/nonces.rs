//! Texts that may be used once, such as the nonces of signatures.

use ahash::AHashMap;
use parking_lot::Mutex;

const SHARDS: usize = 16;

/// The result of the use of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceUse {
    /// It is its first one.
    First,
    /// It has been used before.
    Repeated,
    /// There are too many nonces to remember one more.
    Full,
}

/// The nonces that have been used. Each is remembered until it expires, and none is forgotten earlier.
#[derive(Debug)]
pub struct Nonces {
    shards: [Mutex<NonceShard>; SHARDS],
}

#[derive(Debug, Default)]
struct NonceShard {
    expiries: AHashMap<[u8; 16], i64>,
    /// The second in which it was last cleared of expired nonces.
    cleared: i64,
}

impl Default for Nonces {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Nonces {
    /// Uses a nonce, given as a part of its digest, at `now`; it is remembered until `expiry`. At most about `most`
    /// are remembered. Times are seconds.
    pub fn use_once(&self, digest: [u8; 16], expiry: i64, now: i64, most: usize) -> NonceUse {
        let mut shard = self.shards[digest[0] as usize % SHARDS].lock();
        if shard.expiries.get(&digest).is_some_and(|known| *known >= now) {
            return NonceUse::Repeated;
        }
        if shard.expiries.len() >= most.div_ceil(SHARDS) && shard.cleared != now {
            shard.expiries.retain(|_, known| *known >= now);
            shard.cleared = now;
        }
        if shard.expiries.len() >= most.div_ceil(SHARDS) {
            return NonceUse::Full;
        }
        shard.expiries.insert(digest, expiry);
        NonceUse::First
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u32) -> [u8; 16] {
        let mut digest = [0; 16];
        digest[..4].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn each_is_used_once_until_it_expires() {
        let nonces = Nonces::default();
        assert_eq!(nonces.use_once(digest(1), 100, 50, 1_000), NonceUse::First);
        assert_eq!(nonces.use_once(digest(1), 100, 100, 1_000), NonceUse::Repeated);
        assert_eq!(nonces.use_once(digest(2), 100, 100, 1_000), NonceUse::First);
        assert_eq!(nonces.use_once(digest(1), 200, 101, 1_000), NonceUse::First);
    }

    #[test]
    fn none_is_forgotten_before_its_time() {
        let nonces = Nonces::default();
        let uses: Vec<NonceUse> = (0..1_000).map(|number| nonces.use_once(digest(number), 100, 1, 160)).collect();
        assert_eq!(uses.iter().filter(|used| **used == NonceUse::First).count(), 160);
        assert_eq!(uses.iter().filter(|used| **used == NonceUse::Full).count(), 840);
        assert_eq!(nonces.use_once(digest(0), 100, 100, 160), NonceUse::Repeated);
        assert_eq!(nonces.use_once(digest(0), 200, 101, 160), NonceUse::First);
    }

    #[test]
    fn one_of_many_that_use_it_at_a_time_is_the_first() {
        let nonces = Nonces::default();
        let first = std::thread::scope(|scope| {
            let users: Vec<_> = (0..8)
                .map(|_| {
                    let used = || (0..1_000).filter(|n| nonces.use_once(digest(*n), 9, 1, 9_999) == NonceUse::First);
                    scope.spawn(move || used().count())
                })
                .collect();
            users.into_iter().map(|user| user.join().expect("no panic")).sum::<usize>()
        });
        assert_eq!(first, 1_000);
    }
}
