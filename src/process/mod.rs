//! The process: boot, reload, hand-over to a successor, drain.

mod activation;
mod admin_socket;
mod background;
mod boot;
mod caches;
#[cfg(test)]
mod crash_tests;
mod drain;
mod handover;
mod notify;
mod reload;
mod signals;
mod sockets;
mod start_report;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch as channel;

use crate::admin::{AdminListenerState, ReloadError};
use crate::config::{Change, Flat, Loaded, ShownLater, load, load_text};
use crate::edge::stream::{Adopted, take_over};
use crate::edge::{Bound, Drain, Listening, ServeHttp, StreamBatch, StreamGateway};
use crate::live::Live;
use crate::notation::{AdminAddress, Mistakes};
use crate::snapshot::{Current, Serving};
use admin_socket::SocketFile;
use background::Background;
use handover::{Predecessor, UpgradeListener};

pub use boot::{Options, StartError, Started, run, start};
pub use drain::ProcessPhase;
pub use handover::{Message, receive, send};
pub use reload::ReloadState;
pub use signals::{Signals, listen as listen_for_signals};
pub use sockets::{NeededSocket, bind_listeners, overlap};

/// The source of a configuration.
#[derive(Clone, Debug)]
pub enum ConfigSource {
    /// A file, which is read again at every reload.
    File(PathBuf),
    /// A text in place of a file.
    Text {
        /// The text.
        text: String,
        /// The name in messages.
        name: String,
        /// The directory for relative paths in it.
        base: PathBuf,
    },
}

impl ConfigSource {
    fn load(&self) -> Result<Loaded, Mistakes> {
        match self {
            Self::File(path) => load(path),
            Self::Text { text, name, base } => load_text(text, name, base),
        }
    }

    /// Returns the absolute path of the file, for operators.
    fn file(&self) -> Option<String> {
        let path = self.path()?;
        Some(std::path::absolute(&path).unwrap_or(path).display().to_string())
    }

    /// Returns the name of the source, for operators.
    fn name(&self) -> String {
        match self {
            Self::File(_) => self.file().unwrap_or_default(),
            Self::Text { name, .. } => format!("{name}, which is no file"),
        }
    }

    /// Returns the file.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Text { .. } => None,
        }
    }
}

/// The progress of an upgrade, for the operator who requested it.
#[derive(Clone, Debug)]
pub enum UpgradeProgress {
    /// A step is done.
    Step(&'static str),
    /// The upgrade is done.
    Settled(String),
    /// The upgrade failed.
    Failed(String),
}

/// The state of the whole process.
pub struct Supervisor {
    source: ConfigSource,
    /// The time of the start.
    started_at: SystemTime,
    live: Arc<Live>,
    background: Arc<Background>,
    serving: Arc<Current>,
    /// The configuration of the start, for the keys that are read at the start only.
    started: Arc<Flat>,
    /// What operators see of the configuration that serves.
    shown: Mutex<ShownLater>,
    /// The configuration's files, as they were when it was read.
    files: Mutex<watch::FileStamps>,
    http: Arc<dyn ServeHttp>,
    streams: Arc<StreamGateway>,
    listeners: Mutex<Vec<Listening>>,
    /// The listeners that the last reload has ended, until each has left its address.
    leaving: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    workers: tokio::runtime::Handle,
    /// Serialises reloads and upgrades.
    reloading: tokio::sync::Mutex<()>,
    last_reload: Mutex<ReloadState>,
    /// Counts hand-overs to a successor, until it is known which of the two serves.
    leading: Arc<Drain>,
    /// Counts connections and streams.
    drain: Arc<Drain>,
    /// Counts requested upgrades whose result has to be reported.
    asked: Arc<Drain>,
    phase: channel::Sender<ProcessPhase>,
    /// Whether tunnels are to end; separate from the phase because requests check it.
    draining: channel::Sender<bool>,
    /// The state of the admin listener.
    admin_state: channel::Sender<AdminListenerState>,
    ready: AtomicBool,
    /// Whether the process was told to end and accepts for `readiness_time` still.
    is_withdrawn: AtomicBool,
    admin_address: AdminAddress,
    /// The file of the admin socket, if it is a Unix socket.
    admin_file: Option<SocketFile>,
    /// The admin socket, for a successor; `None` after one has settled.
    admin: Mutex<Option<Bound>>,
    /// The path of the upgrade socket.
    upgrade_socket: Option<PathBuf>,
    /// The upgrade socket, from the first request on.
    upgrade_listener: OnceLock<Arc<UpgradeListener>>,
    /// The previous process, until it has no listening socket any more.
    predecessor: Mutex<Option<Arc<Predecessor>>>,
    /// The process id of the successor that serves; 0 is none.
    successor: AtomicI32,
    /// Whether the process has no listening socket any more.
    left: AtomicBool,
    /// Whether a SIGHUP is queued.
    hung_up: AtomicBool,
    /// The observer of an upgrade.
    watched: Mutex<Option<Sender<UpgradeProgress>>>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// Returns the configuration that serves.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.serving()
    }

    /// Returns names and addresses of the listeners, as they are bound.
    pub fn addresses(&self) -> Vec<(String, std::net::SocketAddr)> {
        self.listeners.lock().iter().map(|l| (l.name.clone(), l.address)).collect()
    }

    /// Returns the address of the admin listener.
    pub fn admin_address(&self) -> &AdminAddress {
        &self.admin_address
    }

    /// Returns whether requests are accepted.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
            && !self.is_withdrawn.load(Ordering::Acquire)
            && self.phase() == ProcessPhase::Serving
    }

    /// Opens the file of the access log again, after it was renamed.
    fn reopen_access_log(&self) {
        match self.serving().access_log.reopen() {
            true => log::info!("the access log is opened again"),
            false => log::warn!("SIGUSR1 opens the access log again, which is no file here"),
        }
    }

    /// Returns the result of the last reload.
    pub fn last_reload(&self) -> ReloadState {
        self.last_reload.lock().clone()
    }

    /// Returns every socket, the admin socket too, for a successor.
    fn sockets(&self) -> std::io::Result<Vec<Bound>> {
        let listeners = self.listeners.lock();
        let admin = self.admin.lock();
        listeners.iter().map(Listening::share).chain(admin.iter().map(Bound::share)).collect()
    }

    /// Goes on with sessions of the predecessor. Returns the places of those that have no listener or rule here.
    fn take_over_sessions(&self, batch: StreamBatch) -> Vec<usize> {
        let adopt = |name: &str, client: SocketAddr| {
            let listeners = self.listeners.lock();
            let listening = listeners.iter().find(|listening| listening.name == name)?;
            let (listener_state, service, admitted) = listening.adopt(client)?;
            Some(Adopted { listener_state, service, admitted })
        };
        let _workers = self.workers.enter();
        take_over(batch, &adopt, &self.streams.sessions)
    }

    /// Reports the progress of an upgrade to its observer. Returns whether there is one.
    fn progress(&self, progress: UpgradeProgress) -> bool {
        self.watched.lock().as_ref().is_some_and(|watched| watched.send(progress).is_ok())
    }
}

#[async_trait::async_trait]
impl crate::admin::ManagedProcess for Supervisor {
    fn serving(&self) -> Arc<Serving> {
        Self::serving(self)
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn last_reload(&self) -> (SystemTime, Option<String>, Vec<String>) {
        let state = Self::last_reload(self);
        (state.at, state.refused, state.files)
    }

    fn shown(&self) -> (ShownLater, Arc<Flat>) {
        (Self::shown(self), Arc::clone(&self.started))
    }

    fn listeners(&self) -> Vec<(String, SocketAddr)> {
        self.addresses()
    }

    fn started(&self) -> SystemTime {
        self.started_at
    }

    async fn compare_files(&self) -> Result<Vec<Change>, Mistakes> {
        Self::compare_files(self).await
    }

    fn file(&self) -> Option<String> {
        self.source.file()
    }

    fn source(&self) -> String {
        self.source.name()
    }

    async fn reload(self: Arc<Self>) -> Result<Vec<String>, ReloadError> {
        Self::reload(&self).await
    }
}
