//! The first steps of an HTTP connection: TLS, the choice of protocol, and the task that serves it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::net::TcpStream;

use super::admitted::Admitted;
use super::connection::{Connection, ListenerState, scope};
use super::guard::Guarded;
use super::handshake::{handshake, note_failure};
use super::peek::peek_until;
use super::service::HttpService;
use super::tls_state::TlsService;
use super::{http1, http2};
use crate::exchange::{Client, ConnectionFacts, ProxyFacts};
use crate::telemetry::metrics::METRICS;

/// Serves a connection that was just accepted.
pub fn begin(
    stream: TcpStream,
    peer: SocketAddr,
    proxy: Option<ProxyFacts>,
    listener_state: &Arc<ListenerState>,
    service: &Arc<HttpService>,
    admitted: Admitted,
) {
    let tls = service.tls.present();
    let connection = Connection::new(Arc::clone(listener_state), &stream, service.limits().header_time);
    service.connections.lock().push(Arc::downgrade(&connection));
    let service = Arc::clone(service);
    let Some(tls) = tls else {
        connection.set_client(Client::new(peer, ConnectionFacts { tls: None, proxy }));
        if let (_, false) = **service.protocols.load() {
            let guarded = guard(stream, &connection, &service, false);
            return http1::spawn(guarded, connection, service, admitted);
        }
        tokio::spawn(serve_connection(stream, None, connection, service, admitted));
        return;
    };
    tokio::spawn(serve_connection(stream, Some((tls, peer, proxy)), connection, service, admitted));
}

/// Finds out which protocol is spoken. A connection idles in a task that is no larger than it has to be: HTTP/1 has
/// another one.
async fn serve_connection(
    stream: TcpStream,
    tls: Option<(Arc<TlsService>, SocketAddr, Option<ProxyFacts>)>,
    connection: Arc<Connection>,
    service: Arc<HttpService>,
    admitted: Admitted,
) {
    let greeting = async {
        match tls {
            Some((tls, peer, proxy)) => accept_tls(stream, (peer, proxy), &tls, &connection, &service).await,
            None => Some(detect_protocol(stream, &connection, &service).await),
        }
    };
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        () = connection.evicted() => None,
    };
    match greeted {
        Some((stream, true)) => {
            let serving = http2::serve(stream, &connection, &service);
            Box::pin(scope(&connection, serving)).await;
            drop(admitted);
        }
        Some((stream, false)) => http1::spawn(stream, connection, service, admitted),
        None => {}
    }
}

fn guard<S>(stream: S, connection: &Arc<Connection>, service: &HttpService, is_h2: bool) -> Stream
where
    Guarded<S>: pingora::protocols::IO + 'static,
{
    let id = connection.fd();
    Box::new(Guarded::new(stream, Arc::clone(connection), &service.limits(), !is_h2, id))
}

/// Returns a stream without TLS, and whether HTTP/2 is spoken on it.
async fn detect_protocol(stream: TcpStream, connection: &Arc<Connection>, service: &HttpService) -> (Stream, bool) {
    let (http1, http2) = **service.protocols.load();
    let is_h2 = http2 && (!http1 || speaks_h2(&stream, service.limits().header_time).await);
    (guard(stream, connection, service, is_h2), is_h2)
}

/// Returns a stream with TLS, and whether HTTP/2 is spoken on it; `None` when the handshake failed.
async fn accept_tls(
    stream: TcpStream,
    (peer, proxy): (SocketAddr, Option<ProxyFacts>),
    tls: &TlsService,
    connection: &Arc<Connection>,
    service: &HttpService,
) -> Option<(Stream, bool)> {
    let (http1, http2) = **service.protocols.load();
    let header_time = service.limits().header_time;
    match tokio::time::timeout(header_time, handshake(stream, tls, None)).await {
        Ok(Ok(None)) => {}
        Ok(Ok(Some((stream, facts)))) => {
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2") || (http2 && !http1);
            connection.set_client(Client::new(peer, ConnectionFacts { tls: Some(facts), proxy }));
            connection.await_head(header_time);
            return Some((guard(stream, connection, service, is_h2), is_h2));
        }
        Ok(Err(error)) => {
            note_failure(&error, peer, &connection.listener_state);
        }
        Err(_) => METRICS.refused.with_label_values(&["tls_timeout"]).inc(),
    }
    None
}

/// Peeks whether an HTTP/2 preface (RFC 9113, section 3.4) comes.
async fn speaks_h2(stream: &TcpStream, limit: Duration) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let decide = |seen: &[u8]| match seen.len() {
        0 => None,
        count if *seen != PREFACE[..count] => Some(false),
        count => (count == PREFACE.len()).then_some(true),
    };
    let mut seen = [0; PREFACE.len()];
    let look = peek_until(stream, &mut seen, decide);
    tokio::time::timeout(limit, look).await.is_ok_and(|seen| matches!(seen, Ok(Some(true))))
}
