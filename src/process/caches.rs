//! The caches of a configuration before and while it serves.

use crate::config::Loaded;
use crate::live::Live;
use crate::notation::{Mistakes, Place};
use crate::snapshot::Snapshot;

/// Opens the folders of the caches, before the configuration serves.
///
/// # Errors
/// When a folder cannot be written, or another instance uses it.
pub fn open_caches(loaded: &Loaded, live: &Live, snapshot: &Snapshot) -> Result<(), Mistakes> {
    let mut mistakes = Mistakes::default();
    for used in &snapshot.caches {
        let shares = used.settings.disk.as_ref().is_some_and(|disk| live.shares_cache_folder(&disk.path));
        let place = Place::default().key("caches").key(used.cache.name().to_owned()).key("disk").key("path");
        mistakes.take(&place, used.cache.open(&used.settings, shares));
    }
    if mistakes.is_empty() { Ok(()) } else { Err(loaded.locate(mistakes)) }
}

/// Gives the caches the sizes of the configuration that serves.
pub fn resize_caches(snapshot: &Snapshot) {
    snapshot.caches.iter().for_each(|used| used.cache.resize(&used.settings));
}
