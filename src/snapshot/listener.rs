//! Listeners: their identity, and what they speak.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::stream::Streams;
use crate::exchange::ErrorPages;
use crate::rules::datagrams::TableLimits;
use crate::rules::limits::Gcra;
use crate::tls::{CertificateSource, TlsHosts};

/// The transport of a socket. Two sockets may have the same address if their transports differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// What a listener speaks, as a part of its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum SpecKind {
    Http,
    Tcp,
    Udp,
}

/// The identity of a listener over reloads: its kind and its address, so that it may be renamed; if the system chooses
/// the port, its name as well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerKey(SpecKind, SocketAddr, Option<String>);

impl ListenerKey {
    /// Returns the transport of the socket.
    pub fn transport(&self) -> Transport {
        self.0.transport()
    }
}

impl SpecKind {
    fn transport(self) -> Transport {
        match self {
            Self::Http | Self::Tcp => Transport::Tcp,
            Self::Udp => Transport::Udp,
        }
    }
}

/// One address to accept connections on.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The name.
    pub name: String,
    /// The address.
    pub address: SocketAddr,
    /// What it speaks.
    pub kind: ListenerSpec,
    /// The proxies that are trusted about the client. Their connections are not counted by address.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether they name the client in `Forwarded` and not in `X-Forwarded-For`.
    pub forwarded: bool,
    /// The load balancers that send a PROXY header.
    pub proxy_protocol: Option<ProxySources>,
    /// The pages for rejections.
    pub errors: ErrorPages,
    /// How many connections it may have.
    pub connections: ConnectionLimits,
}

impl Listener {
    /// Returns the identity of the listener.
    pub fn key(&self) -> ListenerKey {
        ListenerKey(self.spec_kind(), self.address, (self.address.port() == 0).then(|| self.name.clone()))
    }

    /// Returns the transport of its socket.
    pub fn transport(&self) -> Transport {
        self.spec_kind().transport()
    }

    /// Returns its name with that of each of its rules of layer 4.
    pub fn stream_names(&self) -> impl Iterator<Item = (&str, &str)> {
        let rules = self.streams().into_iter().flat_map(|streams| &streams.rules);
        rules.map(|rule| (self.name.as_str(), rule.name.as_str()))
    }

    /// Returns its rules of layer 4, if it is of layer 4.
    pub fn streams(&self) -> Option<&Arc<Streams>> {
        match &self.kind {
            ListenerSpec::Http(_) => None,
            ListenerSpec::Tcp(tcp) => Some(&tcp.streams),
            ListenerSpec::Udp(udp) => Some(&udp.streams),
        }
    }

    fn spec_kind(&self) -> SpecKind {
        match self.kind {
            ListenerSpec::Http(_) => SpecKind::Http,
            ListenerSpec::Tcp(_) => SpecKind::Tcp,
            ListenerSpec::Udp(_) => SpecKind::Udp,
        }
    }

    /// Returns its settings for HTTP, if it speaks HTTP.
    pub fn http(&self) -> Option<&HttpListener> {
        match &self.kind {
            ListenerSpec::Http(http) => Some(http),
            ListenerSpec::Tcp(_) | ListenerSpec::Udp(_) => None,
        }
    }

    /// Returns its TLS, if it speaks TLS.
    pub fn tls(&self) -> Option<&ListenerTls> {
        match &self.kind {
            ListenerSpec::Http(http) => http.tls.as_ref(),
            ListenerSpec::Tcp(tcp) => tcp.tls.as_ref(),
            ListenerSpec::Udp(_) => None,
        }
    }
}

/// What a listener speaks. A further kind is a variant here, and a file in `edge/listeners`.
#[derive(Clone, Debug)]
pub enum ListenerSpec {
    /// HTTP/1 and HTTP/2 over TCP, with or without TLS.
    Http(HttpListener),
    /// Connections at layer 4.
    Tcp(TcpListener),
    /// Datagrams.
    Udp(UdpListener),
}

/// A listener for connections at layer 4.
#[derive(Clone, Debug)]
pub struct TcpListener {
    /// TLS, with its certificates.
    pub tls: Option<ListenerTls>,
    /// The time for all that comes before the first byte for a target: headers and handshakes.
    pub header_time: Duration,
    /// The time after which a client that has sent nothing is one that waits for the server to speak.
    pub hello_time: Duration,
    /// The rules.
    pub streams: Arc<Streams>,
}

/// A listener for datagrams.
#[derive(Clone, Debug)]
pub struct UdpListener {
    /// The load balancers that send a PROXY header in each datagram.
    pub proxy_protocol: Option<ProxySources>,
    /// Its limits.
    pub limits: DatagramLimits,
    /// The rules.
    pub streams: Arc<Streams>,
}

/// A listener for HTTP.
#[derive(Clone, Debug)]
pub struct HttpListener {
    /// HTTP/1 is spoken.
    pub http1: bool,
    /// HTTP/2 is spoken.
    pub http2: bool,
    /// TLS, with its certificates.
    pub tls: Option<ListenerTls>,
    /// Limits.
    pub limits: Limits,
}

/// The load balancers that send a PROXY header.
#[derive(Clone, Debug)]
pub struct ProxySources {
    /// Their networks.
    pub from: Vec<IpNet>,
    /// Whether connections of others are closed.
    pub only: bool,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// The certificates; the first is also for unknown names.
    pub certificates: Vec<CertificateSource>,
    /// The settings by host.
    pub hosts: TlsHosts,
}

/// The limits of a listener's connections.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// The most connections at a time.
    pub connections: usize,
    /// The most connections of one address at a time.
    pub per_address: u32,
    /// The most new connections in a second; `None` is any number.
    pub new: Option<f64>,
    /// The most new connections of one address in a second.
    pub new_per_address: Option<f64>,
}

/// Limits of a listener for datagrams.
#[derive(Clone, Copy, Debug)]
pub struct DatagramLimits {
    /// The limits of its flows.
    pub flows: TableLimits,
    /// The most datagrams of clients in a time.
    pub datagrams: Option<Gcra>,
}

/// Limits of a listener for HTTP.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The time for headers, handshakes and prefaces.
    pub header_time: Duration,
    /// The most bytes of a request's head.
    pub headers: usize,
    /// The most header fields of a request.
    pub header_count: usize,
    /// The most parameters of a query.
    pub query_parameters: usize,
    /// The least number of bytes of a request body per second; 0 is any.
    pub body_rate: u64,
    /// The time between requests.
    pub idle_time: Duration,
    /// The time between two parts of a body.
    pub body_idle_time: Duration,
    /// The most bytes of a request body.
    pub body: u64,
    /// The most requests on a connection; `None` is any number.
    pub requests_per_connection: Option<u32>,
    /// The most streams on an HTTP/2 connection.
    pub streams: u32,
    /// The most bytes for the streams of an HTTP/2 connection.
    pub http2_memory: usize,
}
