//! Session tickets (RFC 5077, RFC 8446 section 4.6.1) with keys that a successor can take over.
//!
//! rustls has tickets of its own, but their keys are not accessible: after every upgrade each client would make a
//! full handshake.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use parking_lot::RwLock;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

/// The time for which a key encrypts tickets.
const KEY_ROTATION_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// The number of keys: the present one and its predecessor, so that a ticket is valid for at least one rotation.
const MAX_KEYS: usize = 2;

/// The length of a key's name, which is the start of each of its tickets.
const KEY_NAME_LENGTH: usize = 16;

/// A ticket key.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct TicketKey {
    name: [u8; KEY_NAME_LENGTH],
    secret: [u8; 32],
    /// The time of its creation, in seconds of Unix time.
    since: u64,
}

/// The keys of all listeners, newest first. They are rotated every six hours.
#[derive(Default)]
pub struct TicketKeys(RwLock<Vec<TicketKey>>);

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKeys(secret)")
    }
}

/// The keys in the form for a successor.
#[derive(Serialize, Deserialize)]
pub struct SavedTicketKeys(Vec<TicketKey>);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl TicketKeys {
    /// Returns all keys, for a successor.
    pub fn give(&self) -> SavedTicketKeys {
        SavedTicketKeys(self.0.read().clone())
    }

    /// Replaces the keys with those of a predecessor.
    pub fn take(&self, given: SavedTicketKeys) {
        *self.0.write() = given.0;
    }

    fn newest(&self, now: u64) -> Option<TicketKey> {
        let young = |keys: &[TicketKey]| {
            keys.first().copied().filter(|k| now.saturating_sub(k.since) < KEY_ROTATION_INTERVAL.as_secs())
        };
        if let Some(key) = young(&self.0.read()) {
            return Some(key);
        }
        let mut keys = self.0.write();
        if young(&keys).is_none() {
            let mut key = TicketKey { name: [0; KEY_NAME_LENGTH], secret: [0; 32], since: now };
            rand::fill(&mut key.name).ok()?;
            rand::fill(&mut key.secret).ok()?;
            keys.insert(0, key);
            keys.truncate(MAX_KEYS);
        }
        keys.first().copied()
    }

    fn named(&self, name: &[u8]) -> Option<TicketKey> {
        self.0.read().iter().find(|k| k.name == name).copied()
    }
}

/// The tickets of one listener, or of some of its hosts. No other listener and no other host accepts them, since its
/// settings may be stricter; nor are they accepted once CA or revocation lists have changed, since rustls takes the
/// client's certificate from a ticket without verifying it again.
#[derive(Debug)]
pub struct Tickets {
    keys: Arc<TicketKeys>,
    label: Vec<u8>,
}

impl Tickets {
    /// Returns the tickets of the listener of that name and of some hosts of it, whose clients are verified by settings
    /// and files of that digest.
    pub fn new(keys: Arc<TicketKeys>, listener: &str, hosts: &str, client: Option<[u8; 32]>) -> Self {
        let mut label = listener.as_bytes().to_vec();
        if !hosts.is_empty() || client.is_some() {
            // Neither a name of a listener nor one of a host has such a byte.
            label.extend([&[0], hosts.as_bytes(), &[0], &client.unwrap_or_default()].concat());
        }
        Self { keys, label }
    }

    fn aead(&self, key: &TicketKey) -> Option<LessSafeKey> {
        let own = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key.secret), &self.label);
        UnboundKey::new(&AES_256_GCM, own.as_ref()).ok().map(LessSafeKey::new)
    }

    fn seal(&self, plain: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.keys.newest(now)?;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        self.aead(&key)?.seal_in_place_append_tag(nonce_used, Aad::from(&key.name), &mut sealed).ok()?;
        Some([&key.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(KEY_NAME_LENGTH)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let key = self.keys.named(name)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.aead(&key)?.open_in_place(nonce, Aad::from(&key.name), &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        KEY_ROTATION_INTERVAL.as_secs() as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, now())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_taken_by_their_listener_for_a_rotation_and_by_a_successor() {
        let keys = Arc::new(TicketKeys::default());
        let of = |listener: &str, hosts: &str, client| Tickets::new(Arc::clone(&keys), listener, hosts, client);
        let (main, other) = (of("main", "", None), of("other", "", None));
        let hours = |n: u64| 1_000_000 + n * 3600;
        let ticket = main.seal(b"a session", hours(0)).expect("sealed");
        assert_eq!(main.open(&ticket).as_deref(), Some(&b"a session"[..]));
        assert_eq!(other.open(&ticket), None);
        let of_ca = of("main", "a.test", Some([1; 32]));
        let verified = of_ca.seal(b"a session", hours(0)).expect("sealed");
        assert!(of("main", "a.test", Some([1; 32])).open(&verified).is_some());
        for stricter in [of("main", "a.test", Some([2; 32])), of("main", "b.test", Some([1; 32])), of("main", "", None)]
        {
            assert_eq!(stricter.open(&verified), None);
        }
        let successor = Arc::new(TicketKeys::default());
        successor.take(serde_json::from_slice(&serde_json::to_vec(&keys.give()).expect("JSON")).expect("keys"));
        assert!(Tickets::new(successor, "main", "", None).open(&ticket).is_some());
        main.seal(b"", hours(7)).expect("sealed");
        assert!(main.open(&ticket).is_some());
        main.seal(b"", hours(14)).expect("sealed");
        assert_eq!(main.open(&ticket), None);
    }

    #[test]
    fn a_changed_ticket_is_none() {
        let tickets = Tickets::new(Arc::default(), "main", "", None);
        let ticket = tickets.seal(b"a session", 1).expect("sealed");
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.open(&changed), None);
            assert_eq!(tickets.open(&ticket[..place]), None);
        }
    }
}
