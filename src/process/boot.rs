//! From nothing to serving, and to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};

use super::handover::{self, Predecessor};
use super::{ReloadState, Source, Supervisor, look_after, signals, single};
use crate::compile::compile;
use crate::edge::{Bound, Drain, Gateway};
use crate::live::Live;
use crate::notation::{Mistakes, Place};
use crate::snapshot::{Serving, Snapshot};
use crate::telemetry::AccessLog;
use crate::telemetry::metrics::METRICS;

/// How to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration.
    pub source: Source,
    /// Whether to take the listeners from the process that runs now.
    pub upgrade: bool,
}

/// Why a start failed.
#[derive(Debug)]
pub enum Failure {
    /// The configuration is wrong.
    Mistakes(Mistakes),
    /// Something else is.
    Other(String),
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Started {
    /// Everything that runs.
    pub supervisor: Arc<Supervisor>,
    /// Where requests are served; taken out when it ends.
    workers: Option<Runtime>,
    offer: Option<handover::Offer>,
}

fn io<T>(what: &str, result: std::io::Result<T>) -> Result<T, Failure> {
    result.map_err(|e| Failure::Other(format!("{what}: {e}")))
}

/// What the operators' listener is called in a hand-over; no listener can be named so.
const ADMIN: &str = "(admin)";

/// Connections to targets that are kept for each worker and target group.
const KEPT: usize = 1024;

fn proxy(gateway: Gateway, threads: usize) -> Arc<HttpProxy<Gateway>> {
    let conf = ServerConf { threads, upstream_keepalive_pool_size: KEPT, ..ServerConf::default() };
    let mut proxy = HttpProxy::new(gateway, Arc::new(conf));
    proxy.handle_init_modules();
    Arc::new(proxy)
}

/// Sockets for every listener: inherited where the predecessor has one for that name and address.
fn sockets(snapshot: &Snapshot, mut inherited: Vec<Bound>) -> Result<Vec<Bound>, Mistakes> {
    let (mut bound, mut mistakes) = (Vec::new(), Mistakes::default());
    for (index, listener) in snapshot.listeners.iter().enumerate() {
        let place = inherited.iter().position(|b| b.name == listener.name && b.configured == listener.address);
        match place {
            Some(place) => bound.push(inherited.swap_remove(place)),
            None => match super::sockets::bind(&listener.name, listener.address) {
                Ok(socket) => bound.push(socket),
                Err(error) => {
                    let place = Place::default().key("listeners").index(index).key("address");
                    mistakes.add(&place, format!("cannot listen on {}: {error}", listener.address));
                }
            },
        }
    }
    if mistakes.is_empty() { Ok(bound) } else { Err(mistakes) }
}

/// Starts. To be called within the runtime that the control work is to run on.
///
/// # Errors
/// Mistakes of the configuration, or what the system refuses.
pub async fn start(options: Options) -> Result<Started, Failure> {
    crate::tls::install_provider();
    let live = Live::default();
    let loaded = options.source.load().map_err(Failure::Mistakes)?;
    let snapshot = compile(&loaded, &live).map_err(Failure::Mistakes)?;
    let (mut inherited, predecessor) = inherit(&options, &snapshot)?;
    let admin = admin_socket(&snapshot, &mut inherited)?;
    let bound = sockets(&snapshot, inherited).map_err(|m| Failure::Other(loaded.locate(m).to_string()))?;
    let (sink, format) = snapshot.log.clone();
    let access_log = AccessLog::open(sink, format).map_err(|e| Failure::Mistakes(single(&loaded, "log", e.to_string())))?;
    let threads = match snapshot.process.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let workers = io("the workers", Builder::new_multi_thread().worker_threads(threads).thread_name("worker").enable_all().build())?;
    look_after(&snapshot).await;
    let (upgrade_socket, admin_address) = (snapshot.process.upgrade_socket.clone(), snapshot.admin.address);
    let serving = Arc::new(ArcSwap::from_pointee(Serving { snapshot, access_log: Arc::new(access_log) }));
    let shutdown = watch::channel(false).0;
    let supervisor = Arc::new(Supervisor {
        source: options.source,
        live,
        proxy: proxy(Gateway::new(Arc::clone(&serving)), threads),
        serving,
        listeners: Mutex::new(Vec::new()),
        workers: workers.handle().clone(),
        reloading: tokio::sync::Mutex::new(()),
        last_reload: Mutex::new(ReloadState { at: SystemTime::now(), refused: None }),
        drain: Arc::new(Drain::default()),
        shutdown,
        ready: AtomicBool::new(false),
        ending: Notify::new(),
        admin: Bound { socket: io("the admin listener", admin.try_clone())?, name: ADMIN.to_owned(), configured: admin_address },
    });
    supervisor.begin(bound);
    let admin = io("the admin listener", tokio::net::TcpListener::from_std(admin))?;
    tokio::spawn(crate::admin::serve(admin, Arc::clone(&supervisor) as Arc<dyn crate::admin::Operated>));
    if let Some(predecessor) = predecessor {
        io("telling the predecessor", predecessor.ready())?;
    }
    let offer = match upgrade_socket {
        Some(path) => Some(io(&format!("the upgrade socket {}", path.display()), handover::offer(&path, Arc::clone(&supervisor)))?),
        None => None,
    };
    Ok(Started { supervisor, workers: Some(workers), offer })
}

/// The operators' socket, from the predecessor if it has one for that address.
fn admin_socket(snapshot: &Snapshot, inherited: &mut Vec<Bound>) -> Result<std::net::TcpListener, Failure> {
    let address = snapshot.admin.address;
    let place = inherited.iter().position(|b| b.name == ADMIN && b.configured == address);
    let socket = match place {
        Some(place) => inherited.swap_remove(place).socket,
        None => io(&format!("the admin listener on {address}"), super::sockets::bind(ADMIN, address))?.socket,
    };
    io("the admin listener", socket.set_nonblocking(true))?;
    Ok(socket)
}

fn inherit(options: &Options, snapshot: &Snapshot) -> Result<(Vec<Bound>, Option<Predecessor>), Failure> {
    if !options.upgrade {
        return Ok((Vec::new(), None));
    }
    let Some(path) = &snapshot.process.upgrade_socket else {
        return Err(Failure::Other("--upgrade needs process.upgrade_socket in the configuration".to_owned()));
    };
    let taken = handover::take(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound => {
            std::io::Error::other("nothing serves there; start without --upgrade")
        }
        _ => error,
    });
    let (bound, predecessor) = io(&format!("taking over from {}", path.display()), taken)?;
    Ok((bound, Some(predecessor)))
}

impl Supervisor {
    /// Accepts from now on.
    fn begin(&self, bound: Vec<Bound>) {
        self.start_listeners(&self.serving.load_full(), bound);
        METRICS.loaded();
        self.ready.store(true, Ordering::Release);
    }
}

impl Started {
    /// Serves until a signal or a successor ends it, drains, and returns.
    pub async fn until_end(self) {
        self.supervisor.ending.notified().await;
        self.supervisor.drain().await;
        self.offer.iter().for_each(handover::Offer::withdraw);
    }
}

impl Drop for Started {
    /// A runtime must not be waited for within another.
    fn drop(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.shutdown_background();
        }
    }
}

/// Runs a gateway to its end. The exit code: 0, or 2 for a wrong configuration, or 1.
pub fn run(options: Options) -> u8 {
    // Health checks, look-ups, reloads and the admin listener have a thread of their own, so that
    // none of them ever delays a request.
    let control = match Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build() {
        Ok(control) => control,
        Err(error) => {
            eprintln!("portcullis: {error}");
            return 1;
        }
    };
    let code = control.block_on(async {
        match start(options).await {
            Ok(started) => {
                let listening = tokio::spawn(signals::listen(Arc::clone(&started.supervisor)));
                log::info!("operators are served on {}", started.supervisor.admin_address());
                log::info!("ready");
                started.until_end().await;
                listening.abort();
                0
            }
            Err(Failure::Mistakes(mistakes)) => {
                eprintln!("{mistakes}");
                2
            }
            Err(Failure::Other(text)) => {
                eprintln!("portcullis: {text}");
                1
            }
        }
    });
    control.shutdown_background();
    code
}
