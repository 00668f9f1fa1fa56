//! The state of an HTTP/2 stream beside its request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;

use super::clock;
use super::pace::Pace;
use super::sending::Sending;

/// How long a request whose client has reset it may take to notice by itself.
const RESET_NOTICE_TIMEOUT: Duration = Duration::from_millis(100);

tokio::task_local! {
    static PROGRESS: Arc<Progress>;
}

/// The state of a stream beside its request: whether its client is there, takes what it is sent, and sends what is
/// awaited.
#[derive(Debug)]
pub struct Progress {
    /// The sending side of the stream.
    pub sending: Sending,
    /// Whether a body is awaited.
    awaited: AtomicBool,
    /// Whether the response has begun: from then on the client may take its time, as streams do.
    responded: AtomicBool,
    /// When the last part of the body came.
    last: AtomicU64,
    /// The pace of the response.
    pub pace: Pace,
}

impl Progress {
    /// Returns the progress of a stream that was just accepted, by its sending side.
    pub fn new(response: SendResponse<Bytes>) -> Arc<Self> {
        let (awaited, responded) = (AtomicBool::new(false), AtomicBool::new(false));
        let (sending, last, pace) = (Sending::new(response), AtomicU64::new(clock::now()), Pace::default());
        Arc::new(Self { sending, awaited, responded, last, pace })
    }

    /// Returns ready once the client has reset the stream, or the connection has ended.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
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

    /// Resolves once the client is gone and the request, whose body was awaited, has not noticed: nothing reads the
    /// body while the target takes nothing of it, and the received part fills the connection's window (pingora#910).
    pub async fn abandoned(&self) {
        self.gone().await;
        tokio::time::sleep(RESET_NOTICE_TIMEOUT).await;
        if !self.awaited.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Runs `work` for the stream, which [`Progress::current`] then returns.
    pub fn scope<F: Future>(self: &Arc<Self>, work: F) -> impl Future<Output = F::Output> + use<F> {
        PROGRESS.scope(Arc::clone(self), work)
    }

    /// Returns the progress of the running stream; `None` on HTTP/1, where Pingora has a timeout of its own.
    pub fn current() -> Option<Arc<Self>> {
        PROGRESS.try_with(Arc::clone).ok()
    }

    /// Calls `work` with the progress of the running stream.
    pub fn with_current<T>(work: impl FnOnce(&Self) -> T) -> Option<T> {
        PROGRESS.try_with(|progress| work(progress)).ok()
    }

    /// Notes that a part of the body has come (or is awaited from now on), and whether more is to come.
    pub fn note(&self, more: bool) {
        self.last.store(clock::now(), Ordering::Relaxed);
        self.awaited.store(more, Ordering::Relaxed);
    }

    /// Notes that the response has begun.
    pub fn note_response_begun(&self) {
        self.responded.store(true, Ordering::Relaxed);
    }

    /// Resolves once an awaited part of the body has not come for `limit`, and no response has begun.
    pub async fn stalled(&self, limit: Duration) {
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        loop {
            tokio::time::sleep(limit).await;
            let since = clock::now().saturating_sub(self.last.load(Ordering::Relaxed));
            let waits = self.awaited.load(Ordering::Relaxed) && !self.responded.load(Ordering::Relaxed);
            if waits && since >= limit_ms {
                return;
            }
        }
    }
}
