//! What a reload and an upgrade keep: targets with their health and counters, buckets of limits, keys.
//!
//! Everything is found by its name and shape. What a new configuration asks for again is the very
//! same object; what it no longer asks for is dropped with the last request that uses it.

mod buckets;
mod heritage;
mod kept;
mod keys;
mod passwords;
mod pools;
mod secrets;
mod sessions;
mod shelf;
mod verified;

use std::sync::Arc;

use crate::tls::TicketKeys;
use crate::upstreams::{Pool, PoolShape, Sessions};

pub use buckets::Buckets;
pub use heritage::{Heritable, Part};
pub use kept::Kept;
pub use keys::{KeySet, KeyStore, KeyStoreShape, VerifyingKey, parse_jwks};
pub use passwords::{PasswordVerdict, Passwords};
pub use verified::VerifiedTokens;

use keys::KeyStores;
use pools::Pools;
use secrets::Secrets;
use shelf::Shelf;

/// All that outlives a configuration.
#[derive(Debug, Default)]
pub struct Live {
    pools: Pools,
    /// By the limit's name: its route and place, or a shared name. A limit that a reload changes goes on with what
    /// was counted.
    buckets: Shelf<String, Buckets>,
    keys: KeyStores,
    /// Sessions by the upstream's name.
    sessions: Shelf<String, Sessions>,
    secrets: Secrets,
    passwords: Arc<Passwords>,
}

impl Live {
    /// The pool of that shape. A new one takes over the targets of a pool that has its name.
    pub fn pool(&self, shape: PoolShape) -> Arc<Pool> {
        self.pools.get(shape)
    }

    /// The buckets of the limit of that name.
    pub fn buckets(&self, name: &str) -> Arc<Buckets> {
        self.buckets.get_or(&name.to_owned(), || Arc::new(Buckets::default()))
    }

    /// The sessions of an upstream.
    pub fn sessions(&self, upstream: &str) -> Arc<Sessions> {
        self.sessions.get_or(&upstream.to_owned(), || Arc::new(Sessions::default()))
    }

    /// The key store of that shape.
    pub fn keys(&self, shape: &KeyStoreShape, fresh: impl FnOnce() -> Arc<KeyStore>) -> Arc<KeyStore> {
        self.keys.get_or(shape, fresh)
    }

    /// What is known of passwords.
    pub fn passwords(&self) -> Arc<Passwords> {
        Arc::clone(&self.passwords)
    }

    /// The key of sticky sessions for which the configuration has none.
    pub fn sticky_key(&self) -> [u8; 32] {
        self.secrets.sticky()
    }

    /// The keys of TLS session tickets.
    pub fn ticket_keys(&self) -> Arc<TicketKeys> {
        Arc::clone(&self.secrets.tickets)
    }

    /// Every kind of state that a successor takes over.
    pub fn heritage(&self) -> [&dyn Heritable; 5] {
        [&self.secrets, &self.buckets, &self.sessions, &self.pools, &self.keys]
    }
}
