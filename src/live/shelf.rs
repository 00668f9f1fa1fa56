//! Things by shape, held only as long as someone uses them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Things by shape.
#[derive(Debug)]
pub struct Shelf<S, T> {
    things: Mutex<HashMap<S, Weak<T>>>,
    /// What a predecessor left, until the first configuration serves; `None` from then on.
    inherited: Mutex<Option<Vec<Arc<T>>>>,
}

impl<S, T> Default for Shelf<S, T> {
    fn default() -> Self {
        Self { things: Mutex::default(), inherited: Mutex::new(Some(Vec::new())) }
    }
}

impl<S: Clone + Eq + Hash, T> Shelf<S, T> {
    /// The thing of that shape, made if it is not there.
    pub fn get_or(&self, shape: &S, fresh: impl FnOnce() -> Arc<T>) -> Arc<T> {
        let mut things = self.things.lock();
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

    /// As [`Self::get_or`], and keeps it until [`Self::settle`]; after that only what is in use.
    pub fn inherit(&self, shape: &S, fresh: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        let mut inherited = self.inherited.lock();
        let Some(kept) = &mut *inherited else { return self.things.lock().get(shape).and_then(Weak::upgrade) };
        let thing = self.get_or(shape, fresh);
        kept.push(Arc::clone(&thing));
        Some(thing)
    }

    /// Whatever a predecessor left and nobody uses goes.
    pub fn settle(&self) {
        *self.inherited.lock() = None;
    }

    /// All that are in use.
    pub fn all(&self) -> Vec<(S, Arc<T>)> {
        let things = self.things.lock();
        things.iter().filter_map(|(shape, thing)| Some((shape.clone(), thing.upgrade()?))).collect()
    }
}
