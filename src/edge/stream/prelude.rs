//! What a target gets before the first byte of a client: a PROXY header, and PostgreSQL's request for TLS.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::edge::listeners::{ClientStream, OpenedStream};
use crate::exchange::ProxyFacts;
use crate::rules::protocols::{HeaderTransport, POSTGRES_SSL_REQUEST};
use crate::upstreams::{Member, ProxiedClient};

/// The client of a session, as its target is to know it.
#[derive(Clone, Copy, Debug)]
pub struct SessionClient<'s> {
    /// Its address, as a trusted PROXY header says.
    pub address: SocketAddr,
    /// What such a header said besides.
    pub proxy: Option<&'s ProxyFacts>,
    /// The id of the session.
    pub id: Option<&'s [u8]>,
}

/// Returns the PROXY header for a connection to a target; empty where the target expects none.
pub fn proxy_header(member: &Member, opened: &OpenedStream, client: SessionClient<'_>) -> Vec<u8> {
    let Some(shape) = &member.proxy else { return Vec::new() };
    let (socket, tls) = match &opened.stream {
        ClientStream::Plain(stream) => (stream, None),
        ClientStream::Tls(stream, facts) => (stream.get_ref().0, Some((facts, stream.get_ref().1.alpn_protocol()))),
    };
    let requested = &opened.requested;
    // Of a hello that is passed on only the offer is known: what is in use is known where there is one.
    let alpn = match (tls, requested.alpn.as_slice()) {
        (Some((_, negotiated)), _) => negotiated,
        (None, [only]) => Some(only.as_slice()),
        (None, _) => None,
    };
    let named = ProxiedClient {
        source: client.address,
        destination: client.proxy.and_then(|proxy| proxy.destination).or_else(|| socket.local_addr().ok()),
        tls: tls.map(|(facts, _)| facts),
        proxy: client.proxy,
        authority: requested.server_name.as_deref(),
        alpn,
        id: client.id,
    };
    shape.header(Some(&named), HeaderTransport::Stream)
}

/// Requests TLS of a target of PostgreSQL, as the client did of the gateway, and takes the response from the stream.
///
/// # Errors
/// Fails where the target does not offer TLS, or speaks another protocol.
pub async fn request_postgres_tls(target: &mut TcpStream) -> io::Result<()> {
    target.write_all(&POSTGRES_SSL_REQUEST).await?;
    match target.read_u8().await? {
        b'S' => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the target does not offer TLS (PostgreSQL)")),
    }
}
