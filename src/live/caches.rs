//! The caches by their names, and the folders of a predecessor.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::{Cache, CacheSettings};
use super::heritable::{HandoverPart, Heritable};
use super::shelf::Shelf;

/// The caches. One whose folder changes is another one.
#[derive(Debug, Default)]
pub struct Caches {
    all: Shelf<(String, Option<PathBuf>), Cache>,
    /// The folders that a predecessor has, and may have still.
    shared: Mutex<Vec<PathBuf>>,
}

impl Caches {
    /// Returns the cache of that name, which is created if it does not exist.
    pub fn get(&self, name: &str, settings: &CacheSettings) -> Arc<Cache> {
        let folder = settings.disk.as_ref().map(|disk| disk.path.clone());
        self.all.get_or(&(name.to_owned(), folder), || Cache::new(name, settings))
    }

    /// Waits until all that has been stored so far is on disk.
    pub async fn flush(&self) {
        for (_, cache) in self.all.all() {
            cache.flush().await;
        }
    }

    /// Returns whether a predecessor may have the folder still.
    pub fn is_shared(&self, folder: &Path) -> bool {
        self.shared.lock().iter().any(|known| known == folder)
    }
}

/// What is handed over are the names of folders: both processes use them until the predecessor ends, and what is in
/// memory is in files too.
impl Heritable for Caches {
    fn kind(&self) -> &'static str {
        "cache_folders"
    }

    fn version(&self) -> u32 {
        1
    }

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        let folders: Vec<PathBuf> = self.all.all().into_iter().filter_map(|((_, folder), _)| folder).collect();
        if part != HandoverPart::Whole || folders.is_empty() {
            return Ok(None);
        }
        serde_json::to_vec(&folders).map(Some)
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let folders: Vec<PathBuf> = serde_json::from_slice(form)?;
        let count = folders.len();
        self.shared.lock().extend(folders);
        Ok(count)
    }
}
