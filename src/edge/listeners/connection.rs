//! The guard of one TCP connection for HTTP: its deadlines, and what is known of it from request to request.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::task::AtomicWaker;
use http::HeaderValue;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use parking_lot::Mutex;

use super::clock;
use super::pace::Pace;
use super::wire::Wire;
use crate::exchange::Client;
use crate::snapshot::{Held, ListenerKey};

tokio::task_local! {
    static CURRENT: Arc<Connection>;
}

/// Runs `work` for a connection, which [`current_connection`] then gives.
pub fn scope<F: Future>(connection: &Arc<Connection>, work: F) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(Arc::clone(connection), work)
}

/// The connection that the running task serves. `None` outside of one.
pub fn current_connection() -> Option<Arc<Connection>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Does something with the connection that the running task serves.
pub fn with_current<T>(work: impl FnOnce(&Connection) -> T) -> Option<T> {
    CURRENT.try_with(|connection| work(connection)).ok()
}

/// What a connection knows of its listener.
#[derive(Debug)]
pub struct Home {
    /// What the listener is known by.
    pub key: ListenerKey,
    /// Its name, which a reload may change.
    pub name: ArcSwap<String>,
    /// Once the listener is removed: the last configuration that had it. Connections that are still
    /// open are served by it to their end.
    pub last: ArcSwapOption<Held>,
    /// Whether its connections are to end with the request that they have.
    pub closing: AtomicBool,
}

impl Home {
    /// The configuration for a request on it, and its listener's place in that.
    pub fn serving(&self, serving: Arc<Held>) -> (Arc<Held>, Option<usize>) {
        let serving = self.last.load_full().unwrap_or(serving);
        let place = serving.snapshot.place(&self.key);
        (serving, place)
    }
}

/// The connections of a listener.
pub type Connections = Arc<Mutex<Vec<Weak<Connection>>>>;

/// Where no HTTP/2 is spoken.
const NO_STREAMS: u32 = u32::MAX;

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its listener.
    pub home: Arc<Home>,
    /// Its client, once that is known: behind the TLS handshake.
    client: OnceLock<Client>,
    /// Its socket, which lives as long as the task that serves it.
    fd: RawFd,
    /// When the client has to have sent something, in milliseconds of [`clock`]; MAX is never.
    deadline: AtomicU64,
    /// Whether a request's head is awaited or under way.
    in_head: AtomicBool,
    /// Whether any byte of the present head has come.
    pub(super) head_begun: AtomicBool,
    /// When the client has to have taken something of what waits to be sent; MAX is never.
    write_deadline: AtomicU64,
    stalled: AtomicBool,
    writer: AtomicWaker,
    /// Bytes that came, and how many of them belong to the requests so far, where that is known of all of them: if
    /// they are as many, nothing of a next request has been read.
    pub(super) came: AtomicU64,
    pub(super) known: AtomicU64,
    /// Whether the present request has said how it is framed.
    pub(super) framed: AtomicBool,
    /// Whether something is read again before anything else is.
    pub(super) replays: AtomicBool,
    pub(super) wire: Mutex<Wire>,
    expired: AtomicBool,
    /// Since when it is idle, if it is.
    since: AtomicU64,
    /// Streams of HTTP/2; [`NO_STREAMS`] where another protocol is spoken.
    streams: AtomicU32,
    /// Whether it is to make room for another one, as long as it is idle.
    evicted: AtomicBool,
    cut: AtomicBool,
    /// The error code of HTTP/2 with which it has to end, 0 if it does not, and what waits for that.
    violated: AtomicU32,
    violation: AtomicWaker,
    /// The `Date` of the response that comes next, and whether there is one.
    has_date: AtomicBool,
    date: Mutex<Option<HeaderValue>>,
    /// How many of the next flushes may be left out.
    corks: AtomicU8,
    waker: AtomicWaker,
    /// The pace of its request, on HTTP/1.
    pub pace: Pace,
}

impl Connection {
    /// A connection of which a first head is awaited within `head_time`.
    pub fn new(home: Arc<Home>, fd: RawFd, head_time: Duration) -> Arc<Self> {
        Arc::new(Self {
            home,
            client: OnceLock::new(),
            fd,
            deadline: AtomicU64::new(after(head_time)),
            in_head: AtomicBool::new(true),
            head_begun: AtomicBool::new(false),
            write_deadline: AtomicU64::new(u64::MAX),
            stalled: AtomicBool::new(false),
            writer: AtomicWaker::new(),
            came: AtomicU64::new(0),
            known: AtomicU64::new(0),
            framed: AtomicBool::new(false),
            replays: AtomicBool::new(false),
            wire: Mutex::default(),
            expired: AtomicBool::new(false),
            since: AtomicU64::new(clock::now()),
            streams: AtomicU32::new(NO_STREAMS),
            evicted: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            violated: AtomicU32::new(0),
            violation: AtomicWaker::new(),
            has_date: AtomicBool::new(false),
            date: Mutex::new(None),
            corks: AtomicU8::new(0),
            waker: AtomicWaker::new(),
            pace: Pace::default(),
        })
    }

    /// Sets who the client is, before the first request.
    pub fn set_client(&self, client: Client) {
        let _ = self.client.set(client);
    }

    /// Returns who the client is.
    pub fn client(&self) -> Client {
        self.client.get().cloned().unwrap_or_else(Client::unknown)
    }

    /// Whether it is to end with the request that it has.
    pub fn is_closing(&self) -> bool {
        self.home.closing.load(Ordering::Relaxed)
    }

    /// Its socket.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Whether the client has closed its side. To be asked only by who holds the stream: a request of HTTP/1 through
    /// its session, never one of HTTP/2, which may outlive the connection.
    pub fn is_gone(&self) -> bool {
        // SAFETY: the caller holds the stream, and the stream holds the socket open.
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let mut asked = [PollFd::new(socket, PollFlags::from_bits_retain(nix::libc::POLLRDHUP))];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Ends it in the middle of what it does: its task finds it as if the client had gone. To be called when the
    /// process ends; of one whose stream is gone the socket may by then be another one, which ends as well.
    pub fn cut(&self) {
        if !self.cut.swap(true, Ordering::AcqRel) {
            let _ = shutdown(self.fd, Shutdown::Both);
        }
    }

    /// Whether it was ended so.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Has it end with a GOAWAY of this error code (RFC 9113, section 7).
    pub fn violate(&self, code: u32) {
        self.violated.store(code, Ordering::Release);
        self.violation.wake();
    }

    /// Whether it has to end with GOAWAY.
    pub fn has_violated(&self) -> bool {
        self.violated.load(Ordering::Acquire) != 0
    }

    /// Resolves to the error code once it has to end with GOAWAY.
    pub fn violated(&self) -> impl Future<Output = u32> + '_ {
        std::future::poll_fn(|context| {
            self.violation.register(context.waker());
            match self.violated.load(Ordering::Acquire) {
                0 => Poll::Pending,
                code => Poll::Ready(code),
            }
        })
    }

    /// A next head is awaited, for at most `idle_time`.
    pub fn await_head(&self, idle_time: Duration) {
        self.clear_corks();
        self.head_begun.store(false, Ordering::Relaxed);
        self.in_head.store(true, Ordering::Relaxed);
        self.since.store(clock::now(), Ordering::Relaxed);
        self.deadline.store(after(idle_time), Ordering::Relaxed);
    }

    /// HTTP/2 is spoken from now on.
    pub fn begin_http2(&self) {
        self.head_complete();
        self.since.store(clock::now(), Ordering::Relaxed);
        self.streams.store(0, Ordering::Relaxed);
    }

    /// A stream of HTTP/2 has begun.
    pub fn begin_stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// A stream of HTTP/2 has ended.
    pub fn end_stream(&self) {
        self.since.store(clock::now(), Ordering::Relaxed);
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since when it is idle: between requests, without streams, or before it has said anything.
    pub fn idle_since(&self) -> Option<u64> {
        let idle = match self.is_in_head() {
            true => !self.head_begun.load(Ordering::Relaxed),
            false => self.streams.load(Ordering::Relaxed) == 0,
        };
        idle.then(|| self.since.load(Ordering::Relaxed))
    }

    /// Ends it to make room for another, if it is idle. One that is so no more by then goes on until it is idle again.
    pub fn end_if_idle(&self) -> bool {
        let idle = self.idle_since().is_some() && !self.evicted.swap(true, Ordering::AcqRel);
        if idle {
            self.waker.wake();
        }
        idle
    }

    /// Resolves when it is to make room, for as long as nothing reads from its guard.
    pub async fn evicted(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.evicted.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Something has come. Of a head the rest has to come within `head_time` of its first octet.
    pub fn something_came(&self, head_time: Duration) {
        if self.is_in_head() && !self.head_begun.swap(true, Ordering::Relaxed) {
            self.deadline.store(after(head_time), Ordering::Relaxed);
        }
    }

    /// The head is complete, or the connection is of a kind that has none.
    pub fn head_complete(&self) {
        self.in_head.store(false, Ordering::Relaxed);
        self.deadline.store(u64::MAX, Ordering::Relaxed);
    }

    /// Whether a head is awaited or under way.
    pub fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }

    /// Whether a part of a head has come and the rest has not.
    pub fn is_within_head(&self) -> bool {
        self.is_in_head() && self.head_begun.load(Ordering::Relaxed)
    }

    /// Has the response that comes next keep this `Date`: Pingora's session of HTTP/1 overwrites it, and has no switch.
    pub fn keep_date(&self, date: HeaderValue) {
        *self.date.lock() = Some(date);
        self.has_date.store(true, Ordering::Relaxed);
    }

    /// Returns the `Date` that the response whose head is written now is to have, if it has one of its own.
    pub fn take_date(&self) -> Option<HeaderValue> {
        if !self.has_date.load(Ordering::Relaxed) {
            return None;
        }
        self.has_date.store(false, Ordering::Relaxed);
        self.date.lock().take()
    }

    /// One more of the next flushes may be left out, because something follows at once: that of a head before its
    /// body, or of a body before its end.
    pub fn cork(&self) {
        self.corks.store(self.corks.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// No flush may be left out.
    pub fn clear_corks(&self) {
        self.corks.store(0, Ordering::Relaxed);
    }

    /// Whether this flush may be left out.
    pub fn uncork(&self) -> bool {
        let corks = self.corks.load(Ordering::Relaxed);
        if corks > 0 {
            self.corks.store(corks - 1, Ordering::Relaxed);
        }
        corks > 0
    }

    /// Whether the deadline has passed; if not, the task is woken when it does.
    pub fn poll_expired(&self, context: &std::task::Context<'_>) -> bool {
        let in_head = self.is_in_head();
        if !in_head && self.streams.load(Ordering::Relaxed) == NO_STREAMS {
            return false;
        }
        self.waker.register(context.waker());
        let expired = in_head && self.expired.load(Ordering::Acquire);
        expired || (self.evicted.load(Ordering::Acquire) && self.idle_since().is_some())
    }

    /// The client takes nothing at the moment: it has `stall_time` to go on. Whether that is over.
    pub fn poll_stalled(&self, context: &std::task::Context<'_>, stall_time: Duration) -> bool {
        if self.write_deadline.load(Ordering::Relaxed) == u64::MAX {
            self.write_deadline.store(after(stall_time), Ordering::Relaxed);
            self.pace.set_stalled(true);
        }
        self.writer.register(context.waker());
        self.stalled.load(Ordering::Acquire)
    }

    /// The client has taken something.
    pub fn moved(&self) {
        // Read first: most writes never wait.
        if self.write_deadline.load(Ordering::Relaxed) != u64::MAX {
            self.write_deadline.store(u64::MAX, Ordering::Relaxed);
            self.pace.set_stalled(false);
        }
    }

    /// Wakes the connection if its deadline has passed at `now`. If it is to close when it is idle, and it is, a
    /// request may be on its way, since the client may not know: for that it has `linger` milliseconds.
    pub fn check(&self, now: u64, close_idle: bool, linger: u64) {
        if close_idle && self.is_in_head() && !self.head_begun.load(Ordering::Relaxed) {
            self.deadline.fetch_min(now + linger, Ordering::Relaxed);
        }
        if self.deadline.load(Ordering::Relaxed) <= now {
            self.expired.store(true, Ordering::Release);
            self.waker.wake();
        }
        if self.write_deadline.load(Ordering::Relaxed) <= now {
            self.stalled.store(true, Ordering::Release);
            self.writer.wake();
        }
    }
}

fn after(time: Duration) -> u64 {
    clock::now().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection is little more than this: with its two counters it fills a size class of the allocator, of
    /// which the next one is 64 bytes larger.
    #[test]
    fn a_connection_fills_its_size_class() {
        assert!(size_of::<Connection>() <= 384 - 2 * size_of::<usize>());
    }
}
