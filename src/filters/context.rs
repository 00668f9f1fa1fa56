//! The context in which a filter is compiled.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Consumers;
use super::caches::CacheTable;
use crate::live::{Live, Maintained};
use crate::notation::{MethodName, Mistakes, Place};
use crate::rules::routing::{PathPattern, RouteEntry, common_params};

/// The facts that a filter may use while it is compiled, and its errors.
#[derive(Debug)]
pub struct CompileContext<'c> {
    /// The route that it is compiled for.
    pub route: RouteFacts<'c>,
    /// The filter's place in the configuration.
    pub place: Place,
    /// The directory in which relative paths begin.
    pub base: &'c Path,
    /// The folder in which state is kept, if there is one.
    pub state: Option<PathBuf>,
    /// The state that outlives configurations.
    pub live: &'c Live,
    /// The consumers.
    pub consumers: &'c Arc<Consumers>,
    /// Whether some of them are missing, because they have errors.
    pub is_partial: bool,
    /// The identities of settings.
    pub identities: Identities<'c>,
    /// The values that filters of all routes share.
    pub shared: &'c mut SharedValues,
    /// The errors so far.
    pub mistakes: &'c mut Mistakes,
}

/// The facts of the route that a filter is compiled for. A filter that uses none of them is compiled once for all
/// routes that have it.
#[derive(Debug)]
pub struct RouteFacts<'c> {
    name: &'c str,
    methods: &'c [MethodName],
    entries: &'c [RouteEntry],
    certificates: CertificateSources,
    written: &'c str,
    is_own: bool,
    used: Cell<bool>,
}

/// The ways by which certificates of clients may come with requests. Of a filter that is written for several routes
/// they are those of all listeners that it may run on.
#[derive(Clone, Copy, Debug)]
pub struct CertificateSources {
    /// Whether a listener requests certificates.
    pub connections: bool,
    /// Whether a listener has trusted proxies, which can name the certificates of their clients.
    pub trusted_proxies: bool,
}

impl<'c> RouteFacts<'c> {
    /// Returns the facts of the route of that name, those methods and those entries of the router. `written` names the
    /// place at which the filter is written: the route itself, if `is_own`, or one that several routes use.
    pub fn new(
        name: &'c str,
        methods: &'c [MethodName],
        entries: &'c [RouteEntry],
        certificates: CertificateSources,
        written: &'c str,
        is_own: bool,
    ) -> Self {
        Self { name, methods, entries, certificates, written, is_own, used: Cell::new(false) }
    }

    /// Returns the ways by which certificates of clients may come. They do not differ between the routes that share a
    /// filter.
    pub fn certificate_sources(&self) -> CertificateSources {
        self.certificates
    }

    /// Returns the methods that the route is for; an empty list means all.
    pub fn methods(&self) -> &'c [MethodName] {
        self.used.set(true);
        self.methods
    }

    /// Returns the names of the parameters that each of its paths has.
    pub fn params(&self) -> Vec<String> {
        self.used.set(true);
        common_params(self.entries)
    }

    /// Returns the paths of the route.
    pub fn paths(&self) -> Vec<PathPattern> {
        self.used.set(true);
        self.entries.iter().map(|entry| entry.path.clone()).collect()
    }

    /// Returns the paths that have that parameter, the most specific first; `None` unless each path has it.
    pub fn paths_with(&self, name: &str) -> Option<Vec<PathPattern>> {
        self.used.set(true);
        let mut paths: Vec<PathPattern> = self.entries.iter().map(|entry| entry.path.clone()).collect();
        paths.sort_by(|a, b| b.cmp(a));
        paths.dedup_by(|a, b| a == b);
        let is_everywhere = !paths.is_empty() && paths.iter().all(|path| path.param_names().iter().any(|n| n == name));
        is_everywhere.then_some(paths)
    }

    /// Returns whether a path may be one of the route's. It is unknown, and may be, where the filter is written for
    /// several routes.
    pub fn may_have_path(&self, path: &str) -> bool {
        if !self.is_own {
            return true;
        }
        self.used.set(true);
        self.entries.iter().any(|entry| entry.path.may_begin_with(path))
    }

    /// Returns the name under which the filter's counts outlive a configuration. What is written once counts once,
    /// for all routes that have it, unless `each` route is to count by itself.
    pub fn count_name(&self, each: bool) -> String {
        if each && !self.is_own {
            self.used.set(true);
            return format!("{} of {}", self.written, self.name);
        }
        self.written.to_owned()
    }

    /// Returns whether a fact was used that differs between routes.
    pub fn is_used(&self) -> bool {
        self.used.get()
    }
}

/// Returns the identity of settings by their place: the digest of all their values, with secrets and the contents of
/// the files that they name.
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

    /// Returns the value that filters with that key share, which `make` creates once; `None` where it cannot.
    pub fn shared<T: Any + Send + Sync>(
        &mut self,
        key: &[u8],
        make: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Arc<T>> {
        let key = (TypeId::of::<T>(), key.to_vec());
        if let Some(known) = self.shared.known.get(&key) {
            return Arc::clone(known).downcast().ok();
        }
        let made = Arc::new(make(self)?);
        self.shared.known.insert(key, Arc::clone(&made) as Arc<dyn Any + Send + Sync>);
        Some(made)
    }

    /// Registers a value that is kept up to date in the background while the configuration serves.
    pub fn keep(&mut self, kept: Arc<dyn Maintained>) {
        self.shared.keep(kept);
    }
}

/// The values that filters of all routes share.
#[derive(Default)]
pub struct SharedValues {
    known: HashMap<(TypeId, Vec<u8>), Arc<dyn Any + Send + Sync>>,
    /// The values that are kept up to date in the background.
    pub kept: Vec<Arc<dyn Maintained>>,
    /// The caches.
    pub caches: CacheTable,
    /// The files that were read besides those that the configuration names.
    pub files: Vec<PathBuf>,
}

impl SharedValues {
    /// Registers a value that is kept up to date in the background while the configuration serves.
    pub fn keep(&mut self, kept: Arc<dyn Maintained>) {
        let is_known = self.kept.iter().any(|known| std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(&kept)));
        if !is_known {
            self.kept.push(kept);
        }
    }
}

impl fmt::Debug for SharedValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("kept", &self.kept).finish_non_exhaustive()
    }
}
