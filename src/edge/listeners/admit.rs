//! A connection's first steps: what is spoken on it, and the task that serves it.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::connection::{Connection, scope};
use super::evict::AddressPlace;
use super::guard::Guarded;
use super::listening::{Connections, Context, DrainGuard, Tls, TooMany};
use super::{http1, http2};
use crate::telemetry::metrics::METRICS;

/// What counts a connection for as long as it is open.
pub struct Held {
    _place: Option<OwnedSemaphorePermit>,
    _address: Option<AddressPlace>,
    _under_way: DrainGuard,
}

impl Held {
    fn new(place: Option<OwnedSemaphorePermit>, address: Option<AddressPlace>, under_way: DrainGuard) -> Self {
        METRICS.accepted.inc();
        METRICS.open_connections.inc();
        Self { _place: place, _address: address, _under_way: under_way }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        METRICS.open_connections.dec();
    }
}

/// Serves a connection in a task of its own. It is counted before that runs: a drain must not end in between.
pub fn admit(stream: TcpStream, peer: SocketAddr, place: Option<OwnedSemaphorePermit>, context: &Arc<Context>, connections: &Connections) {
    let settings = &context.settings;
    let address = match settings.enter(peer.ip()) {
        Ok(address) => address,
        Err(TooMany) => return METRICS.refused.with_label_values(&["address"]).inc(),
    };
    let _ = stream.set_nodelay(true);
    let held = Held::new(place, address, context.drain.begin());
    let tls = settings.tls.load_full();
    let home = Arc::clone(&settings.home);
    let connection = Connection::new(home, (peer, stream.as_raw_fd()), tls.is_some(), context.limits().header_time);
    connections.lock().push(Arc::downgrade(&connection));
    let context = Arc::clone(context);
    match (tls, **settings.protocols.load()) {
        (None, (_, false)) => {
            let guarded = guard(stream, &connection, &context, false);
            http1::spawn(guarded, connection, context, held);
        }
        (tls, _) => _ = tokio::spawn(greet(stream, tls, connection, context, held)),
    }
}

/// Finds out what is spoken. A connection idles in a task that is no larger than it has to be: that of HTTP/1 is
/// another one.
async fn greet(stream: TcpStream, tls: Option<Arc<Tls>>, connection: Arc<Connection>, context: Arc<Context>, held: Held) {
    let greeting = async {
        match tls {
            Some(tls) => shake_hands(stream, &tls, &connection, &context).await,
            None => Some(look(stream, &connection, &context).await),
        }
    };
    let greeted = tokio::select! {
        greeted = greeting => greeted,
        () = connection.evicted() => None,
    };
    match greeted {
        Some((stream, true)) => {
            let serving = http2::serve(stream, &connection, &context);
            Box::pin(scope(&connection, serving)).await;
            drop(held);
        }
        Some((stream, false)) => http1::spawn(stream, connection, context, held),
        None => {}
    }
}

fn guard<S>(stream: S, connection: &Arc<Connection>, context: &Context, is_h2: bool) -> Stream
where
    Guarded<S>: pingora::protocols::IO + 'static,
{
    let id = connection.fd();
    Box::new(Guarded::new(stream, Arc::clone(connection), &context.limits(), !is_h2, id))
}

/// A stream without TLS, and whether HTTP/2 is spoken on it.
async fn look(stream: TcpStream, connection: &Arc<Connection>, context: &Context) -> (Stream, bool) {
    let (http1, http2) = **context.settings.protocols.load();
    let is_h2 = http2 && (!http1 || speaks_h2(&stream, context.limits().header_time).await);
    (guard(stream, connection, context, is_h2), is_h2)
}

/// A stream with TLS, and whether HTTP/2 is spoken on it; `None` when there was no agreement.
async fn shake_hands(stream: TcpStream, tls: &Tls, connection: &Arc<Connection>, context: &Context) -> Option<(Stream, bool)> {
    let (http1, http2) = **context.settings.protocols.load();
    let header_time = context.limits().header_time;
    match tokio::time::timeout(header_time, tls.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2") || (http2 && !http1);
            connection.await_head(header_time);
            return Some((guard(stream, connection, context, is_h2), is_h2));
        }
        Ok(Err(error)) => {
            log::debug!("listener {}: TLS with {} failed: {error}", connection.home.name.load(), connection.peer);
            METRICS.refused.with_label_values(&["tls"]).inc();
        }
        Err(_) => METRICS.refused.with_label_values(&["tls_timeout"]).inc(),
    }
    None
}

/// Looks, without taking anything, whether an HTTP/2 preface (RFC 9113, section 3.4) comes.
async fn speaks_h2(stream: &TcpStream, limit: Duration) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let look = async {
        let mut seen = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut seen).await {
                Ok(0) | Err(_) => return false,
                Ok(count) if seen[..count] != PREFACE[..count] => return false,
                Ok(count) if count == PREFACE.len() => return true,
                // A part of it: peeking again would return at once, so the socket is not asked in a spin.
                Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(limit, look).await.unwrap_or(false)
}
