//! The services of listeners at layer 4, and the settings of them that a reload may change.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;

use super::admitted::Admitted;
use super::connection::{Connections, ListenerState};
use super::datagrams::Datagrams;
use super::drain::Drain;
use super::tls_state::ListenerTlsState;
use crate::exchange::ProxyFacts;
use crate::snapshot::{Current, Streams, TcpListener};
use crate::tls::TicketKeys;

/// The work on one connection, or on the datagrams of a socket.
pub type StreamWork<'w> = Pin<Box<dyn Future<Output = ()> + Send + 'w>>;

/// A service for connections and datagrams at layer 4. The listeners know nothing else of it.
pub trait ServeStreams: Send + Sync {
    /// Serves one connection to its end.
    fn serve(&self, connection: StreamConnection) -> StreamWork<'static>;

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

/// The values that all listeners of a process share, as far as layer 4 needs them.
#[derive(Clone)]
pub struct StreamContext {
    /// The service.
    pub streams: Arc<dyn ServeStreams>,
    /// The current configuration.
    pub serving: Arc<Current>,
    /// The count of what is active.
    pub drain: Arc<Drain>,
    /// The keys of TLS session tickets.
    pub tickets: Arc<TicketKeys>,
}

/// The service for the connections of a listener of kind `tcp`.
pub struct TcpService {
    /// The values that all listeners share.
    pub shared: StreamContext,
    /// None of them is an HTTP connection.
    pub connections: Connections,
    /// TLS.
    pub tls: ListenerTlsState,
    settings: ArcSwap<TcpListener>,
}

impl TcpService {
    /// Returns the service of a listener of that name.
    pub fn new(listener: &TcpListener, name: &str, shared: StreamContext) -> Self {
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
    let streams = Arc::clone(&connection.service.shared.streams);
    tokio::spawn(streams.serve(connection));
}
