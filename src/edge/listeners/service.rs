//! The service of a listener by its kind, and the settings of it that a reload may change.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::ReusedHttpStream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::connection::Connections;
use super::datagrams::UdpService;
use super::drain::Drain;
use super::layer4::{ServeStreams, StreamContext, TcpService};
use super::tls_state::ListenerTlsState;
use crate::snapshot::{Current, HttpListener, Limits, ListenerSpec};
use crate::tls::TicketKeys;

/// The work on one request. It resolves to the connection if another request may follow on it.
pub type RequestWork<'w> = Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'w>>;

/// A service for HTTP requests. The listeners know nothing else of the proxy.
pub trait ServeHttp: Send + Sync {
    /// Serves one request.
    fn serve<'w>(&'w self, session: ServerSession, shutdown: &'w ShutdownWatch) -> RequestWork<'w>;
}

/// The values that all listeners of a process share.
#[derive(Clone)]
pub struct ListenerContext {
    /// The service for HTTP requests.
    pub http: Arc<dyn ServeHttp>,
    /// The service for layer 4.
    pub streams: Arc<dyn ServeStreams>,
    /// The current configuration.
    pub serving: Arc<Current>,
    /// The count of what is active.
    pub drain: Arc<Drain>,
    /// The keys of TLS session tickets.
    pub tickets: Arc<TicketKeys>,
}

impl ListenerContext {
    fn for_streams(self) -> StreamContext {
        StreamContext { streams: self.streams, serving: self.serving, drain: self.drain, tickets: self.tickets }
    }
}

/// The service for the connections of a listener. A further kind is a variant here: the compiler names each place
/// that has to know of it.
pub enum Service {
    /// HTTP/1 and HTTP/2 over TCP.
    Http(Arc<HttpService>),
    /// Connections at layer 4.
    Tcp(Arc<TcpService>),
    /// Datagrams.
    Udp(Arc<UdpService>),
}

impl Service {
    /// Returns the service of a listener of that kind and name; `shutdown` says whether it closes.
    pub fn new(kind: &ListenerSpec, name: &str, shared: ListenerContext, shutdown: ShutdownWatch) -> Self {
        match kind {
            ListenerSpec::Http(http) => Self::Http(Arc::new(HttpService::new(http, name, shared, shutdown))),
            ListenerSpec::Tcp(tcp) => Self::Tcp(Arc::new(TcpService::new(tcp, name, shared.for_streams()))),
            ListenerSpec::Udp(udp) => Self::Udp(Arc::new(UdpService::new(udp))),
        }
    }

    /// Applies the settings of a new configuration.
    pub fn update(&self, kind: &ListenerSpec, name: &str) {
        match (self, kind) {
            (Self::Http(service), ListenerSpec::Http(http)) => service.update(http, name),
            (Self::Tcp(service), ListenerSpec::Tcp(tcp)) => service.update(tcp, name),
            (Self::Udp(service), ListenerSpec::Udp(udp)) => service.update(udp),
            // A listener of another kind is another one: the kind is part of its key.
            (Self::Http(_) | Self::Tcp(_) | Self::Udp(_), _) => {}
        }
    }

    /// Returns the time for headers and handshakes.
    pub fn header_time(&self) -> Duration {
        match self {
            Self::Http(service) => service.limits().header_time,
            Self::Tcp(service) => service.header_time(),
            Self::Udp(_) => Duration::MAX,
        }
    }

    /// Returns the open connections, for their deadlines and for eviction.
    pub fn connections(&self) -> &Connections {
        match self {
            Self::Http(service) => &service.connections,
            Self::Tcp(service) => &service.connections,
            Self::Udp(service) => &service.connections,
        }
    }
}

/// The service for the connections of a listener for HTTP.
pub struct HttpService {
    shared: ListenerContext,
    /// Whether the listener closes.
    pub shutdown: ShutdownWatch,
    /// Its connections.
    pub connections: Connections,
    limits: ArcSwap<Limits>,
    /// Whether HTTP/1 is spoken, and whether HTTP/2 is.
    pub protocols: ArcSwap<(bool, bool)>,
    /// TLS.
    pub tls: ListenerTlsState,
}

impl std::ops::Deref for HttpService {
    type Target = ListenerContext;

    fn deref(&self) -> &ListenerContext {
        &self.shared
    }
}

impl HttpService {
    fn new(listener: &HttpListener, name: &str, shared: ListenerContext, shutdown: ShutdownWatch) -> Self {
        let service = Self {
            shared,
            shutdown,
            connections: Connections::default(),
            limits: ArcSwap::from_pointee(listener.limits),
            protocols: ArcSwap::from_pointee((listener.http1, listener.http2)),
            tls: ListenerTlsState::default(),
        };
        service.update(listener, name);
        service
    }

    /// Returns the present limits.
    pub fn limits(&self) -> Limits {
        **self.limits.load()
    }

    fn update(&self, listener: &HttpListener, name: &str) {
        self.limits.store(Arc::new(listener.limits));
        self.protocols.store(Arc::new((listener.http1, listener.http2)));
        self.tls.update(listener.tls.as_ref(), name, &self.tickets);
    }
}
