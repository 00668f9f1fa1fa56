//! What has come on an HTTP/1 connection, and where its requests begin and end in it.
//!
//! Pingora's parser repairs request lines and takes anything in a chunk line, so both are looked at before it has them.
//! For that the connection follows the framing itself: it knows the length of each head from intake, the body from its
//! Content-Length or its chunks, and keeps a copy of what was read behind the end of a request. That copy is what the
//! next request begins with; Pingora's own is dropped. Nothing of a head is copied, and so nothing of a plain GET.

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

/// Finds the first end of a head through as many parts as it comes in.
#[derive(Clone, Copy, Debug, Default)]
struct HeadEnd {
    /// How many octets of it have come.
    matched: u8,
    found: bool,
}

impl HeadEnd {
    /// The place in `bytes` behind it, or of all of them once it has come; `None` as long as it has not.
    fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.found {
            return Some(0);
        }
        let mut begun = 0;
        while self.matched > 0 && begun < bytes.len() {
            self.step(bytes[begun]);
            begun += 1;
            if self.found {
                return Some(begun);
            }
        }
        let rest = &bytes[begun..];
        let at = match end_with_head(rest) {
            true => Some(rest.len() - HEAD_END.len()),
            false => FIND_HEAD_END.find(rest),
        };
        self.found = at.is_some();
        if at.is_none() {
            rest[rest.len().saturating_sub(HEAD_END.len() - 1)..].iter().for_each(|byte| self.step(*byte));
        }
        at.map(|at| begun + at + HEAD_END.len())
    }

    fn step(&mut self, byte: u8) {
        self.matched = match byte {
            byte if byte == HEAD_END[usize::from(self.matched)] => self.matched + 1,
            b'\r' => 1,
            _ => 0,
        };
        if usize::from(self.matched) == HEAD_END.len() {
            (self.matched, self.found) = (0, true);
        }
    }
}

/// Whether octets end with the first end of a head in them. Sometimes false where they do.
fn end_with_head(bytes: &[u8]) -> bool {
    let Some(before) = bytes.strip_suffix(HEAD_END) else { return false };
    // No branch: the compiler takes sixteen octets at a time, where a search would stop at each line.
    let pairs = before.iter().zip(&bytes[2..]);
    !pairs.fold(false, |found, (one, other)| found | ((*one == b'\r') & (*other == b'\r')))
}

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
    end: HeadEnd,
    /// What most connections never need, and idle ones not at the moment.
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    fault: Option<Fault>,
    /// How a request ended that no phase of the proxy has seen.
    rejected: Option<Reason>,
    chunks: Option<Chunks>,
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
    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// Follows the request line in `bytes`; what they become where that is something longer.
    fn follow_line(&mut self, bytes: &mut [u8]) -> Option<Vec<u8>> {
        let before = self.line;
        let seen = self.line.follow(bytes);
        if let Some(fault) = seen.fault {
            self.more().fault.get_or_insert(Fault::Target(fault));
        }
        seen.encode.then(|| before.encode(bytes))
    }
}

impl More {
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

    /// What came from this place on to that one, if it is kept.
    fn kept_behind(&self, from: u64, to: u64) -> Option<&[u8]> {
        if from == to {
            return Some(&[]);
        }
        let begun = usize::try_from(from.checked_sub(self.kept_from)?).ok()?;
        self.kept.get(begun..).filter(|behind| from + behind.len() as u64 == to)
    }

    /// Has what came from this place on to that one replayed, before what is to be replayed already. False if it is not
    /// kept.
    fn take_back(&mut self, from: u64, to: u64) -> bool {
        let Some(behind) = self.kept_behind(from, to) else { return false };
        if !self.replay.is_empty() && self.replayed >= behind.len() {
            // It was replayed itself: many small requests in one read are not copied again and again.
            self.replayed -= behind.len();
        } else {
            (self.replay, self.replayed) = ([behind, &self.replay[self.replayed..]].concat(), 0);
        }
        true
    }

    /// Follows the chunks in what is kept, from this place on. The place where the body ends, if it does.
    fn follow_kept(&mut self, from: u64, to: u64) -> Result<Option<u64>, Fault> {
        let mut chunks = self.chunks.take().unwrap_or_default();
        let behind = self.kept_behind(from, to).ok_or(Fault::Chunks)?;
        let taken = chunks.feed(behind).map_err(|Malformed| Fault::Chunks)?;
        if chunks.is_done() {
            return Ok(Some(from + taken as u64));
        }
        self.chunks = Some(chunks);
        Ok(None)
    }
}

impl Connection {
    /// Whether something is there that came before.
    pub fn has_replay(&self) -> bool {
        self.replays.load(Ordering::Relaxed)
    }

    /// Gives what came before, if there is any.
    pub fn replay(&self, buffer: &mut ReadBuf<'_>) {
        let mut wire = self.wire.lock();
        let wire = wire.more();
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
                let more = wire.more();
                (more.replay, more.replayed) = (longer, fits);
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
            let wire = &mut *self.wire.lock();
            if let Some(end) = wire.end.follow(bytes)
                && end < bytes.len()
            {
                wire.more().keep(at + end as u64, &bytes[end..]);
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
        let mut wire = self.wire.lock();
        let wire = wire.more();
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
        let mut wire = self.wire.lock();
        let wire = wire.more();
        wire.chunks = Some(Chunks::default());
        match wire.follow_kept(begins, came) {
            Ok(Some(end)) => {
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
        let mut wire = self.wire.lock();
        let wire = wire.more();
        wire.tunnelled = true;
        wire.forget();
    }

    /// The stream is about to be closed. If more of a request may come, the client gets the time to read the response to
    /// it; whoever runs the connection finds what is left in [`Connection::take_left`].
    pub(super) fn close_softly(&self) {
        let wire = &mut *self.wire.lock();
        let more = wire.more.as_ref();
        let begun = more.is_some_and(|more| more.chunks.is_some() || more.rejected.is_some());
        let unread = begun || self.known.load(Ordering::Relaxed) > self.came.load(Ordering::Relaxed);
        if unread && !more.is_some_and(|more| more.tunnelled) && !self.is_cut() {
            wire.more().left = half_close(self.fd());
        }
    }

    /// What is left of the socket after [`Connection::close_softly`].
    pub(super) fn take_left(&self) -> Option<OwnedFd> {
        self.wire.lock().more.as_mut()?.left.take()
    }

    /// Notes that a request was rejected before any phase of the proxy has seen it.
    pub fn note_rejected(&self, reason: Reason) {
        self.wire.lock().more().rejected = Some(reason);
    }

    /// The reason for which a request was rejected so, given once.
    pub fn take_rejected(&self) -> Option<Reason> {
        self.wire.lock().more.as_mut()?.rejected.take()
    }

    /// What is wrong with what came.
    pub fn fault(&self) -> Option<Fault> {
        self.wire.lock().more.as_ref()?.fault
    }

    /// A next request may begin where the last one ended: what was read behind that is read again. False if nobody
    /// knows where that is.
    pub(super) fn rewind(&self) -> bool {
        let known = self.known.load(Ordering::Relaxed);
        let came = self.came.load(Ordering::Relaxed);
        let wire = &mut *self.wire.lock();
        let framed = self.framed.swap(false, Ordering::Relaxed);
        let unfinished = wire.more.as_ref().is_some_and(|more| more.chunks.is_some() || more.fault.is_some());
        if !framed || known > came || unfinished {
            return false;
        }
        (wire.line, wire.end) = (RequestLine::default(), HeadEnd::default());
        let Some(mut more) = wire.more.take() else { return known == came };
        if !more.take_back(known, came) {
            return false;
        }
        more.forget();
        if more.replay.len() > more.replayed {
            if let Some(longer) = wire.follow_line(&mut more.replay[more.replayed..]) {
                (more.replay, more.replayed) = (longer, 0);
            }
            let fault = wire.more.take().and_then(|noted| noted.fault);
            wire.more = Some(Box::new(More { fault, replay: more.replay, replayed: more.replayed, ..More::default() }));
            self.came.store(known, Ordering::Relaxed);
            self.replays.store(true, Ordering::Relaxed);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head() {
        for whole in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n", "\r\n\r\n"] {
            assert!(end_with_head(whole.as_bytes()), "{whole:?}");
        }
        let ends: &[(&str, Option<usize>)] = &[
            ("a\r\n\r\nbody", Some(5)),
            ("\r\r\n\r\nb", Some(5)),
            ("\r\n\r\r\n\r\nb", Some(7)),
            ("a\r\nb\r\n\r\n", Some(8)),
            ("a\r\n\r\nb\r\n\r\n", Some(5)),
            ("a\r\n\rb\r\n", None),
            ("\n\n\r\n", None),
        ];
        for (head, end) in ends {
            for cut in 0..head.len() {
                for second in cut..head.len() {
                    let (mut finder, mut at, mut found) = (HeadEnd::default(), 0, None);
                    for part in [&head[..cut], &head[cut..second], &head[second..]] {
                        let seen = finder.follow(part.as_bytes());
                        found = found.or(seen.map(|place| at + place));
                        at += part.len();
                    }
                    assert_eq!(found, *end, "{head:?} cut at {cut} and {second}");
                }
            }
        }
        for other in ["", "\r\n", "GET / HTTP/1.1\r\n", "a\r\n\r\nb\r\n\r\n", "a\r\n\r\nb", "\r\n\r\n\r\n\r\n", "a\r\n\r\n\r\n"] {
            assert!(!end_with_head(other.as_bytes()), "{other:?}");
        }
    }
}
