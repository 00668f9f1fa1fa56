//! `caches`.

use std::path::{Path, PathBuf};

use crate::config::{CacheConfig, Loaded, is_name};
use crate::filters::{CacheTable, UsedCache};
use crate::live::{CacheSettings, DiskSettings};
use crate::notation::{Mistakes, Place};

/// The least memory of a cache.
const MIN_MEMORY: u64 = 1 << 20;

/// The most bytes of one body where nothing is kept in memory: half of the memory for what is being received.
const MAX_OBJECT_WITHOUT_MEMORY: u64 = 32 << 20;

/// The most caches: each has series of its own among the metrics.
const MAX_CACHES: usize = 100;

/// Returns the settings of the caches, with every error in them among `mistakes`.
pub fn compile(loaded: &Loaded, mistakes: &mut Mistakes) -> CacheTable {
    let place = Place::default().key("caches");
    let (mut table, mut folders) = (CacheTable::default(), Vec::<(PathBuf, &str)>::new());
    if loaded.config.caches.len() > MAX_CACHES {
        mistakes.add(&place, format!("expected at most {MAX_CACHES} caches"));
    }
    for (name, cache) in &loaded.config.caches {
        let (place, known) = (place.key(name.clone()), mistakes.count());
        mistakes.take(&place, is_name(name).map_err(|expected| format!("expected {expected}")));
        let settings = settings(loaded, cache, &place, mistakes);
        if let Some(disk) = &settings.disk {
            check_folder(&disk.path, &folders, &place.key("disk").key("path"), mistakes);
            folders.push((disk.path.clone(), name));
        }
        if mistakes.count() == known {
            table.configured.insert(name.clone(), settings);
        } else {
            table.left_out.push(name.clone());
        }
    }
    table.is_partial = loaded.is_partial("caches");
    table
}

fn settings(loaded: &Loaded, cache: &CacheConfig, place: &Place, mistakes: &mut Mistakes) -> CacheSettings {
    let (memory, max_object) = (cache.memory.0, cache.max_object.0);
    if memory == 0 && cache.disk.is_none() {
        mistakes
            .add(&place.key("memory"), "a cache with no memory needs files: set `disk: {path: FOLDER, size: 10GiB}`");
    } else if memory > 0 && memory < MIN_MEMORY {
        mistakes.add(&place.key("memory"), "expected at least 1MiB, or 0B with disk");
    }
    let most = if memory == 0 { MAX_OBJECT_WITHOUT_MEMORY } else { memory / 2 };
    if max_object == 0 {
        mistakes.add(&place.key("max_object"), "expected a size greater than zero");
    } else if max_object > most && memory != 0 && memory < MIN_MEMORY {
        // The memory is the error.
    } else if max_object > most {
        let text = match memory {
            0 => "is held in memory while it is received: expected at most 32MiB where nothing is kept in memory",
            _ => "expected at most half of memory: a body is held there while it is received",
        };
        mistakes.add(&place.key("max_object"), text);
    }
    let disk = cache.disk.as_ref().map(|disk| {
        if disk.size.0 < 2 * max_object {
            let text = "expected at least twice max_object";
            mistakes.add(&place.key("disk").key("size"), text);
        }
        let path = loaded.base.join(&disk.path);
        DiskSettings { path: std::path::absolute(&path).unwrap_or(path), size: disk.size.0 }
    });
    CacheSettings { memory, max_object, disk }
}

/// Returns the caches that filters use, and warns of the others.
pub fn used(table: &CacheTable, warnings: &mut Mistakes) -> Vec<UsedCache> {
    let used = table.used();
    for name in table.configured.keys().filter(|name| used.iter().all(|used| used.cache.name() != *name)) {
        warnings.add(&Place::default().key("caches").key(name.clone()), "nothing uses this cache");
    }
    used
}

/// Notes a folder that cannot be used, as far as that is known without creating it.
fn check_folder(path: &Path, others: &[(PathBuf, &str)], place: &Place, mistakes: &mut Mistakes) {
    if let Some((_, other)) = others.iter().find(|(other, _)| path.starts_with(other) || other.starts_with(path)) {
        mistakes.add(place, format!("the cache {other} has this folder: every cache needs one of its own"));
    }
    let existing = path.ancestors().find(|ancestor| ancestor.exists());
    let text = match existing {
        Some(existing) if !existing.is_dir() => format!("{} is no folder", existing.display()),
        Some(existing) if nix::unistd::access(existing, nix::unistd::AccessFlags::W_OK).is_err() => {
            format!("{} cannot be written", existing.display())
        }
        _ => return,
    };
    mistakes.add(place, text);
}
