//! The services of listeners at layer 4, and the settings of them that a reload may change.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::server::ShutdownWatch;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept_state::AcceptState;
use super::admitted::Admitted;
use super::connection::{Connections, ListenerState};
use super::datagram_socket::DatagramSocket;
use super::datagrams::Datagrams;
use super::service::{ListenerContext, Service};
use super::settings::Settings;
use super::tls_state::ListenerTlsState;
use crate::exchange::ProxyFacts;
use crate::snapshot::{Streams, TcpListener};

/// The work on one connection, or on the datagrams of a socket.
pub type StreamWork<'w> = Pin<Box<dyn Future<Output = ()> + Send + 'w>>;

/// A service for connections and datagrams at layer 4. The listeners know nothing else of it.
pub trait ServeStreams: Send + Sync {
    /// Serves one connection to its end.
    fn serve(&self, connection: StreamConnection) -> StreamWork<'_>;

    /// Serves the datagrams of a socket until the listener closes.
    fn serve_datagrams(&self, datagrams: Datagrams) -> StreamWork<'_>;
}

/// A connection that was accepted, and whose PROXY header has been read.
pub struct StreamConnection {
    /// The stream; nothing of what the client sends has been read.
    pub stream: TcpStream,
    /// The client, as a trusted PROXY header says.
    pub client: SocketAddr,
    /// What such a header said besides.
    pub proxy: Option<ProxyFacts>,
    /// Its listener.
    pub listener_state: Arc<ListenerState>,
    /// The settings of the listener.
    pub service: Arc<TcpService>,
    /// The count of the connection, to its end.
    pub admitted: Admitted,
}

/// The service for the connections of a listener of kind `tcp`.
pub struct TcpService {
    /// The values that all listeners share.
    pub shared: ListenerContext,
    /// None of them is an HTTP connection.
    pub connections: Connections,
    /// TLS.
    pub tls: ListenerTlsState,
    settings: ArcSwap<TcpListener>,
}

impl TcpService {
    /// Returns the service of a listener of that name.
    pub fn new(listener: &TcpListener, name: &str, shared: ListenerContext) -> Self {
        let service = Self {
            shared,
            connections: Connections::default(),
            tls: ListenerTlsState::default(),
            settings: ArcSwap::from_pointee(listener.clone()),
        };
        service.update(listener, name);
        service
    }

    /// Applies a new configuration.
    pub fn update(&self, listener: &TcpListener, name: &str) {
        self.settings.store(Arc::new(listener.clone()));
        self.tls.update(listener.tls.as_ref(), name, &self.shared.tickets);
    }

    /// Returns the time for all that comes before the first byte for a target.
    pub fn header_time(&self) -> Duration {
        self.settings.load().header_time
    }

    /// Returns the time in which a client that begins TLS begins it.
    pub fn hello_time(&self) -> Duration {
        self.settings.load().hello_time
    }

    /// Returns the present rules.
    pub fn streams(&self) -> Arc<Streams> {
        Arc::clone(&self.settings.load().streams)
    }
}

/// Serves a connection in a task of its own.
pub fn begin(connection: StreamConnection) {
    tokio::spawn(async move {
        let streams = Arc::clone(&connection.service.shared.streams);
        streams.serve(connection).await;
    });
}

/// Serves the datagrams of a socket in a task of its own. The returned task ends when no further client is served; where
/// no configuration has the listener any more, when the socket is closed.
pub fn serve_datagrams(
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
