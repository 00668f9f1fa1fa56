//! A new configuration in place of the one that serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Supervisor, notify, sockets};
use crate::compile::compile;
use crate::config::{Flat, Loaded};
use crate::edge::{Bound, Listening, Shared};
use crate::notation::{Mistake, Mistakes, Place};
use crate::snapshot::{Listener, Serving, Snapshot};
use crate::telemetry::AccessLog;
use crate::telemetry::metrics::METRICS;

/// How long the first probes and look-ups of new upstreams are waited for.
const FIRST_ROUND: Duration = Duration::from_secs(10);

/// How the last reload went.
#[derive(Clone, Debug)]
pub struct ReloadState {
    /// When.
    pub at: SystemTime,
    /// The mistakes, if it was refused.
    pub refused: Option<String>,
    /// The files in which they are.
    pub files: Vec<String>,
}

impl ReloadState {
    /// The start, or a reload that ended so.
    pub fn new(refused: Option<&Mistakes>) -> Self {
        let mut files: Vec<String> = refused.iter().flat_map(|m| &m.0).filter_map(Mistake::file).collect();
        files.dedup();
        Self { at: SystemTime::now(), refused: refused.map(ToString::to_string), files }
    }
}

impl Supervisor {
    /// Reads the configuration again and, if all of it is right, serves it from now on. Requests
    /// under way keep the one that they began with.
    ///
    /// # Errors
    /// All mistakes; what served before goes on serving.
    pub async fn reload(&self) -> Result<(), Mistakes> {
        let _one = self.reloading.lock().await;
        notify::reloading();
        let result = self.try_reload().await;
        let state = ReloadState::new(result.as_ref().err());
        METRICS.reloaded(result.is_ok(), &state.files);
        match &result {
            Ok(()) => {
                log::info!("the configuration was reloaded");
                notify::ready();
            }
            Err(mistakes) => {
                log::error!("the reload was refused, the configuration in use stays:\n{mistakes}");
                notify::refused(mistakes.0.len());
            }
        }
        *self.last_reload.lock() = state;
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
        *self.flat.lock() = Arc::new(loaded.flat());
        *self.files.lock() = loaded.watched();
        Ok(())
    }

    /// What the configuration that serves says, flat.
    pub fn flat(&self) -> Arc<Flat> {
        Arc::clone(&self.flat.lock())
    }

    /// Sockets for listeners that are new, or have a new address.
    fn bind_new(&self, snapshot: &Snapshot) -> Result<Vec<Bound>, Mistakes> {
        let known = self.listeners.lock();
        let mut mistakes = Mistakes::default();
        let mut fresh = Vec::new();
        for (index, listener) in snapshot.listeners.iter().enumerate() {
            if known.iter().any(|l| stays(l, listener)) {
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
            log::warn!("{key} is read at the start only: the new value counts from the next start or upgrade");
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
        let names: ahash::AHashSet<&str> = serving.snapshot.routes.iter().map(|r| r.name.as_str()).collect();
        let upstreams: ahash::AHashSet<&str> = present.iter().map(|u| u.name.as_str()).collect();
        METRICS.retain(|route| names.contains(route), |upstream| upstreams.contains(upstream));
        let mut listeners = self.listeners.lock();
        for mut listening in std::mem::take(&mut *listeners) {
            match serving.snapshot.listeners.iter().find(|l| stays(&listening, l)) {
                Some(listener) => {
                    listening.update(listener);
                    listeners.push(listening);
                }
                None => {
                    log::info!("listener {} on {} is closed", listening.name, listening.address);
                    listening.retire(Arc::clone(&before));
                }
            }
        }
        drop(listeners);
        self.start_listeners(&serving, fresh);
    }

    /// Accepts on further sockets.
    pub(super) fn start_listeners(&self, serving: &Serving, fresh: Vec<Bound>) {
        let _workers = self.workers.enter();
        for bound in fresh {
            let Some(place) = serving.snapshot.listener(&bound.name) else { continue };
            let listener = &serving.snapshot.listeners[place];
            let shared = Shared { proxy: Arc::clone(&self.proxy), drain: Arc::clone(&self.drain), tickets: self.live.ticket_keys() };
            match Listening::start(bound, listener, shared) {
                Ok(listening) => {
                    log::info!("listener {} accepts on {}", listening.name, listening.address);
                    self.listeners.lock().push(listening);
                }
                Err(error) => log::error!("listener {} cannot be started: {error}", listener.name),
            }
        }
    }
}

/// Whether a listener at work is the one that is configured: by its address, so that it may be renamed;
/// with a port of the system's choice by its name as well.
fn stays(listening: &Listening, listener: &Listener) -> bool {
    listening.configured == listener.address && (listener.address.port() != 0 || listening.name == listener.name)
}

pub fn single(loaded: &Loaded, key: &str, text: String) -> Mistakes {
    let place = Place::default().key(key);
    loaded.locate(Mistakes(vec![Mistake { place, text, location: None }]))
}

/// Starts looking after what is new in a snapshot, and waits for a first round of it: a request never
/// meets a target of which nothing is known because nobody asked.
pub async fn look_after(snapshot: &Snapshot) {
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
