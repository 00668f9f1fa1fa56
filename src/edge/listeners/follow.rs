//! The bytes of an HTTP/1 connection, and where its requests begin and end in them.
//!
//! Pingora's parser repairs request lines and accepts anything in a chunk line, so both are checked before it has
//! them. For that the connection follows the framing itself: it knows the length of each head from intake, the body
//! from its Content-Length or its chunks, and keeps a copy of what was read behind the end of a request. The next
//! request begins with that copy; Pingora's own is dropped. Nothing of a head is copied, and so nothing of a plain
//! GET.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use tokio::io::ReadBuf;

use super::connection::Connection;
use super::linger::half_close;
use super::spare;
use super::wire::{Fault, Framing, HeadEnd, RareState};
use crate::exchange::Reason;
use crate::rules::protocols::{Chunks, RequestLine};

/// The most bytes that are kept of what comes behind the end of a request. Pingora reads at most 64 KiB ahead; where
/// more comes, the stream is no longer HTTP/1.
const MAX_BEHIND: usize = 256 * 1024;

impl Connection {
    /// Returns whether bytes are to be read again.
    pub fn has_replay(&self) -> bool {
        self.replays.load(Ordering::Relaxed)
    }

    /// Copies the bytes that are to be read again into `buffer`.
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

    /// Takes in octets from the client; those from `before` on are new in the buffer. They may be replaced by others.
    ///
    /// # Errors
    /// Fails when the chunks of a body are malformed.
    pub fn process_input(&self, buffer: &mut ReadBuf<'_>, before: usize) -> Result<(), Fault> {
        if self.is_in_head() {
            self.take_head(buffer, before);
        }
        self.note_read(buffer, before)
    }

    /// Follows the request line in a part of a head.
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

    /// Notes the bytes that Pingora is given, new or read again.
    ///
    /// # Errors
    /// Fails when the chunks of a body are malformed.
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
            // Nothing reads it.
            u64::MAX => Ok(()),
            known if to <= known => Ok(()),
            known => self.note_behind(at, known, bytes),
        }
    }

    /// Notes octets behind what is known of the requests so far.
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
        if wire.kept.len() + rest.len() > MAX_BEHIND {
            wire.forget();
            self.known.store(u64::MAX, Ordering::Relaxed);
            return Ok(());
        }
        wire.keep(from, rest);
        Ok(())
    }

    /// Notes that a request has begun: the length of its head, and the framing of its body. `None` means that the
    /// framing is unknown, after which the connection is not to be reused.
    ///
    /// # Errors
    /// Fails when the part of its body that has come is malformed.
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

    /// Notes that what comes from now on is not HTTP/1.
    pub fn stop_following(&self) {
        self.known.store(u64::MAX, Ordering::Relaxed);
        let mut wire = self.wire.lock();
        let wire = wire.more();
        wire.tunnelled = true;
        wire.forget();
    }

    /// Prepares for the close of the stream. If more of a request may come, the client gets the time to read the
    /// response to it; the task of the connection takes the rest of the socket with [`Connection::take_left`].
    pub(super) fn close_softly(&self) {
        let wire = &mut *self.wire.lock();
        let more = wire.more.as_ref();
        let begun = more.is_some_and(|more| more.chunks.is_some() || more.rejected.is_some());
        let unread = begun || self.known.load(Ordering::Relaxed) > self.came.load(Ordering::Relaxed);
        if unread && !more.is_some_and(|more| more.tunnelled) && !self.is_cut() {
            wire.more().left = half_close(self.fd());
        }
    }

    /// Returns the rest of the socket after [`Connection::close_softly`].
    pub(super) fn take_left(&self) -> Option<OwnedFd> {
        self.wire.lock().more.as_mut()?.left.take()
    }

    /// Notes that a request was rejected before any phase of the proxy has seen it.
    pub fn note_rejected(&self, reason: Reason) {
        self.wire.lock().more().rejected = Some(reason);
    }

    /// Takes the reason for which a request was rejected so.
    pub fn take_rejected(&self) -> Option<Reason> {
        self.wire.lock().more.as_mut()?.rejected.take()
    }

    /// Returns the fault in what has come, if any.
    pub fn fault(&self) -> Option<Fault> {
        self.wire.lock().more.as_ref()?.fault
    }

    /// Lets a next request begin where the last one ended: what was read behind that is read again. Returns false if
    /// that place is unknown.
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
            wire.more = Some(Box::new(RareState {
                fault,
                replay: more.replay,
                replayed: more.replayed,
                ..RareState::default()
            }));
            self.came.store(known, Ordering::Relaxed);
            self.replays.store(true, Ordering::Relaxed);
        }
        true
    }
}
