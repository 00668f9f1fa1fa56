//! What the thread of a folder is asked to do. All changes of the folder are made there, one after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::journal::JournalRecord;
use crate::live::cache::head::{StoredHead, StoredKey};
use crate::live::cache::memory::Stored;

/// The most bodies that wait to be written.
const MAX_WRITES: usize = 1_024;

/// The most bytes that wait to be written: they stay in memory until then.
const MAX_WAITING_BYTES: u64 = 64 << 20;

/// A response to be written.
#[derive(Debug)]
pub struct WriteOrder {
    /// The key.
    pub key: StoredKey,
    /// The variant.
    pub variant: Option<StoredKey>,
    /// The response.
    pub stored: Arc<Stored>,
    /// Whether it is removed from memory once it is written.
    pub moves: bool,
}

/// A change of the folder.
#[derive(Debug)]
pub enum DiskOrder {
    /// Writes a response.
    Write(WriteOrder),
    /// Resolves once all writes before it are done.
    Done(oneshot::Sender<()>),
    /// Writes the file of a response again, with another head.
    Head(StoredKey, Option<StoredKey>, Arc<StoredHead>, u64),
    /// Removes a file that is damaged or purged.
    Remove(StoredKey, Option<StoredKey>),
    /// Removes the files of a key that is invalidated.
    Invalidate(StoredKey, oneshot::Sender<()>),
    /// Appends a purge to the journal; whether it is written through to the disk.
    Purge(JournalRecord, bool, Option<oneshot::Sender<Result<(), String>>>),
    /// Removes all files that are older than that generation.
    Clear(u64),
    /// Removes purges from the journal up to that generation.
    Compact(u64),
}

#[derive(Debug, Default)]
struct Waiting {
    urgent: VecDeque<DiskOrder>,
    writes: VecDeque<DiskOrder>,
    bytes: u64,
    /// Whether a write is under way.
    is_writing: bool,
    is_closed: bool,
}

/// The orders that wait for the thread.
#[derive(Debug, Default)]
pub struct DiskQueue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl DiskQueue {
    /// Adds a write. Returns false if as much waits as may.
    pub fn write(&self, order: DiskOrder) -> bool {
        let bytes = match &order {
            DiskOrder::Write(write) => write.stored.body.length,
            _ => 0,
        };
        let mut waiting = self.waiting.lock();
        let is_full = waiting.writes.len() >= MAX_WRITES || waiting.bytes + bytes > MAX_WAITING_BYTES.max(bytes);
        if is_full || waiting.is_closed {
            return false;
        }
        waiting.bytes += bytes;
        waiting.writes.push_back(order);
        self.changed.notify_one();
        true
    }

    /// Adds what comes before all writes. It is dropped if the thread has ended.
    pub fn add(&self, order: DiskOrder) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_closed {
            waiting.urgent.push_back(order);
            self.changed.notify_one();
        }
    }

    /// Ends the thread, once it has done what waits.
    pub fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.changed.notify_all();
    }

    /// Returns whether the thread ends.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().is_closed
    }

    /// Returns the number of writes that wait or are under way.
    pub fn writes(&self) -> usize {
        let waiting = self.waiting.lock();
        waiting.writes.len() + usize::from(waiting.is_writing)
    }

    /// Waits for orders: all that are urgent, or one write, or none within that time. Returns `None` at the end.
    pub fn next(&self, time: Duration) -> Option<Vec<DiskOrder>> {
        let mut waiting = self.waiting.lock();
        waiting.is_writing = false;
        if waiting.urgent.is_empty() && waiting.writes.is_empty() && !waiting.is_closed {
            self.changed.wait_for(&mut waiting, time);
        }
        if !waiting.urgent.is_empty() {
            return Some(waiting.urgent.drain(..).collect());
        }
        if let Some(order) = waiting.writes.pop_front() {
            waiting.is_writing = true;
            if let DiskOrder::Write(write) = &order {
                waiting.bytes -= write.stored.body.length;
            }
            return Some(vec![order]);
        }
        if waiting.is_closed { None } else { Some(Vec::new()) }
    }
}
