//! Purges by generations: a purge raises a number, and what is older than its number is no longer served.
//!
//! Nothing is searched for at a purge, nor on the request path: an entry holds the numbers of its URL and of its tags,
//! and compares a few integers. A fill has the generation in which its request began, so that a purge reaches it too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::{AHashMap, RandomState};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};

use super::head::{StoredHead, StoredKey};

const SHARDS: usize = 16;

/// The purges of one shard that are kept for fills that began before them, and for files.
const MAX_REMEMBERED_PER_SHARD: usize = 4_096;

/// The prefixes that are kept. The oldest half is given up after that: what began before them is not stored.
const MAX_PREFIXES: usize = 256;

/// The time of a purge: what began before it is older than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub(super) u64);

/// What a purge removes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purge {
    /// Everything.
    All,
    /// All responses of one URL.
    Url(Box<str>),
    /// All responses of the URLs that begin with this.
    Prefix(Box<str>),
    /// All responses with this tag.
    Tag(Box<str>),
}

/// Whether a stored response may be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No purge has reached it.
    Valid,
    /// A soft purge has reached it: it is stale since then.
    Stale(SystemTime),
    /// A purge has reached it.
    Dead,
}

/// The last purges of one tag or URL.
#[derive(Debug, Default)]
struct TagMark {
    hard: AtomicU64,
    soft: AtomicU64,
}

impl TagMark {
    fn last(&self) -> u64 {
        self.hard.load(Ordering::Acquire).max(self.soft.load(Ordering::Acquire))
    }
}

/// By what a stored response is reached: its generation, and the marks of its URL and its tags.
#[derive(Debug)]
pub struct Marks {
    generation: u64,
    tags: Box<[Arc<TagMark>]>,
    /// The number of the last prefix with which its URL was compared.
    checked: AtomicU64,
    /// The last purges of a prefix that its URL has.
    prefix: TagMark,
}

impl Marks {
    /// Returns the generation.
    pub fn generation(&self) -> Generation {
        Generation(self.generation)
    }
}

/// The marks of one shard, and in which order they were set.
#[derive(Debug, Default)]
struct MarkShard {
    marks: AHashMap<u64, Arc<TagMark>>,
    order: VecDeque<(u64, u64)>,
    /// The size at which unused marks are removed next.
    clear_at: usize,
}

/// The marks of tags, URLs or keys, by their hashes.
#[derive(Debug)]
struct MarkTable {
    shards: Box<[Mutex<MarkShard>]>,
    hasher: RandomState,
    /// The newest purge that is no longer remembered: nothing that is older is stored.
    floor: AtomicU64,
}

impl Default for MarkTable {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, hasher: RandomState::new(), floor: AtomicU64::new(0) }
    }
}

impl MarkTable {
    fn shard(&self, hash: u64) -> &Mutex<MarkShard> {
        &self.shards[(hash >> 48) as usize % SHARDS]
    }

    /// Returns the mark, which is added if there is none.
    fn mark(&self, hash: u64) -> Arc<TagMark> {
        let mut shard = self.shard(hash).lock();
        if let Some(known) = shard.marks.get(&hash) {
            return Arc::clone(known);
        }
        if shard.marks.len() >= shard.clear_at {
            let floor = self.floor.load(Ordering::Acquire);
            shard.marks.retain(|_, mark| Arc::strong_count(mark) > 1 || mark.last() > floor);
            shard.clear_at = 2 * shard.marks.len() + 64;
        }
        Arc::clone(shard.marks.entry(hash).or_default())
    }

    /// Returns the last hard purge of that hash.
    fn last_hard(&self, hash: u64) -> u64 {
        let known = self.shard(hash).lock().marks.get(&hash).map_or(0, |mark| mark.hard.load(Ordering::Acquire));
        known.max(self.floor.load(Ordering::Acquire))
    }

    /// Sets a mark under the lock of its shard, so that whoever adds it later sees it.
    fn set(&self, hash: u64, soft: bool, generation: u64) {
        let mut shard = self.shard(hash).lock();
        let mark = Arc::clone(shard.marks.entry(hash).or_default());
        let number = if soft { &mark.soft } else { &mark.hard };
        number.fetch_max(generation, Ordering::AcqRel);
        shard.order.push_back((hash, generation));
        while shard.order.len() > MAX_REMEMBERED_PER_SHARD {
            let Some((oldest, at)) = shard.order.pop_front() else { break };
            // One that was purged again comes later in the order.
            if shard.marks.get(&oldest).is_some_and(|mark| mark.last() <= at) {
                self.floor.fetch_max(at, Ordering::AcqRel);
                if shard.marks.get(&oldest).is_some_and(|mark| Arc::strong_count(mark) == 1) {
                    shard.marks.remove(&oldest);
                }
            }
        }
    }
}

#[derive(Debug)]
struct PurgedPrefix {
    prefix: Box<str>,
    soft: bool,
    generation: u64,
    /// They are numbered in the order in which they became known, which is not always that of their generations.
    number: u64,
}

/// The purges of a cache.
#[derive(Debug)]
pub struct Purges {
    /// The last generation, in microseconds of Unix time or more: it goes on after a restart.
    last: AtomicU64,
    all: TagMark,
    names: MarkTable,
    /// The keys that were invalidated.
    keys: MarkTable,
    prefixes: RwLock<Vec<PurgedPrefix>>,
    newest_prefix: AtomicU64,
}

fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Default for Purges {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(micros_now()),
            all: TagMark::default(),
            names: MarkTable::default(),
            keys: MarkTable::default(),
            prefixes: RwLock::default(),
            newest_prefix: AtomicU64::new(0),
        }
    }
}

impl Purges {
    /// Returns the present generation. What begins now is reached by purges from now on.
    pub fn generation(&self) -> Generation {
        Generation(self.last.load(Ordering::Acquire))
    }

    fn next(&self) -> u64 {
        let now = micros_now();
        let raise = |last: u64| Some(now.max(last + 1));
        self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, raise).map_or(now, |last| now.max(last + 1))
    }

    /// Returns the hash of a URL, which is another one in each process.
    pub fn url_hash(&self, url: &str) -> u64 {
        self.names.hasher.hash_one((0_u8, url))
    }

    fn tag_hash(&self, tag: &str) -> u64 {
        self.names.hasher.hash_one((1_u8, tag))
    }

    /// Returns the marks of a head whose request began in that generation; `None` if it began before purges that are
    /// no longer remembered, so that it cannot be stored.
    pub fn marks(&self, head: &StoredHead, Generation(generation): Generation) -> Option<Marks> {
        let url = std::iter::once(self.url_hash(&head.url));
        let hashes = url.chain(head.tags.iter().map(|tag| self.tag_hash(tag)));
        let marks = Marks {
            generation,
            tags: hashes.map(|hash| self.names.mark(hash)).collect(),
            checked: AtomicU64::new(0),
            prefix: TagMark::default(),
        };
        let newest = self.newest_prefix.load(Ordering::Acquire);
        self.compare_prefixes(&marks, &head.url, newest);
        // Last: what is forgotten from here on is in the marks.
        (generation >= self.names.floor.load(Ordering::Acquire)).then_some(marks)
    }

    /// Returns whether that key was invalidated after the generation.
    pub fn is_invalidated(&self, key: &StoredKey, Generation(generation): Generation) -> bool {
        self.keys.last_hard(key.number()) > generation
    }

    /// Returns whether a response with these marks and that URL may be served.
    pub fn standing(&self, marks: &Marks, url: &str) -> Standing {
        let newest = self.newest_prefix.load(Ordering::Acquire);
        if newest > marks.checked.load(Ordering::Acquire) {
            self.compare_prefixes(marks, url, newest);
        }
        let mut soft = 0;
        for mark in marks.tags.iter().map(Arc::as_ref).chain([&self.all, &marks.prefix]) {
            if mark.hard.load(Ordering::Acquire) > marks.generation {
                return Standing::Dead;
            }
            soft = soft.max(mark.soft.load(Ordering::Acquire));
        }
        if soft > marks.generation {
            Standing::Stale(UNIX_EPOCH + Duration::from_micros(soft))
        } else {
            Standing::Valid
        }
    }

    fn compare_prefixes(&self, marks: &Marks, url: &str, newest: u64) {
        let prefixes = self.prefixes.read();
        let checked = marks.checked.load(Ordering::Acquire);
        let new = prefixes.iter().rev().take_while(|purged| purged.number > checked);
        for purged in new.filter(|purged| purged.generation > marks.generation && url.starts_with(&*purged.prefix)) {
            let number = if purged.soft { &marks.prefix.soft } else { &marks.prefix.hard };
            number.fetch_max(purged.generation, Ordering::AcqRel);
        }
        marks.checked.fetch_max(newest, Ordering::AcqRel);
    }

    /// Makes a purge: when it returns, nothing that it reaches is found any more, or with `soft` it is found stale.
    pub fn purge(&self, purge: &Purge, soft: bool) -> Generation {
        let generation = self.next();
        self.apply(purge, soft, generation);
        Generation(generation)
    }

    /// Makes a purge of that generation, such as one of an earlier process.
    pub fn apply(&self, purge: &Purge, soft: bool, generation: u64) {
        match purge {
            Purge::All => {
                let number = if soft { &self.all.soft } else { &self.all.hard };
                number.fetch_max(generation, Ordering::AcqRel);
            }
            Purge::Url(url) => self.names.set(self.url_hash(url), soft, generation),
            Purge::Tag(tag) => self.names.set(self.tag_hash(tag), soft, generation),
            Purge::Prefix(prefix) => {
                let mut prefixes = self.prefixes.write();
                // A journal is read again after it was replaced.
                if !prefixes.iter().any(|known| known.generation == generation && known.prefix == *prefix) {
                    let number = self.newest_prefix.load(Ordering::Acquire) + 1;
                    prefixes.push(PurgedPrefix { prefix: prefix.clone(), soft, generation, number });
                    self.newest_prefix.store(number, Ordering::Release);
                }
            }
        }
        self.last.fetch_max(generation, Ordering::AcqRel);
    }

    /// Returns whether there are as many prefixes as may be kept. Then every entry has to be compared with them before
    /// [`Self::forget_prefixes`].
    pub fn has_many_prefixes(&self) -> bool {
        self.prefixes.read().len() >= MAX_PREFIXES
    }

    /// Gives up the prefixes up to that generation; nothing that began before them is stored from now on.
    pub fn forget_prefixes(&self, Generation(up_to): Generation) {
        let mut prefixes = self.prefixes.write();
        self.names.floor.fetch_max(up_to, Ordering::AcqRel);
        prefixes.retain(|purged| purged.generation > up_to);
    }

    /// Returns the number of purges that are remembered.
    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        let marks: usize = self.names.shards.iter().map(|shard| shard.lock().order.len()).sum();
        marks + self.prefixes.read().len()
    }

    /// Notes that a key is invalidated: fills that began before are not stored.
    pub fn invalidate(&self, key: &StoredKey) {
        let generation = self.next();
        self.keys.set(key.number(), false, generation);
    }
}
