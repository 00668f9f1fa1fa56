//! The pace of a response: how far it is read ahead of its client, and how long its head may take.
//!
//! Pingora's proxy reads from a target while there is room in a pipe of four parts of 64 KiB, and gathers as much
//! again before it writes (`proxy_h1.rs`, `TASK_BUFFER_SIZE`): half a megabyte for each client that reads slowly.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use futures::task::AtomicWaker;

use super::clock;

/// How many bytes may be read ahead. One part of that size waits in Pingora's pipe while another one is written.
const AHEAD: usize = 16 * 1024;

/// The same for a client that has taken [`TRUSTED`] bytes without a pause, since fewer and larger parts cost less;
/// and while the request is still coming: Pingora reads nothing of a response while it waits to send a part of the
/// request, and a target that echoes the request would in the end wait for it as well.
const AHEAD_OF_FAST: usize = 64 * 1024;

/// The same for a response that is decoded on its way, which may become a hundred times as long.
const AHEAD_OF_DECODER: usize = 8 * 1024;

/// More bytes than the sockets hold for a client that takes nothing.
const TRUSTED: u32 = 8 * 1024 * 1024;

/// The bytes of the body that may be read before the first of them goes to the client; more than the line before a
/// chunk that Pingora accepts.
const MAX_FIRST_READ: usize = 12 * 1024;

/// The state in which no byte of a head has come.
const AWAITED: u64 = 0;

/// The state in which the head is complete.
const COMPLETE: u64 = u64::MAX;

/// The pace of the present request of a client's connection or stream.
#[derive(Debug)]
pub struct Pace {
    /// The bytes of the body that were read since the last of them went to the client.
    ahead: AtomicU32,
    /// The bytes of the body that were read since a part last waited for the client.
    steady: AtomicU32,
    /// Whether a part of the response waits for the client to take it.
    stalled: AtomicBool,
    /// The milliseconds that a head may take from its first byte on.
    head_time: AtomicU32,
    /// When the first byte of the present head came, on [`clock`].
    head: AtomicU64,
    /// Whether a head took too long.
    late: AtomicBool,
    /// Whether the request is still coming.
    sending: AtomicBool,
    /// Whether the response is decoded on its way.
    decoded: AtomicBool,
    /// Whether the response is over.
    over: AtomicBool,
    /// Whether the connection to the target was a reused one.
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
            decoded: AtomicBool::new(false),
            over: AtomicBool::new(false),
            reused: AtomicBool::new(false),
            reader: AtomicWaker::new(),
        }
    }
}

impl Pace {
    /// Begins a request to a target, whose response head may take `head_time`; `sending` says whether it is still
    /// coming.
    pub fn begin(&self, head_time: Option<Duration>, sending: bool) {
        self.sending.store(sending, Ordering::Relaxed);
        self.decoded.store(false, Ordering::Relaxed);
        let most = head_time.and_then(|time| u32::try_from(time.as_millis()).ok()).unwrap_or(u32::MAX);
        self.head_time.store(most, Ordering::Relaxed);
        // The bytes that come with the head are gathered into one buffer, which stays with the session.
        self.ahead.store((AHEAD - MAX_FIRST_READ) as u32, Ordering::Relaxed);
        self.steady.store(0, Ordering::Relaxed);
        self.stalled.store(false, Ordering::Relaxed);
        self.late.store(false, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
        self.head.store(AWAITED, Ordering::Relaxed);
    }

    /// Notes that the response is decoded on its way.
    pub fn note_decoding(&self) {
        self.decoded.store(true, Ordering::Relaxed);
    }

    /// Notes that the request has ended.
    pub fn end_request(&self) {
        self.sending.store(false, Ordering::Relaxed);
    }

    /// Notes that a head is complete; another one follows an informational one.
    pub fn end_head(&self, informational: bool) {
        self.head.store(if informational { AWAITED } else { COMPLETE }, Ordering::Relaxed);
    }

    /// Returns how many bytes of the body may be read now. If there are none, the task is woken when there are.
    pub fn allowance(&self, context: &Context<'_>) -> usize {
        let most = match self.stalled.load(Ordering::Relaxed) {
            true => 0,
            false if self.decoded.load(Ordering::Relaxed) => AHEAD_OF_DECODER,
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

    /// Notes whether a part of the response waits for the client to take it. Only the request's own task calls it.
    pub fn set_stalled(&self, stalled: bool) {
        let before = self.stalled.swap(stalled, Ordering::Relaxed);
        if stalled {
            self.steady.store(0, Ordering::Relaxed);
        } else if before {
            self.reader.wake();
        }
    }

    /// Counts bytes of the body that have been read.
    pub fn read(&self, count: usize) {
        // Only the request's own task does so.
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        for sum in [&self.ahead, &self.steady] {
            sum.store(sum.load(Ordering::Relaxed).saturating_add(count), Ordering::Relaxed);
        }
    }

    /// Notes that a part of the body goes to the client, after all parts before it.
    pub fn pass(&self) {
        if self.ahead.swap(0, Ordering::Relaxed) as usize >= AHEAD_OF_DECODER {
            self.reader.wake();
        }
    }

    /// Notes bytes that are not of the body.
    ///
    /// # Errors
    /// Times out when they belong to a head that takes too long.
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

    /// Notes that the response is over: the connection is reused or closed next.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Returns whether the response is over.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sets whether the connection to the target is a reused one.
    pub fn set_reused(&self, reused: bool) {
        self.reused.store(reused, Ordering::Relaxed);
    }

    /// Takes whether the connection to the target was a reused one.
    pub fn take_reused(&self) -> bool {
        self.reused.swap(false, Ordering::Relaxed)
    }

    /// Returns whether a head took too long.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }
}
