//! A listener at work: its socket, its accept loop, and how it stops.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use ipnet::IpNet;
use parking_lot::Mutex;
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use pingora::tls::TlsAcceptor;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use super::admit::admit;
use super::clock;
use super::connection::{Connection, Home};
use super::evict::{AddressPlace, Addresses, Idlers, Queue};
use crate::edge::proxy::{Gateway, Targets};
use crate::snapshot::{Current, Held, Limits, Listener, Serving};
use crate::telemetry::metrics::METRICS;
use crate::tls::{CertificateTable, ServerSettings, TicketKeys, Tickets, server_config};

/// Counts what is under way, so that draining ends with the last of it.
#[derive(Debug, Default)]
pub struct Drain {
    count: AtomicUsize,
    empty: Notify,
    is_over: AtomicBool,
}

/// Something under way.
#[derive(Debug)]
pub struct DrainGuard(Arc<Drain>);

impl Drain {
    /// Counts something until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> DrainGuard {
        self.count.fetch_add(1, Ordering::AcqRel);
        DrainGuard(Arc::clone(self))
    }

    /// How much is under way.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Ends every connection in the middle of what it does, within a [`clock::TICK`].
    pub fn cut(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Resolves when nothing is under way.
    pub async fn empty(&self) {
        loop {
            let notified = self.empty.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}

/// A socket that is bound and listens, and whose connections nobody accepts yet.
#[derive(Debug)]
pub struct Bound {
    /// The listener's name.
    pub name: String,
    /// The address that was configured; its port may be 0.
    pub configured: SocketAddr,
    /// Whether a service manager has bound it, so that its name counts more than its address.
    pub activated: bool,
    /// The socket.
    pub socket: std::net::TcpListener,
}

/// What all listeners of a process share.
#[derive(Clone)]
pub struct Shared {
    /// The gateway.
    pub proxy: Arc<HttpProxy<Gateway, Targets>>,
    /// The configuration at work.
    pub serving: Arc<Current>,
    /// What is under way.
    pub drain: Arc<Drain>,
    /// The keys of TLS session tickets.
    pub tickets: Arc<TicketKeys>,
}

/// What serving a connection needs.
pub struct Context {
    shared: Shared,
    /// Whether the listener is closing.
    pub shutdown: ShutdownWatch,
    /// What is set for the listener at the moment.
    pub settings: Arc<Settings>,
}

impl std::ops::Deref for Context {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl Context {
    /// The listener's limits of this moment.
    pub fn limits(&self) -> Limits {
        **self.settings.limits.load()
    }
}

/// What a reload may change of a listener that stays.
pub struct Settings {
    /// What connections know of it.
    pub home: Arc<Home>,
    limits: ArcSwap<Limits>,
    /// Whether HTTP/1 is spoken, and whether HTTP/2 is.
    pub protocols: ArcSwap<(bool, bool)>,
    /// A place for each connection; changed with the limit.
    places: Arc<Semaphore>,
    most: AtomicUsize,
    /// Whose connections are not counted by address, and the others' count.
    trusted: ArcSwap<Vec<IpNet>>,
    addresses: Arc<Addresses>,
    /// If TLS is spoken.
    pub tls: ArcSwapOption<Tls>,
    certificates: Arc<ArcSwap<CertificateTable>>,
    tickets: Arc<TicketKeys>,
    /// Held from the end of the listener until the last connection of its queue is served: a drain must not
    /// end in between.
    stopping: Mutex<Option<DrainGuard>>,
}

/// What an accept loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Accept,
    /// New connections wait in the kernel's queue, or go to whoever else has the socket.
    Pause,
    /// What waits in the queue is served first: it is reset with the socket.
    Stop,
    /// What waits in the queue is another's, who has the socket too.
    Leave,
}

/// How TLS is spoken.
pub struct Tls {
    settings: ServerSettings,
    /// Does the hand-shake.
    pub acceptor: TlsAcceptor,
}

/// A listener at work. Dropped, it stops accepting, and its connections end with the request that they have.
pub struct Listening {
    /// The name.
    pub name: String,
    /// The address that was configured.
    pub configured: SocketAddr,
    /// The address that it has.
    pub address: SocketAddr,
    /// Whether a service manager has the socket too.
    pub activated: bool,
    settings: Arc<Settings>,
    socket: Arc<TcpListener>,
    work: watch::Sender<Work>,
    closing: watch::Sender<bool>,
    drain: Arc<Drain>,
    /// Whether another process has the socket too, and serves.
    shared: AtomicBool,
    /// Ends when the socket has no use any more; nothing once somebody waits for that.
    accepting: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listening {
    /// Starts accepting on a socket. To be called within the runtime of the workers.
    ///
    /// # Errors
    /// When the socket cannot be used.
    pub fn start(bound: Bound, listener: &Listener, shared: Shared) -> std::io::Result<Self> {
        bound.socket.set_nonblocking(true)?;
        let socket = Arc::new(TcpListener::from_std(bound.socket)?);
        let settings = Arc::new(Settings {
            home: Arc::new(Home {
                key: listener.key(),
                name: ArcSwap::from_pointee(listener.name.clone()),
                last: ArcSwapOption::empty(),
                closing: AtomicBool::new(false),
            }),
            limits: ArcSwap::from_pointee(listener.limits),
            protocols: ArcSwap::from_pointee((listener.http1, listener.http2)),
            places: Arc::new(Semaphore::new(listener.limits.connections)),
            most: AtomicUsize::new(listener.limits.connections),
            trusted: ArcSwap::default(),
            addresses: Arc::default(),
            tls: ArcSwapOption::empty(),
            certificates: Arc::new(ArcSwap::from_pointee(CertificateTable::new(&[]))),
            tickets: Arc::clone(&shared.tickets),
            stopping: Mutex::default(),
        });
        settings.update(listener);
        let (work, told) = watch::channel(Work::Accept);
        let (closing, shutdown) = watch::channel(false);
        let drain = Arc::clone(&shared.drain);
        let context = Arc::new(Context { shared, shutdown, settings: Arc::clone(&settings) });
        let address = socket.local_addr()?;
        let accepting = Some(tokio::spawn(accept(Arc::clone(&socket), context, told)));
        let (name, configured, activated) = (listener.name.clone(), bound.configured, bound.activated);
        Ok(Self { name, configured, address, activated, settings, socket, work, closing, drain, shared: AtomicBool::new(false), accepting })
    }

    /// Takes the settings of a new configuration: name, limits, protocols, certificates.
    pub fn update(&mut self, listener: &Listener) {
        self.name.clone_from(&listener.name);
        self.settings.update(listener);
    }

    /// Whether it is the one that is configured so.
    pub fn is(&self, listener: &Listener) -> bool {
        self.settings.home.key == listener.key()
    }

    /// No configuration has it any more: it accepts nothing, and its connections end with the request
    /// that they have, served by the last configuration that had it. Once what this gives has ended, its address
    /// is free.
    pub fn retire(self, last: Arc<Serving>) -> Option<JoinHandle<()>> {
        self.settings.home.last.store(Some(Held::new(last)));
        self.end()
    }

    /// It accepts nothing any more. Once what this gives has ended, its socket is closed.
    pub fn end(mut self) -> Option<JoinHandle<()>> {
        self.accepting.take()
    }

    /// Whether another process has the socket too: what waits in the queue is left to that at the end.
    pub fn share_with_another(&self, shared: bool) {
        self.shared.store(shared, Ordering::Release);
    }

    /// Whether another process has the socket too.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Lets its connections end with the request that they have; or lets them go on after all.
    pub fn close(&self, closing: bool) {
        self.settings.home.closing.store(closing, Ordering::Relaxed);
        self.closing.send_replace(closing);
    }

    /// Accepts nothing for now, or again. The socket stays open: nobody is refused meanwhile.
    pub fn pause(&self, paused: bool) {
        self.work.send_replace(if paused { Work::Pause } else { Work::Accept });
    }

    /// The socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The socket once more, for a successor or under another name.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn share(&self) -> std::io::Result<std::net::TcpListener> {
        Ok(self.socket.as_fd().try_clone_to_owned()?.into())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        *self.settings.stopping.lock() = Some(self.drain.begin());
        self.work.send_replace(if self.is_shared() { Work::Leave } else { Work::Stop });
        self.close(true);
    }
}

impl Settings {
    /// Changes how many connections there may be. Fewer count as connections end: none is cut.
    fn resize(&self, most: usize) {
        let before = self.most.swap(most, Ordering::AcqRel);
        if most >= before {
            return self.places.add_permits(most - before);
        }
        let mut surplus = before - most;
        surplus -= self.places.forget_permits(surplus);
        let places = Arc::clone(&self.places);
        tokio::spawn(async move {
            for _ in 0..surplus {
                let Ok(place) = places.acquire().await else { return };
                place.forget();
            }
        });
    }

    /// Counts a connection of that address, unless proxies are trusted there: behind one are many clients.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Option<AddressPlace>, TooMany> {
        let canonical = address.to_canonical();
        if self.trusted.load().iter().any(|net| net.contains(&canonical)) {
            return Ok(None);
        }
        self.addresses.enter(address, self.limits.load().connections_per_address).map(Some).ok_or(TooMany)
    }

    fn update(&self, listener: &Listener) {
        self.home.name.store(Arc::new(listener.name.clone()));
        self.limits.store(Arc::new(listener.limits));
        self.resize(listener.limits.connections);
        self.trusted.store(Arc::new(listener.trusted_proxies.clone()));
        self.protocols.store(Arc::new((listener.http1, listener.http2)));
        let Some((settings, certificates)) = &listener.tls else { return self.tls.store(None) };
        self.certificates.store(Arc::new(CertificateTable::new(certificates)));
        let same = self.tls.load().as_ref().is_some_and(|tls| tls.settings == *settings);
        if !same {
            let tickets = Tickets::new(Arc::clone(&self.tickets), &listener.name);
            let config = server_config(settings, Arc::clone(&self.certificates), tickets);
            self.tls.store(Some(Arc::new(Tls { settings: settings.clone(), acceptor: TlsAcceptor::from(config) })));
        }
    }
}

/// An address has as many connections as it may have.
#[derive(Debug)]
pub struct TooMany;

/// Waits for a place. When there is none and somebody waits for it, the connection that has been idle for longest ends.
async fn place(
    places: &Arc<Semaphore>,
    socket: &TcpListener,
    full: &mut Option<Queue>,
    idlers: &mut Idlers,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    if full.is_none() {
        *full = Queue::of(socket).ok();
    }
    if let Some(queue) = full {
        tokio::select! {
            biased;
            place = Arc::clone(places).acquire_owned() => return place.ok(),
            () = queue.somebody() => {}
        }
    }
    loop {
        idlers.end_one();
        if let Ok(place) = tokio::time::timeout(clock::TICK, Arc::clone(places).acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Accepts until it is stopped. Over the limit of connections idle ones make room; where none is, further ones wait in the
/// kernel's queue.
async fn accept(socket: Arc<TcpListener>, context: Arc<Context>, mut work: watch::Receiver<Work>) {
    let places = Arc::clone(&context.settings.places);
    let connections = Connections::default();
    let watcher = tokio::spawn(watch_deadlines(Arc::clone(&connections), context.shutdown.clone(), Arc::clone(&context.drain)));
    let mut failing = false;
    let (mut full, mut idlers) = (None, Idlers::new(Arc::clone(&connections)));
    let last = loop {
        let now = *work.borrow_and_update();
        match now {
            Work::Stop | Work::Leave => break now,
            Work::Pause => {
                if work.changed().await.is_err() {
                    break now;
                }
                continue;
            }
            Work::Accept => {}
        }
        let next = async {
            let place = place(&places, &socket, &mut full, &mut idlers).await;
            (socket.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            changed = work.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break now,
            },
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                if std::mem::take(&mut failing) {
                    log::info!("listener {}: accepts again", context.settings.home.name.load());
                }
                admit(stream, peer, place, &context, &connections);
            }
            Err(error) => {
                // Out of file descriptors, most likely: the connection stays in the queue meanwhile. One
                // line for as long as it lasts.
                if !std::mem::replace(&mut failing, true) {
                    log::error!("listener {}: cannot accept: {error}", context.settings.home.name.load());
                }
                METRICS.refused.with_label_values(&["accept"]).inc();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    // It has the socket too.
    drop(full);
    if last != Work::Leave {
        empty(socket, |stream, peer| admit(stream, peer, None, &context, &connections)).await;
    }
    context.settings.stopping.lock().take();
    // The socket closes with this; connections that are still open keep their deadlines until they are gone.
    tokio::spawn(async move {
        while connections.lock().iter().any(|c| c.strong_count() > 0) {
            tokio::time::sleep(clock::TICK).await;
        }
        watcher.abort();
    });
}

/// Serves whoever has got into the queue, and closes the socket right behind the last: who comes in between is reset.
async fn empty(mut socket: Arc<TcpListener>, serve: impl Fn(TcpStream, SocketAddr)) {
    let only = loop {
        while let Some((stream, peer)) = queued(&socket) {
            serve(stream, peer);
        }
        match Arc::try_unwrap(socket) {
            Ok(only) => break only,
            // Whoever ends the listener lets go of it in a moment.
            Err(shared) => socket = shared,
        }
        tokio::task::yield_now().await;
    };
    // What takes time about closing is done before.
    if let Ok(only) = only.into_std() {
        while let Some((stream, peer)) = queued(&only) {
            serve(stream, peer);
        }
    }
}

/// A connection that is in the queue already, whether the runtime has heard of it or not.
fn queued<'s>(socket: impl Into<socket2::SockRef<'s>>) -> Option<(TcpStream, SocketAddr)> {
    let (stream, peer) = socket.into().accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some((TcpStream::from_std(stream.into()).ok()?, peer.as_socket()?))
}

/// The connections of a listener.
pub type Connections = Arc<Mutex<Vec<Weak<Connection>>>>;

/// How long a connection without a request may stay once the process drains: a request that is on its
/// way when the drain begins is still answered, with `Connection: close`.
const LINGER: Duration = Duration::from_millis(500);

/// Sets the clock and wakes whoever is late.
async fn watch_deadlines(connections: Connections, shutdown: ShutdownWatch, drain: Arc<Drain>) {
    let mut draining_since = None;
    loop {
        tokio::time::sleep(clock::TICK).await;
        let now = clock::tick();
        // A drain may be called off.
        draining_since = if *shutdown.borrow() { draining_since.or(Some(now)) } else { None };
        let linger = LINGER.as_millis() as u64;
        let linger_is_over = draining_since.is_some_and(|since: u64| now - since > linger);
        let all_is_over = drain.is_over.load(Ordering::Acquire);
        connections.lock().retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            connection.check(now, linger_is_over, linger);
            if all_is_over {
                connection.cut();
            }
            true
        });
    }
}
