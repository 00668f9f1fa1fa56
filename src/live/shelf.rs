//! Shared objects by shape, held only as long as they are used.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

/// Shared objects by shape.
#[derive(Debug)]
pub struct Shelf<S, T> {
    objects: Mutex<HashMap<S, Weak<T>>>,
    /// The objects from a predecessor, until the first configuration serves; `None` from then on.
    inherited: Mutex<Option<Vec<Arc<T>>>>,
}

impl<S, T> Default for Shelf<S, T> {
    fn default() -> Self {
        Self { objects: Mutex::default(), inherited: Mutex::new(Some(Vec::new())) }
    }
}

impl<S: Clone + Eq + Hash, T> Shelf<S, T> {
    /// Returns the object of that shape, which is created if it does not exist.
    pub fn get_or(&self, shape: &S, fresh: impl FnOnce() -> Arc<T>) -> Arc<T> {
        match self.try_get_or(shape, || Ok::<_, Infallible>(fresh())) {
            Ok(thing) => thing,
            Err(never) => match never {},
        }
    }

    /// Like [`Self::get_or`], with an object that cannot always be created.
    ///
    /// # Errors
    /// Returns the error of `fresh`.
    pub fn try_get_or<E>(&self, shape: &S, fresh: impl FnOnce() -> Result<Arc<T>, E>) -> Result<Arc<T>, E> {
        let mut objects = self.objects.lock();
        if let Some(thing) = objects.get(shape).and_then(Weak::upgrade) {
            return Ok(thing);
        }
        // Cleared now and then, so that ten thousand new ones do not scan each other ten thousand times.
        if objects.len() == objects.capacity() {
            objects.retain(|_, thing| thing.strong_count() > 0);
        }
        let thing = fresh()?;
        objects.insert(shape.clone(), Arc::downgrade(&thing));
        Ok(thing)
    }

    /// Like [`Self::get_or`], and keeps the object until [`Self::drop_unused`]; after that only what is in use is kept.
    pub fn inherit(&self, shape: &S, fresh: impl FnOnce() -> Arc<T>) -> Option<Arc<T>> {
        let mut inherited = self.inherited.lock();
        let Some(kept) = &mut *inherited else { return self.objects.lock().get(shape).and_then(Weak::upgrade) };
        let thing = self.get_or(shape, fresh);
        kept.push(Arc::clone(&thing));
        Some(thing)
    }

    /// Drops the objects from a predecessor that are not used.
    pub fn drop_unused(&self) {
        *self.inherited.lock() = None;
    }

    /// Returns all that are in use.
    pub fn all(&self) -> Vec<(S, Arc<T>)> {
        let objects = self.objects.lock();
        objects.iter().filter_map(|(shape, thing)| Some((shape.clone(), thing.upgrade()?))).collect()
    }
}
