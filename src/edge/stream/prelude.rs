//! What a target gets before the first byte of a client: a PROXY header, and PostgreSQL's request for TLS.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::side::SideStream;
use crate::exchange::{ProxyFacts, TlsFacts, new_request_id};
use crate::rules::protocols::{ClientHelloFacts, HeaderTransport, POSTGRES_SSL_REQUEST, UNIQUE_ID_VALUE};
use crate::upstreams::{Member, ProxiedClient};

/// The client of a session.
#[derive(Debug)]
pub struct SessionClient {
    /// Its address, as a trusted PROXY header says.
    pub address: SocketAddr,
    /// Its TLS, if that ended here.
    pub tls: Option<TlsFacts>,
    /// What a PROXY header said beside the addresses.
    pub proxy: Option<ProxyFacts>,
    /// What it requested in TLS, wherever that ends.
    pub requested: ClientHelloFacts,
    /// Whether it sent PostgreSQL's request for TLS.
    pub postgres: bool,
    /// The id of the session, if it has got one here.
    pub id: Option<HeaderValue>,
}

impl SessionClient {
    /// Gives the session an id if the target is to know it by one, and no load balancer in front gave it one.
    pub fn identify(&mut self, member: &Member) {
        if member.proxy.is_some_and(|shape| shape.unique_id) && self.id().is_none() {
            self.id = Some(new_request_id());
        }
    }

    /// Returns the id of the session, if it has one.
    pub fn id(&self) -> Option<Cow<'_, str>> {
        let given = || self.proxy.as_ref()?.value(UNIQUE_ID_VALUE).filter(|id| !id.is_empty());
        self.id.as_ref().map(HeaderValue::as_bytes).or_else(given).map(String::from_utf8_lossy)
    }

    /// Returns the application protocols that it has offered, as one text.
    pub fn offered(&self) -> Option<String> {
        let all = &self.requested.alpn;
        let texts = || all.iter().map(|protocol| String::from_utf8_lossy(protocol)).collect::<Vec<_>>().join(",");
        (!all.is_empty()).then(texts)
    }
}

/// Why a target did not get what comes before the bytes of a client.
#[derive(Debug)]
pub enum PreludeError {
    /// The connection broke.
    Broken(io::Error),
    /// The target does not offer TLS as PostgreSQL does, which the client requested: that is no failure of the target.
    NoTls,
}

/// What one target gets.
#[derive(Debug)]
pub struct Prelude {
    /// The PROXY header; empty where the target expects none.
    header: Vec<u8>,
    /// Whether TLS is requested as PostgreSQL does it, where it is spoken to the target.
    postgres: bool,
    /// Whether the TLS of the client goes on to the target.
    passes_tls: bool,
}

impl Prelude {
    /// Returns what a target gets before the bytes of that client.
    pub fn new(member: &Member, stream: &SideStream, client: &SessionClient) -> Self {
        let shape = member.proxy.as_ref();
        let header = shape.map(|shape| shape.header(Some(&named(stream, client)), HeaderTransport::Stream));
        Self { header: header.unwrap_or_default(), postgres: client.postgres, passes_tls: client.tls.is_none() }
    }

    /// Sends it. `originates_tls` says whether the gateway itself begins TLS with the target.
    ///
    /// # Errors
    /// Fails where the connection breaks, or a target of PostgreSQL does not offer TLS.
    pub async fn send(&self, target: &mut TcpStream, originates_tls: bool) -> Result<(), PreludeError> {
        if !self.header.is_empty() {
            target.write_all(&self.header).await.map_err(PreludeError::Broken)?;
        }
        if !self.postgres || !(self.passes_tls || originates_tls) {
            return Ok(());
        }
        target.write_all(&POSTGRES_SSL_REQUEST).await.map_err(PreludeError::Broken)?;
        match target.read_u8().await {
            Ok(b'S') => Ok(()),
            _ => Err(PreludeError::NoTls),
        }
    }
}

/// Returns a client as a PROXY header names it.
fn named<'c>(stream: &'c SideStream, client: &'c SessionClient) -> ProxiedClient<'c> {
    let proxy = client.proxy.as_ref();
    // Of a hello that is passed on only the offer is known: what is in use is known where there is one.
    let alpn = match (stream, client.requested.alpn.as_slice()) {
        (SideStream::Tls(stream), _) => stream.get_ref().1.alpn_protocol(),
        (SideStream::Plain(_), [only]) => Some(only.as_slice()),
        (SideStream::Plain(_), _) => None,
    };
    ProxiedClient {
        source: client.address,
        destination: proxy.and_then(|proxy| proxy.destination).or_else(|| stream.tcp().local_addr().ok()),
        tls: client.tls.as_ref(),
        proxy,
        authority: client.requested.server_name.as_deref(),
        alpn,
        id: client.id.as_ref().map(HeaderValue::as_bytes),
    }
}
