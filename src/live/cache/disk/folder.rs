//! The folder of a cache: where its files are, and the lock by which one instance at a time has it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::live::cache::head::StoredKey;

/// The name of the file that is locked.
const LOCK: &str = "lock";

/// The name of the folder of files that are not complete.
const INCOMPLETE: &str = "incomplete";

/// The age after which an incomplete file is nobody's.
const MAX_WRITE_TIME: Duration = Duration::from_secs(3_600);

/// A folder.
#[derive(Debug)]
pub struct CacheFolder {
    path: PathBuf,
    next: AtomicU64,
}

/// Returns the key and the variant of a file's name; `None` for one that is not of the cache.
pub fn parse_name(name: &str) -> Option<(StoredKey, Option<StoredKey>)> {
    match name.split_once('-') {
        Some((key, variant)) => Some((StoredKey::parse(key)?, Some(StoredKey::parse(variant)?))),
        None => Some((StoredKey::parse(name)?, None)),
    }
}

impl CacheFolder {
    /// Returns the folder at a path, which is created for the gateway's user alone if it does not exist.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(path: &Path) -> io::Result<Self> {
        let incomplete = path.join(INCOMPLETE);
        DirBuilder::new().recursive(true).mode(0o700).create(&incomplete)?;
        let folder = Self { path: path.to_owned(), next: AtomicU64::new(0) };
        let trial = folder.incomplete();
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&trial)?.write_all(b"trial")?;
        std::fs::remove_file(&trial)?;
        Ok(folder)
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Locks the folder. Returns `None` if another instance has it.
    ///
    /// # Errors
    /// When the lock cannot be opened.
    pub fn lock(&self) -> io::Result<Option<Flock<File>>> {
        let path = self.path.join(LOCK);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                lock.set_len(0)?;
                lock.write_all(std::process::id().to_string().as_bytes())?;
                Ok(Some(lock))
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Returns the process that has the lock, as it is written there.
    pub fn holder(&self) -> String {
        let mut text = String::new();
        let read = File::open(self.path.join(LOCK)).and_then(|file| file.take(20).read_to_string(&mut text));
        if read.is_ok() && text.parse::<u32>().is_ok() {
            format!("process {text}")
        } else {
            "another process".to_owned()
        }
    }

    /// Returns whether it is this process that has the lock, such as for a cache that has just ended.
    pub fn is_own_lock(&self) -> bool {
        self.holder() == format!("process {}", std::process::id())
    }

    /// Returns the path of a response.
    pub fn file(&self, key: &StoredKey, variant: Option<&StoredKey>) -> PathBuf {
        let name = match variant {
            Some(variant) => format!("{key}-{variant}"),
            None => key.to_string(),
        };
        self.part(key.0[0]).join(name)
    }

    /// Returns one of the 256 folders of files.
    pub fn part(&self, number: u8) -> PathBuf {
        self.path.join(format!("{number:02x}"))
    }

    /// Returns a new path for a file that is not complete.
    pub fn incomplete(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path.join(INCOMPLETE).join(format!("{}-{number}-{:08x}", std::process::id(), fastrand::u32(..)))
    }

    /// Gives a complete file its name.
    ///
    /// # Errors
    /// When the system fails.
    pub fn complete(&self, from: &Path, key: &StoredKey, variant: Option<&StoredKey>) -> io::Result<()> {
        let to = self.file(key, variant);
        match std::fs::rename(from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(self.part(key.0[0]))?;
                std::fs::rename(from, &to)
            }
            result => result,
        }
    }

    /// Removes what crashed processes have left incomplete. Called before this process writes. The files of processes
    /// that run, such as a predecessor, stay.
    pub fn remove_leftovers(&self) -> usize {
        let Ok(entries) = std::fs::read_dir(self.path.join(INCOMPLETE)) else { return 0 };
        let is_left = |entry: &std::fs::DirEntry| {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.split('-').next()?.parse::<i32>().ok());
            let Some(pid) = pid.filter(|pid| *pid > 0) else { return false };
            let is_own = u32::try_from(pid).is_ok_and(|pid| pid == std::process::id());
            let runs = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH);
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|at| at.elapsed().ok());
            is_own || !runs || age.is_some_and(|age| age > MAX_WRITE_TIME)
        };
        let removed = entries.flatten().filter(is_left).filter(|entry| std::fs::remove_file(entry.path()).is_ok());
        removed.count()
    }
}
