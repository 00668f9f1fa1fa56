//! The client of a connection: who it is, as far as the connection says. What a request adds (trusted proxies,
//! credentials) is in [`Exchange`](super::Exchange).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

/// The client of a connection, whatever its transport. Each request has a copy, which allocates nothing.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address and port.
    pub address: SocketAddr,
    /// The address as text, as headers and logs have it; made once for all requests of the connection.
    pub text: HeaderValue,
    /// What the TLS handshake has established; `None` without TLS.
    pub tls: Option<Arc<TlsFacts>>,
}

/// What a TLS handshake has established about a connection.
#[derive(Debug)]
pub struct TlsFacts {
    /// The version of TLS: `1.2` or `1.3`.
    pub version: &'static str,
    /// The name that the client has asked for (server name indication, RFC 6066, section 3).
    pub server_name: Option<String>,
}

impl Client {
    /// Returns the client at that address.
    pub fn new(address: SocketAddr, tls: Option<TlsFacts>) -> Self {
        Self { address, text: address_text(address.ip()), tls: tls.map(Arc::new) }
    }

    /// Returns a client of which nothing is known: the request came on no connection.
    pub fn unknown() -> Self {
        Self { address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), text: HeaderValue::from_static("unknown"), tls: None }
    }

    /// Returns whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// An address as the value of a header; IPv4 in IPv6 as IPv4.
pub fn address_text(address: IpAddr) -> HeaderValue {
    let text = address.to_canonical().to_string();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
