//! The client of a connection, as far as the connection identifies it. What a request adds (trusted proxies,
//! credentials) is in [`Exchange`](super::Exchange).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;
use parking_lot::Mutex;

/// The client of a connection over any transport. Each request has a copy, which allocates nothing.
#[derive(Clone, Debug)]
pub struct Client {
    /// The address and port.
    pub address: SocketAddr,
    /// The address as text, as headers and logs have it, made once for all requests of the connection.
    pub text: HeaderValue,
    /// What else is known of the connection; `None` where that is nothing.
    facts: Option<Arc<ConnectionFacts>>,
}

/// What is known of a connection beside the client's address.
#[derive(Debug, Default)]
pub struct ConnectionFacts {
    /// The properties of the TLS connection; `None` without TLS.
    pub tls: Option<TlsFacts>,
    /// What a PROXY header has said beside the address; `None` without one.
    pub proxy: Option<ProxyFacts>,
}

/// What a PROXY header has said beside the address of the client.
#[derive(Debug, Default)]
pub struct ProxyFacts {
    /// The address to which the client connected, if the header names one.
    pub destination: Option<SocketAddr>,
    /// The type-length-value parts of the header, in their order; those within the part about TLS have 0x2000 added
    /// to their type.
    pub values: Vec<(u16, Box<[u8]>)>,
}

impl ProxyFacts {
    /// Returns the value of that type.
    pub fn value(&self, kind: u16) -> Option<&[u8]> {
        self.values.iter().find(|(known, _)| *known == kind).map(|(_, value)| &**value)
    }
}

/// The properties of a TLS connection after its handshake.
#[derive(Debug)]
pub struct TlsFacts {
    /// The version of TLS: `1.2` or `1.3`.
    pub version: &'static str,
    /// The name that the client has requested (server name indication, RFC 6066, section 3).
    pub server_name: Option<String>,
    /// The certificate of the client, which has been verified; `None` without one.
    pub certificate: Option<Arc<PeerCertificate>>,
    /// The identity of the settings by which it was verified; `None` where no certificate was requested.
    pub client_policy: Option<[u8; 32]>,
    /// The identity of settings and files by which it was last verified.
    pub verified_by: Mutex<[u8; 32]>,
}

/// The facts about the verified certificate of a client.
#[derive(Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The subject (RFC 4514): `CN=client,O=Example`.
    pub subject: String,
    /// The common name in the subject.
    pub common_name: Option<String>,
    /// The issuer.
    pub issuer: String,
    /// The alternative names (RFC 5280, section 4.2.1.6) with their kinds: `DNS:a.test`, `URI:…`, `email:…`, `IP:…`.
    pub names: Vec<Box<str>>,
    /// The serial number in hexadecimal digits.
    pub serial: String,
    /// The SHA-256 digest of the certificate.
    pub fingerprint: [u8; 32],
    /// The same in hexadecimal digits.
    pub fingerprint_text: String,
    /// When it expires, in seconds of Unix time.
    pub not_after: i64,
    /// The certificate itself.
    pub der: Box<[u8]>,
    /// The other certificates that came with it.
    pub intermediates: Vec<Box<[u8]>>,
}

impl PeerCertificate {
    /// Returns the first alternative name of a kind such as `DNS:`, without it.
    pub fn name_of(&self, kind: &str) -> Option<&str> {
        self.names.iter().find_map(|name| name.strip_prefix(kind))
    }

    /// Returns the alternative names as one text, as OpenSSL writes them.
    pub fn names_text(&self) -> String {
        self.names.join(", ")
    }
}

impl Client {
    /// Returns the client at that address.
    pub fn new(address: SocketAddr, facts: ConnectionFacts) -> Self {
        let facts = (facts.tls.is_some() || facts.proxy.is_some()).then(|| Arc::new(facts));
        Self { address, text: address_text(address.ip()), facts }
    }

    /// Returns the properties of the TLS connection; `None` without TLS.
    pub fn tls(&self) -> Option<&TlsFacts> {
        self.facts.as_ref()?.tls.as_ref()
    }

    /// Returns what a PROXY header has said; `None` without one.
    pub fn proxy(&self) -> Option<&ProxyFacts> {
        self.facts.as_ref()?.proxy.as_ref()
    }

    /// Returns an unknown client, for a request without a connection.
    pub fn unknown() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            text: HeaderValue::from_static("unknown"),
            facts: None,
        }
    }

    /// Returns whether the connection uses TLS.
    pub fn is_secure(&self) -> bool {
        self.tls().is_some()
    }
}

/// Returns an address as a header value; an IPv4-mapped IPv6 address becomes an IPv4 address.
pub fn address_text(address: IpAddr) -> HeaderValue {
    let text = address.to_canonical().to_string();
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}
