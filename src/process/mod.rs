//! The process: boot, reload, hand-over to a successor, drain.

mod activation;
mod background;
mod boot;
#[cfg(test)]
mod crash_tests;
mod drain;
mod handover;
mod notify;
mod reload;
mod signals;
mod sockets;
mod watch;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use parking_lot::Mutex;
use tokio::sync::watch as channel;

use crate::admin::{Door, Refused};
use crate::config::{Flat, FlatLater, Loaded, load, load_text};
use crate::edge::{Bound, Drain, Listening, ServeHttp};
use crate::live::Live;
use crate::notation::Mistakes;
use crate::snapshot::{Current, Serving};
use background::Background;
use handover::{Heir, Offer};

pub use boot::{Failure, Options, Started, run, start};
pub use drain::Phase;
pub use handover::{Message, receive, send};
pub use reload::ReloadState;
pub use signals::{Signals, listen as listen_for_signals};
pub use sockets::{Wanted, bind_listeners, overlap};

/// Where a configuration comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file, read again at every reload.
    File(PathBuf),
    /// A text that stands for a file of that name.
    Text {
        /// The text.
        text: String,
        /// What it is called in messages.
        name: String,
        /// Where relative paths in it start.
        base: PathBuf,
    },
}

impl Source {
    fn load(&self) -> Result<Loaded, Mistakes> {
        match self {
            Self::File(path) => load(path),
            Self::Text { text, name, base } => load_text(text, name, base),
        }
    }

    /// The file.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Text { .. } => None,
        }
    }
}

/// How an upgrade goes, for whoever asked for it.
#[derive(Clone, Debug)]
pub enum Progress {
    /// A step was made.
    Step(&'static str),
    /// It is done.
    Settled(String),
    /// It came to nothing.
    Failed(String),
}

/// Everything that runs.
pub struct Supervisor {
    source: Source,
    live: Arc<Live>,
    background: Arc<Background>,
    serving: Arc<Current>,
    /// What is read at the start only, as it was then.
    started: Arc<Flat>,
    /// The configuration that serves, flat.
    flat: Mutex<FlatLater>,
    /// The files that it is made of, as they were when it was read.
    files: Mutex<watch::Seen>,
    http: Arc<dyn ServeHttp>,
    listeners: Mutex<Vec<Listening>>,
    /// Those that the last reload has ended, until each has left its address.
    leaving: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    workers: tokio::runtime::Handle,
    /// One reload or upgrade at a time.
    reloading: tokio::sync::Mutex<()>,
    last_reload: Mutex<ReloadState>,
    /// A hand-over to a successor, until it is known which of the two serves.
    leading: Arc<Drain>,
    /// Connections and streams.
    drain: Arc<Drain>,
    /// Whoever has asked for an upgrade, and is to hear what becomes of it.
    asked: Arc<Drain>,
    phase: channel::Sender<Phase>,
    /// Whether tunnels are to end; told apart from the phase because requests look at it.
    draining: channel::Sender<bool>,
    /// Whether the operators' listener accepts.
    admin_door: channel::Sender<Door>,
    ready: AtomicBool,
    admin_address: SocketAddr,
    /// The operators' listener, for a successor; nothing once one has settled.
    admin: Mutex<Option<Bound>>,
    /// Where successors are awaited.
    upgrade_socket: Option<PathBuf>,
    /// Who awaits them, from the first request on.
    offer: OnceLock<Arc<Offer>>,
    /// The process before this one, until it has no listening socket any more.
    predecessor: Mutex<Option<Arc<Heir>>>,
    /// The process that serves once this one does not; 0 is none.
    successor: AtomicI32,
    /// Whether it has no listening socket any more.
    left: AtomicBool,
    /// Whether a SIGHUP waits for its turn.
    hung_up: AtomicBool,
    /// Who watches an upgrade.
    watched: Mutex<Option<Sender<Progress>>>,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// The configuration that serves.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.serving()
    }

    /// Names and addresses of the listeners, as they are bound.
    pub fn addresses(&self) -> Vec<(String, std::net::SocketAddr)> {
        self.listeners.lock().iter().map(|l| (l.name.clone(), l.address)).collect()
    }

    /// The address of the operators' listener.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin_address
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && self.phase() == Phase::Serving
    }

    /// How the last reload went.
    pub fn last_reload(&self) -> ReloadState {
        self.last_reload.lock().clone()
    }

    /// Every socket, the operators' too, for a successor.
    fn sockets(&self) -> std::io::Result<Vec<Bound>> {
        let listeners = self.listeners.lock();
        let admin = self.admin.lock();
        listeners.iter().map(Listening::share).chain(admin.iter().map(Bound::share)).collect()
    }

    /// Tells whoever watches an upgrade how it goes; whether there is anybody.
    fn progress(&self, progress: Progress) -> bool {
        self.watched.lock().as_ref().is_some_and(|watched| watched.send(progress).is_ok())
    }
}

#[async_trait::async_trait]
impl crate::admin::Operated for Supervisor {
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

    fn flat(&self) -> (FlatLater, Arc<Flat>) {
        (Self::flat(self), Arc::clone(&self.started))
    }

    fn source(&self) -> String {
        match &self.source {
            Source::File(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string(),
            Source::Text { name, .. } => format!("{name}, which is part of the binary"),
        }
    }

    async fn reload(self: Arc<Self>) -> Result<Vec<String>, Refused> {
        Self::reload(&self).await
    }
}
