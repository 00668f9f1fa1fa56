//! HTTP/2: streams side by side on a connection.
//!
//! The loop is our own because Pingora's leaves a connection without a preface, and a stream whose
//! body has stalled, open for minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::sync::Notify;

use super::clock;
use super::connection::{Connection, scope};
use super::listening::Context;
use super::pace::Pace;
use crate::telemetry::metrics::METRICS;

/// How long after a GOAWAY streams are still taken that may have crossed it (RFC 9113, section 6.8). A client that
/// opens them for longer, as one that answers no PING may, has them refused.
const GRACE: Duration = Duration::from_secs(5);

/// How long a client that was told to close and has no stream is waited for.
const LINGER: Duration = Duration::from_secs(1);

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// Whether a stream's body is awaited, and when a part of it came last.
#[derive(Debug, Default)]
pub struct Progress {
    awaited: AtomicBool,
    /// The answer has begun: from then on the client may take its time, as streams do.
    answered: AtomicBool,
    last: AtomicU64,
    /// The pace of its response.
    pub pace: Pace,
}

impl Progress {
    /// The running stream's; `None` on HTTP/1, where Pingora has a time-out of its own.
    pub fn current() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
    }

    /// Does something with the running stream's.
    pub fn with_current<T>(work: impl FnOnce(&Self) -> T) -> Option<T> {
        PROGRESS.try_with(|progress| work(progress)).ok()
    }

    /// Ready when the client has reset the stream, or is gone.
    pub fn poll_gone(&self, _context: &mut std::task::Context<'_>) -> std::task::Poll<()> {
        std::task::Poll::Pending
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

/// Counts streams under way.
#[derive(Debug, Default)]
struct Active {
    count: AtomicUsize,
    idle: Notify,
}

impl Active {
    fn is_idle(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

struct ActiveGuard(Arc<Active>);

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_one();
        }
    }
}

/// Serves a connection until either side closes it.
pub async fn serve(stream: Stream, connection: &Arc<Connection>, context: &Arc<Context>) {
    let limits = context.limits();
    // The guard's deadlines are for heads of HTTP/1.
    connection.head_complete();
    let mut options = default_h2_options();
    options.max_concurrent_streams(limits.streams);
    options.max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX));
    let connected = tokio::time::timeout(limits.header_time, handshake(stream, Some(options))).await;
    let Ok(Ok(mut h2)) = connected else {
        return METRICS.refused.with_label_values(&["preface"]).inc();
    };
    let digest = Arc::new(Digest::default());
    let active = Arc::new(Active::default());
    let mut shutdown = context.shutdown.clone();
    // Since when a GOAWAY tells the client to open no more streams here.
    let mut closing: Option<Instant> = None;
    if *shutdown.borrow() {
        h2.graceful_shutdown();
        closing = Some(Instant::now());
    }
    let mut requests = 0_u32;
    loop {
        let late = closing.is_some_and(|since| since.elapsed() >= GRACE);
        if late && active.is_idle() {
            return;
        }
        let quiet = if closing.is_some() { LINGER } else { limits.idle_time };
        let accepted = tokio::select! {
            biased;
            _ = shutdown.changed(), if closing.is_none() => None,
            accepted = HttpSession::from_h2_conn(&mut h2, Arc::clone(&digest)) => Some(accepted),
            () = idle(&active, quiet) => match closing {
                Some(_) => return,
                None => None,
            },
        };
        match accepted {
            None => {}
            Some(Ok(Some(H2Accept::Session(mut session)))) if late => {
                session.shutdown_with_reason(h2::Reason::REFUSED_STREAM);
                continue;
            }
            Some(Ok(Some(H2Accept::Session(session)))) => {
                requests += 1;
                active.count.fetch_add(1, Ordering::AcqRel);
                spawn(session, ActiveGuard(Arc::clone(&active)), connection, context, limits.body_idle_time);
                if limits.requests_per_connection.is_none_or(|most| requests < most) {
                    continue;
                }
            }
            Some(Ok(Some(H2Accept::Rejected))) => {
                METRICS.refused.with_label_values(&["head"]).inc();
                continue;
            }
            Some(Ok(None) | Err(_)) => return,
        }
        // It has had its time or its requests, or the listener closes.
        if closing.is_none() {
            h2.graceful_shutdown();
            closing = Some(Instant::now());
        }
    }
}

fn spawn(session: HttpSession, guard: ActiveGuard, connection: &Arc<Connection>, context: &Arc<Context>, stall: Duration) {
    let (connection, context) = (Arc::clone(connection), Arc::clone(context));
    let in_flight = context.drain.begin();
    tokio::spawn(async move {
        let _guards = (guard, in_flight);
        let progress = Arc::new(Progress::default());
        let mut session = ServerSession::new_http2(session);
        session.set_write_timeout(Some(stall));
        let work = PROGRESS.scope(Arc::clone(&progress), context.proxy.process_new_http(session, &context.shutdown));
        scope(&connection, async {
            tokio::select! {
                _ = work => {}
                // Dropping the work resets the stream.
                () = progress.stalled(stall) => METRICS.refused.with_label_values(&["body_stalled"]).inc(),
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
