//! Reloads when the configuration's files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{ConfigSource, ProcessPhase, Supervisor};
use crate::config::Loaded;
use crate::notation::Mistakes;

/// The properties that reveal a change of a file: its modification time, its change time, its length, its inode.
type Stamp = Option<(SystemTime, (i64, i64), u64, u64)>;

/// The stamps of files at one time.
pub type FileStamps = Vec<(PathBuf, Stamp)>;

/// The interval at which the setting `process.watch` is checked.
const WATCH_SETTING_INTERVAL: Duration = Duration::from_secs(1);

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, (data.ctime(), data.ctime_nsec()), data.len(), data.ino()))
}

/// Returns the stamps of the files now.
pub fn stamps(files: &[PathBuf]) -> FileStamps {
    files.iter().map(|path| (path.clone(), stamp(path))).collect()
}

/// Loads a configuration, with the stamps of its files from before: a change meanwhile is detected later.
///
/// # Errors
/// As for [`ConfigSource::load`].
pub fn load(source: &ConfigSource, known: &[(PathBuf, Stamp)]) -> Result<(Loaded, FileStamps), Mistakes> {
    load_by(source, known, || source.load())
}

fn load_by(
    source: &ConfigSource,
    known: &[(PathBuf, Stamp)],
    read: impl FnOnce() -> Result<Loaded, Mistakes>,
) -> Result<(Loaded, FileStamps), Mistakes> {
    let paths: Vec<PathBuf> = known.iter().map(|(path, _)| path.clone()).chain(source.path()).collect();
    let before: ahash::AHashMap<PathBuf, Stamp> = stamps(&paths).into_iter().collect();
    let loaded = read()?;
    let mut files = stamps(&loaded.watched());
    for (path, stamp) in &mut files {
        *stamp = before.get(path).map_or(*stamp, |earlier| *earlier);
    }
    Ok((loaded, files))
}

/// Watches the files for as long as the process lives. It polls, since a file on a network or behind the symbolic
/// links of a mounted volume changes without an event.
pub async fn files(supervisor: Arc<Supervisor>) {
    let mut before = supervisor.files.lock().clone();
    // The last attempt, successful or not: each version is tried once.
    let mut tried = before.clone();
    loop {
        let pause = supervisor.serving().snapshot.process.watch;
        tokio::time::sleep(pause.unwrap_or(WATCH_SETTING_INTERVAL)).await;
        let loaded = supervisor.files.lock().clone();
        let paths: Vec<PathBuf> = loaded.iter().map(|(path, _)| path.clone()).collect();
        // An unresponsive disk delays nothing else.
        let Ok(now) = tokio::task::spawn_blocking(move || stamps(&paths)).await else { continue };
        // A file that is being written changes between two checks.
        let is_still = now == before;
        before.clone_from(&now);
        // The loaded version is not new, unless another one was rejected in between.
        let is_known = now == tried || now == loaded && supervisor.last_reload().refused.is_none();
        if pause.is_none() || is_known || !is_still || supervisor.phase() != ProcessPhase::Serving {
            continue;
        }
        log::info!("the configuration's files have changed");
        // Errors are reported as for every reload.
        if supervisor.reload_in_turn().await {
            tried = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_while_it_is_read_is_a_change_still() {
        let folder = tempfile::tempdir().expect("a folder");
        let main = folder.path().join("main.yaml");
        std::fs::write(&main, "routes: []").expect("written");
        let source = ConfigSource::File(main.clone());
        let read = || {
            let loaded = source.load();
            std::fs::write(&main, "routes: [] # another").expect("written");
            loaded
        };
        let (_, files) = load_by(&source, &[], read).expect("no mistakes");
        let paths: Vec<PathBuf> = files.iter().map(|(path, _)| path.clone()).collect();
        let changed: Vec<PathBuf> =
            stamps(&paths).into_iter().zip(&files).filter(|(now, then)| now != *then).map(|(now, _)| now.0).collect();
        assert!(changed.contains(&main), "{changed:?} of {paths:?}");
    }
}
