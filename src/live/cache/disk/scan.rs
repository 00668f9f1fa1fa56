//! The scan of a folder: it makes the index, and removes what is damaged or purged.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::file::{FileError, FileReading, StoredFile, open_file};
use super::folder::parse_name;
use super::queue::DiskOrder;
use super::{IndexedFile, Shared};
use crate::live::cache::head::StoredKey;
use crate::live::cache::purges::{Generation, Standing};

/// The time from the begin of a fill after which its response is not written any more.
pub const MAX_FILL_TIME: Duration = Duration::from_secs(600);

/// For how many microseconds the journal keeps purges that a scan has done, for files that are being written meanwhile.
const KEPT_MICROS: u64 = 2_000_000 * MAX_FILL_TIME.as_secs();

/// Starts a scan in a thread of its own, unless one is under way.
pub fn start(shared: &Arc<Shared>) {
    if shared.is_scanning.swap(true, Ordering::AcqRel) {
        return;
    }
    let own = Arc::clone(shared);
    let started = std::thread::Builder::new().name("cache-scan".to_owned()).spawn(move || {
        scan(&own);
        own.is_scanning.store(false, Ordering::Release);
    });
    if let Err(error) = started {
        shared.is_scanning.store(false, Ordering::Release);
        shared.note_failure("the folder cannot be scanned", &error);
    }
}

fn scan(shared: &Shared) {
    let begun = shared.purges.generation();
    let (mut kept, mut removed) = (0_u64, 0_u64);
    for number in 0..=u8::MAX {
        let Ok(entries) = std::fs::read_dir(shared.folder.part(number)) else { continue };
        for entry in entries {
            if shared.queue.is_closed() {
                return;
            }
            let Ok(entry) = entry else { break };
            let name = entry.file_name();
            let Some((key, variant)) = name.to_str().and_then(parse_name) else { continue };
            match examine(shared, &entry.path(), key, variant, begun) {
                Some(true) => kept += 1,
                Some(false) => removed += 1,
                None => {}
            }
        }
    }
    shared.is_scanned.store(true, Ordering::Release);
    log::info!("the cache in {} has {kept} files, {removed} were removed", shared.folder.path().display());
    shared.queue.add(DiskOrder::Compact(begun.0.saturating_sub(KEPT_MICROS)));
}

/// Adds a file to the index, or removes it. Returns whether it stays; `None` if it could not be read.
fn examine(
    shared: &Shared,
    path: &Path,
    key: StoredKey,
    variant: Option<StoredKey>,
    begun: Generation,
) -> Option<bool> {
    let file = match open_file(path, FileReading::Waiting) {
        Ok(file) if file.key == (key, variant) => file,
        Ok(_) | Err(FileError::Damaged) => {
            shared.counts.damaged.fetch_add(1, Ordering::Relaxed);
            let _ = std::fs::remove_file(path);
            return Some(false);
        }
        Err(FileError::Missing) => return None,
        Err(FileError::NotReady) => return None,
        Err(FileError::System(error)) => {
            shared.note_failure("a file cannot be read", &error);
            return None;
        }
    };
    let indexed = shared.shard(&key).read().peek(&key, variant.as_ref()).map(|file| file.generation);
    let generation = Generation(indexed.unwrap_or(0).max(file.generation));
    let standing = standing(shared, &file, generation);
    if standing == Standing::Dead || shared.purges.is_invalidated(&key, generation) {
        shared.forget(&key, variant.as_ref());
        let _ = std::fs::remove_file(path);
        return Some(false);
    }
    // It has been compared with all purges up to here; one that is stale has to be compared again.
    let generation = if standing == Standing::Valid { generation.max(begun) } else { generation };
    let mut shard = shared.shard(&key).write();
    match shard.get_mut(&key, variant.as_ref()) {
        Some(known) => known.generation = known.generation.max(generation.0),
        None => {
            drop(shard);
            let url = shared.purges.url_hash(&file.head.url);
            shared.add(key, variant, IndexedFile { bytes: file.bytes, generation: generation.0, url, head: None });
        }
    }
    Some(true)
}

fn standing(shared: &Shared, file: &StoredFile, generation: Generation) -> Standing {
    match shared.purges.marks(&file.head, generation) {
        Some(marks) => shared.purges.standing(&marks, &file.head.url),
        None => Standing::Dead,
    }
}
