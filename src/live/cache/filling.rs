//! A response that is being stored, and those who read it meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::Cache;
use super::body::{BodyError, StoredBody, StoredResponse, StoredTier};
use super::budget::Reserved;
use super::head::{StoredHead, StoredKey};
use super::memory::StoredParts;
use super::purges::Marks;

/// The memory of a part besides its bytes.
pub const PART_COST: u64 = 64;

/// Bodies up to this size are one part.
const ONE_PART: u64 = 64 * 1024;

/// Parts that are smaller on average are joined.
const SMALL_PART: u64 = 8 * 1024;

/// What may be unread of a body that is not stored, where there is no memory for more.
const MAX_UNREAD: u64 = 1 << 20;

/// How a fill has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FillEnd {
    Open,
    Complete,
    Failed,
}

/// A reader of a fill, with the place up to which it needs nothing more; `None` is one that is too far behind.
type ReaderPlace = (u64, Option<u64>);

#[derive(Debug)]
struct FillState {
    /// The parts, each with the place of its first byte.
    parts: VecDeque<(u64, Bytes)>,
    length: u64,
    end: FillEnd,
    /// Whether the body is to be stored. Otherwise parts are dropped once all readers have them.
    is_kept: bool,
    readers: SmallVec<[ReaderPlace; 2]>,
    next_reader: u64,
}

impl FillState {
    /// Returns the place of the first byte that is still held.
    fn begin(&self) -> u64 {
        self.parts.front().map_or(self.length, |(at, _)| *at)
    }

    /// Drops the parts that no reader needs, if the body is not stored. Returns the bytes that are left.
    fn drop_read(&mut self) -> u64 {
        if !self.is_kept {
            let needed = self.readers.iter().filter_map(|(_, at)| *at).min().unwrap_or(self.length);
            while self.parts.front().is_some_and(|(at, part)| at + part.len() as u64 <= needed) {
                self.parts.pop_front();
            }
        }
        self.length - self.begin()
    }

    /// Returns the part at a place, from there on.
    fn part_at(&self, at: u64) -> Option<Bytes> {
        let index = self.parts.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        let (begin, part) = self.parts.get(index)?;
        let from = usize::try_from(at - begin).ok()?;
        (from < part.len()).then(|| part.slice(from..))
    }
}

/// A fill, as its writer and its readers share it.
#[derive(Debug)]
pub struct Fill {
    /// The number of the fill in its cache.
    pub id: u64,
    /// The variant.
    pub variant: Option<StoredKey>,
    /// The head.
    pub head: Arc<StoredHead>,
    /// By what it is purged; `None` where it began before purges that are forgotten.
    pub marks: Option<Arc<Marks>>,
    /// Whether only those read it who have it from its writer.
    pub is_private: AtomicBool,
    /// Whether its key was invalidated meanwhile.
    pub is_cancelled: AtomicBool,
    /// When it began.
    pub began: Instant,
    state: Mutex<FillState>,
    changed: Notify,
    /// Notified when a reader of a body that is not stored has read on.
    read: Notify,
}

impl Fill {
    /// Returns a reader from the beginning, if there still is one.
    pub fn reader(self: &Arc<Self>) -> Option<FillReader> {
        let mut state = self.state.lock();
        if state.begin() > 0 || state.end == FillEnd::Failed {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.push((id, Some(0)));
        Some(FillReader { fill: Arc::clone(self), id })
    }

    /// Returns whether others may read it.
    pub fn is_shared(&self) -> bool {
        !self.is_private.load(Ordering::Acquire)
            && !self.is_cancelled.load(Ordering::Acquire)
            && self.state.lock().is_kept
    }

    /// Returns the length, once it is known.
    pub fn length(&self) -> Option<u64> {
        let state = self.state.lock();
        (state.end == FillEnd::Complete).then_some(state.length)
    }
}

/// A reader of a fill.
#[derive(Debug)]
pub struct FillReader {
    fill: Arc<Fill>,
    id: u64,
}

impl FillReader {
    /// Returns the fill.
    pub fn fill(&self) -> &Arc<Fill> {
        &self.fill
    }

    /// Returns the bytes from a place on, once there are some; `None` at the end. `until` is the end of what is read.
    ///
    /// # Errors
    /// When the fill has failed, or the bytes are no longer held.
    pub async fn read(&self, at: u64, until: Option<u64>) -> Result<Option<Bytes>, BodyError> {
        loop {
            let changed = self.fill.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut state = self.fill.state.lock();
                let is_over = until.is_some_and(|until| at >= until);
                if let Some(place) = state.readers.iter_mut().find(|(id, _)| *id == self.id) {
                    if place.1.is_none() {
                        return Err(BodyError::Incomplete);
                    }
                    place.1 = Some(if is_over { u64::MAX } else { at });
                }
                state.drop_read();
                if !state.is_kept {
                    self.fill.read.notify_one();
                }
                if is_over {
                    return Ok(None);
                }
                if let Some(part) = state.part_at(at) {
                    let most = until.map_or(u64::MAX, |until| until - at);
                    let most = usize::try_from(most).unwrap_or(usize::MAX).min(part.len());
                    return Ok(Some(part.slice(..most)));
                }
                match state.end {
                    FillEnd::Complete => return Ok(None),
                    FillEnd::Failed => return Err(BodyError::Incomplete),
                    FillEnd::Open if at < state.begin() => return Err(BodyError::Incomplete),
                    FillEnd::Open => {}
                }
            }
            changed.await;
        }
    }
}

impl Drop for FillReader {
    fn drop(&mut self) {
        let mut state = self.fill.state.lock();
        state.readers.retain(|(id, _)| *id != self.id);
        state.drop_read();
        self.fill.read.notify_one();
    }
}

/// The writer of a response that is being stored. If it is dropped without [`Filling::finish`], nothing is stored, and
/// readers get an error.
#[derive(Debug)]
pub struct Filling {
    cache: Arc<Cache>,
    key: StoredKey,
    fill: Arc<Fill>,
    /// The memory of the head, which the entry has later.
    head_reserved: Option<Reserved>,
    reserved: Reserved,
    is_ended: bool,
}

impl Filling {
    pub(super) fn new(cache: Arc<Cache>, key: StoredKey, fill: FillStart) -> Self {
        let FillStart { id, variant, head, marks, reserved: head_reserved } = fill;
        let state = FillState {
            parts: VecDeque::new(),
            length: 0,
            end: FillEnd::Open,
            is_kept: head_reserved.is_some() && marks.is_some(),
            readers: SmallVec::new(),
            next_reader: 0,
        };
        let fill = Arc::new(Fill {
            id,
            variant,
            head: Arc::new(head),
            marks: marks.map(Arc::new),
            is_private: AtomicBool::new(false),
            is_cancelled: AtomicBool::new(false),
            began: Instant::now(),
            state: Mutex::new(state),
            changed: Notify::new(),
            read: Notify::new(),
        });
        cache.memory.shard(&key).write().fills.entry(key).or_default().push(Arc::clone(&fill));
        let reserved = Reserved::nothing(&cache.memory.budget);
        Self { cache, key, fill, head_reserved, reserved, is_ended: false }
    }

    /// Returns the number by which [`Cache::follow`] finds it.
    pub fn id(&self) -> u64 {
        self.fill.id
    }

    /// Returns whether the response is being stored; otherwise it is only passed to its readers, because it is too
    /// large, or there is no memory.
    pub fn is_kept(&self) -> bool {
        self.fill.state.lock().is_kept
    }

    /// Returns whether somebody reads the response while it is received.
    pub fn has_readers(&self) -> bool {
        self.fill.state.lock().readers.iter().any(|(_, at)| at.is_some())
    }

    /// Hides the response from look-ups until it is complete.
    pub fn keep_private(&self) {
        self.fill.is_private.store(true, Ordering::Release);
    }

    /// Gives up storing the response: what is still to come is passed to its present readers alone.
    pub fn keep_no_longer(&mut self) {
        self.fill.state.lock().is_kept = false;
    }

    /// Waits until the readers of a response that is not stored have at most that many bytes left to read. Returns
    /// false if there is none.
    pub async fn wait_for_readers(&self, most: u64) -> bool {
        loop {
            {
                let mut state = self.fill.state.lock();
                if state.is_kept {
                    return true;
                }
                if !state.readers.iter().any(|(_, at)| at.is_some()) {
                    return false;
                }
                if state.drop_read() <= most {
                    return true;
                }
            }
            self.fill.read.notified().await;
        }
    }

    /// Returns a reader of this fill.
    pub fn follow(&self) -> Option<StoredResponse> {
        let reader = self.fill.reader()?;
        Some(StoredResponse {
            head: Arc::clone(&self.fill.head),
            body: StoredBody::of_fill(reader),
            stale_since: None,
            tier: StoredTier::Filling,
        })
    }

    /// Adds a part of the body. It is copied, since a part of a large buffer would hold all of it.
    pub fn write(&mut self, part: &[u8]) {
        if part.is_empty() {
            return;
        }
        let more = part.len() as u64 + PART_COST;
        let (length, is_kept) = {
            let state = self.fill.state.lock();
            (state.length + part.len() as u64, state.is_kept)
        };
        let fits = length <= self.cache.max_object() || !is_kept;
        let may_reserve = is_kept && fits || self.reserved.bytes() + more <= self.cache.memory.budget.limit() / 8;
        let has_memory = may_reserve && self.cache.reserve(&mut self.reserved, more);
        let mut state = self.fill.state.lock();
        state.is_kept &= fits && has_memory;
        let at = state.length;
        state.parts.push_back((at, Bytes::copy_from_slice(part)));
        state.length = length;
        let unread = state.drop_read();
        if !state.is_kept {
            if !has_memory && unread > self.reserved.bytes() + MAX_UNREAD {
                // A reader that is too far behind gets an error; the others go on.
                let begin = state.length - part.len() as u64;
                state.readers.iter_mut().filter(|(_, at)| at.is_some_and(|at| at < begin)).for_each(|r| r.1 = None);
                state.drop_read();
            }
            let held = state.length - state.begin() + PART_COST * state.parts.len() as u64;
            self.reserved.shrink_to(held);
        }
        drop(state);
        self.fill.changed.notify_waiters();
    }

    /// Ends the body, which is complete. Returns its length if it is stored.
    pub fn finish(mut self) -> Option<u64> {
        self.is_ended = true;
        let stored = self.take_parts();
        let length = stored.as_ref().map(|(parts, _)| parts.length);
        let is_stored = match stored {
            Some((parts, reserved)) => self.cache.commit(self.key, &self.fill, parts, reserved),
            None => false,
        };
        self.cache.end_fill(&self.key, &self.fill);
        self.end(FillEnd::Complete);
        length.filter(|_| is_stored)
    }

    /// Returns the body as it is stored, with the memory of the head.
    fn take_parts(&mut self) -> Option<(StoredParts, Reserved)> {
        let (mut parts, length) = {
            let state = self.fill.state.lock();
            if !state.is_kept {
                return None;
            }
            (state.parts.iter().map(|(_, part)| part.clone()).collect::<SmallVec<[Bytes; 1]>>(), state.length)
        };
        if parts.len() > 1 && (length <= ONE_PART || length / (parts.len() as u64) < SMALL_PART) {
            parts = joined(&parts);
        }
        self.reserved.shrink_to(length + PART_COST * parts.len() as u64);
        let empty = Reserved::nothing(&self.cache.memory.budget);
        let reserved = std::mem::replace(&mut self.reserved, empty);
        Some((StoredParts { parts, length, reserved }, self.head_reserved.take()?))
    }

    fn end(&self, end: FillEnd) {
        self.fill.state.lock().end = end;
        self.fill.changed.notify_waiters();
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if !self.is_ended {
            self.cache.end_fill(&self.key, &self.fill);
            self.end(FillEnd::Failed);
        }
    }
}

/// What a fill begins with.
#[derive(Debug)]
pub struct FillStart {
    /// The number of the fill.
    pub id: u64,
    /// The variant.
    pub variant: Option<StoredKey>,
    /// The head.
    pub head: StoredHead,
    /// By what it is purged.
    pub marks: Option<Marks>,
    /// The memory of the head; `None` if there was none.
    pub reserved: Option<Reserved>,
}

/// Returns the same bytes in parts of [`ONE_PART`].
fn joined(parts: &[Bytes]) -> SmallVec<[Bytes; 1]> {
    let (mut out, size) = (SmallVec::new(), ONE_PART as usize);
    let mut left: usize = parts.iter().map(Bytes::len).sum();
    let mut part = BytesMut::with_capacity(left.min(size));
    for mut rest in parts.iter().cloned() {
        while !rest.is_empty() {
            let piece = rest.split_to(rest.len().min(size - part.len()));
            part.extend_from_slice(&piece);
            left -= piece.len();
            if part.len() == size {
                let full = std::mem::replace(&mut part, BytesMut::with_capacity(left.min(size)));
                out.push(full.freeze());
            }
        }
    }
    if !part.is_empty() {
        out.push(part.freeze());
    }
    out
}
