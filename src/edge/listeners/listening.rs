//! A running listener: its socket, its accept loop, and how it stops.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pingora::server::ShutdownWatch;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept::accept;
use super::accept_state::AcceptState;
use super::admitted::Admitted;
use super::connection::ListenerState;
use super::datagram_socket::DatagramSocket;
use super::datagrams::Datagrams;
use super::drain::Drain;
use super::layer4::TcpService;
use super::service::{ListenerContext, Service};
use super::settings::Settings;
use super::socket::Bound;
use crate::snapshot::{Listener, Serving, Transport, WorkerServing};

/// How long a connection is silent before the system probes the client (RFC 9293, section 3.8.4), and between probes.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The socket of a listener.
enum ListeningSocket {
    Tcp(Arc<TcpListener>),
    Udp(Arc<UdpSocket>),
}

impl ListeningSocket {
    fn new(socket: OwnedFd, transport: Transport) -> std::io::Result<Self> {
        SockRef::from(&socket).set_nonblocking(true)?;
        if transport == Transport::Tcp {
            // Connections have the options of the socket that accepts them. A session may be silent for long, but not
            // without a peer.
            let _ = SockRef::from(&socket).set_tcp_nodelay(true);
            let probes = TcpKeepalive::new().with_time(KEEPALIVE_TIME).with_interval(KEEPALIVE_INTERVAL);
            let _ = SockRef::from(&socket).set_tcp_keepalive(&probes);
        }
        Ok(match transport {
            Transport::Tcp => Self::Tcp(Arc::new(TcpListener::from_std(socket.into())?)),
            Transport::Udp => Self::Udp(Arc::new(UdpSocket::from_std(socket.into())?)),
        })
    }

    fn address(&self) -> std::io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Udp(socket) => socket.as_fd(),
        }
    }
}

/// Serves the datagrams of a socket in a task of its own. The returned task ends when no further client is served;
/// where no configuration has the listener any more, when the socket is closed.
fn serve_datagrams(
    socket: DatagramSocket,
    settings: &Arc<Settings>,
    context: &ListenerContext,
    (state, closing, is_shared): (watch::Receiver<AcceptState>, ShutdownWatch, Arc<AtomicBool>),
) -> JoinHandle<()> {
    let (mut ends, settings) = (state.clone(), Arc::clone(settings));
    let Service::Udp(service) = &settings.service else { return tokio::spawn(async {}) };
    let listener_state = Arc::clone(&settings.listener_state);
    let shared = (Arc::clone(&context.serving), Arc::clone(&context.drain));
    let datagrams = Datagrams::new(socket, listener_state, service, shared, (state, closing, is_shared));
    let streams = Arc::clone(&context.streams);
    let serving = tokio::spawn(async move { streams.serve_datagrams(datagrams).await });
    tokio::spawn(async move {
        let _ = ends.wait_for(|state| matches!(state, AcceptState::Stop | AcceptState::Leave)).await;
        if settings.listener_state.last.load().is_some() {
            let _ = serving.await;
        }
        settings.stopping.lock().take();
    })
}

/// A running listener. When it is dropped, it stops accepting, and its connections end with the request that they
/// have.
pub struct Listening {
    /// The name.
    pub name: String,
    /// The address that was configured.
    pub configured: SocketAddr,
    /// The actual address.
    pub address: SocketAddr,
    /// Whether a service manager has the socket too.
    pub activated: bool,
    settings: Arc<Settings>,
    socket: ListeningSocket,
    work: watch::Sender<AcceptState>,
    closing: watch::Sender<bool>,
    drain: Arc<Drain>,
    /// Whether another process has the socket too, and serves.
    shared: Arc<AtomicBool>,
    /// Ends when the socket is no longer used; `None` once something waits for that.
    accepting: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Listening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listening").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Listening {
    /// Starts accepting on a socket. It must be called within the runtime of the workers.
    ///
    /// # Errors
    /// Fails when the socket cannot be used.
    pub fn start(bound: Bound, listener: &Listener, context: ListenerContext) -> std::io::Result<Self> {
        let socket = ListeningSocket::new(bound.socket, listener.transport())?;
        let (work, state) = watch::channel(AcceptState::Accept);
        let (closing, shutdown) = watch::channel(false);
        let (drain, shared) = (Arc::clone(&context.drain), Arc::new(AtomicBool::new(false)));
        let address = socket.address()?;
        let settings = Arc::new(Settings::new(listener, address.port(), context.clone(), shutdown.clone()));
        let accepting = Some(match &socket {
            ListeningSocket::Tcp(socket) => {
                tokio::spawn(accept(Arc::clone(socket), Arc::clone(&settings), Arc::clone(&drain), shutdown, state))
            }
            ListeningSocket::Udp(socket) => {
                let socket = DatagramSocket::new(Arc::clone(socket))?;
                serve_datagrams(socket, &settings, &context, (state, shutdown, Arc::clone(&shared)))
            }
        });
        let (name, configured, activated) = (listener.name.clone(), bound.configured, bound.activated);
        Ok(Self { name, configured, address, activated, settings, socket, work, closing, drain, shared, accepting })
    }

    /// Applies the settings of a new configuration: name, limits, protocols, certificates.
    pub fn update(&mut self, listener: &Listener) {
        self.name.clone_from(&listener.name);
        self.settings.update(listener);
    }

    /// Returns whether this is the listener of that configuration.
    pub fn matches(&self, listener: &Listener) -> bool {
        self.settings.listener_state.key == listener.key()
    }

    /// Returns the transport of its socket.
    pub fn transport(&self) -> Transport {
        self.settings.listener_state.key.transport()
    }

    /// Ends the listener, which no configuration has any more: it accepts nothing, and its connections end with the
    /// request that they have, served by the last configuration that had it. When the returned task has ended, its
    /// address is free.
    pub fn retire(self, last: Arc<Serving>) -> Option<JoinHandle<()>> {
        self.settings.listener_state.last.store(Some(WorkerServing::new(last)));
        self.end()
    }

    /// Stops accepting. When the returned task has ended, the socket is closed.
    pub fn end(mut self) -> Option<JoinHandle<()>> {
        self.accepting.take()
    }

    /// Sets whether another process has the socket too: what waits in the queue is left to that at the end.
    pub fn share_with_another(&self, shared: bool) {
        self.shared.store(shared, Ordering::Release);
    }

    /// Returns whether another process has the socket too.
    pub fn is_shared(&self) -> bool {
        self.shared.load(Ordering::Acquire)
    }

    /// Sets whether the connections end with the request that they have.
    pub fn close(&self, closing: bool) {
        self.settings.listener_state.closing.store(closing, Ordering::Relaxed);
        self.closing.send_replace(closing);
    }

    /// Pauses accepting, or resumes it. The socket stays open: no client is refused meanwhile.
    pub fn pause(&self, paused: bool) {
        self.work.send_replace(if paused { AcceptState::Pause } else { AcceptState::Accept });
    }

    /// Returns the socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Counts a connection of this listener that another process has accepted, whatever the limits; `None` where the
    /// listener is none of kind `tcp`.
    pub fn adopt(&self, client: SocketAddr) -> Option<(Arc<ListenerState>, Arc<TcpService>, Admitted)> {
        let Service::Tcp(service) = &self.settings.service else { return None };
        let place = Arc::clone(&self.settings.places).try_acquire_owned().ok();
        let admitted = Admitted::new(place, self.settings.adopt_address(client.ip()), self.drain.begin());
        Some((Arc::clone(&self.settings.listener_state), Arc::clone(service), admitted))
    }

    /// Duplicates the socket for a successor.
    ///
    /// # Errors
    /// Fails when no file descriptor is left.
    pub fn share(&self) -> std::io::Result<Bound> {
        let socket = self.socket.as_fd().try_clone_to_owned()?;
        Ok(Bound { name: self.name.clone(), configured: self.configured, activated: false, socket })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        *self.settings.stopping.lock() = Some(self.drain.begin());
        self.work.send_replace(if self.is_shared() { AcceptState::Leave } else { AcceptState::Stop });
        self.close(true);
    }
}
