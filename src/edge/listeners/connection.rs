//! The guard of one TCP connection for HTTP: its deadlines, and its state from request to request.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
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
use tokio::net::TcpStream;

use super::clock;
use super::pace::Pace;
use super::wire::Wire;
use crate::exchange::Client;
use crate::snapshot::{ListenerKey, WorkerServing};

tokio::task_local! {
    static CURRENT: Arc<Connection>;
}

/// Runs `work` for a connection, which [`current_connection`] then returns.
pub fn scope<F: Future>(connection: &Arc<Connection>, work: F) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(Arc::clone(connection), work)
}

/// Returns the connection that the running task serves; `None` outside of one.
pub fn current_connection() -> Option<Arc<Connection>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Calls `work` with the connection that the running task serves.
pub fn with_current<T>(work: impl FnOnce(&Connection) -> T) -> Option<T> {
    CURRENT.try_with(|connection| work(connection)).ok()
}

/// The facts about a listener that its connections share.
#[derive(Debug)]
pub struct ListenerState {
    /// The identity of the listener.
    pub key: ListenerKey,
    /// The name of the listener, which a reload may change.
    pub name: ArcSwap<String>,
    /// The address of its socket, which may stand for all of the system's.
    pub ip: IpAddr,
    /// The port of its socket.
    pub port: u16,
    /// The same as the value of a header.
    pub port_text: HeaderValue,
    /// The last configuration that had the listener, once it is removed. Connections that are still open are served
    /// by it to their end.
    pub last: ArcSwapOption<WorkerServing>,
    /// Whether the connections are to end with the request that they have.
    pub closing: AtomicBool,
}

impl ListenerState {
    /// Returns the configuration for a request on the listener, and the listener's place in it.
    pub fn serving(&self, serving: Arc<WorkerServing>) -> (Arc<WorkerServing>, Option<usize>) {
        let serving = self.last.load_full().unwrap_or(serving);
        let place = serving.snapshot.place(&self.key);
        (serving, place)
    }
}

/// The connections of a listener.
pub type Connections = Arc<Mutex<Vec<Weak<Connection>>>>;

/// The number of streams where no HTTP/2 is spoken.
const NO_STREAMS: u32 = u32::MAX;

/// A client connection.
#[derive(Debug)]
pub struct Connection {
    /// Its listener.
    pub listener_state: Arc<ListenerState>,
    /// The client, once it is known: after the TLS handshake.
    client: OnceLock<Client>,
    /// The socket, which lives as long as the task that serves it.
    fd: RawFd,
    /// When the client must have sent something, in milliseconds of [`clock`]; MAX is never.
    deadline: AtomicU64,
    /// Whether a request's head is awaited or incomplete.
    in_head: AtomicBool,
    /// Whether any byte of the present head has come.
    pub(super) head_begun: AtomicBool,
    /// When the client must have taken something of what waits to be sent; MAX is never.
    write_deadline: AtomicU64,
    stalled: AtomicBool,
    writer: AtomicWaker,
    /// The bytes that have come, and how many of them belong to the requests so far, where that is known of all of
    /// them. If both are equal, nothing of a next request has been read.
    pub(super) came: AtomicU64,
    pub(super) known: AtomicU64,
    /// Whether the framing of the present request is known.
    pub(super) framed: AtomicBool,
    /// Whether bytes are read again before new ones are.
    pub(super) replays: AtomicBool,
    pub(super) wire: Mutex<Wire>,
    expired: AtomicBool,
    /// Since when the connection is idle, if it is.
    since: AtomicU64,
    /// The number of HTTP/2 streams; [`NO_STREAMS`] where another protocol is spoken.
    streams: AtomicU32,
    /// Whether the connection is to end for a new one, as long as it is idle.
    evicted: AtomicBool,
    cut: AtomicBool,
    /// The HTTP/2 error code with which it has to end, 0 if it does not, and the task that waits for that.
    violated: AtomicU32,
    violation: AtomicWaker,
    /// The `Date` of the next response, and whether it has one.
    has_date: AtomicBool,
    date: Mutex<Option<HeaderValue>>,
    /// How many of the next flushes may be left out.
    corks: AtomicU8,
    /// Whether writes are sent at once, because what follows is not there yet.
    is_direct: AtomicBool,
    waker: AtomicWaker,
    /// The pace of the present request, on HTTP/1.
    pub pace: Pace,
}

impl Connection {
    /// Returns a connection on which a first head is awaited within `head_time`.
    pub fn new(listener_state: Arc<ListenerState>, stream: &TcpStream, head_time: Duration) -> Arc<Self> {
        Arc::new(Self {
            listener_state,
            client: OnceLock::new(),
            fd: stream.as_raw_fd(),
            deadline: AtomicU64::new(deadline_after(head_time)),
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
            is_direct: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            pace: Pace::default(),
        })
    }

    /// Sets the client, before the first request.
    pub fn set_client(&self, client: Client) {
        let _ = self.client.set(client);
    }

    /// Returns the client.
    pub fn client(&self) -> Client {
        self.client.get().cloned().unwrap_or_else(Client::unknown)
    }

    /// Returns whether the connection is to end with the request that it has.
    pub fn is_closing(&self) -> bool {
        self.listener_state.closing.load(Ordering::Relaxed)
    }

    /// Returns the address to which the client connected, if it is known: on a listener for all addresses it is that of
    /// HTTP/1 alone, whose request holds the socket open; one of HTTP/2 may outlive it.
    pub fn local(&self) -> Option<SocketAddr> {
        let ip = self.listener_state.ip;
        if !ip.is_unspecified() {
            return Some(SocketAddr::new(ip, self.listener_state.port));
        }
        if self.streams.load(Ordering::Relaxed) != NO_STREAMS {
            return None;
        }
        // SAFETY: the caller serves an HTTP/1 request, and holds the stream, which holds the socket open.
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        socket2::SockRef::from(&socket).local_addr().ok()?.as_socket()
    }

    /// Returns the descriptor of the socket.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// Returns whether the client has closed its side. Only the holder of the stream may call it: an HTTP/1 request
    /// through its session, never an HTTP/2 request, which may outlive the connection.
    pub fn is_gone(&self) -> bool {
        // SAFETY: the caller holds the stream, and the stream holds the socket open.
        let socket = unsafe { BorrowedFd::borrow_raw(self.fd) };
        let mut polled = [PollFd::new(socket, PollFlags::from_bits_retain(nix::libc::POLLRDHUP))];
        poll(&mut polled, PollTimeout::ZERO).is_ok_and(|count| count > 0)
    }

    /// Cuts the connection: its task sees that as if the client had gone. It is called when the process ends; if the
    /// stream is gone, the descriptor may by then be that of another connection, which ends as well.
    pub fn cut(&self) {
        if !self.cut.swap(true, Ordering::AcqRel) {
            let _ = shutdown(self.fd, Shutdown::Both);
        }
    }

    /// Returns whether the connection was cut.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Ends the connection with a GOAWAY of this error code (RFC 9113, section 7).
    pub fn end_with_goaway(&self, code: u32) {
        self.violated.store(code, Ordering::Release);
        self.violation.wake();
    }

    /// Returns whether the connection has to end with GOAWAY.
    pub fn has_goaway(&self) -> bool {
        self.violated.load(Ordering::Acquire) != 0
    }

    /// Resolves to the error code once the connection has to end with GOAWAY.
    pub fn goaway_code(&self) -> impl Future<Output = u32> + '_ {
        std::future::poll_fn(|context| {
            self.violation.register(context.waker());
            match self.violated.load(Ordering::Acquire) {
                0 => Poll::Pending,
                code => Poll::Ready(code),
            }
        })
    }

    /// Notes that a next head is awaited, for at most `idle_time`.
    pub fn await_head(&self, idle_time: Duration) {
        self.clear_corks();
        self.send_at_once(false);
        self.head_begun.store(false, Ordering::Relaxed);
        self.in_head.store(true, Ordering::Relaxed);
        self.since.store(clock::now(), Ordering::Relaxed);
        self.deadline.store(deadline_after(idle_time), Ordering::Relaxed);
    }

    /// Notes that HTTP/2 is spoken from now on.
    pub fn begin_http2(&self) {
        self.head_complete();
        self.since.store(clock::now(), Ordering::Relaxed);
        self.streams.store(0, Ordering::Relaxed);
    }

    /// Counts an HTTP/2 stream that has begun.
    pub fn begin_stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an HTTP/2 stream that has ended.
    pub fn end_stream(&self) {
        self.since.store(clock::now(), Ordering::Relaxed);
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns since when the connection is idle: between requests, without streams, or before its first byte.
    pub fn idle_since(&self) -> Option<u64> {
        let idle = match self.is_in_head() {
            true => !self.head_begun.load(Ordering::Relaxed),
            false => self.streams.load(Ordering::Relaxed) == 0,
        };
        idle.then(|| self.since.load(Ordering::Relaxed))
    }

    /// Ends the connection for a new one, if it is idle. If it is no longer idle by then, it goes on until it is
    /// again.
    pub fn end_if_idle(&self) -> bool {
        let idle = self.idle_since().is_some() && !self.evicted.swap(true, Ordering::AcqRel);
        if idle {
            self.waker.wake();
        }
        idle
    }

    /// Resolves when the connection is to end for a new one, while nothing reads from its guard.
    pub async fn evicted(&self) {
        std::future::poll_fn(|context| {
            self.waker.register(context.waker());
            if self.evicted.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Notes that bytes have come. The rest of a head has to come within `head_time` of its first octet.
    pub fn note_input(&self, head_time: Duration) {
        if self.is_in_head() && !self.head_begun.swap(true, Ordering::Relaxed) {
            self.deadline.store(deadline_after(head_time), Ordering::Relaxed);
        }
    }

    /// Notes that the head is complete, or that the connection is of a kind that has none.
    pub fn head_complete(&self) {
        self.in_head.store(false, Ordering::Relaxed);
        self.deadline.store(u64::MAX, Ordering::Relaxed);
    }

    /// Returns whether a head is awaited or incomplete.
    pub fn is_in_head(&self) -> bool {
        self.in_head.load(Ordering::Relaxed)
    }

    /// Returns whether a part of a head has come and the rest has not.
    pub fn is_within_head(&self) -> bool {
        self.is_in_head() && self.head_begun.load(Ordering::Relaxed)
    }

    /// Keeps this `Date` in the next response: Pingora's HTTP/1 session overwrites it, and has no switch for that.
    pub fn keep_date(&self, date: HeaderValue) {
        *self.date.lock() = Some(date);
        self.has_date.store(true, Ordering::Relaxed);
    }

    /// Returns the `Date` of the response whose head is being written, if it has one of its own.
    pub fn take_date(&self) -> Option<HeaderValue> {
        if !self.has_date.load(Ordering::Relaxed) {
            return None;
        }
        self.has_date.store(false, Ordering::Relaxed);
        self.date.lock().take()
    }

    /// Lets one more of the next flushes be left out, because more follows at once: the flush of a head before its
    /// body, or of a body before its end.
    pub fn cork(&self) {
        self.corks.store(self.corks.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// Lets no flush be left out.
    pub fn clear_corks(&self) {
        self.corks.store(0, Ordering::Relaxed);
    }

    /// Lets the writes that follow be sent at once, until the response ends, or be gathered again.
    pub fn send_at_once(&self, is_direct: bool) {
        self.is_direct.store(is_direct, Ordering::Relaxed);
    }

    /// Returns whether writes are sent at once.
    pub fn sends_at_once(&self) -> bool {
        self.is_direct.load(Ordering::Relaxed)
    }

    /// Returns whether this flush may be left out.
    pub fn uncork(&self) -> bool {
        let corks = self.corks.load(Ordering::Relaxed);
        if corks > 0 {
            self.corks.store(corks - 1, Ordering::Relaxed);
        }
        corks > 0
    }

    /// Returns whether the deadline has passed; if not, the task is woken when it does.
    pub fn poll_expired(&self, context: &std::task::Context<'_>) -> bool {
        let in_head = self.is_in_head();
        if !in_head && self.streams.load(Ordering::Relaxed) == NO_STREAMS {
            return false;
        }
        self.waker.register(context.waker());
        let expired = in_head && self.expired.load(Ordering::Acquire);
        expired || (self.evicted.load(Ordering::Acquire) && self.idle_since().is_some())
    }

    /// Notes that the client takes nothing at present, and returns whether it has done so for `stall_time`.
    pub fn poll_stalled(&self, context: &std::task::Context<'_>, stall_time: Duration) -> bool {
        if self.write_deadline.load(Ordering::Relaxed) == u64::MAX {
            self.write_deadline.store(deadline_after(stall_time), Ordering::Relaxed);
            self.pace.set_stalled(true);
        }
        self.writer.register(context.waker());
        self.stalled.load(Ordering::Acquire)
    }

    /// Notes that the client has taken something.
    pub fn note_output(&self) {
        // Read first: most writes never wait.
        if self.write_deadline.load(Ordering::Relaxed) != u64::MAX {
            self.write_deadline.store(u64::MAX, Ordering::Relaxed);
            self.pace.set_stalled(false);
        }
    }

    /// Wakes the connection if its deadline has passed at `now`. If it is to close when idle, and it is idle, a
    /// request may still be on its way, since the client may not know: it has `linger` milliseconds for that.
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

fn deadline_after(time: Duration) -> u64 {
    clock::now().saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
#[cfg(test)]
mod tests {
    use super::*;

    /// An idle connection is little more than this. With its two counters it fills a size class of the allocator, of
    /// which the next one is 64 bytes larger.
    #[test]
    fn a_connection_fills_its_size_class() {
        assert!(size_of::<Connection>() <= 384 - 2 * size_of::<usize>());
    }
}
