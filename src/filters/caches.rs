//! The caches that filters may use, by name.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::CompileContext;
use crate::live::{Cache, CacheSettings};
use crate::notation::nearest;

/// The cache that exists without being configured.
const DEFAULT: &str = "default";

/// A cache that is in use, with the size that it has once the configuration serves.
#[derive(Clone, Debug)]
pub struct UsedCache {
    /// The cache.
    pub cache: Arc<Cache>,
    /// Its settings.
    pub settings: CacheSettings,
}

/// The caches of a configuration.
#[derive(Debug, Default)]
pub struct CacheTable {
    /// The settings of those that are configured.
    pub configured: BTreeMap<String, CacheSettings>,
    /// Those that have errors, which are reported elsewhere.
    pub left_out: Vec<String>,
    /// Whether further ones are missing, because they have errors.
    pub is_partial: bool,
    used: RefCell<BTreeMap<String, UsedCache>>,
}

impl CacheTable {
    /// Returns the most bytes of one body that a cache which is in use stores.
    pub fn max_object(&self, name: &str) -> Option<u64> {
        self.used.borrow().get(name).map(|used| used.settings.max_object)
    }

    /// Returns the caches that filters use.
    pub fn used(&self) -> Vec<UsedCache> {
        self.used.borrow().values().cloned().collect()
    }
}

impl CompileContext<'_> {
    /// Returns the cache of that name; notes an error if there is none.
    pub fn cache(&mut self, name: &str) -> Option<Arc<Cache>> {
        let caches = &self.shared.caches;
        if let Some(used) = caches.used.borrow().get(name) {
            return Some(Arc::clone(&used.cache));
        }
        let is_unknown = caches.is_partial || caches.left_out.iter().any(|known| known == name);
        let settings = match caches.configured.get(name) {
            Some(settings) => settings.clone(),
            None if is_unknown => return None,
            None if name == DEFAULT => CacheSettings::default(),
            None => {
                let known = caches.configured.keys().map(String::as_str).chain([DEFAULT]);
                let text = format!("there is no cache \"{name}\"{}", nearest(name, known));
                self.mistakes.add(&self.place.key("store"), text);
                return None;
            }
        };
        let cache = self.live.cache(name, &settings);
        let used = UsedCache { cache: Arc::clone(&cache), settings };
        caches.used.borrow_mut().insert(name.to_owned(), used);
        Some(cache)
    }
}
