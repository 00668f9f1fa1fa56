//! HTTP/2: streams side by side on a connection.
//!
//! The loop replaces Pingora's, which leaves a connection without a preface, and a stream whose body has stalled,
//! open for minutes; and so does the session that a stream becomes (`stream.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::Builder;
use h2::{Reason, RecvStream};
use http::Request;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::sync::Notify;

use super::connection::{Connection, scope};
use super::progress::Progress;
use super::service::HttpService;
use super::stream::{Http2Stream, MalformedRequest};
use crate::snapshot::Limits;
use crate::telemetry::metrics::METRICS;

/// How many malformed requests a connection may have before it ends.
const MAX_MALFORMED: usize = 100;

/// How much may be received of bodies before it is read: of one stream, and of all streams of a connection, so that a
/// body that is not read does not block the others.
const CLIENT_STREAM_WINDOW: u32 = 64 * 1024;
const CLIENT_CONNECTION_WINDOW: u32 = 4 * CLIENT_STREAM_WINDOW;

/// The most bytes of a response that wait in the protocol's own buffer.
const SEND_BUFFER: usize = 64 * 1024;

/// How long after a GOAWAY streams are still accepted that may have crossed it (RFC 9113, section 6.8). The streams
/// of a client that opens them for longer, as one that ignores PING may, are refused (REFUSED_STREAM).
const GOAWAY_GRACE: Duration = Duration::from_secs(5);

/// How long a client without streams is waited for after a GOAWAY.
const GOAWAY_LINGER: Duration = Duration::from_secs(1);

/// Counts active streams, and malformed requests.
#[derive(Debug)]
struct ActiveStreams {
    count: AtomicUsize,
    idle: Notify,
    malformed: AtomicUsize,
    /// The bytes that are counted for the active streams.
    memory: AtomicUsize,
    connection: Arc<Connection>,
}

impl ActiveStreams {
    fn new(connection: &Arc<Connection>) -> Self {
        let (count, malformed, memory) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { count, idle: Notify::new(), malformed, memory, connection: Arc::clone(connection) }
    }

    fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

/// An active stream, with the bytes that are counted for it.
struct ActiveGuard(Arc<ActiveStreams>, usize);

impl ActiveGuard {
    /// Counts a stream; returns `None` where the streams of the connection would take more than `most` bytes.
    fn new(streams: &Arc<ActiveStreams>, request: &Request<RecvStream>, most: usize) -> Option<Self> {
        // As RFC 9113, section 6.5.2, counts the size of a list of fields.
        let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32);
        let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
        let size = fields.sum::<usize>() + target + SEND_BUFFER;
        // Only the task of the connection counts streams, so that nothing is added in between.
        if streams.memory.load(Ordering::Relaxed) + size > most {
            return None;
        }
        streams.memory.fetch_add(size, Ordering::Relaxed);
        streams.count.fetch_add(1, Ordering::AcqRel);
        streams.connection.begin_stream();
        Some(Self(Arc::clone(streams), size))
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.memory.fetch_sub(self.1, Ordering::Relaxed);
        self.0.connection.end_stream();
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// Serves a connection until either side closes it.
pub async fn serve(stream: Stream, connection: &Arc<Connection>, service: &Arc<HttpService>) {
    let limits = service.limits();
    // The guard's deadlines are for heads of HTTP/1.
    connection.begin_http2();
    let connected = tokio::time::timeout(limits.header_time, options(&limits).handshake::<_, Bytes>(stream)).await;
    let Ok(Ok(mut h2)) = connected else {
        return METRICS.refused.with_label_values(&["preface"]).inc();
    };
    let active = Arc::new(ActiveStreams::new(connection));
    let mut shutdown = service.shutdown.clone();
    // Since when a GOAWAY asks the client to open no more streams here.
    let mut closing: Option<Instant> = None;
    if *shutdown.borrow() {
        h2.graceful_shutdown();
        closing = Some(Instant::now());
    }
    let mut requests = 0_u32;
    let mut ended = false;
    loop {
        let late = closing.is_some_and(|since| since.elapsed() >= GOAWAY_GRACE);
        if late && active.is_idle() {
            return;
        }
        let quiet = if closing.is_some() { GOAWAY_LINGER } else { limits.idle_time };
        let accepted = tokio::select! {
            biased;
            _ = shutdown.changed(), if closing.is_none() => None,
            accepted = h2.accept() => Some(accepted),
            code = connection.goaway_code(), if !ended => {
                METRICS.refused.with_label_values(&["h2_abuse"]).inc();
                h2.abrupt_shutdown(code.into());
                ended = true;
                continue;
            }
            () = wait_until_idle(&active, quiet) => match closing {
                Some(_) => return,
                None => None,
            },
        };
        match accepted {
            None => {}
            Some(Some(Ok((_, mut response)))) if late => {
                response.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            Some(Some(Ok(_))) if ended => continue,
            Some(Some(Ok((request, mut response)))) => {
                let Some(guard) = ActiveGuard::new(&active, &request, limits.http2_memory) else {
                    METRICS.refused.with_label_values(&["stream_memory"]).inc();
                    response.send_reset(Reason::REFUSED_STREAM);
                    continue;
                };
                requests += 1;
                spawn(request, Progress::new(response), guard, connection, service);
                if limits.requests_per_connection.is_none_or(|most| requests < most) {
                    continue;
                }
            }
            Some(None | Some(Err(_))) => return,
        }
        // The connection has had its time or its requests, or the listener closes.
        if closing.is_none() {
            h2.graceful_shutdown();
            closing = Some(Instant::now());
        }
    }
}

fn options(limits: &Limits) -> Builder {
    let mut options = Builder::new();
    options
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
        .initial_window_size(CLIENT_STREAM_WINDOW)
        .initial_connection_window_size(CLIENT_CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .enable_connect_protocol();
    options
}

fn spawn(
    request: Request<RecvStream>,
    progress: Arc<Progress>,
    guard: ActiveGuard,
    connection: &Arc<Connection>,
    service: &Arc<HttpService>,
) {
    let (connection, service) = (Arc::clone(connection), Arc::clone(service));
    let in_flight = service.drain.begin();
    let stall = service.limits().body_idle_time;
    tokio::spawn(async move {
        let _in_flight = in_flight;
        let begun = tokio::time::timeout(stall, Http2Stream::begin(request, Arc::clone(&progress))).await;
        let session = match begun {
            Ok(Ok(session)) => session,
            Ok(Err(MalformedRequest)) => {
                progress.sending.reset(Reason::PROTOCOL_ERROR);
                if guard.0.malformed.fetch_add(1, Ordering::Relaxed) + 1 == MAX_MALFORMED {
                    connection.end_with_goaway(Reason::ENHANCE_YOUR_CALM.into());
                }
                return METRICS.refused.with_label_values(&["malformed"]).inc();
            }
            Err(_) => return METRICS.refused.with_label_values(&["body_stalled"]).inc(),
        };
        let mut session = ServerSession::new_custom(Box::new(session));
        session.set_write_timeout(Some(stall));
        let work = progress.scope(service.http.serve(session, &service.shutdown));
        scope(&connection, async {
            // Dropping the work resets the stream.
            tokio::select! {
                _ = work => {}
                () = progress.stalled(stall) => METRICS.refused.with_label_values(&["body_stalled"]).inc(),
                () = progress.abandoned() => {}
            }
        })
        .await;
    });
}

/// Resolves when no stream has been active for that long.
async fn wait_until_idle(active: &ActiveStreams, time: Duration) {
    loop {
        while !active.is_idle() {
            active.idle.notified().await;
        }
        tokio::time::sleep(time).await;
        if active.is_idle() {
            return;
        }
    }
}
