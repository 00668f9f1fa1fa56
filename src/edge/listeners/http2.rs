//! HTTP/2: streams side by side on a connection.
//!
//! The loop is our own because Pingora's leaves a connection without a preface, and a stream whose
//! body has stalled, open for minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Accept, HttpSession, default_h2_options, handshake};
use pingora::protocols::{Digest, Stream};
use tokio::sync::Notify;

use super::clock;
use super::connection::{Connection, scope};
use super::listening::Context;
use crate::telemetry::metrics::METRICS;

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
}

impl Progress {
    /// The running stream's; `None` on HTTP/1, where Pingora has a time-out of its own.
    pub fn current() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
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
    let mut closing = *shutdown.borrow();
    if closing {
        h2.graceful_shutdown();
    }
    let mut requests = 0_u32;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = shutdown.changed(), if !closing => {
                closing = true;
                h2.graceful_shutdown();
                continue;
            }
            accepted = HttpSession::from_h2_conn(&mut h2, Arc::clone(&digest)) => accepted,
            () = idle(&active, limits.idle_time), if !closing => {
                h2.graceful_shutdown();
                // A peer that does not close after GOAWAY is not waited for.
                let _ = tokio::time::timeout(Duration::from_secs(1), HttpSession::from_h2_conn(&mut h2, Arc::clone(&digest))).await;
                return;
            }
        };
        match accepted {
            Ok(Some(H2Accept::Session(session))) => {
                requests += 1;
                if limits.requests_per_connection.is_some_and(|most| requests >= most) && !closing {
                    closing = true;
                    h2.graceful_shutdown();
                }
                active.count.fetch_add(1, Ordering::AcqRel);
                spawn(session, ActiveGuard(Arc::clone(&active)), connection, context, limits.body_idle_time);
            }
            Ok(Some(H2Accept::Rejected)) => METRICS.refused.with_label_values(&["head"]).inc(),
            Ok(None) | Err(_) => return,
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
        while active.count.load(Ordering::Acquire) > 0 {
            active.idle.notified().await;
        }
        tokio::time::sleep(time).await;
        if active.count.load(Ordering::Acquire) == 0 {
            return;
        }
    }
}
