//! The store of the HTTP cache: heads and bodies by key and variant, in memory and on disk, bounded in bytes.
//!
//! Nothing here knows when a response may be stored or served (RFC 9111): a head says until when it is fresh, and the
//! store keeps it, finds it, evicts it and purges it. A reader may follow a response while it is being received.
//!
//! # What must never be
//!
//! * A lock that all workers share on the way of a hit, or a copy of a body there.
//! * A response that was purged, once the purge has returned; not after a restart either.
//! * A response of which a byte is not what was stored.
//! * Files that are read or written in a worker.

mod body;
mod budget;
mod counts;
mod disk;
#[cfg(test)]
mod disk_tests;
mod filling;
mod head;
mod memory;
#[cfg(test)]
mod model_tests;
mod purges;
mod slots;
#[cfg(test)]
mod tests;
mod view;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

pub use body::{BodyError, StoredBody, StoredResponse, StoredTier};
pub use disk::DiskSettings;
pub use filling::Filling;
pub use head::{HeadMemo, StoredHead, StoredKey};
pub use purges::{Generation, Purge};
pub use view::{CacheView, EntryView};

use bytes::Bytes;
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::rules::caching::{KeyRules, url_by_rules};

use budget::Reserved;
use counts::{CacheCounts, LookupOutcome};
use disk::{Disk, FoundFile, MAX_FILL_TIME};
use filling::{Fill, FillStart, PART_COST};
use memory::{Memory, Stored, StoredParts};
use purges::{Marks, Purges, Standing};

/// The memory for what is being received, where nothing is kept in memory.
const MIN_MEMORY: u64 = 64 << 20;

/// The time from a purge to the removal of what it has reached from memory.
const SWEEP_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// The size of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most bytes in memory: heads, bodies, the index, and what is being received. With 0 only what is being
    /// received and written is in memory.
    pub memory: u64,
    /// The most bytes of one body.
    pub max_object: u64,
    /// The files, if there are any.
    pub disk: Option<DiskSettings>,
}

impl CacheSettings {
    /// Returns the most memory that the cache takes.
    pub fn memory_limit(&self) -> u64 {
        if self.memory == 0 { MIN_MEMORY } else { self.memory }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { memory: 256 << 20, max_object: 8 << 20, disk: None }
    }
}

/// A cache.
#[derive(Debug)]
pub struct Cache {
    name: String,
    memory: Arc<Memory>,
    /// Whether responses are kept in memory once they are on disk.
    keeps_memory: AtomicBool,
    disk: OnceLock<Disk>,
    purges: Arc<Purges>,
    max_object: AtomicU64,
    next_fill: AtomicU64,
    /// The purges since the last sweep.
    sweeps: AtomicU64,
    counts: CacheCounts,
    /// The rules by which its users leave parameters out of the URLs of what they store.
    url_rules: Mutex<Vec<Weak<KeyRules>>>,
}

impl Cache {
    /// Returns an empty cache, without its files.
    pub fn new(name: &str, settings: &CacheSettings) -> Arc<Self> {
        let cache = Self {
            name: name.to_owned(),
            memory: Arc::new(Memory::new(0)),
            keeps_memory: AtomicBool::new(true),
            disk: OnceLock::new(),
            purges: Arc::default(),
            max_object: AtomicU64::new(0),
            next_fill: AtomicU64::new(1),
            sweeps: AtomicU64::new(0),
            counts: CacheCounts::default(),
            url_rules: Mutex::default(),
        };
        cache.resize(settings);
        Arc::new(cache)
    }

    /// Opens the files, unless they are open. `shares` says that a predecessor may have the folder still.
    ///
    /// # Errors
    /// Returns why the folder cannot be used.
    pub fn open(&self, settings: &CacheSettings, shares: bool) -> Result<(), String> {
        if let (Some(disk), None) = (&settings.disk, self.disk.get()) {
            let _ = self.disk.set(Disk::open(disk, &self.purges, &self.memory, shares)?);
        }
        Ok(())
    }

    /// Changes the size. What no longer fits is evicted.
    pub fn resize(&self, settings: &CacheSettings) {
        self.max_object.store(settings.max_object, Ordering::Relaxed);
        let keeps = settings.memory > 0;
        self.keeps_memory.store(keeps, Ordering::Relaxed);
        self.memory.budget.set_limit(settings.memory_limit());
        self.counts.evicted(self.memory.trim());
        if let (Some(disk), Some(settings)) = (self.disk.get(), &settings.disk) {
            disk.resize(settings.size);
        }
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the most bytes of one body: a longer one is passed on and not stored.
    pub fn max_object(&self) -> u64 {
        self.max_object.load(Ordering::Relaxed)
    }

    /// Returns the present generation. A request takes it when it begins, and what it stores has it: purges that come
    /// later reach it.
    pub fn generation(&self) -> Generation {
        self.purges.generation()
    }

    /// Finds the response of a key; `variant` is the digest of the request's fields that select it, if it varies. A
    /// response that is still being received is found too. What is in memory is found without waiting.
    pub async fn find(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<StoredResponse> {
        let mut found = self.find_in_memory(key, variant);
        if found.is_none()
            && let Some(disk) = self.disk.get()
        {
            found = self.find_on_disk(disk, key, variant).await;
        }
        self.counts.lookup(match found.as_ref().map(|found| found.tier) {
            Some(StoredTier::Memory) => LookupOutcome::Memory,
            Some(StoredTier::Disk) => LookupOutcome::Disk,
            Some(StoredTier::Filling) => LookupOutcome::Filling,
            None => LookupOutcome::Miss,
        });
        found
    }

    fn find_in_memory(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<StoredResponse> {
        let (found, fill) = {
            let shard = self.memory.shard(key).read();
            let fills = if shard.fills.is_empty() { None } else { shard.fills.get(key) };
            let open = |fill: &Arc<Fill>| {
                let is_open = fill.variant.as_ref() == variant && fill.is_shared();
                let stale_since = is_open.then(|| self.stale_since(fill.marks.as_ref()?, &fill.head))??;
                Some((Arc::clone(fill), stale_since))
            };
            let fill = fills.and_then(|fills| fills.iter().rev().find_map(open));
            (shard.slots.find(key, variant).cloned(), fill)
        };
        // What is being received is newer.
        let following = fill.and_then(|(fill, stale_since)| {
            let body = StoredBody::of_fill(fill.reader()?);
            Some(StoredResponse { head: Arc::clone(&fill.head), body, stale_since, tier: StoredTier::Filling })
        });
        following.or_else(|| {
            let stored = found?;
            let stale_since = self.stale_since(&stored.marks, &stored.head)?;
            let body = StoredBody::of_parts(Arc::clone(&stored.body));
            Some(StoredResponse { head: Arc::clone(&stored.head), body, stale_since, tier: StoredTier::Memory })
        })
    }

    /// Returns since when a response is stale by a soft purge; `None` if a purge has removed it.
    fn stale_since(&self, marks: &Marks, head: &StoredHead) -> Option<Option<std::time::SystemTime>> {
        match self.purges.standing(marks, &head.url) {
            Standing::Dead => None,
            Standing::Valid => Some(None),
            Standing::Stale(since) => Some(Some(since)),
        }
    }

    async fn find_on_disk(&self, disk: &Disk, key: &StoredKey, variant: Option<&StoredKey>) -> Option<StoredResponse> {
        let FoundFile { reader, head, generation } = disk.find(key, variant).await?;
        let marks = self.purges.marks(&head, generation);
        let standing = marks.as_ref().and_then(|marks| self.stale_since(marks, &head));
        let (Some(stale_since), Some(marks)) = (standing, marks) else {
            disk.remove(key, variant);
            return None;
        };
        if self.purges.is_invalidated(key, generation) {
            return None;
        }
        let whole = reader.whole().map(SmallVec::from);
        let promoted = whole.and_then(|parts| self.promote((key, variant), &head, marks, parts));
        let body = promoted.map_or_else(|| StoredBody::of_file(reader), StoredBody::of_parts);
        Some(StoredResponse { head, body, stale_since, tier: StoredTier::Disk })
    }

    /// Keeps a response from disk in memory, if there is none of its key.
    fn promote(
        &self,
        (key, variant): (&StoredKey, Option<&StoredKey>),
        head: &Arc<StoredHead>,
        marks: Marks,
        parts: SmallVec<[Bytes; 1]>,
    ) -> Option<Arc<StoredParts>> {
        if !self.keeps_memory.load(Ordering::Relaxed) {
            return None;
        }
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let (mut of_head, mut of_body) =
            (Reserved::nothing(&self.memory.budget), Reserved::nothing(&self.memory.budget));
        let bytes = length + PART_COST * parts.len() as u64;
        if !self.reserve(&mut of_head, head.cost()) || !self.reserve(&mut of_body, bytes) {
            return None;
        }
        let body = Arc::new(StoredParts { parts, length, reserved: of_body });
        let mut shard = self.memory.shard(key).write();
        // Under the lock: an invalidation either is seen here, or finds the entry.
        let is_gone = self.purges.is_invalidated(key, marks.generation());
        if !is_gone && shard.slots.peek(key, variant).is_none() {
            let (head, parts, bytes) = (Arc::clone(head), Arc::clone(&body), bytes + of_head.bytes());
            let stored = Arc::new(Stored { head, body: parts, marks: Arc::new(marks), reserved: of_head });
            let replaced = shard.slots.insert(*key, variant.copied(), stored, bytes);
            drop(shard);
            drop(replaced);
        }
        Some(body)
    }

    /// Begins to store a response, whose request began in that generation.
    pub fn begin(
        self: &Arc<Self>,
        key: StoredKey,
        variant: Option<StoredKey>,
        head: StoredHead,
        started: Generation,
    ) -> Filling {
        let mut reserved = Reserved::nothing(&self.memory.budget);
        let has_memory = self.reserve(&mut reserved, head.cost());
        let start = FillStart {
            id: self.next_fill.fetch_add(1, Ordering::Relaxed),
            variant,
            marks: self.purges.marks(&head, started),
            head,
            reserved: has_memory.then_some(reserved),
        };
        Filling::new(Arc::clone(self), key, start)
    }

    /// Returns a reader of the fill with that number, from its beginning. A purge does not end it for those who read
    /// it already.
    pub fn follow(&self, key: &StoredKey, fill: u64) -> Option<StoredResponse> {
        let fill = {
            let shard = self.memory.shard(key).read();
            Arc::clone(shard.fills.get(key)?.iter().find(|known| known.id == fill)?)
        };
        let body = StoredBody::of_fill(fill.reader()?);
        Some(StoredResponse { head: Arc::clone(&fill.head), body, stale_since: None, tier: StoredTier::Filling })
    }

    /// Replaces the head of a stored response after a validation (RFC 9111, section 4.3.4), whose request began in
    /// that generation. Returns false if the response is gone, or has been replaced: `created` of the head has to be
    /// that of the response which was validated.
    pub fn replace_head(
        &self,
        key: &StoredKey,
        variant: Option<&StoredKey>,
        head: StoredHead,
        started: Generation,
    ) -> bool {
        let head = Arc::new(head);
        let is_in_memory = self.replace_in_memory((key, variant), &head, started);
        let is_on_disk = self.disk.get().is_some_and(|disk| disk.replace_head(key, variant, &head, started));
        is_in_memory || is_on_disk
    }

    fn replace_in_memory(
        &self,
        (key, variant): (&StoredKey, Option<&StoredKey>),
        head: &Arc<StoredHead>,
        started: Generation,
    ) -> bool {
        let mut reserved = Reserved::nothing(&self.memory.budget);
        let Some(marks) = self.purges.marks(head, started) else { return false };
        if !self.reserve(&mut reserved, head.cost()) {
            return false;
        }
        let mut shard = self.memory.shard(key).write();
        let Some(known) = shard.slots.get_mut(key, variant) else { return false };
        let is_gone = !head.is_of_same(&known.head)
            || self.stale_since(&known.marks, &known.head).is_none()
            || self.purges.is_invalidated(key, known.marks.generation());
        if is_gone {
            return false;
        }
        let (head, body) = (Arc::clone(head), Arc::clone(&known.body));
        *known = Arc::new(Stored { head, body, marks: Arc::new(marks), reserved });
        true
    }

    /// Removes all responses of a key (RFC 9111, section 4.4). What is being received for it is not stored.
    pub async fn invalidate(&self, key: &StoredKey) {
        self.purges.invalidate(key);
        let removed = {
            let mut shard = self.memory.shard(key).write();
            for fill in shard.fills.get(key).into_iter().flatten() {
                fill.is_cancelled.store(true, Ordering::Release);
            }
            shard.slots.remove_all(key)
        };
        drop(removed);
        if let Some(disk) = self.disk.get() {
            disk.invalidate(key).await;
        }
    }

    /// Makes a purge. When it returns, no request finds what it reaches, also after a restart; with `soft` it is found,
    /// and is stale.
    ///
    /// # Errors
    /// When it is made and cannot be written to disk, so that a restart might undo it.
    pub async fn purge(&self, purge: &Purge, soft: bool) -> Result<(), String> {
        self.counts.purged();
        self.make_purge(purge, soft, true).await
    }

    /// Removes all responses of a URL after a request that has changed it (RFC 9111, section 4.4). It is not undone by
    /// the end of the process; by a loss of power it may be.
    ///
    /// # Errors
    /// As for [`Self::purge`].
    pub async fn invalidate_url(&self, url: &str) -> Result<(), String> {
        self.make_purge(&Purge::Url(url.into()), false, false).await
    }

    /// Notes the rules of a user of the cache, as long as they are in use: a purge of a URL reaches what is stored for
    /// the URL that they make of it.
    pub fn note_url_rules(&self, rules: &Arc<KeyRules>) {
        let mut known = self.url_rules.lock();
        known.retain(|known| known.strong_count() > 0);
        known.push(Arc::downgrade(rules));
    }

    /// Returns the forms in which a URL is stored.
    fn url_forms(&self, url: &str) -> Vec<Box<str>> {
        let rules: Vec<Arc<KeyRules>> = self.url_rules.lock().iter().filter_map(Weak::upgrade).collect();
        let mut forms = vec![Box::from(url)];
        for form in rules.iter().map(|rules| url_by_rules(url, rules)) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms
    }

    async fn make_purge(&self, purge: &Purge, soft: bool, durable: bool) -> Result<(), String> {
        let Purge::Url(url) = purge else { return self.make_one_purge(purge, soft, durable).await };
        let mut made = Ok(());
        for form in self.url_forms(url) {
            made = made.and(self.make_one_purge(&Purge::Url(form), soft, durable).await);
        }
        made
    }

    async fn make_one_purge(&self, purge: &Purge, soft: bool, durable: bool) -> Result<(), String> {
        if self.purges.has_many_prefixes() {
            let generation = self.purges.generation();
            self.sweep();
            self.purges.forget_prefixes(generation);
        }
        let generation = self.purges.purge(purge, soft);
        match self.disk.get() {
            Some(disk) => disk.note_purge(purge, soft, generation, durable).await,
            None => Ok(()),
        }
    }

    /// Removes from memory what purges have reached, which is not found any more in any case. Takes a while.
    pub fn sweep(&self) {
        for shard in self.memory.shards() {
            let removed = {
                let mut shard = shard.write();
                shard.fills.values().flatten().for_each(|fill| {
                    fill.marks.iter().for_each(|marks| _ = self.purges.standing(marks, &fill.head.url));
                });
                shard.slots.retain(|_, stored| self.stale_since(&stored.marks, &stored.head).is_some())
            };
            drop(removed);
        }
    }

    /// Removes from memory in a while what purges have reached.
    pub fn sweep_soon(self: &Arc<Self>) {
        if self.sweeps.fetch_add(1, Ordering::AcqRel) > 0 {
            return;
        }
        let cache = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP_INTERVAL).await;
                let (wanted, own) = (cache.sweeps.load(Ordering::Acquire), Arc::clone(&cache));
                let _ = tokio::task::spawn_blocking(move || own.sweep()).await;
                if cache.sweeps.compare_exchange(wanted, 0, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                    return;
                }
            }
        });
    }

    /// Waits until all that has been stored so far is on disk, if it has one.
    pub async fn flush(&self) {
        if let Some(disk) = self.disk.get() {
            disk.flush().await;
        }
    }

    /// Reserves memory, for which others are evicted.
    fn reserve(&self, reserved: &mut Reserved, more: u64) -> bool {
        let (is_reserved, evicted) = self.memory.reserve(reserved, more);
        self.counts.evicted(evicted);
        is_reserved
    }

    /// Stores what is complete, unless a purge has reached it. Returns whether it did.
    fn commit(&self, key: StoredKey, fill: &Arc<Fill>, body: StoredParts, reserved: Reserved) -> bool {
        let Some(marks) = fill.marks.clone() else { return false };
        let bytes = reserved.bytes() + body.reserved.bytes();
        let (head, body) = (Arc::clone(&fill.head), Arc::new(body));
        let mut shard = self.memory.shard(&key).write();
        // Under the lock: an invalidation either is seen here, or finds the entry.
        let is_gone = fill.is_cancelled.load(Ordering::Acquire)
            || self.purges.is_invalidated(&key, marks.generation())
            || self.stale_since(&marks, &head).is_none();
        if is_gone {
            return false;
        }
        let stored = Arc::new(Stored { head, body, marks, reserved });
        let replaced = shard.slots.insert(key, fill.variant, Arc::clone(&stored), bytes);
        drop(shard);
        drop(replaced);
        self.counts.stored();
        if let Some(disk) = self.disk.get().filter(|_| fill.began.elapsed() < MAX_FILL_TIME) {
            disk.write(key, fill.variant, stored, !self.keeps_memory.load(Ordering::Relaxed));
        }
        true
    }

    /// Removes a fill that has ended.
    fn end_fill(&self, key: &StoredKey, fill: &Arc<Fill>) {
        let mut shard = self.memory.shard(key).write();
        if let Some(fills) = shard.fills.get_mut(key) {
            fills.retain(|known| known.id != fill.id);
            if fills.is_empty() {
                shard.fills.remove(key);
            }
        }
    }
}
