//! The verification of passwords: off the event loop, a few at a time, and with cached verdicts.
//!
//! A verification is slow on purpose, and takes much memory. So at most as many run at a time as half of the cores,
//! and few wait: guessing passwords takes neither all cores nor all memory, and a client with the right password is
//! verified only now and then.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ahash::AHashMap;
use aws_lc_rs::{hmac, rand};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::VerifiedTokens;
use crate::exchange::clock;
use crate::rules::identity::PasswordHash;

/// How long the verdict that a password is right is cached, in seconds.
const RIGHT_TTL: u64 = 300;

/// How long the verdict that a password is wrong is cached, in seconds.
const WRONG_TTL: u64 = 10;

/// The most requests whose passwords are being verified or wait for that; further ones are rejected.
const MAX_PENDING: usize = 256;

/// Of these, requests of one address (IPv6: one /64): who guesses does not take the places of all others.
const MAX_PENDING_PER_ADDRESS: u32 = 16;

/// The longest time that one waits for its verification.
const VERIFICATION_QUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// The tag of a name, a hash and a password: its keyed digest, since nothing else of a password may be kept.
type VerdictTag = [u8; 32];

/// The cached verdicts on passwords, and the places for verifications.
pub struct Passwords {
    /// A random key of this process.
    key: hmac::Key,
    right: VerifiedTokens<()>,
    /// Separate from the right ones, so that guesses do not evict those.
    wrong: VerifiedTokens<()>,
    pending: Arc<Semaphore>,
    /// Requests in `pending` by their address.
    pending_by_address: Arc<Mutex<AHashMap<u64, u32>>>,
    places: Arc<Semaphore>,
}

/// The verdict on a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PasswordVerdict {
    /// It is right.
    Right,
    /// It is wrong.
    Wrong,
    /// Too many others are being verified.
    Busy,
    /// It could not be verified, for this reason.
    Failed(&'static str),
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords(secret)")
    }
}

impl Default for Passwords {
    fn default() -> Self {
        static PLACES: LazyLock<usize> =
            LazyLock::new(|| std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)));
        let mut key = [0; 32];
        // If the system's generator fails nothing else works either.
        let _ = rand::fill(&mut key);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            right: VerifiedTokens::default(),
            wrong: VerifiedTokens::default(),
            pending: Arc::new(Semaphore::new(MAX_PENDING)),
            pending_by_address: Arc::default(),
            places: Arc::new(Semaphore::new(*PLACES)),
        }
    }
}

/// Returns the clock of all expiries, in seconds.
fn seconds() -> u64 {
    clock::now() / 1_000_000_000
}

impl Passwords {
    /// Returns the number of one of `count` hashes to verify the password of an unknown name with: always the same one
    /// for a name, so that the time that it takes says no more about the name than that of a known one.
    pub fn decoy(&self, username: &str, count: usize) -> Option<usize> {
        let tag = hmac::sign(&self.key, username.as_bytes());
        let number = tag.as_ref().iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let count = u64::try_from(count).ok().filter(|count| *count > 0)?;
        usize::try_from(number % count).ok()
    }

    /// Verifies the password that came from an address against the hash. For an unknown name, `is_known` is false, and
    /// the password is wrong whatever the hash says.
    pub async fn verify(
        self: &Arc<Self>,
        from: IpAddr,
        username: &str,
        is_known: bool,
        hash: &Arc<PasswordHash>,
        password: &str,
    ) -> PasswordVerdict {
        let tag = self.tag(username, hash, password);
        if let Some(known) = self.cached(&tag) {
            return known;
        }
        let Some(own) = AddressPlace::take(&self.pending_by_address, from) else { return PasswordVerdict::Busy };
        let Ok(pending) = Arc::clone(&self.pending).try_acquire_owned() else { return PasswordVerdict::Busy };
        let turn = tokio::time::timeout(VERIFICATION_QUEUE_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return PasswordVerdict::Busy };
        // A client has several connections: another one may have verified it meanwhile.
        if let Some(known) = self.cached(&tag) {
            return known;
        }
        let (this, hash, password) = (Arc::clone(self), Arc::clone(hash), password.to_owned());
        let work = tokio::task::spawn_blocking(move || {
            // The place is held as long as the work lasts, also where the client does not wait for it.
            let _turn = (own, pending, turn);
            let verified = hash.verify(password.as_bytes());
            if let Ok(right) = verified {
                this.note(tag, right && is_known);
            }
            verified
        });
        match work.await {
            Ok(Ok(right)) if right && is_known => PasswordVerdict::Right,
            Ok(Ok(_)) => PasswordVerdict::Wrong,
            Ok(Err(why)) => PasswordVerdict::Failed(why),
            Err(_) => PasswordVerdict::Failed("the verification of a password has ended early"),
        }
    }

    fn note(&self, tag: VerdictTag, right: bool) {
        let now = seconds();
        let (table, time) = if right { (&self.right, RIGHT_TTL) } else { (&self.wrong, WRONG_TTL) };
        table.insert(tag, Arc::new(()), 0, now + time, now);
    }

    fn cached(&self, tag: &VerdictTag) -> Option<PasswordVerdict> {
        let now = seconds();
        if self.right.get(tag, 0, now).is_some() {
            return Some(PasswordVerdict::Right);
        }
        self.wrong.get(tag, 0, now).map(|_| PasswordVerdict::Wrong)
    }

    /// Returns the tag. Each part has its length before it. With the hash in it, a cached verdict ends with the
    /// password.
    fn tag(&self, username: &str, hash: &PasswordHash, password: &str) -> VerdictTag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [username, hash.reveal(), password] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// One of the places that an address has among the requests that are pending.
struct AddressPlace {
    places: Arc<Mutex<AHashMap<u64, u32>>>,
    key: u64,
}

impl AddressPlace {
    fn take(places: &Arc<Mutex<AHashMap<u64, u32>>>, from: IpAddr) -> Option<Self> {
        let key = match from {
            IpAddr::V4(v4) => u64::from(u32::from(v4)),
            IpAddr::V6(v6) => u64::from_be_bytes(v6.octets()[..8].try_into().unwrap_or_default()) | 1 << 63,
        };
        let mut all = places.lock();
        let count = all.entry(key).or_insert(0);
        if *count == MAX_PENDING_PER_ADDRESS {
            return None;
        }
        *count += 1;
        Some(Self { places: Arc::clone(places), key })
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut all = self.places.lock();
        let Some(count) = all.get_mut(&self.key) else { return };
        *count -= 1;
        if *count == 0 {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn hash() -> Arc<PasswordHash> {
        Arc::new(
            "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4"
                .parse()
                .expect("a hash"),
        )
    }

    #[tokio::test]
    async fn verdicts_are_remembered_and_a_name_that_nobody_has_is_never_right() {
        let (passwords, hash) = (Arc::new(Passwords::default()), hash());
        assert_eq!(passwords.verify(ADDRESS, "ada", true, &hash, "password").await, PasswordVerdict::Right);
        assert_eq!(passwords.verify(ADDRESS, "ada", true, &hash, "guess").await, PasswordVerdict::Wrong);
        assert_eq!(passwords.verify(ADDRESS, "eve", false, &hash, "password").await, PasswordVerdict::Wrong);
        let cached = |name: &str, password: &str| passwords.cached(&passwords.tag(name, &hash, password));
        assert_eq!(cached("ada", "password"), Some(PasswordVerdict::Right));
        assert_eq!(
            (cached("ada", "guess"), cached("eve", "password")),
            (Some(PasswordVerdict::Wrong), Some(PasswordVerdict::Wrong))
        );
        assert_eq!(cached("ada", "other"), None);
        // Another hash is another password, though the same text is right for it.
        let other = Arc::new("$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.".parse().expect("a hash"));
        assert_eq!(passwords.cached(&passwords.tag("ada", &other, "password")), None);
        let first = passwords.decoy("eve", 2).expect("a number");
        assert!(first < 2 && (0..9).all(|_| passwords.decoy("eve", 2) == Some(first)));
        assert!(passwords.decoy("eve", 0).is_none());
    }

    #[tokio::test]
    async fn more_than_wait_are_rejected() {
        let (passwords, hash) = (Arc::new(Passwords::default()), hash());
        let all = Arc::clone(&passwords.pending).acquire_many_owned(MAX_PENDING as u32).await.expect("permits");
        assert_eq!(passwords.verify(ADDRESS, "ada", true, &hash, "password").await, PasswordVerdict::Busy);
        drop(all);
        assert_eq!(passwords.verify(ADDRESS, "ada", true, &hash, "password").await, PasswordVerdict::Right);
        // What is remembered needs no turn.
        let _all = Arc::clone(&passwords.pending).acquire_many_owned(MAX_PENDING as u32).await.expect("permits");
        assert_eq!(passwords.verify(ADDRESS, "ada", true, &hash, "password").await, PasswordVerdict::Right);
    }

    #[test]
    fn one_address_has_some_of_the_places() {
        let places = Arc::default();
        let mine: Vec<_> = (0..40).map_while(|_| AddressPlace::take(&places, ADDRESS)).collect();
        assert_eq!(mine.len(), MAX_PENDING_PER_ADDRESS as usize);
        let of = |text: &str| AddressPlace::take(&places, text.parse().expect("an address"));
        let near: Vec<_> = (0..40).map_while(|n| of(&format!("2001:db8::{n}"))).collect();
        assert_eq!(near.len(), MAX_PENDING_PER_ADDRESS as usize, "one /64 is one");
        assert!(of("2001:db8:0:1::1").is_some() && of("127.0.0.2").is_some() && of("127.0.0.1").is_none());
        drop((mine, near));
        assert!(places.lock().is_empty());
    }
}
