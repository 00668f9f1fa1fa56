//! The files of a cache: one for each response, in a folder that outlives the process.
//!
//! Workers read files in threads for blocking work, and one thread of the folder makes all changes. The index is in
//! memory; it is made by a scan in the background, and until that is over a look-up opens the file that has its name.

mod file;
mod folder;
mod head_form;
mod journal;
mod queue;
mod reader;
mod scan;
mod work;

use std::collections::hash_map::Entry;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, oneshot};

use self::file::{FileError, FileReading, StoredFile, open_file};
use self::folder::CacheFolder;
use self::journal::{Journal, JournalRecord};
use self::queue::{DiskOrder, DiskQueue, WriteOrder};
use super::head::{StoredHead, StoredKey};
use super::memory::{Memory, Stored};
use super::purges::{Generation, Purge, Purges};
use super::slots::Slots;

pub use reader::FileReader;
pub use scan::MAX_FILL_TIME;

const SHARDS: usize = 64;

/// What is read of a file at a time: a whole response, most of the time.
pub const READ_AHEAD: usize = 256 * 1024;

/// The reads at a time.
const MAX_READS: usize = 64;

/// How often a failure is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// How long the lock of a cache that has just ended is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The files of a cache, as they are configured.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DiskSettings {
    /// The folder.
    pub path: PathBuf,
    /// The most bytes of all files.
    pub size: u64,
}

/// A file in the index.
#[derive(Debug)]
struct IndexedFile {
    bytes: u64,
    /// It is older than later purges only.
    generation: u64,
    /// The hash of its URL.
    url: u64,
    /// The head after a validation, until it is in the file.
    head: Option<Arc<StoredHead>>,
}

/// Counts of what happens in a folder.
#[derive(Debug, Default)]
pub struct DiskCounts {
    /// Files that were evicted.
    pub evicted: AtomicU64,
    /// Files that were damaged.
    pub damaged: AtomicU64,
    /// Failures of the system.
    pub failures: AtomicU64,
    /// Responses that were not written, because too much waited, or the disk failed.
    pub not_written: AtomicU64,
}

/// What the thread, the workers and those who read files share.
#[derive(Debug)]
struct Shared {
    folder: CacheFolder,
    shards: Box<[RwLock<Slots<IndexedFile>>]>,
    /// The number of files of each URL, by its hash.
    urls: Mutex<AHashMap<u64, u32>>,
    /// The shard of which a file is evicted next.
    turn: AtomicUsize,
    limit: AtomicU64,
    used: AtomicU64,
    is_scanned: AtomicBool,
    is_scanning: AtomicBool,
    queue: DiskQueue,
    reads: Semaphore,
    purges: Arc<Purges>,
    memory: Arc<Memory>,
    counts: DiskCounts,
    last_logged: Mutex<Option<Instant>>,
}

/// The files of a cache.
#[derive(Debug)]
pub struct Disk(Arc<Shared>);

/// A file that was found.
#[derive(Debug)]
pub struct FoundFile {
    /// Where the rest of it is read.
    pub reader: FileReader,
    /// The head.
    pub head: Arc<StoredHead>,
    /// Its generation.
    pub generation: Generation,
}

impl Disk {
    /// Opens a folder. `shares` says that a predecessor may have it still.
    ///
    /// # Errors
    /// Returns why the folder cannot be used.
    pub fn open(
        settings: &DiskSettings,
        purges: &Arc<Purges>,
        memory: &Arc<Memory>,
        shares: bool,
    ) -> Result<Self, String> {
        let shown = settings.path.display();
        let folder = CacheFolder::new(&settings.path).map_err(|error| format!("{shown} cannot be written: {error}"))?;
        let lock = || folder.lock().map_err(|error| format!("{shown} cannot be locked: {error}"));
        let begun = Instant::now();
        let mut locked = lock()?;
        while locked.is_none() && !shares && begun.elapsed() < LOCK_TIMEOUT && folder.is_own_lock() {
            std::thread::park_timeout(Duration::from_millis(20));
            locked = lock()?;
        }
        if locked.is_none() && !shares {
            return Err(format!("{shown} is in use by {}: every instance needs a folder of its own", folder.holder()));
        }
        let mut journal = Journal::new(folder.path());
        let known = journal.read_new().map_err(|error| format!("the purges in {shown} cannot be read: {error}"))?;
        work::apply(purges, &known);
        let shared = Arc::new(Shared {
            folder,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            urls: Mutex::default(),
            turn: AtomicUsize::new(0),
            limit: AtomicU64::new(settings.size),
            used: AtomicU64::new(0),
            is_scanned: AtomicBool::new(false),
            is_scanning: AtomicBool::new(false),
            queue: DiskQueue::default(),
            reads: Semaphore::new(MAX_READS),
            purges: Arc::clone(purges),
            memory: Arc::clone(memory),
            counts: DiskCounts::default(),
            last_logged: Mutex::new(None),
        });
        shared.folder.remove_leftovers();
        work::start(Arc::clone(&shared), journal, locked)
            .map_err(|error| format!("no thread can be started for {shown}: {error}"))?;
        Ok(Self(shared))
    }

    /// Returns the counts.
    pub fn counts(&self) -> &DiskCounts {
        &self.0.counts
    }

    /// Returns the number of files and their bytes, and the limit.
    pub fn size(&self) -> (usize, u64, u64) {
        let count = self.0.shards.iter().map(|shard| shard.read().count()).sum();
        (count, self.0.used.load(Ordering::Relaxed), self.0.limit.load(Ordering::Relaxed))
    }

    /// Returns whether all files are in the index.
    pub fn is_scanned(&self) -> bool {
        self.0.is_scanned.load(Ordering::Acquire)
    }

    /// Returns the number of responses that wait to be written.
    pub fn waiting(&self) -> usize {
        self.0.queue.writes()
    }

    /// Sets the most bytes of all files. What is above is evicted with the next write.
    pub fn resize(&self, size: u64) {
        self.0.limit.store(size, Ordering::Relaxed);
        self.0.queue.add(DiskOrder::Compact(0));
    }

    /// Queues a response to be written. `moves` says that it is removed from memory then.
    pub fn write(&self, key: StoredKey, variant: Option<StoredKey>, stored: Arc<Stored>, moves: bool) {
        if !self.0.queue.write(DiskOrder::Write(WriteOrder { key, variant, stored, moves })) {
            self.0.counts.not_written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all that has been stored so far is written.
    pub async fn flush(&self) {
        let (sender, done) = oneshot::channel();
        if self.0.queue.write(DiskOrder::Done(sender)) {
            let _ = done.await;
        }
    }

    /// Replaces the head of a file. Returns false if there is no such file.
    pub fn replace_head(
        &self,
        key: &StoredKey,
        variant: Option<&StoredKey>,
        head: &Arc<StoredHead>,
        Generation(generation): Generation,
    ) -> bool {
        let mut shard = self.0.shard(key).write();
        let Some(file) = shard.get_mut(key, variant) else { return false };
        if !self.0.queue.write(DiskOrder::Head(*key, variant.copied(), Arc::clone(head), generation)) {
            return false;
        }
        file.head = Some(Arc::clone(head));
        file.generation = generation;
        true
    }

    /// Makes a purge outlive this process, and with `durable` a loss of power too.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn note_purge(
        &self,
        purge: &Purge,
        soft: bool,
        Generation(generation): Generation,
        durable: bool,
    ) -> Result<(), String> {
        if let Purge::Url(url) = purge
            && !self.may_have_url(url)
        {
            return Ok(());
        }
        let (sender, done) = oneshot::channel();
        if *purge == Purge::All && !soft {
            self.0.queue.add(DiskOrder::Clear(generation));
        }
        let record = JournalRecord { purge: purge.clone(), soft, generation };
        self.0.queue.add(DiskOrder::Purge(record, durable, Some(sender)));
        done.await.unwrap_or_else(|_| Err("the thread of the folder has ended".to_owned()))
    }

    /// Returns whether a file may have that URL.
    fn may_have_url(&self, url: &str) -> bool {
        let hash = self.0.purges.url_hash(url);
        !self.is_scanned() || self.0.queue.writes() > 0 || self.0.urls.lock().contains_key(&hash)
    }

    /// Removes the files of a key that is invalidated.
    pub async fn invalidate(&self, key: &StoredKey) {
        let may_exist = !self.is_scanned() || self.0.shard(key).read().variants(key).next().is_some();
        if may_exist || self.0.queue.writes() > 0 {
            let (sender, done) = oneshot::channel();
            self.0.queue.add(DiskOrder::Invalidate(*key, sender));
            let _ = done.await;
        }
    }

    /// Finds the file of a response, and reads its head and the first part of its body.
    pub async fn find(&self, key: &StoredKey, variant: Option<&StoredKey>) -> Option<FoundFile> {
        let shared = &self.0;
        let indexed = {
            let shard = shared.shard(key).read();
            shard.find(key, variant).map(|file| (file.generation, file.head.clone()))
        };
        if indexed.is_none() && self.is_scanned() {
            return None;
        }
        let path = shared.folder.file(key, variant);
        let read = move |reading: FileReading| -> Result<_, FileError> {
            let file = open_file(&path, reading)?;
            let blocks = file.read_blocks(0, READ_AHEAD, reading)?;
            Ok((file, blocks))
        };
        let result = shared.read(read).await?.and_then(|(file, blocks)| {
            if file.key == (*key, variant.copied()) { Ok((file, blocks)) } else { Err(FileError::Damaged) }
        });
        match result {
            Ok((file, blocks)) => Some(self.found(file, blocks, indexed)),
            Err(error) => {
                shared.drop_file(key, variant, error);
                None
            }
        }
    }

    fn found(
        &self,
        file: StoredFile,
        blocks: (u64, Vec<bytes::Bytes>),
        indexed: Option<(u64, Option<Arc<StoredHead>>)>,
    ) -> FoundFile {
        let (generation, replaced) = indexed.unwrap_or_default();
        let generation = Generation(generation.max(file.generation));
        let replaced = replaced.filter(|head| head.is_of_same(&file.head));
        let head = replaced.unwrap_or_else(|| Arc::new(file.head.clone()));
        FoundFile { reader: FileReader::new(Arc::clone(&self.0), file, blocks), head, generation }
    }

    /// Removes a file that a purge has reached.
    pub fn remove(&self, key: &StoredKey, variant: Option<&StoredKey>) {
        self.0.queue.add(DiskOrder::Remove(*key, variant.copied()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.0.queue.close();
    }
}

impl Shared {
    /// Reads a file: on this thread what is in the memory of the system, else on one that may wait. Returns `None` when
    /// the process ends.
    async fn read<T: Send + 'static>(
        &self,
        read: impl Fn(FileReading) -> Result<T, FileError> + Send + 'static,
    ) -> Option<Result<T, FileError>> {
        match read(FileReading::Ready) {
            Err(FileError::NotReady) => {}
            result => return Some(result),
        }
        let _turn = self.reads.acquire().await.ok()?;
        tokio::task::spawn_blocking(move || read(FileReading::Waiting)).await.ok()
    }

    fn shard(&self, key: &StoredKey) -> &RwLock<Slots<IndexedFile>> {
        &self.shards[(key.number() >> 40) as usize % SHARDS]
    }

    /// Adds a file to the index.
    fn add(&self, key: StoredKey, variant: Option<StoredKey>, file: IndexedFile) {
        let bytes = file.bytes;
        *self.urls.lock().entry(file.url).or_default() += 1;
        self.used.fetch_add(bytes, Ordering::Relaxed);
        let removed = self.shard(&key).write().insert(key, variant, file, bytes);
        if let Some((of, removed)) = removed {
            self.count_out(&removed);
            if of != variant {
                let _ = std::fs::remove_file(self.folder.file(&key, of.as_ref()));
            }
        }
    }

    /// Removes a file from the index.
    fn forget(&self, key: &StoredKey, variant: Option<&StoredKey>) {
        let removed = self.shard(key).write().remove(key, variant);
        if let Some((file, _)) = removed {
            self.count_out(&file);
        }
    }

    /// Subtracts a file that is no longer in the index.
    fn count_out(&self, file: &IndexedFile) {
        self.used.fetch_sub(file.bytes, Ordering::Relaxed);
        let mut urls = self.urls.lock();
        if let Entry::Occupied(mut count) = urls.entry(file.url) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Evicts files until that many more bytes fit. Called by the thread alone.
    fn make_room(&self, bytes: u64) {
        while self.used.load(Ordering::Relaxed) + bytes > self.limit.load(Ordering::Relaxed) {
            let first = self.turn.fetch_add(1, Ordering::Relaxed);
            let evicted = (0..SHARDS).find_map(|step| self.shards[(first + step) % SHARDS].write().evict());
            let Some((key, variant, file)) = evicted else { return };
            self.count_out(&file);
            self.counts.evicted.fetch_add(1, Ordering::Relaxed);
            let _ = std::fs::remove_file(self.folder.file(&key, variant.as_ref()));
        }
    }

    /// Drops a file that could not be read.
    fn drop_file(&self, key: &StoredKey, variant: Option<&StoredKey>, error: FileError) {
        match error {
            FileError::Missing => self.forget(key, variant),
            FileError::Damaged => {
                self.counts.damaged.fetch_add(1, Ordering::Relaxed);
                self.complain(|| format!("{} is damaged and is removed", self.folder.file(key, variant).display()));
                self.queue.add(DiskOrder::Remove(*key, variant.copied()));
            }
            // What is not ready is read by a thread that waits.
            FileError::NotReady => {}
            FileError::System(error) => self.note_failure("a file cannot be read", &error),
        }
    }

    /// Counts a failure of the system, and logs it now and then.
    fn note_failure(&self, what: &str, error: &std::io::Error) {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.complain(|| format!("{what}, the cache continues in memory: {error}"));
    }

    fn complain(&self, line: impl FnOnce() -> String) {
        let mut last = self.last_logged.lock();
        if last.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            *last = Some(Instant::now());
            log::warn!("the cache in {}: {}", self.folder.path().display(), line());
        }
    }
}
