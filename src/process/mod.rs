//! The process: boot, reload, hand-over to a successor, drain.

mod boot;
mod handover;
mod signals;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::proxy::HttpProxy;
use tokio::sync::{Notify, watch};

use crate::compile::compile;
use crate::config::{Loaded, load, load_text};
use crate::edge::{Bound, Drain, Gateway, Listening};
use crate::live::Live;
use crate::notation::{Mistake, Mistakes, Place};
use crate::snapshot::{Serving, Snapshot};
use crate::telemetry::AccessLog;
use crate::telemetry::metrics::METRICS;

pub use boot::{Failure, Options, Started, run, start};
pub use signals::listen as listen_for_signals;

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
}

/// How long the first probes and look-ups of new upstreams are waited for.
const FIRST_ROUND: Duration = Duration::from_secs(10);

/// How the last reload went.
#[derive(Clone, Debug)]
pub struct ReloadState {
    /// When.
    pub at: SystemTime,
    /// The mistakes, if it was refused.
    pub refused: Option<String>,
}

/// Everything that runs.
pub struct Supervisor {
    source: Source,
    live: Live,
    serving: Arc<ArcSwap<Serving>>,
    proxy: Arc<HttpProxy<Gateway>>,
    listeners: Mutex<Vec<Listening>>,
    workers: tokio::runtime::Handle,
    /// One reload at a time.
    reloading: tokio::sync::Mutex<()>,
    last_reload: Mutex<ReloadState>,
    drain: Arc<Drain>,
    shutdown: watch::Sender<bool>,
    ready: AtomicBool,
    /// Told when the process is to drain and end.
    ending: Notify,
    /// The operators' listener, for a successor.
    admin: Bound,
}

impl std::fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("source", &self.source).finish_non_exhaustive()
    }
}

impl Supervisor {
    /// The configuration that serves.
    pub fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    /// Names and addresses of the listeners, as they are bound.
    pub fn addresses(&self) -> Vec<(String, std::net::SocketAddr)> {
        self.listeners.lock().iter().map(|l| (l.name.clone(), l.address)).collect()
    }

    /// The address of the operators' listener.
    pub fn admin_address(&self) -> std::net::SocketAddr {
        self.admin.socket.local_addr().unwrap_or(self.admin.configured)
    }

    /// Whether requests are taken.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !*self.shutdown.borrow()
    }

    /// How the last reload went.
    pub fn last_reload(&self) -> ReloadState {
        self.last_reload.lock().clone()
    }

    /// Begins to end: drains, and then leaves.
    pub fn end(&self) {
        self.ending.notify_one();
    }

    /// Reads the configuration again and, if all of it is right, serves it from now on. Requests
    /// under way keep the one that they began with.
    ///
    /// # Errors
    /// All mistakes; what served before goes on serving.
    pub async fn reload(&self) -> Result<(), Mistakes> {
        let _one = self.reloading.lock().await;
        let result = self.try_reload().await;
        METRICS.reloaded(result.is_ok());
        let refused = result.as_ref().err().map(ToString::to_string);
        match &refused {
            None => log::info!("the configuration was reloaded"),
            Some(mistakes) => log::error!("the reload was refused, the configuration in use stays:\n{mistakes}"),
        }
        *self.last_reload.lock() = ReloadState { at: SystemTime::now(), refused };
        result
    }

    async fn try_reload(&self) -> Result<(), Mistakes> {
        // Reading and compiling may take a while for a large configuration: not on a worker.
        let loaded = self.source.load()?;
        let snapshot = compile(&loaded, &self.live)?;
        let fresh = self.bind_new(&snapshot).map_err(|mistakes| loaded.locate(mistakes))?;
        let access_log = self.access_log(&snapshot).map_err(|e| single(&loaded, "log", format!("the access log cannot be opened: {e}")))?;
        self.warn_of_fixed(&snapshot);
        look_after(&snapshot).await;
        self.publish(Serving { snapshot, access_log }, fresh);
        Ok(())
    }

    /// Sockets for listeners that are new, or have a new address.
    fn bind_new(&self, snapshot: &Snapshot) -> Result<Vec<Bound>, Mistakes> {
        let known = self.listeners.lock();
        let mut mistakes = Mistakes::default();
        let mut fresh = Vec::new();
        for (index, listener) in snapshot.listeners.iter().enumerate() {
            if known.iter().any(|l| l.name == listener.name && l.configured == listener.address) {
                continue;
            }
            match sockets::bind(&listener.name, listener.address) {
                Ok(bound) => fresh.push(bound),
                Err(error) => {
                    let place = Place::default().key("listeners").index(index).key("address");
                    mistakes.add(&place, format!("cannot listen on {}: {error}", listener.address));
                }
            }
        }
        if mistakes.is_empty() { Ok(fresh) } else { Err(mistakes) }
    }

    fn access_log(&self, snapshot: &Snapshot) -> std::io::Result<Arc<AccessLog>> {
        let present = Arc::clone(&self.serving.load().access_log);
        let (sink, format) = &snapshot.log;
        if present.serves(sink, *format) { Ok(present) } else { Ok(Arc::new(AccessLog::open(sink.clone(), *format)?)) }
    }

    fn warn_of_fixed(&self, snapshot: &Snapshot) {
        let now = self.serving.load();
        let (old, new) = (&now.snapshot, snapshot);
        let fixed = [
            ("process.threads", old.process.threads != new.process.threads),
            ("process.upgrade_socket", old.process.upgrade_socket != new.process.upgrade_socket),
            ("admin.address", old.admin.address != new.admin.address),
        ];
        for (key, _) in fixed.iter().filter(|(_, changed)| *changed) {
            log::warn!("{key} is read at the start only: the new value counts from the next start");
        }
    }

    /// One store publishes the configuration; then the listeners follow it.
    fn publish(&self, serving: Serving, fresh: Vec<Bound>) {
        let serving = Arc::new(serving);
        let before = self.serving.swap(Arc::clone(&serving));
        let present = &serving.snapshot.upstreams;
        for old in before.snapshot.upstreams.iter().filter(|o| !present.iter().any(|n| Arc::ptr_eq(&n.pool, &o.pool))) {
            old.pool.retire();
        }
        // What the old ones' last probes found counts for the new ones as well.
        present.iter().for_each(|upstream| upstream.pool.refresh());
        // And so does what an operator changed while this was being prepared.
        for upstream in present {
            let pool = Arc::clone(&upstream.pool);
            tokio::spawn(async move { pool.discover().await });
        }
        let mut listeners = self.listeners.lock();
        listeners.retain(|l| serving.snapshot.listeners.iter().any(|c| c.name == l.name && c.address == l.configured));
        for listening in listeners.iter() {
            if let Some(place) = serving.snapshot.listener(&listening.name) {
                listening.update(&serving.snapshot.listeners[place]);
            }
        }
        drop(listeners);
        self.start_listeners(&serving, fresh);
    }

    fn start_listeners(&self, serving: &Serving, fresh: Vec<Bound>) {
        let _workers = self.workers.enter();
        for bound in fresh {
            let Some(place) = serving.snapshot.listener(&bound.name) else { continue };
            let listener = &serving.snapshot.listeners[place];
            let (proxy, shutdown, drain) = (Arc::clone(&self.proxy), self.shutdown.subscribe(), Arc::clone(&self.drain));
            match Listening::start(bound, listener, proxy, shutdown, drain) {
                Ok(listening) => {
                    log::info!("listener {} accepts on {}", listening.name, listening.address);
                    self.listeners.lock().push(listening);
                }
                Err(error) => log::error!("listener {} cannot be started: {error}", listener.name),
            }
        }
    }

    /// Stops accepting, lets what is under way end, and returns when it has or the time is over.
    async fn drain(&self) {
        let limit = self.serving.load().snapshot.process.drain_time;
        log::info!("draining: {} connections and streams are under way, for at most {limit:?}", self.drain.count());
        self.listeners.lock().clear();
        // Pingora's own clean-up would cut connections whose request is on its way; our connections
        // end by themselves: with the request that they have, or shortly after the drain began.
        self.shutdown.send_replace(true);
        match tokio::time::timeout(limit, self.drain.empty()).await {
            Ok(()) => log::info!("drained: nothing is under way"),
            Err(_) => log::warn!("{} connections and streams were still under way and are cut", self.drain.count()),
        }
        self.serving.load().access_log.close();
    }
}

fn single(loaded: &Loaded, key: &str, text: String) -> Mistakes {
    let place = Place::default().key(key);
    loaded.locate(Mistakes(vec![Mistake { place, text, location: None }]))
}

/// Starts looking after what is new in a snapshot, and waits for a first round of it: a request never
/// meets a target of which nothing is known because nobody asked.
async fn look_after(snapshot: &Snapshot) {
    let mut first = Vec::new();
    for upstream in &snapshot.upstreams {
        if upstream.pool.start() {
            let pool = Arc::clone(&upstream.pool);
            first.push(tokio::spawn(async move {
                pool.first_round().await;
                tokio::spawn(crate::upstreams::Pool::keep_fresh(Arc::downgrade(&pool)));
            }));
        }
    }
    for store in &snapshot.key_stores {
        if store.start() {
            let store = Arc::clone(store);
            first.push(tokio::spawn(async move {
                tokio::spawn(crate::live::KeyStore::keep_fresh(Arc::downgrade(&store)));
                // Whether it succeeds or not, the start goes on from here; without keys nobody passes.
                store.first_round().await;
            }));
        }
    }
    let all = futures::future::join_all(first);
    if tokio::time::timeout(FIRST_ROUND, all).await.is_err() {
        log::warn!("some upstreams or key sets did not answer within {FIRST_ROUND:?}; they are tried further in the background");
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

    fn last_reload(&self) -> (SystemTime, Option<String>) {
        let state = Self::last_reload(self);
        (state.at, state.refused)
    }

    async fn reload(&self) -> Result<(), Vec<String>> {
        Self::reload(self).await.map_err(|mistakes| mistakes.0.iter().map(ToString::to_string).collect())
    }
}
