//! How far a response is read ahead of its client, and how long its head may take.
//!
//! Pingora's proxy reads from a target for as long as there is room in a pipe of four parts of 64 KiB, and gathers as
//! much again before it writes (`proxy_h1.rs`, `TASK_BUFFER_SIZE`): half a megabyte for each client that reads slowly.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use futures::task::AtomicWaker;

use super::clock;

/// Bytes that may be read ahead. One part of as much waits in Pingora's pipe while another one is written.
const AHEAD: usize = 16 * 1024;

/// The same for a client that has taken [`TRUSTED`] bytes without a pause: fewer and larger parts cost less. And for as
/// long as the request is still coming: Pingora reads nothing of a response while it waits to send a part of the
/// request, and a target that sends back what it gets would in the end wait for it as well.
const AHEAD_OF_FAST: usize = 64 * 1024;

/// The same for a response that is unpacked on its way: what it becomes may be a hundred times as long.
const AHEAD_PACKED: usize = 8 * 1024;

/// More than sockets hold for a client that takes nothing.
const TRUSTED: u32 = 8 * 1024 * 1024;

/// Bytes of the body that may be read before the first of them goes to the client; more than Pingora takes for the line
/// before a chunk.
const FIRST: usize = 12 * 1024;

/// Not a byte of a head has come.
const AWAITED: u64 = 0;

/// The head is complete.
const COMPLETE: u64 = u64::MAX;

/// The pace of the request that a client's connection, or its stream, has at the moment.
#[derive(Debug)]
pub struct Pace {
    /// Bytes of the body that were read since the last of them went to the client.
    ahead: AtomicU32,
    /// Bytes of the body that were read since the client last kept a part waiting.
    steady: AtomicU32,
    /// Whether something of the response waits for the client to take it.
    stalled: AtomicBool,
    /// Milliseconds that a head may take from its first byte on.
    head_time: AtomicU32,
    /// When the first byte of the present head came, on [`clock`].
    head: AtomicU64,
    /// Whether a head took too long.
    late: AtomicBool,
    /// Whether the request is still coming.
    sending: AtomicBool,
    /// Whether the response is unpacked on its way.
    packed: AtomicBool,
    /// Whether the response is over.
    over: AtomicBool,
    /// Whether the connection to the target had been kept.
    reused: AtomicBool,
    reader: AtomicWaker,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            ahead: AtomicU32::new(0),
            steady: AtomicU32::new(0),
            stalled: AtomicBool::new(false),
            head_time: AtomicU32::new(u32::MAX),
            head: AtomicU64::new(COMPLETE),
            late: AtomicBool::new(false),
            sending: AtomicBool::new(false),
            packed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            reused: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }
}

impl Pace {
    /// A request goes to a target, whose response head may take that long, and is still coming or is not.
    pub fn begin(&self, head_time: Option<Duration>, sending: bool) {
        self.sending.store(sending, Ordering::Relaxed);
        self.packed.store(false, Ordering::Relaxed);
        let most = head_time.and_then(|time| u32::try_from(time.as_millis()).ok()).unwrap_or(u32::MAX);
        self.head_time.store(most, Ordering::Relaxed);
        // What comes with the head is gathered into one buffer, which stays with the session.
        self.ahead.store((AHEAD - FIRST) as u32, Ordering::Relaxed);
        self.steady.store(0, Ordering::Relaxed);
        self.stalled.store(false, Ordering::Relaxed);
        self.late.store(false, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
        self.head.store(AWAITED, Ordering::Relaxed);
    }

    /// The response is unpacked on its way.
    pub fn unpack(&self) {
        self.packed.store(true, Ordering::Relaxed);
    }

    /// The request has come to its end.
    pub fn end_request(&self) {
        self.sending.store(false, Ordering::Relaxed);
    }

    /// A head is complete; another one follows an informational one.
    pub fn end_head(&self, informational: bool) {
        self.head.store(if informational { AWAITED } else { COMPLETE }, Ordering::Relaxed);
    }

    /// How many bytes of the body may be read now. If there are none, the task is woken when there are.
    pub fn allowance(&self, context: &Context<'_>) -> usize {
        let most = match self.stalled.load(Ordering::Relaxed) {
            true => 0,
            false if self.packed.load(Ordering::Relaxed) => AHEAD_PACKED,
            false if self.sending.load(Ordering::Relaxed) => AHEAD_OF_FAST,
            false if self.steady.load(Ordering::Relaxed) < TRUSTED => AHEAD,
            false => AHEAD_OF_FAST,
        };
        let left = most.saturating_sub(self.ahead.load(Ordering::Relaxed) as usize);
        if left == 0 {
            self.reader.register(context.waker());
        }
        left
    }

    /// Something of the response waits for the client to take it, or no longer does. Only the request's own task says
    /// so.
    pub fn set_stalled(&self, stalled: bool) {
        let before = self.stalled.swap(stalled, Ordering::Relaxed);
        if stalled {
            self.steady.store(0, Ordering::Relaxed);
        } else if before {
            self.reader.wake();
        }
    }

    /// Bytes of the body have been read.
    pub fn read(&self, count: usize) {
        // Only the request's own task does so.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        for sum in [&self.ahead, &self.steady] {
            sum.store(sum.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
        }
    }

    /// A part of the body goes to the client, and all parts before it have gone.
    pub fn pass(&self) {
        if self.ahead.swap(0, Ordering::Relaxed) as usize >= AHEAD_PACKED {
            self.reader.wake();
        }
    }

    /// Bytes have come that are no body. Fails when they belong to a head that takes too long.
    ///
    /// # Errors
    /// With a time-out.
    pub fn note_head(&self) -> std::io::Result<()> {
        let since = self.head.load(Ordering::Relaxed);
        match since {
            COMPLETE => {}
            AWAITED => self.head.store(clock::now().max(1), Ordering::Relaxed),
            since if clock::now().saturating_sub(since) > u64::from(self.head_time.load(Ordering::Relaxed)) => {
                self.late.store(true, Ordering::Relaxed);
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            _ => {}
        }
        Ok(())
    }

    /// The response is over: the connection is kept next, or closed.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Whether the response is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The connection to the target is one that had been kept, or is not.
    pub fn set_reused(&self, reused: bool) {
        self.reused.store(reused, Ordering::Relaxed);
    }

    /// Whether the connection to the target had been kept; said once.
    pub fn take_reused(&self) -> bool {
        self.reused.swap(false, Ordering::Relaxed)
    }

    /// Whether a head took too long.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }
}
