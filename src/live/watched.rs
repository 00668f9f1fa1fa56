//! Files that are parsed, watched, and read again when they change: lists of networks, databases of countries.

use std::fmt::Debug;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use serde_json::json;

use super::maintained::Maintained;
use super::shelf::Shelf;
use crate::rules::identity::{Countries, Networks};
use crate::telemetry::metrics::KeySetState;
use crate::tls::read_file;

/// Time between two looks at a file.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The content of a watched file.
pub trait FileContent: Debug + Send + Sync + Sized + 'static {
    /// Its kind, for operators.
    const KIND: &'static str;
    /// The most bytes of the file.
    const MAX_BYTES: u64;

    /// Parses the file.
    ///
    /// # Errors
    /// Returns what is wrong with the content; the text follows the file's name.
    fn parse(content: Vec<u8>) -> Result<Self, String>;

    /// Returns what operators see of it.
    fn view(&self) -> serde_json::Value;
}

impl FileContent for Networks {
    const KIND: &'static str = "network_list";
    const MAX_BYTES: u64 = 256 << 20;

    fn parse(content: Vec<u8>) -> Result<Self, String> {
        Self::parse(&content)
    }

    fn view(&self) -> serde_json::Value {
        json!({"ranges": self.range_count(), "bytes": self.bytes()})
    }
}

impl FileContent for Countries {
    const KIND: &'static str = "country_database";
    const MAX_BYTES: u64 = 512 << 20;

    fn parse(content: Vec<u8>) -> Result<Self, String> {
        Self::parse(content)
    }

    fn view(&self) -> serde_json::Value {
        json!({"database": self.kind(), "built": self.built()})
    }
}

/// What distinguishes two versions of a file without reading them.
type Stamp = (u64, u64, i64, i64);

fn stamp(path: &Path) -> Option<Stamp> {
    let data = std::fs::metadata(path).ok()?;
    Some((data.ino(), data.len(), data.mtime(), data.mtime_nsec()))
}

/// A file that is read again when it changes. While it cannot be read, the last content stays.
#[derive(Debug)]
pub struct WatchedFile<T> {
    path: PathBuf,
    content: ArcSwap<T>,
    state: Mutex<WatchState>,
    started: AtomicBool,
    label: Mutex<String>,
}

#[derive(Debug)]
struct WatchState {
    stamp: Option<Stamp>,
    read: Instant,
    load_time: Duration,
    error: Option<String>,
}

fn load<T: FileContent>(path: &Path) -> Result<(T, WatchState), String> {
    let begun = Instant::now();
    // Taken before the file is read: a change meanwhile is seen at the next look.
    let stamp = stamp(path);
    let content = read_file(path, T::MAX_BYTES).and_then(T::parse)?;
    let read = Instant::now();
    Ok((content, WatchState { stamp, read, load_time: read - begun, error: None }))
}

impl<T: FileContent> WatchedFile<T> {
    fn open(path: &Path) -> Result<Self, String> {
        let (content, state) = load::<T>(path)?;
        Ok(Self {
            path: path.to_owned(),
            content: ArcSwap::from_pointee(content),
            state: Mutex::new(state),
            started: AtomicBool::new(false),
            label: Mutex::new(path.display().to_string()),
        })
    }

    /// Returns the present content.
    pub fn content(&self) -> arc_swap::Guard<Arc<T>> {
        self.content.load()
    }

    /// Reads the file again if it has changed since it was read.
    ///
    /// # Errors
    /// Returns why it cannot be read; the last content stays.
    pub fn refresh(&self) -> Result<(), String> {
        let present = stamp(&self.path);
        {
            let state = self.state.lock();
            if state.stamp == present && present.is_some() {
                return state.error.clone().map_or(Ok(()), Err);
            }
        }
        match load::<T>(&self.path) {
            Ok((content, state)) => {
                self.content.store(Arc::new(content));
                *self.state.lock() = state;
                Ok(())
            }
            Err(error) => {
                let mut state = self.state.lock();
                // A wrong file is not parsed again before it changes.
                (state.stamp, state.error) = (present, Some(error.clone()));
                Err(error)
            }
        }
    }

    /// Looks at the file every second until nothing uses it.
    async fn watch(file: Weak<Self>) {
        let mut last_error = None;
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let Some(this) = file.upgrade() else { return };
            let looked = tokio::task::spawn_blocking(move || {
                let result = this.refresh();
                (this.label.lock().clone(), result)
            });
            let Ok((label, result)) = looked.await else { continue };
            let error = result.err();
            if let Some(error) = error.as_ref().filter(|error| last_error.as_ref() != Some(*error)) {
                log::warn!("{label} cannot be read again, its last content stays: {error}");
            }
            last_error = error;
        }
    }
}

impl<T: FileContent> Maintained for WatchedFile<T> {
    fn kind(&self) -> &'static str {
        T::KIND
    }

    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        if !self.started.swap(true, Ordering::AcqRel) {
            tokio::spawn(Self::watch(Arc::downgrade(&self)));
        }
        std::future::ready(()).boxed()
    }

    fn view(&self) -> serde_json::Value {
        let state = self.state.lock();
        json!({
            "source": self.label.lock().clone(),
            "age_seconds": state.read.elapsed().as_secs(),
            "load_ms": state.load_time.as_millis() as u64,
            "error": state.error,
            "content": self.content().view(),
        })
    }

    fn key_set(&self) -> Option<KeySetState> {
        None
    }

    fn name_for_operators(&self, label: &dyn Fn(&str) -> String) {
        *self.label.lock() = label(&self.path.display().to_string());
    }
}

/// The watched files of one kind, each of which is read once however many filters use it.
pub type WatchedFiles<T> = Shelf<PathBuf, WatchedFile<T>>;

impl<T: FileContent> WatchedFiles<T> {
    /// Returns the file at that path, with its present content.
    ///
    /// # Errors
    /// Returns why it cannot be read.
    pub fn at(&self, path: &Path) -> Result<Arc<WatchedFile<T>>, String> {
        let shape = path.to_owned();
        if let Some((_, known)) = self.all().into_iter().find(|(known, _)| *known == shape) {
            known.refresh()?;
            return Ok(known);
        }
        let file = Arc::new(WatchedFile::open(path)?);
        Ok(self.get_or(&shape, || file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_a_wrong_one_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list");
        let files = WatchedFiles::<Networks>::default();
        assert!(files.at(&path).is_err_and(|error| error.contains("No such file")));
        std::fs::write(&path, "10.0.0.0/8").expect("written");
        let list = files.at(&path).expect("a list");
        assert!(list.content().contains([10, 0, 0, 1].into()));
        std::fs::write(&path, "10.0.0.0/8\n192.0.2.0/24").expect("written");
        assert!(Arc::ptr_eq(&list, &files.at(&path).expect("a list")), "it is shared");
        assert!(list.content().contains([192, 0, 2, 1].into()));
        std::fs::write(&path, "nonsense").expect("written");
        assert!(list.refresh().is_err_and(|error| error.starts_with("line 1 ")));
        assert!(list.refresh().is_err(), "the error stays until the file changes");
        assert!(list.content().contains([192, 0, 2, 1].into()), "the last content stays");
        std::fs::remove_file(&path).expect("removed");
        assert!(list.refresh().is_err());
        assert!(list.content().contains([10, 0, 0, 1].into()));
        std::fs::write(&path, "192.0.2.0/24").expect("written");
        assert_eq!(list.refresh(), Ok(()));
        assert!(!list.content().contains([10, 0, 0, 1].into()));
    }
}
