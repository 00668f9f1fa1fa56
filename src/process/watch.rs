//! Loading the configuration when its files change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Supervisor;

/// What shows that a file is another one: its time, its length, its number.
type Stamp = Option<(SystemTime, u64, u64)>;

/// How often the configuration is asked whether it wants to be watched.
const ASK: Duration = Duration::from_secs(1);

fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let data = std::fs::metadata(path).ok()?;
    Some((data.modified().ok()?, data.len(), data.ino()))
}

fn look(supervisor: &Supervisor) -> Vec<(PathBuf, Stamp)> {
    let files = supervisor.files.lock().clone();
    files.into_iter().map(|path| (path.clone(), stamp(&path))).collect()
}

/// Looks at the files for as long as the process lives: polling, since a file on a network or behind the
/// symbolic links of a mounted volume changes without an event.
pub async fn files(supervisor: Arc<Supervisor>) {
    let mut loaded = look(&supervisor);
    let mut before = loaded.clone();
    loop {
        let pause = supervisor.serving().snapshot.process.watch;
        tokio::time::sleep(pause.unwrap_or(ASK)).await;
        let now = look(&supervisor);
        // What is being written changes between two looks.
        let is_still = now == before;
        before.clone_from(&now);
        if pause.is_none() || now == loaded || !is_still {
            continue;
        }
        log::info!("the configuration's files have changed");
        // Mistakes are told where every reload's are.
        let _ = supervisor.reload().await;
        // As they were before it: what changed meanwhile is loaded next.
        loaded = look(&supervisor);
        for (path, stamp) in &mut loaded {
            if let Some((_, seen)) = now.iter().find(|(known, _)| known == path) {
                *stamp = *seen;
            }
        }
    }
}
