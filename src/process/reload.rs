//! A new configuration in place of the one that serves.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use super::background::{Background, Ended};
use super::drain::TOGETHER;
use super::{Phase, Supervisor, notify, sockets};
use crate::admin::Refused;
use crate::compile::compile;
use crate::config::{Flat, FlatLater, Loaded, read_at_start};
use crate::edge::{Bound, ListenerContext, Listening};
use crate::notation::{Mistake, Mistakes, Place};
use crate::snapshot::{Serving, Snapshot};
use crate::telemetry::AccessLog;
use crate::telemetry::metrics::METRICS;

/// How long a reload waits for another, or for an upgrade.
const TURN: Duration = Duration::from_secs(15);

/// How long reading and compiling may take: a file that does not answer, on a network or a pipe, is not to stand in
/// the way of an upgrade.
const READING: Duration = Duration::from_secs(45);

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
    /// For an operator: reads the configuration again and, if all of it is right, serves it from now on. Requests
    /// under way keep the one that they began with.
    ///
    /// # Errors
    /// All mistakes, or that it is not the time for it; what served before goes on serving.
    pub async fn reload(self: &Arc<Self>) -> Result<Vec<String>, Refused> {
        let supervisor = Arc::clone(self);
        let work = async move {
            let turn = tokio::time::timeout(TURN, supervisor.reloading.lock()).await;
            let why = match (&turn, supervisor.phase()) {
                (Err(_), _) => format!("other reloads, or an upgrade, have been under way for {TURN:?}: try again"),
                (Ok(_), Phase::Serving) => {
                    log::info!("an operator asks for a reload");
                    return supervisor.reload_now().await.map_err(Refused::Mistakes);
                }
                // It would take addresses from the process that serves.
                (Ok(_), _) => supervisor.not_serving(),
            };
            log::warn!("a reload was refused: {why}");
            Err(Refused::NotNow(why))
        };
        // Whoever has asked may be gone before it is done, which ends no reload midway.
        tokio::spawn(work).await.unwrap_or_else(|_| Err(Refused::NotNow(BROKEN.to_owned())))
    }

    /// Why nothing is reloaded here.
    pub(super) fn not_serving(&self) -> String {
        match self.successor.load(Ordering::Acquire) {
            0 => "this process is ending".to_owned(),
            successor => format!("since an upgrade process {successor} serves, and this one is ending"),
        }
    }

    /// Reloads when it is its turn, however long that takes; whether this process serves by then.
    pub async fn reload_in_turn(&self) -> bool {
        let _turn = self.reloading.lock().await;
        self.hung_up.store(false, Ordering::Release);
        let serves = self.phase() == Phase::Serving;
        if serves {
            // What comes of it is in the log.
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
            Err(mistakes) => log::error!("the reload was refused, the configuration in use stays:\n{mistakes}"),
        }
        match &result {
            // It has said that it ends.
            _ if self.phase() != Phase::Serving => {}
            Ok(_) => notify::ready(),
            Err(mistakes) => notify::refused(mistakes.count()),
        }
        *self.last_reload.lock() = state;
        result
    }

    async fn try_reload(&self) -> Result<Vec<String>, Mistakes> {
        // Reading and compiling may take a while for a large configuration, or a disk that does not answer:
        // everything else goes on meanwhile.
        let (source, live, known) = (self.source.clone(), Arc::clone(&self.live), self.files.lock().clone());
        let read = move || {
            let (loaded, files) = super::watch::load(&source, &known)?;
            let snapshot = compile(&loaded, &live)?;
            Ok((loaded, files, snapshot))
        };
        let (loaded, files, snapshot) = match self.background.run(READING, read).await {
            Ok(read) => read?,
            Err(Ended::Panicked) => return Err(said(BROKEN)),
            Err(Ended::TooLong) => {
                return Err(said(format!("reading it takes longer than {READING:?}: one of its files does not answer")));
            }
        };
        self.left().await;
        let access_log = self.access_log(&snapshot).map_err(|e| unwritable(&loaded, &e))?;
        let mut notes = self.until_the_next_start(&loaded.at_start());
        notes.extend(told(&snapshot));
        look_after(&snapshot).await;
        self.leave_none_to_the_predecessor(&snapshot).await;
        if self.phase() != Phase::Serving {
            return Err(said(self.not_serving()));
        }
        // Last, since from here on there may be connections that wait for it to count.
        let fresh = self.bind_new(&snapshot).map_err(|mistakes| loaded.locate(mistakes))?;
        self.publish(Serving { snapshot, access_log }, fresh);
        let flat = std::mem::replace(&mut *self.flat.lock(), flat_soon(loaded, &self.background));
        self.background.later(move || drop(flat));
        *self.files.lock() = files;
        Ok(notes)
    }

    /// Reloads; where another process serves, that does.
    pub async fn reload_or_pass_on(&self) {
        if self.hung_up.swap(true, Ordering::AcqRel) {
            return log::info!("SIGHUP asks for a reload, and one is to come already");
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

    /// What the configuration that serves says, flat.
    pub fn flat(&self) -> FlatLater {
        Arc::clone(&self.flat.lock())
    }

    /// Waits until the listeners that a reload before has ended have left their addresses.
    async fn left(&self) {
        let leaving = std::mem::take(&mut *self.leaving.lock());
        futures::future::join_all(leaving).await;
    }

    /// Lets a predecessor that stands by go before a listener goes or comes: it has the sockets too, and where a
    /// listener goes nobody would accept; those that only it has may be in the way of one that comes.
    async fn leave_none_to_the_predecessor(&self, snapshot: &Snapshot) {
        let stays = |known: &Listening| snapshot.listeners.iter().any(|l| known.is(l));
        let same = |listeners: &[Listening]| listeners.len() == snapshot.listeners.len() && listeners.iter().all(stays);
        if !same(&self.listeners.lock()) {
            self.settle(false);
            self.predecessor_leaves(Instant::now() + TOGETHER).await;
        }
    }

    /// Sockets for listeners that are new, or have a new address.
    fn bind_new(&self, snapshot: &Snapshot) -> Result<Vec<Bound>, Mistakes> {
        let known = self.listeners.lock();
        let going: Vec<_> = known.iter().filter(|known| !snapshot.listeners.iter().any(|l| known.is(l))).collect();
        let new = snapshot.listeners.iter().enumerate().filter(|(_, listener)| !known.iter().any(|l| l.is(listener)));
        let new = new.map(|(index, listener)| {
            let in_the_way =
                going.iter().filter(|l| l.transport() == listener.transport() && sockets::overlap(l.address, listener.address));
            sockets::Wanted { index, listener, going: in_the_way.map(|l| l.socket()).collect() }
        });
        sockets::bind_listeners(new.collect())
    }

    fn access_log(&self, snapshot: &Snapshot) -> std::io::Result<Arc<AccessLog>> {
        let present = Arc::clone(&self.serving().access_log);
        let (sink, format) = &snapshot.log;
        if present.serves(sink, *format) { Ok(present) } else { Ok(Arc::new(AccessLog::open(sink.clone(), *format)?)) }
    }

    /// What of a configuration does not count before the next start.
    fn until_the_next_start(&self, wanted: &Flat) -> Vec<String> {
        let changes = self.started.changes(wanted, &self.started);
        let differing = changes.iter().filter_map(|change| Some((&change.path, read_at_start(&change.path)?)));
        let notes = differing.map(|(key, when)| format!("{key} is read at the start only: the new value counts from the next {when}"));
        notes.inspect(|note| log::warn!("{note}")).collect()
    }

    /// Publishes the configuration. What is left out ends before it, with the one that it has; the rest follows it.
    fn publish(&self, serving: Serving, fresh: Vec<Bound>) {
        let serving = Arc::new(serving);
        self.retire_listeners(&serving.snapshot);
        let before = self.serving.replace(&serving);
        let present = &serving.snapshot.upstreams;
        let kept: ahash::AHashSet<_> = present.iter().map(|upstream| Arc::as_ptr(&upstream.pool)).collect();
        before.snapshot.upstreams.iter().filter(|old| !kept.contains(&Arc::as_ptr(&old.pool))).for_each(|old| old.pool.retire());
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
        for listening in self.listeners.lock().iter_mut() {
            if let Some(listener) = serving.snapshot.listeners.iter().find(|l| listening.is(l)) {
                listening.update(listener);
            }
        }
        self.start_listeners(&serving, fresh);
        tokio::spawn(let_go(before, Arc::clone(&self.background)));
    }

    /// Ends the listeners that a new configuration has no more. Their connections have to know before it counts:
    /// they are not in it.
    fn retire_listeners(&self, next: &Snapshot) {
        let mut listeners = self.listeners.lock();
        let (stay, go) = std::mem::take(&mut *listeners).into_iter().partition(|listening| next.listeners.iter().any(|l| listening.is(l)));
        *listeners = stay;
        drop(listeners);
        for listening in go {
            log::info!("listener {} on {} is closed", listening.name, listening.address);
            if listening.activated {
                log::warn!(
                    "the service manager still has the socket on {}: whoever connects there waits, and it comes back by a restart only",
                    listening.address
                );
            }
            self.leaving.lock().extend(listening.retire(self.serving()));
        }
    }

    /// Accepts on further sockets.
    pub(super) fn start_listeners(&self, serving: &Serving, fresh: Vec<Bound>) {
        let _workers = self.workers.enter();
        // The phase before the listeners, as wherever both are held.
        let phase = self.phase.borrow();
        let mut listeners = self.listeners.lock();
        // Who ends has let go of all of them, or does so next.
        let fresh = if *phase == Phase::Leaving { Vec::new() } else { fresh };
        for bound in fresh {
            let Some(place) = serving.snapshot.listener(&bound.name) else { continue };
            let listener = &serving.snapshot.listeners[place];
            let shared = ListenerContext {
                http: Arc::clone(&self.http),
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

/// How often it is looked whether a configuration of before is still in use.
const STILL_USED: Duration = Duration::from_millis(100);

/// Lets go of a configuration once no request has it any more. What was large takes a while to go, which no worker
/// is to spend between two requests.
async fn let_go(serving: Arc<Serving>, background: Arc<Background>) {
    while Arc::strong_count(&serving) > 1 {
        tokio::time::sleep(STILL_USED).await;
    }
    background.later(move || drop(serving));
}

/// What a configuration says, flat, made beside whatever goes on: nobody waits for it who does not ask.
pub fn flat_soon(loaded: Loaded, background: &Background) -> FlatLater {
    let flat = loaded.flat_later();
    let making = Arc::clone(&flat);
    background.later(move || {
        std::sync::LazyLock::force(&making);
    });
    flat
}

/// A panic, which is logged.
const BROKEN: &str = "it cannot be read for a mistake in the gateway itself, which the log names; please report it";

/// What is wrong, and nowhere in a file.
fn said(why: impl Into<String>) -> Mistakes {
    let mut mistakes = Mistakes::default();
    mistakes.add(&Place::default(), why);
    mistakes
}

/// Logs what a configuration most likely does not mean, and gives it.
pub fn told(snapshot: &Snapshot) -> Vec<String> {
    let warnings = snapshot.warnings.iter().map(|warning| format!("the configuration: {warning}"));
    warnings.inspect(|warning| log::warn!("{warning}")).collect()
}

/// The access log cannot be opened.
pub fn unwritable(loaded: &Loaded, error: &std::io::Error) -> Mistakes {
    let place = Place::default().key("log").key("access").key("file");
    let text = format!("the access log cannot be opened: {error}");
    loaded.locate(Mistakes::of(vec![Mistake { place, text, location: None }]))
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
    first.extend(snapshot.kept.iter().map(|kept| tokio::spawn(Arc::clone(kept).maintain())));
    let all = futures::future::join_all(first);
    if tokio::time::timeout(FIRST_ROUND, all).await.is_err() {
        log::warn!("some upstreams or key sets did not answer within {FIRST_ROUND:?}; they are tried further in the background");
    }
}
