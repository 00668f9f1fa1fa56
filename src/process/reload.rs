//! Reloads: a new configuration replaces the one that serves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::background::{Background, JobError};
use super::caches::{open_caches, resize_caches};
use super::drain::HANDOVER_END_TIMEOUT;
use super::{ProcessPhase, Supervisor, notify, sockets};
use crate::admin::ReloadError;
use crate::compile::compile;
use crate::config::{Change, Flat, Loaded, ShownLater, read_at_start};
use crate::edge::{Bound, ListenerContext, Listening, ServeStreams};
use crate::notation::{Mistake, Mistakes, Place};
use crate::snapshot::{Listener, Serving, Snapshot};
use crate::telemetry::metrics::METRICS;
use crate::telemetry::{AccessLogger, apply_log_settings};

/// The time-out for other reloads or an upgrade to end.
const RELOAD_TURN_TIMEOUT: Duration = Duration::from_secs(15);

/// The time-out for reading and compiling: an unresponsive file, on a network or a pipe, must not block an upgrade.
const CONFIG_READ_TIMEOUT: Duration = Duration::from_secs(45);

/// The time-out for the first probes and look-ups of new upstreams.
const FIRST_ROUND_TIMEOUT: Duration = Duration::from_secs(10);

/// The result of the last reload.
#[derive(Clone, Debug)]
pub struct ReloadState {
    /// The time of the reload.
    pub at: SystemTime,
    /// The errors, if it was rejected.
    pub refused: Option<String>,
    /// The files with the errors.
    pub files: Vec<String>,
}

impl ReloadState {
    /// Returns the result of the start, or of a reload.
    pub fn new(refused: Option<&Mistakes>) -> Self {
        let mut files: Vec<String> = refused.iter().flat_map(|m| &m.0).filter_map(Mistake::file).collect();
        files.dedup();
        Self { at: SystemTime::now(), refused: refused.map(ToString::to_string), files }
    }
}

impl Supervisor {
    /// Reloads for an operator: reads the configuration again and, if it has no errors, serves it from now on.
    /// Requests in flight keep the configuration that they began with.
    ///
    /// # Errors
    /// When the configuration has errors, or no reload is possible now; the present configuration stays.
    pub async fn reload(self: &Arc<Self>) -> Result<Vec<String>, ReloadError> {
        let supervisor = Arc::clone(self);
        let work = async move {
            let turn = tokio::time::timeout(RELOAD_TURN_TIMEOUT, supervisor.reloading.lock()).await;
            let why = match (&turn, supervisor.phase()) {
                (Err(_), _) => {
                    format!("other reloads, or an upgrade, have been under way for {RELOAD_TURN_TIMEOUT:?}: try again")
                }
                (Ok(_), ProcessPhase::Serving) => {
                    log::info!("an operator asks for a reload");
                    return supervisor.reload_now().await.map_err(ReloadError::Mistakes);
                }
                // It would take addresses from the process that serves.
                (Ok(_), _) => supervisor.not_serving(),
            };
            log::warn!("a reload was rejected: {why}");
            Err(ReloadError::NotNow(why))
        };
        // The client may be gone before it is done, which must not abort the reload.
        tokio::spawn(work).await.unwrap_or_else(|_| Err(ReloadError::NotNow(PANIC_ERROR.to_owned())))
    }

    /// Returns the reason for which this process does not reload.
    pub(super) fn not_serving(&self) -> String {
        match self.successor.load(Ordering::Acquire) {
            0 => "this process is ending".to_owned(),
            successor => format!("since an upgrade process {successor} serves, and this one is ending"),
        }
    }

    /// Reloads after all earlier reloads. Returns whether this process serves by then.
    pub async fn reload_in_turn(&self) -> bool {
        let _turn = self.reloading.lock().await;
        self.hung_up.store(false, Ordering::Release);
        let serves = self.phase() == ProcessPhase::Serving;
        if serves {
            // The result is in the log.
            let _ = self.reload_now().await;
        }
        serves
    }

    async fn reload_now(&self) -> Result<Vec<String>, Mistakes> {
        notify::reloading();
        let result = self.try_reload().await;
        let state = ReloadState::new(result.as_ref().err());
        METRICS.reloaded(result.is_ok(), &state.files);
        match &result {
            Ok(_) => log::info!("the configuration was reloaded"),
            Err(mistakes) => log::error!("the reload was rejected, the configuration in use stays:\n{mistakes}"),
        }
        match &result {
            // It has reported that it ends.
            _ if self.phase() != ProcessPhase::Serving => {}
            Ok(_) => notify::ready(),
            Err(mistakes) => notify::report_rejected_reload(mistakes.count()),
        }
        *self.last_reload.lock() = state;
        result
    }

    async fn try_reload(&self) -> Result<Vec<String>, Mistakes> {
        let (source, live, known) = (self.source.clone(), Arc::clone(&self.live), self.files.lock().clone());
        let read = move || {
            let (loaded, mut files) = super::watch::load(&source, &known)?;
            let snapshot = compile(&loaded, &live)?;
            open_caches(&loaded, &live, &snapshot)?;
            files.extend(super::watch::stamps(&snapshot.files));
            Ok((loaded, files, snapshot))
        };
        let (loaded, files, snapshot) = self.read_in_background(read).await?;
        self.left().await;
        let access_log = self.access_log(&snapshot).map_err(|e| access_log_error(&loaded, &e))?;
        let mut notes = self.pending_changes(&loaded.at_start());
        notes.extend(log_warnings(&snapshot));
        start_background_tasks(&snapshot).await;
        self.release_predecessor_for(&snapshot).await;
        if self.phase() != ProcessPhase::Serving {
            return Err(general_error(self.not_serving()));
        }
        // Last, since from here on there may be connections that wait until it serves.
        let fresh = self.bind_new(&snapshot).map_err(|mistakes| loaded.locate(mistakes))?;
        self.publish(Serving { snapshot, access_log }, fresh);
        let shown = std::mem::replace(&mut *self.shown.lock(), shown_soon(loaded, &self.background));
        self.background.queue(move || drop(shown));
        *self.files.lock() = files;
        Ok(notes)
    }

    /// Reloads, or passes the signal on to the process that serves.
    pub async fn reload_or_pass_on(&self) {
        if self.hung_up.swap(true, Ordering::AcqRel) {
            return log::info!("SIGHUP asks for a reload, and one is queued already");
        }
        log::info!("SIGHUP asks for a reload");
        if self.reload_in_turn().await {
            return;
        }
        match self.successor.load(Ordering::Acquire) {
            0 => log::warn!("SIGHUP reloads nothing: {}", self.not_serving()),
            successor => {
                log::info!("SIGHUP is passed on to process {successor}, which serves");
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(successor), nix::sys::signal::Signal::SIGHUP);
            }
        }
    }

    /// Returns what operators see of the configuration that serves.
    pub fn shown(&self) -> ShownLater {
        Arc::clone(&self.shown.lock())
    }

    /// Returns what a reload would change: the files are read as for a reload.
    pub(super) async fn compare_files(&self) -> Result<Vec<Change>, Mistakes> {
        let (source, live, known) = (self.source.clone(), Arc::clone(&self.live), self.files.lock().clone());
        let (shown, started) = (self.shown(), Arc::clone(&self.started));
        let work = move || {
            let (loaded, _) = super::watch::load(&source, &known)?;
            compile(&loaded, &live)?;
            Ok(shown.flat.changes(&loaded.flat(), &started))
        };
        self.read_in_background(work).await
    }

    /// Runs work that reads files. It may take a while for a large configuration, or an unresponsive disk: everything
    /// else goes on meanwhile.
    async fn read_in_background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Mistakes> + Send + 'static,
    ) -> Result<T, Mistakes> {
        match self.background.run(CONFIG_READ_TIMEOUT, work).await {
            Ok(read) => read,
            Err(JobError::Panicked) => Err(general_error(PANIC_ERROR)),
            Err(JobError::TooLong) => Err(general_error(format!(
                "reading it takes longer than {CONFIG_READ_TIMEOUT:?}: one of its files does not respond"
            ))),
        }
    }

    /// Waits until the listeners that an earlier reload has ended have left their addresses.
    async fn left(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock());
        futures::future::join_all(leaving).await;
    }

    /// Releases a predecessor in standby before a listener is added or removed: it has the sockets too, and would
    /// accept nothing on those of a removed listener; sockets that only it has may conflict with an added one.
    async fn release_predecessor_for(&self, snapshot: &Snapshot) {
        let stays = |known: &Listening| snapshot.listeners.iter().any(|l| known.matches(l));
        let same = |listeners: &[Listening]| listeners.len() == snapshot.listeners.len() && listeners.iter().all(stays);
        if !same(&self.listeners.lock()) {
            self.release_predecessor(false);
            self.predecessor_leaves(Instant::now() + HANDOVER_END_TIMEOUT).await;
        }
    }

    /// Binds sockets for listeners that are new, or have a new address.
    fn bind_new(&self, snapshot: &Snapshot) -> Result<Vec<Bound>, Mistakes> {
        let known = self.listeners.lock();
        let going: Vec<_> = known.iter().filter(|known| !snapshot.listeners.iter().any(|l| known.matches(l))).collect();
        let new =
            snapshot.listeners.iter().enumerate().filter(|(_, listener)| !known.iter().any(|l| l.matches(listener)));
        let new = new.map(|(index, listener)| {
            let in_the_way = going
                .iter()
                .filter(|l| l.transport() == listener.transport() && sockets::overlap(l.address, listener.address));
            sockets::NeededSocket { index, listener, going: in_the_way.map(|l| l.socket()).collect() }
        });
        sockets::bind_listeners(new.collect())
    }

    fn access_log(&self, snapshot: &Snapshot) -> std::io::Result<Arc<AccessLogger>> {
        let present = Arc::clone(&self.serving().access_log);
        let (sink, _) = &snapshot.log;
        if present.serves(sink) { Ok(present) } else { Ok(Arc::new(AccessLogger::open(sink.clone())?)) }
    }

    /// Returns notes about the changes that take effect at the next start only.
    fn pending_changes(&self, wanted: &Flat) -> Vec<String> {
        let changes = self.started.changes(wanted, &self.started);
        let differing = changes.iter().filter_map(|change| Some((&change.path, read_at_start(&change.path)?)));
        let notes = differing.map(|(key, when)| {
            format!("{key} is read at the start only: the new value takes effect at the next {when}")
        });
        notes.inspect(|note| log::warn!("{note}")).collect()
    }

    /// Publishes the configuration. What is no longer in it ends before, under its old configuration; the rest
    /// follows.
    fn publish(&self, serving: Serving, fresh: Vec<Bound>) {
        let serving = Arc::new(serving);
        apply_log_settings(serving.snapshot.process_log);
        self.retire_listeners(&serving.snapshot);
        let before = self.serving.replace(&serving);
        resize_caches(&serving.snapshot);
        let present = &serving.snapshot.upstreams;
        let kept: ahash::AHashSet<_> = present.iter().map(|upstream| Arc::as_ptr(&upstream.pool)).collect();
        before
            .snapshot
            .upstreams
            .iter()
            .filter(|old| !kept.contains(&Arc::as_ptr(&old.pool)))
            .for_each(|old| old.pool.retire());
        // The last probe results of the old pools are used for the new ones.
        present.iter().for_each(|upstream| upstream.pool.refresh());
        // And so are changes of operators while this was being prepared.
        for upstream in present {
            let pool = Arc::clone(&upstream.pool);
            tokio::spawn(async move { pool.discover().await });
        }
        let names: ahash::AHashSet<&str> = serving.snapshot.routes.iter().map(|r| r.name.as_str()).collect();
        let upstreams: ahash::AHashSet<&str> = present.iter().map(|u| u.name.as_str()).collect();
        METRICS.retain(|route| names.contains(route), |upstream| upstreams.contains(upstream));
        let streams: ahash::AHashSet<_> = serving.snapshot.listeners.iter().flat_map(Listener::stream_names).collect();
        METRICS.retain_streams(|listener, stream| streams.contains(&(listener, stream)));
        for listening in self.listeners.lock().iter_mut() {
            if let Some(listener) = serving.snapshot.listeners.iter().find(|l| listening.matches(l)) {
                listening.update(listener);
            }
        }
        self.start_listeners(&serving, fresh);
        tokio::spawn(drop_when_unused(before, Arc::clone(&self.background)));
    }

    /// Ends the listeners that the new configuration does not have. Their connections have to be notified before it
    /// is published: they are not in it.
    fn retire_listeners(&self, next: &Snapshot) {
        let mut listeners = self.listeners.lock();
        let (stay, go) = std::mem::take(&mut *listeners)
            .into_iter()
            .partition(|listening| next.listeners.iter().any(|l| listening.matches(l)));
        *listeners = stay;
        drop(listeners);
        for listening in go {
            log::info!("listener {} on {} is closed", listening.name, listening.address);
            if listening.activated {
                log::warn!(
                    "the service manager still has the socket on {}: connections there are not accepted, and \
                    only a restart \
                     brings the listener back",
                    listening.address
                );
            }
            self.leaving.lock().extend(listening.retire(self.serving()));
        }
    }

    /// Accepts on further sockets.
    pub(super) fn start_listeners(&self, serving: &Serving, fresh: Vec<Bound>) {
        let _workers = self.workers.enter();
        // The phase is locked before the listeners, as wherever both are locked.
        let phase = self.phase.borrow();
        let mut listeners = self.listeners.lock();
        // A process that ends has closed all of them, or does so next.
        let fresh = if *phase == ProcessPhase::Leaving { Vec::new() } else { fresh };
        for bound in fresh {
            let Some(place) = serving.snapshot.listener(&bound.name) else { continue };
            let listener = &serving.snapshot.listeners[place];
            let shared = ListenerContext {
                http: Arc::clone(&self.http),
                streams: Arc::clone(&self.streams) as Arc<dyn ServeStreams>,
                serving: Arc::clone(&self.serving),
                drain: Arc::clone(&self.drain),
                tickets: self.live.ticket_keys(),
            };
            match Listening::start(bound, listener, shared) {
                Ok(listening) => {
                    log::info!("listener {} accepts on {}", listening.name, listening.address);
                    listeners.push(listening);
                }
                Err(error) => log::error!("listener {} cannot be started: {error}", listener.name),
            }
        }
    }
}

/// The interval at which it is checked whether an earlier configuration is still in use.
const UNUSED_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Drops a configuration once no request uses it. Dropping a large one takes a while, which must not delay a worker
/// between two requests.
async fn drop_when_unused(serving: Arc<Serving>, background: Arc<Background>) {
    while Arc::strong_count(&serving) > 1 {
        tokio::time::sleep(UNUSED_CHECK_INTERVAL).await;
    }
    background.queue(move || drop(serving));
}

/// Computes what operators see of a configuration in the background; only its users wait for it.
pub fn shown_soon(loaded: Loaded, background: &Background) -> ShownLater {
    let shown = loaded.shown_later();
    let making = Arc::clone(&shown);
    background.queue(move || {
        std::sync::LazyLock::force(&making);
    });
    shown
}

/// The error after a panic, which is logged.
const PANIC_ERROR: &str = "it cannot be read because of a defect of the gateway, which the log names; please report it";

/// Returns an error without a place in a file.
fn general_error(why: impl Into<String>) -> Mistakes {
    let mut mistakes = Mistakes::default();
    mistakes.add(&Place::default(), why);
    mistakes
}

/// Logs the warnings about a configuration, and returns them.
pub fn log_warnings(snapshot: &Snapshot) -> Vec<String> {
    let warnings = snapshot.warnings.iter().map(|warning| format!("the configuration: {warning}"));
    warnings.inspect(|warning| log::warn!("{warning}")).collect()
}

/// Returns the error for an access log that cannot be opened.
pub fn access_log_error(loaded: &Loaded, error: &std::io::Error) -> Mistakes {
    let place = Place::default().key("log").key("access").key("file");
    let text = format!("the access log cannot be opened: {error}");
    loaded.locate(Mistakes::of(vec![Mistake { place, text, location: None }]))
}

/// Starts the background tasks of what is new in a snapshot, and waits for their first round, so that no request
/// finds a target without any known state.
pub async fn start_background_tasks(snapshot: &Snapshot) {
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
    first.extend(snapshot.kept.iter().map(|kept| tokio::spawn(Arc::clone(kept).maintain())));
    let all = futures::future::join_all(first);
    if tokio::time::timeout(FIRST_ROUND_TIMEOUT, all).await.is_err() {
        log::warn!(
            "some upstreams or key sets did not respond within {FIRST_ROUND_TIMEOUT:?}; retries go on in the background"
        );
    }
}
