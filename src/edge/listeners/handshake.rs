//! The TLS handshake of a connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::server::Acceptor;
use rustls::{CertificateError, HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;

use super::clock;
use super::connection::ListenerState;
use super::rare_line::RareLine;
use super::tls_state::TlsService;
use crate::exchange::TlsFacts;
use crate::telemetry::metrics::METRICS;
use crate::tls::{ACME_PROTOCOL, TlsStream, peer_certificate};

/// Counts and logs a handshake that failed. The reason why a certificate is not accepted is known here alone: the
/// client gets no more than an alert.
pub fn note_failure(error: &io::Error, peer: SocketAddr, listener_state: &ListenerState) {
    static REJECTED: RareLine = RareLine::new();
    let name = listener_state.name.load();
    if !is_of_client_certificate(error) {
        log::debug!("listener {name}: TLS with {peer} failed: {error}");
        return METRICS.refused.with_label_values(&["tls"]).inc();
    }
    METRICS.refused.with_label_values(&["client_certificate"]).inc();
    if let Some(skipped) = REJECTED.next(clock::now()) {
        let more = if skipped == 0 { String::new() } else { format!("; {skipped} more since the last such line") };
        log::warn!("listener {name}: the client {peer} is rejected by its certificate: {error}{more}");
    }
}

/// Returns whether a handshake failed because of the client's certificate, or since it has none.
fn is_of_client_certificate(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented))
}

/// Does the handshake by the settings of the host that the client requests, and accepts `protocol` where the listener
/// has none of its own. Returns `None` after the challenge of an ACME server, which is over with it.
pub async fn handshake(
    stream: TcpStream,
    tls: &TlsService,
    protocol: Option<&[u8]>,
) -> io::Result<Option<(TlsStream<TcpStream>, TlsFacts)>> {
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    if let Some(challenges) = &tls.challenges
        && hello.client_hello().alpn().is_some_and(|mut protocols| protocols.by_ref().eq([ACME_PROTOCOL]))
    {
        let mut stream = hello.into_stream(Arc::clone(challenges)).await?;
        let _ = stream.shutdown().await;
        return Ok(None);
    }
    let (settings, config) = tls.of_host(hello.client_hello().server_name());
    let mut config = Arc::clone(config);
    if let Some(protocol) = protocol {
        Arc::make_mut(&mut config).alpn_protocols = vec![protocol.to_vec()];
    }
    let stream = hello.into_stream(config).await?;
    let session = stream.get_ref().1;
    let chain = session.peer_certificates().unwrap_or_default();
    if let (Some(client), Some(HandshakeKind::Resumed)) = (&settings.client, session.handshake_kind()) {
        // rustls took the chain from the session: it may have expired since, or its revocation list may have.
        client.verify(chain).map_err(io::Error::other)?;
    }
    let certificate = match chain {
        [] => None,
        chain => {
            let unreadable = || io::Error::other(rustls::Error::InvalidCertificate(CertificateError::BadEncoding));
            Some(Arc::new(peer_certificate(chain).ok_or_else(unreadable)?))
        }
    };
    let facts = TlsFacts {
        version: if session.protocol_version() == Some(ProtocolVersion::TLSv1_3) { "1.3" } else { "1.2" },
        server_name: session.server_name().map(str::to_owned),
        certificate,
        client_policy: settings.client.as_ref().map(|client| client.policy),
        verified_by: Mutex::new(settings.client.as_ref().map(|client| client.digest).unwrap_or_default()),
    };
    Ok(Some((stream, facts)))
}
