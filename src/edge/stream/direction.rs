//! One direction of a joined pair of streams.
//!
//! While few bytes pass they are copied through a buffer of the worker, and only what the sink does not take at once
//! is kept. Once the direction has streamed for a while between two sockets, the bytes are spliced through a pipe.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;

use super::pipes::Pipe;
use super::side::SideStream;
use crate::rules::limits::BytePace;

/// What is read at a time at first, and once the direction streams.
const SMALL_READ: usize = 16 << 10;
const LARGE_READ: usize = 64 << 10;

/// A read below this size ends a row of long reads.
const SHORT_READ: usize = 4 << 10;

/// The bytes in a row of long reads from which on a direction streams.
const STREAMING: usize = 128 << 10;

/// The number of short fills in a row after which a pipe is of no use.
const MAX_SHORT_FILLS: u8 = 8;

/// The reads, and the bytes, after which other tasks of the worker have their turn.
const MAX_READS: u32 = 32;
const MAX_BYTES: usize = 4 << 20;

thread_local! {
    /// The buffer of a worker: no session keeps one.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; LARGE_READ].into());
}

/// How a direction has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectionEnd {
    /// Its source has ended it, the sink has all the bytes and knows of the end.
    Finished,
    /// The connection of its source has failed; the sink has all the bytes that came before.
    SourceFailed,
    /// The connection of its sink has failed.
    SinkFailed,
}

/// What remains to be done before a direction is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DirectionPhase {
    Open,
    /// The source has ended.
    Ending,
    /// The source has failed.
    Failing,
}

/// The rate of a direction.
#[derive(Debug)]
struct DirectionRate {
    pace: BytePace,
    /// The most bytes that are read at a time.
    part: usize,
    /// When all bytes so far are due, and when the next may be read.
    due: u64,
    resume: u64,
}

/// One direction.
#[derive(Debug)]
pub struct Direction {
    phase: DirectionPhase,
    /// What the sink did not take at once, and how much of it the sink has taken since.
    rest: Vec<u8>,
    taken: usize,
    /// Whether TLS may have buffered what was written.
    unflushed: bool,
    pipe: Option<Pipe>,
    /// Whether the bytes cannot be spliced.
    copies: bool,
    /// The bytes in the present row of long reads, and the number of short fills of the pipe in a row.
    row: usize,
    short_fills: u8,
    rate: Option<Box<DirectionRate>>,
    /// Whether nothing is read for now.
    is_held: bool,
}

/// What a direction works on while it is polled.
pub struct DirectionContext<'d> {
    /// The source.
    pub from: &'d mut SideStream,
    /// The sink.
    pub to: &'d mut SideStream,
    /// The bytes that the sink has taken.
    pub count: &'d AtomicU64,
    /// Whether the connection of the source is known to have failed: its end is no end of the stream then.
    pub source_failed: bool,
    /// Whether nothing has ended the direction towards the source: if the system says that both of its directions have
    /// ended, the connection has failed.
    pub source_is_open: bool,
    /// The time, in nanoseconds; read only where there is a rate.
    pub now: &'d dyn Fn() -> u64,
}

impl Direction {
    /// Returns a direction at its begin; `rate` is in bytes per second.
    pub fn new(rate: Option<u64>) -> Self {
        let rate = rate.map(|rate| {
            // A twentieth of a second at a time, and as much as a burst.
            let part = usize::try_from(rate / 20).unwrap_or(usize::MAX).clamp(1, 1 << 20);
            Box::new(DirectionRate { pace: BytePace::new(rate, part as u64), part, due: 0, resume: 0 })
        });
        Self {
            phase: DirectionPhase::Open,
            rest: Vec::new(),
            taken: 0,
            unflushed: false,
            pipe: None,
            copies: false,
            row: 0,
            short_fills: 0,
            rate,
            is_held: false,
        }
    }

    /// Returns when the next bytes may be read, if the rate does not allow any now.
    pub fn resumes(&self) -> Option<u64> {
        self.rate.as_ref().filter(|rate| rate.resume > 0).map(|rate| rate.resume)
    }

    /// Sets whether nothing is read for now. What has been read is still delivered.
    pub fn hold(&mut self, held: bool) {
        self.is_held = held;
    }

    /// Returns whether nothing of it is in this process.
    pub fn is_empty(&self) -> bool {
        let in_pipe = self.pipe.as_ref().is_some_and(|pipe| pipe.held() > 0);
        self.phase == DirectionPhase::Open && !self.has_rest() && !self.unflushed && !in_pipe
    }

    /// Returns whether it has a pipe that is empty.
    pub fn has_idle_pipe(&self) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.held() == 0)
    }

    /// Gives the pipe back, if it is empty.
    pub fn release_pipe(&mut self) {
        if self.has_idle_pipe() {
            (self.pipe, self.row) = (None, 0);
        }
    }

    /// Returns whether bytes wait for the sink.
    fn has_rest(&self) -> bool {
        self.taken < self.rest.len()
    }

    /// Carries bytes as far as it goes, and resolves with the end of the direction.
    pub fn poll(&mut self, context: &mut Context<'_>, with: &mut DirectionContext<'_>) -> Poll<DirectionEnd> {
        let (mut reads, mut bytes) = (0, 0);
        loop {
            if ready!(self.poll_deliver(context, with)).is_err() {
                return Poll::Ready(DirectionEnd::SinkFailed);
            }
            match self.phase {
                DirectionPhase::Open => {}
                DirectionPhase::Ending => {
                    // A connection that has failed meanwhile is noted when it is read. With the last direction both
                    // connections are closed, which says the same.
                    if with.source_is_open || with.to.plain().is_none() {
                        let _ = ready!(with.to.poll_shutdown(context));
                    }
                    return Poll::Ready(DirectionEnd::Finished);
                }
                DirectionPhase::Failing => return Poll::Ready(DirectionEnd::SourceFailed),
            }
            if self.is_held || self.is_paused(with) {
                return Poll::Pending;
            }
            if reads == MAX_READS || bytes >= MAX_BYTES {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            reads += 1;
            match ready!(self.poll_carry(context, with)) {
                Ok(0) => {
                    // The error of a reset is reported once, and may have been to what is written to the source.
                    let failed = with.source_failed || with.source_is_open && with.from.has_failed();
                    self.phase = if failed { DirectionPhase::Failing } else { DirectionPhase::Ending };
                    self.release_pipe();
                }
                Ok(count) => {
                    bytes += count;
                    self.note_read(count, with);
                }
                Err(_) => {
                    self.phase = DirectionPhase::Failing;
                    self.release_pipe();
                }
            }
        }
    }

    /// Returns whether the rate allows no bytes now.
    fn is_paused(&mut self, with: &DirectionContext<'_>) -> bool {
        let Some(rate) = self.rate.as_mut().filter(|rate| rate.resume > 0) else { return false };
        if (with.now)() < rate.resume {
            return true;
        }
        rate.resume = 0;
        false
    }

    /// Notes what was read.
    fn note_read(&mut self, count: usize, with: &DirectionContext<'_>) {
        if let Some(rate) = &mut self.rate {
            let now = (with.now)();
            let (due, wait) = rate.pace.take(rate.due, count as u64, now);
            (rate.due, rate.resume) = (due, if wait > 0 { now + wait } else { 0 });
        }
        if self.pipe.is_some() {
            self.short_fills = if count < SHORT_READ { self.short_fills + 1 } else { 0 };
            // It is given back as soon as it is empty.
            return;
        }
        self.row = if count < SHORT_READ { 0 } else { self.row.saturating_add(count) };
    }

    /// Gives the sink what waits for it.
    fn poll_deliver(&mut self, context: &mut Context<'_>, with: &mut DirectionContext<'_>) -> Poll<io::Result<()>> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            let Some(to) = with.to.plain() else { return Poll::Ready(Err(io::ErrorKind::Unsupported.into())) };
            ready!(to.poll_write_ready(context))?;
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(count) => with.count.fetch_add(count as u64, Ordering::Relaxed),
                Err(error) if is_transient(&error) => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        if self.short_fills >= MAX_SHORT_FILLS {
            self.short_fills = 0;
            self.release_pipe();
        }
        while self.has_rest() {
            let count = ready!(with.to.poll_write(context, &self.rest[self.taken..]))?;
            with.count.fetch_add(count as u64, Ordering::Relaxed);
            self.taken += count;
            self.unflushed = true;
        }
        if self.taken > 0 {
            (self.rest, self.taken) = (Vec::new(), 0);
        }
        if self.unflushed {
            ready!(with.to.poll_flush(context))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once. Returns the number of bytes, 0 at the end of the stream.
    fn poll_carry(&mut self, context: &mut Context<'_>, with: &mut DirectionContext<'_>) -> Poll<io::Result<usize>> {
        let most = self.rate.as_ref().map_or(usize::MAX, |rate| rate.part);
        let spliced = self.pipe.is_some() || (self.row >= STREAMING && !self.copies && self.take_pipe(with));
        if !spliced {
            return self.poll_copy(context, with, most);
        }
        loop {
            let (Some(pipe), Some(from)) = (&mut self.pipe, with.from.plain()) else {
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            };
            ready!(from.poll_read_ready(context))?;
            match from.try_io(Interest::READABLE, || pipe.fill(from, most)) {
                Err(error) if is_transient(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    // Such a socket cannot be spliced.
                    (self.pipe, self.copies) = (None, true);
                    return self.poll_copy(context, with, most);
                }
                filled => return Poll::Ready(filled),
            }
        }
    }

    /// Takes a pipe, where both sides are sockets.
    fn take_pipe(&mut self, with: &DirectionContext<'_>) -> bool {
        if with.from.plain().is_none() || with.to.plain().is_none() {
            self.copies = true;
            return false;
        }
        self.pipe = Pipe::take();
        if self.pipe.is_none() {
            // There may be one later.
            self.row = 0;
        }
        self.pipe.is_some()
    }

    /// Reads into the buffer of the worker, and writes what the sink takes at once.
    fn poll_copy(
        &mut self,
        context: &mut Context<'_>,
        with: &mut DirectionContext<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let size = if self.row >= LARGE_READ { LARGE_READ } else { SMALL_READ }.min(most);
        SCRATCH.with_borrow_mut(|scratch| {
            let count = ready!(with.from.poll_read(context, &mut scratch[..size]))?;
            let mut bytes = &scratch[..count];
            while !bytes.is_empty() {
                match with.to.poll_write(context, bytes) {
                    Poll::Ready(Ok(written)) => {
                        with.count.fetch_add(written as u64, Ordering::Relaxed);
                        bytes = &bytes[written..];
                        self.unflushed = true;
                    }
                    // An error is met again when the rest is written.
                    Poll::Ready(Err(_)) | Poll::Pending => {
                        self.rest.extend_from_slice(bytes);
                        break;
                    }
                }
            }
            Poll::Ready(Ok(count))
        })
    }
}

/// Returns whether an operation is to be done again, when the socket is ready for it.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
