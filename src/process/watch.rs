//! Loading the configuration when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Phase, Supervisor};

/// What shows that a file is another one: its time, its length, its number.
type Stamp = Option<(SystemTime, u64, u64)>;

/// Files as they were at one time.
pub type Seen = Vec<(PathBuf, Stamp)>;

/// How often the configuration is asked whether it wants to be watched.
const ASK: Duration = Duration::from_secs(1);

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len(), data.ino()))
}

/// The files as they are now.
pub fn look(files: &[PathBuf]) -> Seen {
    files.iter().map(|path| (path.clone(), stamp(path))).collect()
}

/// Looks at the files for as long as the process lives: polling, since a file on a network or behind the
/// symbolic links of a mounted volume changes without an event.
pub async fn files(supervisor: Arc<Supervisor>) {
    let mut before = supervisor.files.lock().clone();
    // What was tried last, in vain or not: once is enough.
    let mut tried = before.clone();
    loop {
        let pause = supervisor.serving().snapshot.process.watch;
        tokio::time::sleep(pause.unwrap_or(ASK)).await;
        let loaded = supervisor.files.lock().clone();
        let paths: Vec<PathBuf> = loaded.iter().map(|(path, _)| path.clone()).collect();
        let now = look(&paths);
        // What is being written changes between two looks.
        let is_still = now == before;
        before.clone_from(&now);
        if pause.is_none() || now == loaded || now == tried || !is_still || supervisor.phase() != Phase::Serving {
            continue;
        }
        log::info!("the configuration's files have changed");
        // Mistakes are told where every reload's are.
        let _ = supervisor.reload().await;
        tried = now;
    }
}
