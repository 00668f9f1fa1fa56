//! The service of a listener by its kind, and the settings of it that a reload may change.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use pingora::apps::ReusedHttpStream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use rustls::ServerConfig;

use super::connection::Connections;
use super::drain::Drain;
use crate::snapshot::{Current, HttpListener, Limits, ListenerSpec};
use crate::tls::{
    CertificateSource, CertificateTable, HostGroup, ServerSettings, TicketKeys, Tickets, TlsHosts, challenge_config,
    server_config,
};

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
    /// The current configuration.
    pub serving: Arc<Current>,
    /// The count of what is active.
    pub drain: Arc<Drain>,
    /// The keys of TLS session tickets.
    pub tickets: Arc<TicketKeys>,
}

/// The service for the connections of a listener. A further kind is a variant here: the compiler names each place
/// that has to know of it.
pub enum Service {
    /// HTTP/1 and HTTP/2 over TCP.
    Http(Arc<HttpService>),
}

impl Service {
    /// Returns the service of a listener of that kind and name; `shutdown` says whether it closes.
    pub fn new(kind: &ListenerSpec, name: &str, shared: ListenerContext, shutdown: ShutdownWatch) -> Self {
        match kind {
            ListenerSpec::Http(http) => Self::Http(Arc::new(HttpService::new(http, name, shared, shutdown))),
        }
    }

    /// Applies the settings of a new configuration.
    pub fn update(&self, kind: &ListenerSpec, name: &str) {
        match (self, kind) {
            (Self::Http(service), ListenerSpec::Http(http)) => service.update(http, name),
        }
    }

    /// Returns the time for headers and handshakes.
    pub fn header_time(&self) -> Duration {
        match self {
            Self::Http(service) => service.limits().header_time,
        }
    }

    /// Returns the open connections, for their deadlines and for eviction.
    pub fn connections(&self) -> &Connections {
        match self {
            Self::Http(service) => &service.connections,
        }
    }
}

/// The TLS settings of a listener.
pub struct TlsService {
    hosts: TlsHosts,
    /// For each group of hosts its configuration.
    configs: Vec<Arc<ServerConfig>>,
    /// The configuration for challenges, if certificates are obtained by ACME.
    pub challenges: Option<Arc<ServerConfig>>,
}

impl TlsService {
    /// Returns the settings of a host and what rustls needs for it.
    pub fn of_host(&self, name: Option<&str>) -> (&Arc<ServerSettings>, &Arc<ServerConfig>) {
        let place = self.hosts.place(name);
        (&self.hosts.groups()[place].settings, &self.configs[place])
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
    /// The TLS settings, if TLS is spoken.
    pub tls: ArcSwapOption<TlsService>,
    certificates: Arc<ArcSwap<CertificateTable>>,
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
            tls: ArcSwapOption::empty(),
            certificates: Arc::new(ArcSwap::from_pointee(CertificateTable::new(&[]))),
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
        let Some(tls) = &listener.tls else { return self.tls.store(None) };
        self.certificates.store(Arc::new(CertificateTable::new(&tls.certificates)));
        let before = self.tls.load_full();
        let configs = tls.hosts.groups().iter().map(|group| self.config_of(group, name, before.as_deref())).collect();
        let is_obtained = |source: &CertificateSource| matches!(source, CertificateSource::Acme(_));
        let challenges =
            tls.certificates.iter().any(is_obtained).then(|| challenge_config(Arc::clone(&self.certificates)));
        self.tls.store(Some(Arc::new(TlsService { hosts: tls.hosts.clone(), configs, challenges })));
    }

    /// Returns the configuration for a group of hosts. Where its settings are as before it is the one from before, with
    /// its cached sessions.
    fn config_of(&self, group: &HostGroup, listener: &str, before: Option<&TlsService>) -> Arc<ServerConfig> {
        let known = before.and_then(|before| {
            let same = |other: &HostGroup| other.label == group.label && other.settings == group.settings;
            before.configs.get(before.hosts.groups().iter().position(same)?)
        });
        if let Some(known) = known {
            return Arc::clone(known);
        }
        let client = group.settings.client.as_ref().map(|client| client.digest);
        let tickets = Tickets::new(Arc::clone(&self.tickets), listener, &group.label, client);
        server_config(&group.settings, Arc::clone(&self.certificates), tickets)
    }
}
