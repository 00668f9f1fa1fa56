//! What a reload keeps: targets with their health and counters, buckets of limits, keys of issuers.
//!
//! Everything is found by its name and shape. What a new configuration asks for again is the very
//! same object; what it no longer asks for is dropped with the last request that uses it.

mod buckets;
mod keys;
mod sessions;
mod verified;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::upstreams::{Changes, Pool, PoolShape};

pub use buckets::Buckets;
pub use keys::{KeyError, KeySet, KeyStore, KeyStoreShape, VerifyingKey, parse_jwks};
pub use sessions::Sessions;
pub use verified::VerifiedTokens;

/// All that outlives a configuration.
#[derive(Debug, Default)]
pub struct Live {
    pools: Shelf<PoolShape, Pool>,
    buckets: Shelf<BucketShape, Buckets>,
    /// What operators changed, by the upstream's name; kept for as long as the process lives.
    changes: Mutex<HashMap<String, Arc<Changes>>>,
    keys: Shelf<KeyStoreShape, KeyStore>,
    /// Sessions by the upstream's name.
    sessions: Shelf<String, Sessions>,
}

/// What makes two rate limits the same: their name (route and place, or a shared name) and shape.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BucketShape {
    /// Whose limit it is.
    pub name: String,
    /// The limit itself: a bucket's content means nothing under another.
    pub gcra: crate::rules::limits::Gcra,
}

impl Live {
    /// The pool of that shape. A new one takes over the targets of a pool that has its name.
    pub fn pool(&self, shape: PoolShape) -> Arc<Pool> {
        let before = self.pools.find(|known, pool| known.name == shape.name && pool.is_wanted());
        let changes = Arc::clone(self.changes.lock().entry(shape.name.clone()).or_default());
        self.pools.get_or(&shape.clone(), || Pool::new(shape, before.as_deref(), changes))
    }

    /// The buckets of that shape.
    pub fn buckets(&self, shape: &BucketShape) -> Arc<Buckets> {
        self.buckets.get_or(shape, || Arc::new(Buckets::default()))
    }

    /// The sessions of an upstream.
    pub fn sessions(&self, upstream: &str) -> Arc<Sessions> {
        self.sessions.get_or(&upstream.to_owned(), || Arc::new(Sessions::default()))
    }

    /// The key store of that shape.
    pub fn keys(&self, shape: &KeyStoreShape, fresh: impl FnOnce() -> Arc<KeyStore>) -> Arc<KeyStore> {
        self.keys.get_or(shape, fresh)
    }
}

/// Things by shape, held only as long as someone uses them.
#[derive(Debug)]
struct Shelf<S, T>(Mutex<HashMap<S, Weak<T>>>);

impl<S, T> Default for Shelf<S, T> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<S: Clone + Eq + Hash, T> Shelf<S, T> {
    fn get_or(&self, shape: &S, fresh: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut things = self.0.lock();
        if let Some(thing) = things.get(shape).and_then(Weak::upgrade) {
            return thing;
        }
        // Now and then, so that ten thousand new ones do not look at each other ten thousand times.
        if things.len() == things.capacity() {
            things.retain(|_, thing| thing.strong_count() > 0);
        }
        let thing = fresh();
        things.insert(shape.clone(), Arc::downgrade(&thing));
        thing
    }

    fn find(&self, wanted: impl Fn(&S, &T) -> bool) -> Option<Arc<T>> {
        let things = self.0.lock();
        things.iter().find_map(|(shape, thing)| thing.upgrade().filter(|thing| wanted(shape, thing)))
    }
}
