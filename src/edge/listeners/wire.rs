//! What has come on an HTTP/1 connection, and where its requests begin and end in it.
//!
//! Pingora's parser repairs request lines and takes anything in a chunk line, so both are looked at before it has them.
//! For that the connection follows the framing itself: it knows the length of each head from intake, the body from its
//! Content-Length or its chunks, and keeps a copy of what was read behind the end of a request. That copy is what the
//! next request begins with; Pingora's own is dropped. A read that ends with its head, as that of every plain GET does, is
//! not copied.

use std::os::fd::OwnedFd;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use memchr::memmem::Finder;
use tokio::io::ReadBuf;

use super::connection::Connection;
use super::linger::half_close;
use super::spare;
use crate::exchange::Reason;
use crate::rules::protocols::{Chunks, Malformed, RequestLine, TargetFault};

/// The most that is kept of what comes behind the end of a request. Pingora reads at most 64 KiB ahead; where more
/// comes, the stream is no longer HTTP/1.
const MOST_BEHIND: usize = 256 * 1024;

const HEAD_END: &[u8] = b"\r\n\r\n";

static FIND_HEAD_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(HEAD_END));

/// How the body of a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By this many octets; 0 where there is no body.
    Length(usize),
    /// In chunks.
    Chunked,
}

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The target of a request.
    Target(TargetFault),
    /// The chunks of a body.
    Chunks,
}

impl Fault {
    /// The reason of the rejection.
    pub fn reason(self) -> Reason {
        match self {
            Self::Target(TargetFault::TooLong) => Reason::UriTooLong,
            _ => Reason::BadRequest,
        }
    }

    /// Returns what the client is told.
    pub fn text(self) -> &'static str {
        match self {
            Self::Target(fault) => fault.text(),
            Self::Chunks => Malformed.text(),
        }
    }
}

/// The part of a connection that only its own task uses.
#[derive(Debug, Default)]
pub struct Wire {
    line: RequestLine,
    fault: Option<Fault>,
    /// How a request ended that no phase of the proxy has seen.
    rejected: Option<Reason>,
    chunks: Option<Box<Chunks>>,
    /// Whether something else than HTTP/1 is spoken by now.
    tunnelled: bool,
    /// What is left of the socket of a client that may still be sending.
    left: Option<OwnedFd>,
    /// Octets that may belong to a body or to a next request, and the place of the first of them.
    kept: Vec<u8>,
    kept_from: u64,
    /// Octets that are read before any others, and how many of them were.
    replay: Vec<u8>,
    replayed: usize,
}

impl Wire {
    /// Keeps octets that begin at this place.
    fn keep(&mut self, at: u64, bytes: &[u8]) {
        if self.kept_from + self.kept.len() as u64 != at {
            // What was kept before is over: something in between was not worth it.
            self.kept.clear();
        }
        if self.kept.is_empty() {
            self.kept_from = at;
            if self.kept.capacity() == 0 {
                self.kept = spare::take();
            }
        }
        self.kept.extend_from_slice(bytes);
    }

    fn forget(&mut self) {
        self.kept.clear();
        spare::give(std::mem::take(&mut self.kept));
    }

    /// Follows the request line in `bytes`; what they become where that is something longer.
    fn follow_line(&mut self, bytes: &mut [u8]) -> Option<Vec<u8>> {
        let before = self.line;
        let seen = self.line.follow(bytes);
        self.fault = self.fault.or(seen.fault.map(Fault::Target));
        seen.encode.then(|| before.encode(bytes))
    }

    /// Follows the chunks in what is kept, from this place on. The place where the body ends, if it does.
    fn follow_kept(&mut self, from: u64, to: u64) -> Result<Option<u64>, Fault> {
        let Some(chunks) = &mut self.chunks else { return Ok(None) };
        let begun = usize::try_from(from.saturating_sub(self.kept_from)).unwrap_or(usize::MAX);
        let whole = from == to || (from >= self.kept_from && self.kept_from + self.kept.len() as u64 == to);
        let bytes = match from == to {
            true => &[],
            false => self.kept.get(begun..).unwrap_or_default(),
        };
        match chunks.feed(bytes) {
            Ok(taken) if whole => Ok(chunks.is_done().then_some(from + taken as u64)),
            _ => Err(Fault::Chunks),
        }
    }
}

impl Connection {
    /// Whether something is there that came before.
    pub fn has_replay(&self) -> bool {
        self.replays.load(Ordering::Relaxed)
    }

    /// Gives what came before, if there is any.
    pub fn replay(&self, buffer: &mut ReadBuf<'_>) {
        let wire = &mut *self.wire.lock();
        let left = &wire.replay[wire.replayed..];
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        wire.replayed += count;
        if wire.replayed == wire.replay.len() {
            wire.replay.clear();
            spare::give(std::mem::take(&mut wire.replay));
            wire.replayed = 0;
            self.replays.store(false, Ordering::Relaxed);
        }
    }

    /// Octets have come from the client; those from `before` on are new in the buffer. They may become other ones.
    ///
    /// # Errors
    /// When a body's chunks are malformed.
    pub fn take_in(&self, buffer: &mut ReadBuf<'_>, before: usize) -> Result<(), Fault> {
        if self.is_in_head() {
            self.take_head(buffer, before);
        }
        self.note_read(buffer, before)
    }

    /// A part of a head: its request line is followed.
    fn take_head(&self, buffer: &mut ReadBuf<'_>, before: usize) {
        let wire = &mut *self.wire.lock();
        if let Some(longer) = wire.follow_line(&mut buffer.filled_mut()[before..]) {
            buffer.set_filled(before);
            let fits = longer.len().min(buffer.remaining());
            buffer.put_slice(&longer[..fits]);
            if fits < longer.len() {
                (wire.replay, wire.replayed) = (longer, fits);
                self.replays.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Notes what Pingora is given, wherever it is from.
    ///
    /// # Errors
    /// When a body's chunks are malformed.
    pub fn note_read(&self, buffer: &ReadBuf<'_>, before: usize) -> Result<(), Fault> {
        let bytes = &buffer.filled()[before..];
        // Only the connection's own task writes it.
        let at = self.came.load(Ordering::Relaxed);
        let to = at + bytes.len() as u64;
        self.came.store(to, Ordering::Relaxed);
        if self.is_in_head() {
            let begun = self.head_begun.load(Ordering::Relaxed);
            let whole = !begun && bytes.ends_with(HEAD_END) && FIND_HEAD_END.find(bytes) == Some(bytes.len() - HEAD_END.len());
            if !whole {
                self.wire.lock().keep(at, bytes);
            }
            return Ok(());
        }
        match self.known.load(Ordering::Relaxed) {
            // Nobody asks for it.
            u64::MAX => Ok(()),
            known if to <= known => Ok(()),
            known => self.note_behind(at, known, bytes),
        }
    }

    /// Octets behind what is known of the requests so far.
    fn note_behind(&self, at: u64, known: u64, bytes: &[u8]) -> Result<(), Fault> {
        let wire = &mut *self.wire.lock();
        let (mut from, mut rest) = match known.checked_sub(at) {
            Some(skip) => (known, &bytes[usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len())..]),
            None => (at, bytes),
        };
        if let Some(chunks) = &mut wire.chunks {
            let Ok(taken) = chunks.feed(rest) else {
                wire.fault = Some(Fault::Chunks);
                return Err(Fault::Chunks);
            };
            if !chunks.is_done() {
                return Ok(());
            }
            wire.chunks = None;
            from += taken as u64;
            rest = &rest[taken..];
            self.known.store(from, Ordering::Relaxed);
        }
        if rest.is_empty() {
            return Ok(());
        }
        if wire.kept.len() + rest.len() > MOST_BEHIND {
            wire.forget();
            self.known.store(u64::MAX, Ordering::Relaxed);
            return Ok(());
        }
        wire.keep(from, rest);
        Ok(())
    }

    /// A request has begun: its head has that many octets, and this is how its body is framed; `None` where nobody can
    /// tell, after which the connection is not to be used for another one.
    ///
    /// # Errors
    /// When the part of its body that has come is malformed.
    pub fn begin_request(&self, framed: Option<(usize, Framing)>) -> Result<(), Fault> {
        let Some((head, framing)) = framed else {
            self.known.store(u64::MAX, Ordering::Relaxed);
            return Ok(());
        };
        let begins = self.known.load(Ordering::Relaxed).saturating_add(head as u64);
        self.framed.store(true, Ordering::Relaxed);
        let Framing::Chunked = framing else {
            let Framing::Length(length) = framing else { return Ok(()) };
            self.known.store(begins.saturating_add(length as u64), Ordering::Relaxed);
            return Ok(());
        };
        let came = self.came.load(Ordering::Relaxed);
        let wire = &mut *self.wire.lock();
        wire.chunks = Some(Box::default());
        match wire.follow_kept(begins, came) {
            Ok(Some(end)) => {
                wire.chunks = None;
                self.known.store(end, Ordering::Relaxed);
                Ok(())
            }
            Ok(None) => {
                // What comes next is behind it.
                self.known.store(came, Ordering::Relaxed);
                Ok(())
            }
            Err(fault) => {
                wire.fault = Some(fault);
                self.known.store(u64::MAX, Ordering::Relaxed);
                Err(fault)
            }
        }
    }

    /// What comes from now on is no HTTP/1.
    pub fn follow_no_more(&self) {
        self.known.store(u64::MAX, Ordering::Relaxed);
        let wire = &mut *self.wire.lock();
        wire.tunnelled = true;
        wire.forget();
    }

    /// The stream is about to be closed. If more of a request may come, the client gets the time to read the response to
    /// it; whoever runs the connection finds what is left in [`Connection::take_left`].
    pub(super) fn close_softly(&self) {
        let wire = &mut *self.wire.lock();
        let known = self.known.load(Ordering::Relaxed);
        let unread = known > self.came.load(Ordering::Relaxed) || wire.chunks.is_some() || wire.rejected.is_some();
        if unread && !wire.tunnelled && !self.is_cut() {
            wire.left = half_close(self.fd());
        }
    }

    /// What is left of the socket after [`Connection::close_softly`].
    pub(super) fn take_left(&self) -> Option<OwnedFd> {
        self.wire.lock().left.take()
    }

    /// Notes that a request was rejected before any phase of the proxy has seen it.
    pub fn note_rejected(&self, reason: Reason) {
        self.wire.lock().rejected = Some(reason);
    }

    /// The reason for which a request was rejected so, given once.
    pub fn take_rejected(&self) -> Option<Reason> {
        self.wire.lock().rejected.take()
    }

    /// What is wrong with what came.
    pub fn fault(&self) -> Option<Fault> {
        self.wire.lock().fault
    }

    /// A next request may begin where the last one ended: what was read behind that is read again. False if nobody
    /// knows where that is.
    pub(super) fn rewind(&self) -> bool {
        let known = self.known.load(Ordering::Relaxed);
        let came = self.came.load(Ordering::Relaxed);
        let wire = &mut *self.wire.lock();
        let framed = self.framed.swap(false, Ordering::Relaxed);
        if !framed || known > came || wire.chunks.is_some() || wire.fault.is_some() {
            return false;
        }
        wire.line = RequestLine::default();
        if known < came {
            let begun = known.checked_sub(wire.kept_from).and_then(|begun| usize::try_from(begun).ok());
            let Some(rest) = begun.and_then(|begun| wire.kept.get(begun..)) else { return false };
            if known + rest.len() as u64 != came {
                return false;
            }
            let mut rest = rest.to_vec();
            // Some may not have been given for the last request at all.
            rest.extend_from_slice(&wire.replay[wire.replayed..]);
            if let Some(longer) = wire.follow_line(&mut rest) {
                rest = longer;
            }
            (wire.replay, wire.replayed) = (rest, 0);
            self.came.store(known, Ordering::Relaxed);
            self.replays.store(true, Ordering::Relaxed);
        }
        wire.forget();
        true
    }
}
