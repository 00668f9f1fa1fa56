//! The thread of a folder.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::fcntl::Flock;

use super::file::{FileReading, file_bytes, open_file, write_file, write_file_with_head};
use super::folder::parse_name;
use super::journal::{Journal, JournalRecord};
use super::queue::{DiskOrder, WriteOrder};
use super::scan;
use super::{IndexedFile, Shared};
use crate::live::cache::head::{StoredHead, StoredKey};
use crate::live::cache::memory::Stored;
use crate::live::cache::purges::{Generation, Purges, Standing};

/// How often the thread looks whether another process has purged, or has left the folder.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How long nothing is written after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// The purges in the journal after which the folder is scanned, to remove them.
const MAX_RECORDS: usize = 20_000;

/// Starts the thread, and the first scan.
///
/// # Errors
/// When no thread can be started.
pub fn start(shared: Arc<Shared>, journal: Journal, lock: Option<Flock<File>>) -> io::Result<()> {
    let mut thread = DiskThread { shared, journal, lock, failed: None, checked: Instant::now(), scanned_at: 0 };
    std::thread::Builder::new().name("cache-disk".to_owned()).spawn(move || thread.run())?;
    Ok(())
}

struct DiskThread {
    shared: Arc<Shared>,
    journal: Journal,
    /// The lock of the folder; `None` while a predecessor has it.
    lock: Option<Flock<File>>,
    failed: Option<Instant>,
    checked: Instant,
    /// The records in the journal when the last scan was started.
    scanned_at: usize,
}

impl DiskThread {
    fn run(&mut self) {
        scan::start(&self.shared);
        while let Some(mut orders) = self.shared.queue.next(CHECK_INTERVAL) {
            self.note_purges(&mut orders);
            for order in orders {
                match order {
                    DiskOrder::Write(order) => self.write(&order),
                    DiskOrder::Head(key, variant, head, generation) => self.head(&key, variant, &head, generation),
                    DiskOrder::Remove(key, variant) => self.remove(&key, variant.as_ref()),
                    DiskOrder::Invalidate(key, done) => {
                        self.invalidate(&key);
                        let _ = done.send(());
                    }
                    DiskOrder::Done(done) => _ = done.send(()),
                    DiskOrder::Purge(..) => {}
                    DiskOrder::Clear(generation) => self.clear(generation),
                    DiskOrder::Compact(up_to) => self.compact(up_to),
                }
            }
            if self.checked.elapsed() >= CHECK_INTERVAL {
                self.checked = Instant::now();
                self.check();
            }
        }
    }

    /// Writes all purges of these orders in one durable step.
    fn note_purges(&mut self, orders: &mut Vec<DiskOrder>) {
        let (mut records, mut waiting, mut is_durable) = (Vec::new(), Vec::new(), false);
        orders.retain_mut(|order| {
            let DiskOrder::Purge(record, durable, done) = order else { return true };
            is_durable |= *durable;
            records.push(record.clone());
            waiting.extend(done.take());
            false
        });
        if records.is_empty() {
            return;
        }
        let result = self.journal.append(&records, is_durable).map_err(|error| {
            self.shared.note_failure("a purge cannot be written", &error);
            format!("the purge is made, but cannot be written to disk, and a restart may undo it: {error}")
        });
        waiting.into_iter().for_each(|done| _ = done.send(result.clone()));
    }

    /// Writes the file of a response, unless a purge has reached it.
    fn write(&mut self, order: &WriteOrder) {
        let (shared, stored) = (Arc::clone(&self.shared), &order.stored);
        let is_failing = self.failed.is_some_and(|at| at.elapsed() < RETRY_INTERVAL);
        let bytes = file_bytes(usize::try_from(stored.head.cost()).unwrap_or(usize::MAX), stored.body.length);
        if is_failing || bytes > shared.limit.load(Ordering::Relaxed) / 2 {
            shared.counts.not_written.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let is_gone = || {
            shared.purges.is_invalidated(&order.key, stored.marks.generation())
                || shared.purges.standing(&stored.marks, &stored.head.url) == Standing::Dead
        };
        if is_gone() {
            return;
        }
        shared.make_room(bytes);
        let (path, variant, generation) =
            (shared.folder.incomplete(), order.variant.as_ref(), stored.marks.generation().0);
        let written = write_file(&path, (&order.key, variant), &stored.head, generation, &stored.body.parts);
        let written = written.and_then(|bytes| {
            // It may have been replaced or purged while it was written.
            if is_gone() {
                std::fs::remove_file(&path)?;
                return Ok(None);
            }
            shared.folder.complete(&path, &order.key, variant).map(|()| Some(bytes))
        });
        match written {
            Ok(Some(bytes)) => {
                let url = shared.purges.url_hash(&stored.head.url);
                shared.add(order.key, order.variant, IndexedFile { bytes, generation, url, head: None });
                self.move_out(order);
            }
            Ok(None) => {}
            Err(error) => self.fail(&path, &error),
        }
    }

    /// Removes a response from memory that is on disk, where nothing is kept in memory.
    fn move_out(&self, order: &WriteOrder) {
        let mut shard = self.shared.memory.shard(&order.key).write();
        let is_same = |known: &Arc<Stored>| Arc::ptr_eq(known, &order.stored);
        if order.moves && shard.slots.peek(&order.key, order.variant.as_ref()).is_some_and(is_same) {
            let removed = shard.slots.remove(&order.key, order.variant.as_ref());
            drop(shard);
            drop(removed);
        }
    }

    /// Writes the file of a response again, with another head.
    fn head(&mut self, key: &StoredKey, variant: Option<StoredKey>, head: &Arc<StoredHead>, generation: u64) {
        let shared = Arc::clone(&self.shared);
        let is_current = |file: &IndexedFile| file.head.as_ref().is_some_and(|known| Arc::ptr_eq(known, head));
        if !shared.shard(key).read().peek(key, variant.as_ref()).is_some_and(is_current) {
            return;
        }
        let file = open_file(&shared.folder.file(key, variant.as_ref()), FileReading::Waiting);
        let Some(file) = file.ok().filter(|file| head.is_of_same(&file.head)) else { return };
        shared.make_room(file.bytes + head.cost());
        let path = shared.folder.incomplete();
        let written = write_file_with_head(&path, &file, head, generation);
        match written.and_then(|bytes| shared.folder.complete(&path, key, variant.as_ref()).map(|()| bytes)) {
            Ok(bytes) => {
                let url = shared.purges.url_hash(&head.url);
                shared.add(*key, variant, IndexedFile { bytes, generation, url, head: None });
            }
            Err(error) => self.fail(&path, &error),
        }
    }

    /// Writes nothing for a while: the disk may be full.
    fn fail(&mut self, path: &std::path::Path, error: &io::Error) {
        let _ = std::fs::remove_file(path);
        self.failed = Some(Instant::now());
        self.shared.counts.not_written.fetch_add(1, Ordering::Relaxed);
        self.shared.note_failure("a response cannot be written", error);
    }

    fn remove(&self, key: &StoredKey, variant: Option<&StoredKey>) {
        self.shared.forget(key, variant);
        let _ = std::fs::remove_file(self.shared.folder.file(key, variant));
    }

    /// Removes the files of a key that are older than its invalidation.
    fn invalidate(&self, key: &StoredKey) {
        let shared = &self.shared;
        let all: Vec<(Option<StoredKey>, u64)> = {
            let shard = shared.shard(key).read();
            shard.variants(key).map(|(variant, file)| (variant, file.generation)).collect()
        };
        for (variant, generation) in all {
            if shared.purges.is_invalidated(key, Generation(generation)) {
                self.remove(key, variant.as_ref());
            }
        }
        if shared.is_scanned.load(Ordering::Acquire) {
            return;
        }
        // Those that are not in the index yet.
        let Ok(entries) = std::fs::read_dir(shared.folder.part(key.0[0])) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some((of, variant)) = name.to_str().and_then(parse_name).filter(|(of, _)| of == key) else { continue };
            let generation = open_file(&entry.path(), FileReading::Waiting).map_or(0, |file| file.generation);
            if shared.purges.is_invalidated(&of, Generation(generation)) {
                self.remove(&of, variant.as_ref());
            }
        }
    }

    /// Removes the files that are older than a purge of all.
    fn clear(&self, generation: u64) {
        for shard in &self.shared.shards {
            let removed = shard.write().retain(|_, file| file.generation >= generation);
            for (key, variant, file) in removed {
                self.shared.count_out(&file);
                let _ = std::fs::remove_file(self.shared.folder.file(&key, variant.as_ref()));
            }
        }
    }

    /// Removes purges from the journal that a scan has done, and files above the limit.
    fn compact(&mut self, up_to: u64) {
        self.shared.make_room(0);
        if self.lock.is_some() && up_to > 0 {
            if let Err(error) = self.journal.compact(up_to) {
                self.shared.note_failure("the purges cannot be written", &error);
            }
            self.scanned_at = self.journal.count;
        }
    }

    /// Takes over the purges of another process, and the folder once that has left it.
    fn check(&mut self) {
        match self.journal.read_new() {
            Ok(records) => apply(&self.shared.purges, &records),
            Err(error) => self.shared.note_failure("the purges cannot be read", &error),
        }
        if self.lock.is_none() {
            self.lock = self.shared.folder.lock().unwrap_or_default();
            if self.lock.is_some() {
                // For what the predecessor has written meanwhile.
                self.shared.folder.remove_leftovers();
                scan::start(&self.shared);
            }
        } else if self.journal.count > self.scanned_at + MAX_RECORDS {
            self.scanned_at = self.journal.count;
            scan::start(&self.shared);
        }
    }
}

/// Makes the purges of a journal.
pub fn apply(purges: &Purges, records: &[JournalRecord]) {
    records.iter().for_each(|record| purges.apply(&record.purge, record.soft, record.generation));
}
