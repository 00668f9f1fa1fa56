//! HTTP/2: streams side by side on a connection.
//!
//! The loop is our own because Pingora's leaves a connection without a preface, and a stream whose
//! body has stalled, open for minutes; and so is the session that a stream becomes (`stream.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use pingora::apps::HttpServerApp;
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use tokio::sync::Notify;

use super::clock;
use super::connection::{Connection, scope};
use super::listening::Context;
use super::pace::Pace;
use super::sending::Sending;
use super::stream::{Http2Stream, Malformed};
use crate::snapshot::Limits;
use crate::telemetry::metrics::METRICS;

/// How many malformed requests a connection may have before it ends.
const MALFORMED: usize = 100;

/// What may be received of bodies before it is read: of one stream, and of all of a connection, so that one whose body
/// nobody reads does not hold up the others.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 4 * STREAM_WINDOW;

/// The most of a response that waits in the protocol's own buffer.
const SEND_BUFFER: usize = 64 * 1024;

/// How long a request whose client has reset it may take to notice by itself.
const NOTICE: Duration = Duration::from_millis(100);

/// How long after a GOAWAY streams are still taken that may have crossed it (RFC 9113, section 6.8). A client that
/// opens them for longer, as one that answers no PING may, has them refused.
const GRACE: Duration = Duration::from_secs(5);

/// How long a client that was told to close and has no stream is waited for.
const LINGER: Duration = Duration::from_secs(1);

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// What is known of a stream beside its request: whether its client is there, takes what it is sent, and sends what is
/// awaited.
#[derive(Debug)]
pub struct Progress {
    /// Its sending side.
    pub sending: Sending,
    /// Whether a body is awaited.
    awaited: AtomicBool,
    /// The answer has begun: from then on the client may take its time, as streams do.
    answered: AtomicBool,
    /// When a part of the body came last.
    last: AtomicU64,
    /// The pace of its response.
    pub pace: Pace,
}

impl Progress {
    fn new(response: SendResponse<Bytes>) -> Arc<Self> {
        let (awaited, answered) = (AtomicBool::new(false), AtomicBool::new(false));
        let (sending, last, pace) = (Sending::new(response), AtomicU64::new(clock::now()), Pace::default());
        Arc::new(Self { sending, awaited, answered, last, pace })
    }

    /// Returns ready once the client has reset the stream, or the connection has ended.
    pub fn poll_gone(&self, context: &mut TaskContext<'_>) -> Poll<()> {
        self.sending.poll_gone(context)
    }

    /// Resolves once the client has reset the stream, or the connection has ended.
    pub fn gone(&self) -> impl Future<Output = ()> + '_ {
        std::future::poll_fn(|context| self.poll_gone(context))
    }

    /// Notes whether a part of the response waits for the client to take it.
    pub fn set_stalled(&self, stalled: bool) {
        self.pace.set_stalled(stalled);
    }

    /// Resolves once the client is gone and the request, whose body was awaited, has not noticed: nobody reads a body
    /// while the target takes nothing of it, and what has come of it holds the connection's window (pingora#910).
    async fn abandoned(&self) {
        self.gone().await;
        tokio::time::sleep(NOTICE).await;
        if !self.awaited.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// The running stream's; `None` on HTTP/1, where Pingora has a time-out of its own.
    pub fn current() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
    }

    /// Does something with the running stream's.
    pub fn with_current<T>(work: impl FnOnce(&Self) -> T) -> Option<T> {
        PROGRESS.try_with(|progress| work(progress)).ok()
    }

    /// Notes that a part of the body has come (or is awaited from now on), and whether more is to come.
    pub fn note(&self, more: bool) {
        self.last.store(clock::now(), Ordering::Relaxed);
        self.awaited.store(more, Ordering::Relaxed);
    }

    /// Notes that the answer has begun.
    pub fn answer_begun(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    async fn stalled(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(limit).await;
            let since = clock::now().saturating_sub(self.last.load(Ordering::Relaxed));
            let waits = self.awaited.load(Ordering::Relaxed) && !self.answered.load(Ordering::Relaxed);
            if waits && since >= limit_ms {
                return;
            }
        }
    }
}

/// Counts streams under way, and requests that were malformed.
#[derive(Debug)]
struct Active {
    count: AtomicUsize,
    idle: Notify,
    malformed: AtomicUsize,
    connection: Arc<Connection>,
}

impl Active {
    fn new(connection: &Arc<Connection>) -> Self {
        let (count, malformed) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { count, idle: Notify::new(), malformed, connection: Arc::clone(connection) }
    }

    fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

struct ActiveGuard(Arc<Active>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        self.0.connection.end_stream();
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// Serves a connection until either side closes it.
pub async fn serve(stream: Stream, connection: &Arc<Connection>, context: &Arc<Context>) {
    let limits = context.limits();
    // The guard's deadlines are for heads of HTTP/1.
    connection.begin_http2();
    let connected = tokio::time::timeout(limits.header_time, options(&limits).handshake::<_, Bytes>(stream)).await;
    let Ok(Ok(mut h2)) = connected else {
        return METRICS.refused.with_label_values(&["preface"]).inc();
    };
    let active = Arc::new(Active::new(connection));
    let mut shutdown = context.shutdown.clone();
    // Since when a GOAWAY tells the client to open no more streams here.
    let mut closing: Option<Instant> = None;
    if *shutdown.borrow() {
        h2.graceful_shutdown();
        closing = Some(Instant::now());
    }
    let mut requests = 0_u32;
    let mut ended = false;
    loop {
        let late = closing.is_some_and(|since| since.elapsed() >= GRACE);
        if late && active.is_idle() {
            return;
        }
        let quiet = if closing.is_some() { LINGER } else { limits.idle_time };
        let accepted = tokio::select! {
            biased;
            _ = shutdown.changed(), if closing.is_none() => None,
            accepted = h2.accept() => Some(accepted),
            code = connection.violated(), if !ended => {
                METRICS.refused.with_label_values(&["h2_abuse"]).inc();
                h2.abrupt_shutdown(code.into());
                ended = true;
                continue;
            }
            () = idle(&active, quiet) => match closing {
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
            Some(Some(Ok((request, response)))) => {
                requests += 1;
                active.count.fetch_add(1, Ordering::AcqRel);
                connection.begin_stream();
                spawn(request, Progress::new(response), ActiveGuard(Arc::clone(&active)), connection, context);
                if limits.requests_per_connection.is_none_or(|most| requests < most) {
                    continue;
                }
            }
            Some(None | Some(Err(_))) => return,
        }
        // It has had its time or its requests, or the listener closes.
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
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER);
    options
}

fn spawn(request: Request<RecvStream>, progress: Arc<Progress>, guard: ActiveGuard, connection: &Arc<Connection>, context: &Arc<Context>) {
    let (connection, context) = (Arc::clone(connection), Arc::clone(context));
    let in_flight = context.drain.begin();
    let stall = context.limits().body_idle_time;
    tokio::spawn(async move {
        let _in_flight = in_flight;
        let begun = tokio::time::timeout(stall, Http2Stream::begin(request, Arc::clone(&progress))).await;
        let session = match begun {
            Ok(Ok(session)) => session,
            Ok(Err(Malformed)) => {
                progress.sending.reset(Reason::PROTOCOL_ERROR);
                if guard.0.malformed.fetch_add(1, Ordering::Relaxed) + 1 == MALFORMED {
                    connection.violate(Reason::ENHANCE_YOUR_CALM.into());
                }
                return METRICS.refused.with_label_values(&["malformed"]).inc();
            }
            Err(_) => return METRICS.refused.with_label_values(&["body_stalled"]).inc(),
        };
        let mut session = ServerSession::new_custom(Box::new(session));
        session.set_write_timeout(Some(stall));
        let work = PROGRESS.scope(Arc::clone(&progress), context.proxy.process_new_http(session, &context.shutdown));
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

/// Resolves when no stream has been under way for that long.
async fn idle(active: &Active, time: Duration) {
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
