//! The PROXY header with which the gateway names the client of a connection to a target.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket;
use pingora::protocols::l4::stream::Stream;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::AsyncWriteExt;

use crate::exchange::{ProxyFacts, TlsFacts};
use crate::rules::protocols::{
    ALPN_VALUE, AUTHORITY_VALUE, HeaderTransport, ProxyHeader, ProxyVersion, SSL_VALUE, UNIQUE_ID_VALUE, WITHIN_SSL,
    write_proxy_header,
};

/// The header that targets expect at the start of each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProxyHeaderShape {
    /// The version.
    pub version: ProxyVersion,
    /// Whether it has the requested host name.
    pub authority: bool,
    /// Whether it has the negotiated application protocol.
    pub alpn: bool,
    /// Whether it has the id of the request or of the connection.
    pub unique_id: bool,
    /// Whether it has what is known of the client's TLS.
    pub tls: bool,
}

/// The client of a connection, as far as a header names it.
#[derive(Clone, Copy, Debug)]
pub struct ProxiedClient<'c> {
    /// The address of the client.
    pub source: SocketAddr,
    /// The address to which it connected, if that is known.
    pub destination: Option<SocketAddr>,
    /// What is known of its TLS, which ended here.
    pub tls: Option<&'c TlsFacts>,
    /// What the header of a load balancer in front said.
    pub proxy: Option<&'c ProxyFacts>,
    /// The host name that it requested.
    pub authority: Option<&'c str>,
    /// The application protocol.
    pub alpn: Option<&'c [u8]>,
    /// The id of the request or of the connection.
    pub id: Option<&'c [u8]>,
}

impl ProxyHeaderShape {
    /// Returns the bytes of the header for a connection in which that client is served, or for one of the gateway's
    /// own.
    pub fn header(&self, client: Option<&ProxiedClient<'_>>, transport: HeaderTransport) -> Vec<u8> {
        let header = client.map_or_else(ProxyHeader::default, |client| ProxyHeader {
            addresses: Some((client.source, client.destination())),
            values: self.values(client),
        });
        write_proxy_header(&header, self.version, transport)
    }

    /// Returns the values of a header. What the gateway does not know itself is as a load balancer in front of it said.
    fn values(&self, client: &ProxiedClient<'_>) -> Vec<(u16, Box<[u8]>)> {
        let mut values: Vec<(u16, Box<[u8]>)> = Vec::new();
        let said = |kind: u16| client.proxy.and_then(|proxy| proxy.value(kind));
        let mut add = |wanted: bool, kind: u16, own: Option<&[u8]>| {
            if let (true, Some(value)) = (wanted, own.or_else(|| said(kind))) {
                values.push((kind, value.into()));
            }
        };
        let name = client.tls.and_then(|tls| tls.server_name.as_deref()).or(client.authority);
        add(self.alpn, ALPN_VALUE, client.alpn);
        add(self.authority, AUTHORITY_VALUE, name.map(str::as_bytes).filter(|name| name.len() <= 255));
        add(self.unique_id, UNIQUE_ID_VALUE, client.id.filter(|id| id.len() <= 128));
        match (client.tls, client.proxy) {
            (Some(tls), _) if self.tls => values.extend(tls_values(tls)),
            (None, Some(proxy)) if self.tls => {
                let is_of_tls = |kind: u16| kind == SSL_VALUE || kind & WITHIN_SSL != 0;
                values.extend(proxy.values.iter().filter(|(kind, _)| is_of_tls(*kind)).cloned());
            }
            _ => {}
        }
        values
    }
}

impl ProxiedClient<'_> {
    /// Returns the address to which the client connected; an unspecified one of the same family where it is unknown.
    fn destination(&self) -> SocketAddr {
        self.destination.unwrap_or_else(|| {
            let ip = match self.source.ip().to_canonical() {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            };
            SocketAddr::new(ip, 0)
        })
    }
}

/// Makes a request use a connection of its own: one that names a client is never used for another one.
pub fn keep_to_one_client(peer: &mut HttpPeer) {
    // A key that no idle connection has.
    peer.group_key = fastrand::u64(..);
    peer.options.idle_timeout = Some(Duration::ZERO);
}

/// The elements of the value about TLS (section 2.2.6): TLS is in use; there is a certificate, in this connection and
/// in its session.
const IS_TLS: u8 = 1;
const HAS_CERTIFICATE: u8 = 2 | 4;

/// The types of the values within it: the version, and the common name of the client's certificate.
const VERSION: u16 = WITHIN_SSL | 0x21;
const COMMON_NAME: u16 = WITHIN_SSL | 0x22;

/// Returns the value about TLS and those within it.
fn tls_values(tls: &TlsFacts) -> impl Iterator<Item = (u16, Box<[u8]>)> {
    let is_verified = tls.certificate.is_some();
    let elements = if is_verified { IS_TLS | HAS_CERTIFICATE } else { IS_TLS };
    // 0 says that a certificate was verified.
    let about = [&[elements][..], &u32::from(!is_verified).to_be_bytes()].concat();
    let version: Box<[u8]> = format!("TLSv{}", tls.version).into_bytes().into();
    let name = tls.certificate.as_ref().and_then(|certificate| certificate.common_name.clone());
    let name = name.map(|name| (COMMON_NAME, name.into_bytes().into()));
    [(SSL_VALUE, about.into()), (VERSION, version)].into_iter().chain(name)
}

/// Opens sockets of which each begins with a header: for probes, whose connections are the gateway's own.
#[derive(Debug)]
pub struct HeaderOpener(Vec<u8>);

impl HeaderOpener {
    /// Returns the opener for probes of targets that expect such a header.
    pub fn of_probe(shape: &ProxyHeaderShape) -> Arc<dyn L4Connect + Send + Sync> {
        Arc::new(Self(shape.header(None, HeaderTransport::Stream)))
    }
}

#[async_trait]
impl L4Connect for HeaderOpener {
    async fn connect(&self, address: &socket::SocketAddr) -> Result<Stream> {
        let socket::SocketAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::SocketError, "no address of a network");
        };
        let connecting = tokio::net::TcpStream::connect(address).await;
        let mut stream = connecting.or_err(ErrorType::ConnectError, "failed to connect")?;
        stream.write_all(&self.0).await.or_err(ErrorType::ConnectError, "failed to send the PROXY header")?;
        Ok(stream.into())
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::rules::protocols::parse_proxy_header;

    const ALL: ProxyHeaderShape = ProxyHeaderShape {
        version: ProxyVersion::V2 { checksum: true },
        authority: true,
        alpn: true,
        unique_id: true,
        tls: true,
    };

    fn values(shape: &ProxyHeaderShape, client: &ProxiedClient<'_>) -> Vec<(u16, String)> {
        let header = parse_proxy_header(&shape.header(Some(client), HeaderTransport::Stream)).expect("a header");
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        header.values.iter().map(|(kind, value)| (*kind, text(value))).collect()
    }

    #[test]
    fn what_the_gateway_knows_goes_before_what_it_was_told() {
        let said = ProxyFacts {
            destination: None,
            values: vec![
                (ALPN_VALUE, b"h2"[..].into()),
                (AUTHORITY_VALUE, b"a.test"[..].into()),
                (SSL_VALUE, [1, 0, 0, 0, 1][..].into()),
                (VERSION, b"TLSv1.2"[..].into()),
            ],
        };
        let mut client = ProxiedClient {
            source: "192.0.2.1:1".parse().expect("valid"),
            destination: None,
            tls: None,
            proxy: Some(&said),
            authority: None,
            alpn: None,
            id: Some(b"one"),
        };
        let told = values(&ALL, &client);
        let kinds: Vec<u16> = told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [ALPN_VALUE, AUTHORITY_VALUE, UNIQUE_ID_VALUE, SSL_VALUE, VERSION]);
        assert_eq!((&*told[1].1, &*told[2].1, &*told[4].1), ("a.test", "one", "TLSv1.2"));
        let tls = TlsFacts {
            version: "1.3",
            server_name: Some("b.test".to_owned()),
            certificate: None,
            client_policy: None,
            verified_by: Mutex::default(),
        };
        client.tls = Some(&tls);
        let known = values(&ALL, &client);
        assert_eq!((&*known[1].1, &*known[4].1), ("b.test", "TLSv1.3"));
        let none = ProxyHeaderShape { authority: false, alpn: false, unique_id: false, tls: false, ..ALL };
        assert_eq!(values(&none, &client), []);
    }
}
