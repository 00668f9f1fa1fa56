//! What a filter is compiled with.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::Consumers;
use crate::live::{Kept, Live};
use crate::notation::{MethodName, Mistakes, Place};

/// What a filter may look at while it is compiled, and where it notes its errors.
#[derive(Debug)]
pub struct CompileContext<'c> {
    /// The route that it is compiled for.
    pub route: RouteFacts<'c>,
    /// The filter's place in the configuration.
    pub place: Place,
    /// Where relative paths start.
    pub base: &'c Path,
    /// What outlives configurations.
    pub live: &'c Live,
    /// Who calls.
    pub consumers: &'c Arc<Consumers>,
    /// Whether some of them are left out, because they are wrong.
    pub is_partial: bool,
    /// What tells settings apart from all others.
    pub identities: Identities<'c>,
    /// What filters of all routes share.
    pub shared: &'c mut Shared,
    /// Errors so far.
    pub mistakes: &'c mut Mistakes,
}

/// What a filter may know of the route that it is compiled for. One that asks for nothing is compiled once for all routes
/// that have it.
#[derive(Debug)]
pub struct RouteFacts<'c> {
    name: &'c str,
    methods: &'c [MethodName],
    written: &'c str,
    is_own: bool,
    asked: Cell<bool>,
}

impl<'c> RouteFacts<'c> {
    /// Returns those of the route of that name and those methods, where the filter is written at the place of that name:
    /// on the route itself, or where other routes have it too.
    pub fn new(name: &'c str, methods: &'c [MethodName], written: &'c str, is_own: bool) -> Self {
        Self { name, methods, written, is_own, asked: Cell::new(false) }
    }

    /// Returns the methods that the route is for; none are all.
    pub fn methods(&self) -> &'c [MethodName] {
        self.asked.set(true);
        self.methods
    }

    /// Returns the name under which what the filter counts outlives a configuration. What is written once counts once, for
    /// all routes that have it, unless `each` route is to count by itself.
    pub fn count_name(&self, each: bool) -> String {
        if each && !self.is_own {
            self.asked.set(true);
            return format!("{} of {}", self.written, self.name);
        }
        self.written.to_owned()
    }

    /// Whether anything was asked that differs between routes.
    pub fn is_asked(&self) -> bool {
        self.asked.get()
    }
}

/// Gives the identity of settings by their place: the digest of all that they say, secrets and the contents of files that
/// they name among it.
#[derive(Clone, Copy)]
pub struct Identities<'c>(pub &'c dyn Fn(&Place) -> [u8; 32]);

impl fmt::Debug for Identities<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identities")
    }
}

impl CompileContext<'_> {
    /// Returns the identity of the filter's settings: filters of the same identity may share what they compile.
    pub fn identity(&self) -> [u8; 32] {
        (self.identities.0)(&self.place)
    }

    /// Returns what filters with that key share, which `make` makes once; `None` where it cannot.
    pub fn shared<T: Any + Send + Sync>(&mut self, key: &[u8], make: impl FnOnce(&mut Self) -> Option<T>) -> Option<Arc<T>> {
        let key = (TypeId::of::<T>(), key.to_vec());
        if let Some(known) = self.shared.known.get(&key) {
            return Arc::clone(known).downcast().ok();
        }
        let made = Arc::new(make(self)?);
        self.shared.known.insert(key, Arc::clone(&made) as Arc<dyn Any + Send + Sync>);
        Some(made)
    }

    /// Notes what is to be kept up to date in the background for as long as the configuration serves.
    pub fn keep(&mut self, kept: Arc<dyn Kept>) {
        let is_known = self.shared.kept.iter().any(|known| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(&kept)));
        if !is_known {
            self.shared.kept.push(kept);
        }
    }
}

/// What filters of all routes share.
#[derive(Default)]
pub struct Shared {
    known: HashMap<(TypeId, Vec<u8>), Arc<dyn Any + Send + Sync>>,
    /// What is kept up to date in the background.
    pub kept: Vec<Arc<dyn Kept>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("kept", &self.kept).finish_non_exhaustive()
    }
}
