//! The client of a connection, as far as the connection identifies it. What a request adds (trusted proxies,
//! credentials) is in [`Exchange`](super::Exchange).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;

/// The client of a connection over any transport. Each request has a copy, which allocates nothing.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address and port.
    pub address: SocketAddr,
    /// The address as text, as headers and logs have it, made once for all requests of the connection.
    pub text: HeaderValue,
    /// The properties of the TLS connection; `None` without TLS.
    pub tls: Option<Arc<TlsFacts>>,
}

/// The properties of a TLS connection after its handshake.
#[derive(Debug)]
pub struct TlsFacts {
    /// The version of TLS: `1.2` or `1.3`.
    pub version: &'static str,
    /// The name that the client has requested (server name indication, RFC 6066, section 3).
    pub server_name: Option<String>,
}

impl Client {
    /// Returns the client at that address.
    pub fn new(address: SocketAddr, tls: Option<TlsFacts>) -> Self {
        Self { address, text: address_text(address.ip()), tls: tls.map(Arc::new) }
    }

    /// Returns an unknown client, for a request without a connection.
    pub fn unknown() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            text: HeaderValue::from_static("unknown"),
            tls: None,
        }
    }

    /// Returns whether the connection uses TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }
}

/// Returns an address as a header value; an IPv4-mapped IPv6 address becomes an IPv4 address.
pub fn address_text(address: IpAddr) -> HeaderValue {
    let text = address.to_canonical().to_string();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
