//! The start of a successor by the running process: the binary at its path, with its own arguments.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::process::{ProcessPhase, Supervisor, UpgradeProgress, notify};
use crate::telemetry::metrics::METRICS;

/// The path by which this process was called, if it is that of its binary, and the binary's own path: by now there
/// may be another binary, which is the one to start.
static EXECUTABLE: OnceLock<(Option<PathBuf>, PathBuf)> = OnceLock::new();

/// The variable that passes the predecessor's socket to a successor: the configuration may differ by now.
const PREDECESSOR: &str = "PORTCULLIS_PREDECESSOR";

/// The time-out for a failed successor to end by itself.
const SUCCESSOR_EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Returns the socket of the process that has started this one.
pub fn predecessor() -> Option<PathBuf> {
    std::env::var_os(PREDECESSOR).map(PathBuf::from)
}

/// Saves the path of the binary. It has to be called at the start.
pub fn remember_executable() {
    if let Ok(path) = std::env::current_exe() {
        let _ = EXECUTABLE.set((called_path(&path), path));
    }
}

/// Returns the path by which this process was called, if it leads to its binary: a link in it may lead to another by
/// now.
fn called_path(binary: &Path) -> Option<PathBuf> {
    let called = PathBuf::from(std::env::args_os().next()?);
    let is_it = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == binary);
    if called.components().count() > 1 {
        return std::path::absolute(called).ok().filter(is_it);
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(&called)).find(is_it)
}

fn command(socket: &Path) -> Result<Command, String> {
    let (called, binary) = EXECUTABLE.get().ok_or("this process does not know its own binary")?;
    let path = called.as_ref().filter(|path| path.exists()).unwrap_or(binary);
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if !arguments.iter().any(|a| a == "--upgrade") {
        arguments.push("--upgrade".into());
    }
    let mut command = Command::new(path);
    command.args(arguments).env(PREDECESSOR, socket).stdin(Stdio::null());
    // Activated sockets are for this process alone.
    command.env_remove("LISTEN_FDS").env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
    Ok(command)
}

/// Starts a successor and reports progress until it has settled.
///
/// # Errors
/// When the upgrade fails and this process goes on serving.
pub fn start_successor(supervisor: &Arc<Supervisor>, report: &dyn Fn(&str)) -> Result<String, String> {
    let (sender, events) = channel();
    may_start(supervisor)
        .and_then(|()| watch(supervisor, sender))
        .inspect_err(|why| log::warn!("no upgrade: {why}"))?;
    notify::status("upgrading");
    supervisor.upgrade_listener.get().iter().for_each(|upgrade_listener| upgrade_listener.ensure_socket(supervisor));
    let result = run(supervisor, &events, report);
    *supervisor.watched.lock() = None;
    METRICS.upgraded(result.is_ok());
    match &result {
        Ok(_) => {}
        Err(why) if supervisor.phase() == ProcessPhase::Serving => {
            log::error!("the upgrade failed, this process goes on serving: {why}");
            notify::status("serving; the last upgrade failed");
        }
        Err(why) => log::error!("the upgrade failed: {why}"),
    }
    result
}

fn watch(supervisor: &Supervisor, sender: Sender<UpgradeProgress>) -> Result<(), String> {
    let mut watched = supervisor.watched.lock();
    if watched.is_some() {
        return Err("another upgrade is under way".to_owned());
    }
    *watched = Some(sender);
    Ok(())
}

fn may_start(supervisor: &Supervisor) -> Result<(), String> {
    if supervisor.phase() != ProcessPhase::Serving {
        return Err(supervisor.not_serving());
    }
    if std::process::id() == 1 {
        return Err("this is process 1: a container ends with it. Start a second container instead".to_owned());
    }
    Ok(())
}

fn run(supervisor: &Supervisor, events: &Receiver<UpgradeProgress>, report: &dyn Fn(&str)) -> Result<String, String> {
    let patience = supervisor.serving().snapshot.process.upgrade_time;
    let socket = supervisor.upgrade_socket.as_ref();
    let mut command = command(
        socket.ok_or("there was no process.upgrade_socket when this process started: a successor cannot reach it")?,
    )?;
    let path = command.get_program().to_owned();
    let mut child = command.spawn().map_err(|e| format!("the successor cannot be started: {}: {e}", path.display()))?;
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    report(&format!("process {} is started: {}", child.id(), words.join(" ")));
    let result = follow(&mut child, (patience, &|| supervisor.is_ending()), events, report);
    if result.is_err() {
        // Most often it ends by itself, and logs something first.
        let begun = Instant::now();
        while begun.elapsed() < SUCCESSOR_EXIT_TIMEOUT && matches!(child.try_wait(), Ok(None)) {
            #[expect(clippy::disallowed_methods, reason = "a thread of its own")]
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    result
}

/// Reports the progress of a successor until it has settled, failed, ended, or taken too long for its first message;
/// after that the hand-over has time-outs of its own.
fn follow(
    child: &mut Child,
    (patience, is_ending): (Duration, &dyn Fn() -> bool),
    events: &Receiver<UpgradeProgress>,
    report: &dyn Fn(&str),
) -> Result<String, String> {
    let begun = Instant::now();
    let mut connected = false;
    loop {
        match events.recv_timeout(Duration::from_millis(50)) {
            Ok(UpgradeProgress::Settled(text)) => return Ok(text),
            Ok(UpgradeProgress::Step(text)) => {
                report(text);
                connected = true;
            }
            Ok(UpgradeProgress::Failed(why)) => return Err(format!("the successor {why}")),
            Err(RecvTimeoutError::Disconnected) => return Err("it was given up".to_owned()),
            Err(RecvTimeoutError::Timeout) if connected => {}
            Err(RecvTimeoutError::Timeout) => {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(format!(
                        "the successor ended ({status}) before it took anything; its own log says why"
                    ));
                }
                if is_ending() {
                    return Err("the old process was told to end".to_owned());
                }
                if begun.elapsed() >= patience {
                    return Err(format!("the successor was not ready within {patience:?} (process.upgrade_time)"));
                }
            }
        }
    }
}
