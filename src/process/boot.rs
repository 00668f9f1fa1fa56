//! The start of a gateway, and its life until the end.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch as channel;

use super::admin_socket::{AdminSocket, SocketFile};
use super::background::Background;
use super::caches::open_caches;
use super::handover::{self, Follower, Predecessor, PreparedSocket, check_not_taken};
use super::reload::{access_log_error, shown_soon};
use super::sockets::for_listeners;
use super::start_report::{log_start, run_first_round};
use super::watch::FileStamps;
use super::{ConfigSource, ProcessPhase, ReloadState, Supervisor, activation, notify, signals};
use crate::admin::AdminListenerState;
use crate::compile::compile;
use crate::config::Loaded;
use crate::edge::{Bound, Drain, Gateway, ServeHttp, StreamGateway, http_service};
use crate::live::Live;
use crate::notation::{AdminAddress, Mistakes, Place};
use crate::snapshot::{Current, Serving, Snapshot};
use crate::telemetry::AccessLogger;
use crate::telemetry::metrics::METRICS;
use crate::telemetry::write_final_error;

/// The options of a start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration.
    pub source: ConfigSource,
    /// Whether to take the listeners over from the running process.
    pub upgrade: bool,
}

/// The reason for which a start failed.
#[derive(Debug)]
pub enum StartError {
    /// The configuration has errors.
    Mistakes(Mistakes),
    /// Another error.
    Other(String),
    /// The process was told to end; nothing is wrong.
    ToldToEnd,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mistakes(mistakes) => write!(f, "{mistakes}"),
            Self::Other(text) => f.write_str(text),
            Self::ToldToEnd => f.write_str("was told to end before it served"),
        }
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Started {
    /// Everything that runs.
    pub supervisor: Arc<Supervisor>,
    _workers: Workers,
}

/// The runtime that serves requests. A runtime must not be dropped within another.
#[derive(Debug)]
struct Workers(Option<Runtime>);

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(workers) = self.0.take() {
            workers.shutdown_background();
        }
    }
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, StartError> {
    result.map_err(|e| StartError::Other(format!("{what}: {e}")))
}

/// How long the end of the process may take to give back what it holds of quotas.
const QUOTA_END_TIMEOUT: Duration = Duration::from_secs(3);

/// The time after which flows of a predecessor are dropped for which no listener has begun to serve.
const UNUSED_FLOWS_TIME: Duration = Duration::from_secs(10);

/// How long the end of the process may take to write what caches have stored last.
const CACHE_END_TIMEOUT: Duration = Duration::from_secs(3);

/// The number of unused connections to targets that are kept for each worker and target group.
const MAX_IDLE_TARGET_CONNECTIONS: usize = 1024;

fn proxy(gateway: Gateway, threads: usize) -> Arc<dyn ServeHttp> {
    let ca_file = Some(crate::tls::system_roots().pem_path());
    let conf = ServerConf {
        threads,
        upstream_keepalive_pool_size: MAX_IDLE_TARGET_CONNECTIONS,
        ca_file,
        ..ServerConf::default()
    };
    http_service(gateway, &Arc::new(conf))
}

/// Starts a gateway. It has to be called within the runtime for the control work.
///
/// # Errors
/// When the configuration has errors, or the system rejects something.
pub async fn start(options: Options) -> Result<Started, StartError> {
    crate::tls::install_provider();
    let (live, background) = (Arc::new(Live::default()), Arc::new(io("a thread", Background::start())?));
    let (source, known) = (options.source.clone(), Arc::clone(&live));
    let read = read_in_background(&background, move || {
        let read = super::watch::load(&source, &[])?;
        if !read.0.mistakes.is_empty() {
            // Before any other process is contacted.
            compile(&read.0, &known)?;
        }
        Ok(read)
    });
    let read = read.await?;
    let (inherited, predecessor) = inherit(&options, &read.0, &live)?;
    let begun = begin(options.source, read, (live, background), inherited, predecessor.as_ref()).await;
    if let (Err(failure), Some(predecessor)) = (&begun, &predecessor) {
        predecessor.failed(&failure.to_string());
    }
    begun
}

/// Reads files in the background for as long as they take: a start can be told to end meanwhile.
async fn read_in_background<T: Send + 'static>(
    background: &Background,
    work: impl FnOnce() -> Result<T, Mistakes> + Send + 'static,
) -> Result<T, StartError> {
    match background.run(Duration::MAX, work).await {
        Ok(result) => result.map_err(StartError::Mistakes),
        Err(_) => Err(StartError::Other("a defect of the gateway, logged above; please report it".to_owned())),
    }
}

/// Fails if the process was told to end. It is also called between steps without waiting.
fn check_not_ending() -> Result<(), StartError> {
    if signals::told_to_end() { Err(StartError::ToldToEnd) } else { Ok(()) }
}

/// The resources that the system may refuse, acquired before this process reports that it is ready.
struct Resources {
    admin: AdminSocket,
    operators: Option<crate::admin::AdminListener>,
    access_log: AccessLogger,
    workers: Workers,
    accepting: tokio::runtime::Handle,
    threads: usize,
    upgrade_listener: Option<PreparedSocket>,
    follower: Option<Follower>,
}

fn acquire_resources(
    loaded: &Loaded,
    snapshot: &Snapshot,
    inherited: &mut Vec<Bound>,
    predecessor: Option<&Arc<Predecessor>>,
) -> Result<Resources, StartError> {
    let admin = AdminSocket::acquire(&snapshot.admin.address, inherited)
        .map_err(|error| StartError::Other(loaded.redact(&error)))?;
    let sink = snapshot.log.0.clone();
    let threads = match snapshot.process.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let workers = io(
        "the workers",
        Builder::new_multi_thread().worker_threads(threads).thread_name("worker").enable_all().build(),
    )?;
    let offered = |path: &std::path::PathBuf| {
        let prepared = check_not_taken(path, predecessor.map(Arc::as_ref)).and_then(|()| PreparedSocket::new(path));
        io(&loaded.redact(&format!("the upgrade socket {}", path.display())), prepared)
    };
    Ok(Resources {
        operators: io("the admin listener", admin.listener())?,
        admin,
        access_log: AccessLogger::open(sink).map_err(|e| StartError::Mistakes(access_log_error(loaded, &e)))?,
        accepting: workers.handle().clone(),
        workers: Workers(Some(workers)),
        threads,
        upgrade_listener: snapshot.process.upgrade_socket.as_ref().map(offered).transpose()?,
        follower: predecessor
            .map(|predecessor| io("following the old process", predecessor.follower(snapshot.process.standby_time)))
            .transpose()?,
    })
}

/// Compiles a configuration, opens its caches, and adds the stamps of the files that it refers to.
fn compile_first(
    loaded: Loaded,
    mut files: FileStamps,
    live: &Arc<Live>,
) -> Result<(Loaded, FileStamps, Snapshot), Mistakes> {
    let snapshot = compile(&loaded, live)?;
    open_caches(&loaded, live, &snapshot)?;
    files.extend(super::watch::stamps(&snapshot.files));
    Ok((loaded, files, snapshot))
}

/// Runs the start up to the point where it accepts connections.
async fn begin(
    source: ConfigSource,
    (loaded, files): (Loaded, FileStamps),
    (live, background): (Arc<Live>, Arc<Background>),
    mut inherited: Vec<Bound>,
    predecessor: Option<&Arc<Predecessor>>,
) -> Result<Started, StartError> {
    let known = Arc::clone(&live);
    let work = move || compile_first(loaded, files, &known);
    let (loaded, files, snapshot) = read_in_background(&background, work).await?;
    log_start(&source, &snapshot);
    let resources = acquire_resources(&loaded, &snapshot, &mut inherited, predecessor)?;
    let (had, streams) = (inherited.iter().filter_map(Bound::place).collect::<Vec<_>>(), StreamGateway::new());
    let bound = for_listeners(&snapshot, inherited).map_err(|m| StartError::Other(loaded.locate(m).to_string()))?;
    run_first_round(&snapshot).await;
    check_not_ending()?;
    if let Some(predecessor) = predecessor {
        // From here to the first accept the old process accepts nothing: nothing slow may be done here.
        io("taking over", predecessor.ready(&live, &streams, &bound, &had))?;
    }
    let upgrade_socket = snapshot.process.upgrade_socket.clone();
    let serving = Arc::new(Current::new(&Arc::new(Serving { snapshot, access_log: Arc::new(resources.access_log) })));
    let draining = channel::channel(false).0;
    let supervisor = Arc::new(Supervisor {
        source,
        started_at: SystemTime::now(),
        live,
        started: Arc::new(loaded.at_start()),
        shown: Mutex::new(shown_soon(loaded, &background)),
        background,
        streams,
        http: proxy(Gateway::new(Arc::clone(&serving), draining.subscribe()), resources.threads),
        serving,
        files: Mutex::new(files),
        listeners: Mutex::default(),
        leaving: Mutex::default(),
        workers: resources.accepting,
        reloading: tokio::sync::Mutex::new(()),
        last_reload: Mutex::new(ReloadState::new(None)),
        drain: Arc::new(Drain::default()),
        phase: channel::channel(ProcessPhase::Serving).0,
        draining,
        asked: Arc::default(),
        leading: Arc::default(),
        upgrade_socket,
        upgrade_listener: OnceLock::new(),
        predecessor: Mutex::new(predecessor.map(Arc::clone)),
        admin_state: channel::channel(AdminListenerState::Open).0,
        successor: AtomicI32::new(0),
        ready: AtomicBool::new(false),
        is_withdrawn: AtomicBool::new(false),
        left: AtomicBool::new(false),
        hung_up: AtomicBool::new(false),
        admin_address: io("the admin listener", resources.admin.address())?,
        admin_file: resources.admin.file(),
        admin: Mutex::new(resources.admin.into_bound()),
        watched: Mutex::new(None),
    });
    if let Some(predecessor) = predecessor {
        // A process that was told to end takes nothing over.
        check_not_ending()?;
        io("taking over", predecessor.announce())?;
    }
    supervisor.begin(bound);
    supervisor.begin_operation(resources.operators);
    resources.upgrade_listener.iter().for_each(|upgrade_listener| supervisor.open(upgrade_listener));
    // The thread waits for it. Now that this process is reachable at the path, the predecessor may end.
    resources.follower.iter().for_each(|follower| _ = follower.send(Arc::clone(&supervisor)));
    Ok(Started { supervisor, _workers: resources.workers })
}

/// Takes sockets and state over from the running process, if this one is to succeed it.
fn inherit(
    options: &Options,
    loaded: &Loaded,
    live: &Live,
) -> Result<(Vec<Bound>, Option<Arc<Predecessor>>), StartError> {
    if !options.upgrade {
        return Ok((activation::sockets().map_err(StartError::Other)?, None));
    }
    let configured = loaded.config.process.upgrade_socket.as_ref().map(|p| loaded.base.join(p));
    let Some(path) = handover::predecessor().or(configured) else {
        let mut mistakes = Mistakes::default();
        mistakes.add(&Place::default().key("process"), "--upgrade needs an upgrade_socket");
        return Err(StartError::Mistakes(loaded.locate(mistakes)));
    };
    let taken = handover::take(&path, live).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => {
            std::io::Error::other("nothing serves there; start without --upgrade")
        }
        _ => error,
    });
    let (bound, predecessor) = io(&format!("taking over from {}", path.display()), taken)?;
    Ok((bound, Some(Arc::new(predecessor))))
}

impl Supervisor {
    /// Starts to accept connections.
    fn begin(&self, bound: Vec<Bound>) {
        self.start_listeners(&self.serving.serving(), bound);
        // State that no upstream has restored is dropped.
        self.live.heritage().iter().for_each(|kind| kind.drop_unused());
        METRICS.loaded();
        self.ready.store(true, Ordering::Release);
        notify::ready();
    }

    /// Starts to serve operators, and to watch the files of the configuration.
    fn begin_operation(self: &Arc<Self>, operators: Option<crate::admin::AdminListener>) {
        if let Some(operators) = operators {
            let process = Arc::clone(self) as Arc<dyn crate::admin::ManagedProcess>;
            tokio::spawn(crate::admin::serve(operators, process, self.admin_state.subscribe()));
        }
        tokio::spawn(super::watch::files(Arc::clone(self)));
        let streams = Arc::clone(&self.streams);
        tokio::spawn(async move {
            tokio::time::sleep(UNUSED_FLOWS_TIME).await;
            streams.flows.drop_unused();
        });
    }

    /// Opens the upgrade socket. The process serves by now, and continues without the socket if that fails.
    fn open(self: &Arc<Self>, upgrade_listener: &PreparedSocket) {
        match upgrade_listener.open(self) {
            Ok(upgrade_listener) => _ = self.upgrade_listener.set(upgrade_listener),
            Err(error) => log::error!("upgrades are not possible: the upgrade socket: {error}"),
        }
    }
}

impl Started {
    /// Serves until a signal or a successor ends it, drains, and returns.
    pub async fn until_end(self) {
        self.supervisor.serve_to_the_end().await;
        let giving_back = self.supervisor.live.give_back_quotas();
        if tokio::time::timeout(QUOTA_END_TIMEOUT, giving_back).await.is_err() {
            log::warn!("quotas could not be given back within {QUOTA_END_TIMEOUT:?}");
        }
        if tokio::time::timeout(CACHE_END_TIMEOUT, self.supervisor.live.flush_caches()).await.is_err() {
            log::warn!("what caches have stored last could not be written within {CACHE_END_TIMEOUT:?}");
        }
        self.supervisor.upgrade_listener.get().iter().for_each(|upgrade_listener| upgrade_listener.withdraw());
        // A successor has the same socket.
        if self.supervisor.successor.load(Ordering::Acquire) == 0 {
            self.supervisor.admin_file.iter().for_each(SocketFile::remove);
        }
    }
}

/// Counts a panic and logs its place, but not its message, which may quote a request.
fn note_panic(panic: &std::panic::PanicHookInfo<'_>) {
    METRICS.panics.inc();
    log::error!("a panic at {}: please report it", panic.location().map(ToString::to_string).unwrap_or_default());
}

/// Runs a gateway to its end. Returns the exit code: 0, 2 for a wrong configuration, or 1.
pub fn run(options: Options) -> u8 {
    // Health checks, look-ups, reloads and the admin listener have a thread of their own, so that none of them ever
    // delays a request.
    let control = match Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build() {
        Ok(control) => control,
        Err(error) => {
            write_final_error(&format!("portcullis: {error}"));
            return 1;
        }
    };
    let code = control.block_on(async {
        // First: a signal without a handler would end the process.
        let mut signals = signals::Signals::new();
        handover::remember_executable();
        std::panic::set_hook(Box::new(note_panic));
        super::sockets::raise_limit();
        let started = tokio::select! {
            biased;
            started = start(options) => started,
            () = signals.told_to_end() => Err(StartError::ToldToEnd),
        };
        match started {
            Ok(started) => {
                let listening = tokio::spawn(signals::listen(signals, Arc::clone(&started.supervisor)));
                match started.supervisor.admin_address() {
                    AdminAddress::None => log::info!("there is no admin listener"),
                    address => log::info!("the admin listener is on {address}"),
                }
                log::info!("ready");
                started.until_end().await;
                listening.abort();
                0
            }
            Err(StartError::Mistakes(mistakes)) => {
                write_final_error(&mistakes.to_string());
                2
            }
            Err(StartError::Other(text)) if !signals::told_to_end() => {
                write_final_error(&format!("portcullis: {text}"));
                1
            }
            // Any other error happened since, or because of it.
            Err(StartError::Other(_) | StartError::ToldToEnd) => {
                log::info!("told to end before it served");
                0
            }
        }
    });
    control.shutdown_background();
    code
}
