//! The I/O of a connection as Pingora sees it: deadlines for heads, and one write for each response.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::Stream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::clock;
use super::connection::Connection;
use super::spare;
use super::wire::Fault;
use crate::exchange::{Exchange, Reason, Rejection, render};
use crate::rules::protocols::{FrameScanner, Violation};
use crate::snapshot::Limits;
use crate::tls::TlsStream;

/// The most header fields that a request may have: on HTTP/1 Pingora counts them.
pub const MAX_FIELDS: usize = 256;

/// The most bytes of writes that are gathered before they are sent; a head and a small body fit.
const GATHER: usize = 8 * 1024;

/// Returns the response to a request that no phase of the proxy has seen.
fn early_rejection(reason: Reason, detail: &str) -> Vec<u8> {
    let rendered = render(&Rejection::new(reason, detail.to_owned()), &Exchange::default(), None);
    let (status, length) = (rendered.status, rendered.body.len());
    let phrase = http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
    let head = format!(
        "HTTP/1.1 {status} {phrase}\r\nconnection: close\r\ncontent-type: \
        application/problem+json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), &rendered.body].concat()
}

/// A stream with its connection's deadlines.
pub struct Guarded<S> {
    inner: S,
    connection: Arc<Connection>,
    head_time: Duration,
    /// How long the client may take nothing while something waits to be sent; `None` where the protocol above checks
    /// that.
    stall_time: Option<Duration>,
    /// The gathered writes; empty where the protocol above gathers by itself.
    gathered: Vec<u8>,
    gather: bool,
    /// Checks what an HTTP/2 client sends.
    frames: Option<Box<Http2Frames>>,
    id: UniqueIDType,
}

/// The frames of an HTTP/2 client.
struct Http2Frames {
    scanner: FrameScanner,
    since: u64,
    sent: u64,
}

impl Http2Frames {
    fn new() -> Box<Self> {
        // In addition there are up to five pseudo-headers.
        Box::new(Self { scanner: FrameScanner::new(MAX_FIELDS as u32 + 5), since: clock::now(), sent: 0 })
    }
}

impl<S> Guarded<S> {
    /// Guards a stream. With `gather`, for HTTP/1, small writes wait for a flush and stalled ones are cut.
    pub fn new(inner: S, connection: Arc<Connection>, limits: &Limits, gather: bool, id: UniqueIDType) -> Self {
        let stall_time = gather.then_some(limits.body_idle_time);
        let frames = (!gather).then(Http2Frames::new);
        Self { inner, connection, head_time: limits.header_time, stall_time, gathered: Vec::new(), gather, frames, id }
    }

    /// Returns whether the bytes that came may be read; if not, the connection ends with GOAWAY.
    fn is_read_further(&mut self, came: &[u8]) -> bool {
        let Some(frames) = &mut self.frames else { return true };
        let age = clock::now().saturating_sub(frames.since);
        let scanned = frames.scanner.scan(came, age, frames.sent);
        if let Err(why) = scanned {
            log::debug!("{}: HTTP/2: {why:?}", self.connection.client().address);
            let code = if why == Violation::PseudoTrailer {
                h2::Reason::PROTOCOL_ERROR
            } else {
                h2::Reason::ENHANCE_YOUR_CALM
            };
            self.connection.end_with_goaway(code.into());
        }
        scanned.is_ok()
    }

    fn count_sent(&mut self, outcome: &Poll<io::Result<usize>>) {
        if let (Some(frames), Poll::Ready(Ok(count))) = (&mut self.frames, outcome) {
            frames.sent += *count as u64;
        }
    }

    /// Notes whether a write could go on; one that has waited too long fails.
    fn watch<T>(&self, context: &Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match (&outcome, self.stall_time) {
            (Poll::Pending, Some(stall_time)) if self.connection.poll_stalled(context, stall_time) => {
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            (Poll::Ready(_), Some(_)) => {
                self.connection.note_output();
                outcome
            }
            _ => outcome,
        }
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        if self.gather {
            self.connection.close_softly();
        }
    }
}

impl<S> fmt::Debug for Guarded<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("connection", &self.connection).finish_non_exhaustive()
    }
}

/// A stream that knows whether there are bytes to read, without reading them.
pub trait Readable {
    /// Returns ready when a read would return bytes, an end or an error; occasionally it would return nothing.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Readable for TcpStream {
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_read_ready(context)
    }
}

impl Readable for TlsStream<TcpStream> {
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (socket, session) = self.get_mut();
        match session.process_new_packets() {
            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {
                socket.poll_readable(context)
            }
            _ => Poll::Ready(Ok(())),
        }
    }
}

/// Waits until there is something to read. A session of Pingora's that waits holds some twenty kilobytes, what waits
/// here almost nothing.
///
/// # Errors
/// Fails when the connection's time is over, or it is broken.
pub async fn readable(stream: &mut Stream) -> io::Result<()> {
    std::future::poll_fn(|context| Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut []))).await
}

impl<S: AsyncRead + AsyncWrite + Readable + Unpin> AsyncRead for Guarded<S> {
    /// Reads; a read into an empty buffer only waits until there is something to read.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.frames.is_some() && self.connection.has_goaway() {
            return Poll::Pending;
        }
        let again = self.connection.has_replay();
        let outcome = match buffer.capacity() {
            0 if again => Poll::Ready(Ok(())),
            0 => self.inner.poll_readable(context),
            _ if again => {
                self.connection.replay(buffer);
                Poll::Ready(Ok(()))
            }
            _ => Pin::new(&mut self.inner).poll_read(context, buffer),
        };
        match outcome {
            Poll::Ready(Ok(())) if !self.is_read_further(&buffer.filled()[before..]) => {
                buffer.set_filled(before);
                Poll::Pending
            }
            Poll::Ready(result) => Poll::Ready(result.and_then(|()| self.note_read(buffer, before, again))),
            Poll::Pending => self.poll_waiting(context, buffer.capacity() == 0),
        }
    }
}

impl<S> Guarded<S> {
    /// Notes what was read. A fault in it ends the connection where the request cannot be rejected.
    fn note_read(&self, buffer: &mut ReadBuf<'_>, before: usize, again: bool) -> io::Result<()> {
        if buffer.filled().len() == before || !self.gather {
            return Ok(());
        }
        let noted = match again {
            true => self.connection.note_read(buffer, before),
            false => self.connection.process_input(buffer, before),
        };
        self.connection.note_input(self.head_time);
        noted.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.text()))
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Waits for bytes. Returns ready only with an error.
    fn poll_waiting(&mut self, context: &mut Context<'_>, between: bool) -> Poll<io::Result<()>> {
        if !self.gathered.is_empty() {
            // Nothing else writes while this waits: what a left-out flush has left is sent now.
            let sent = self.poll_send(context);
            ready!(self.watch(context, sent))?;
        }
        if self.connection.poll_expired(context) {
            if self.connection.is_within_head() {
                // Best effort: the connection is closed anyway.
                self.connection.note_rejected(Reason::ClientTimeout);
                let late = early_rejection(Reason::ClientTimeout, "its head was not complete in time");
                let _ = Pin::new(&mut self.inner).poll_write(context, &late);
                let _ = Pin::new(&mut self.inner).poll_flush(context);
            }
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if between {
            spare::give(std::mem::take(&mut self.gathered));
        }
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Keeps bytes back until a flush.
    fn buffer_write(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() == 0 {
            self.gathered = spare::take();
        }
        self.gathered.extend_from_slice(bytes);
    }

    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sent = 0;
        while sent < self.gathered.len() {
            match Pin::new(&mut self.inner).poll_write(context, &self.gathered[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.gathered.drain(..sent);
                    return Poll::Pending;
                }
            }
        }
        self.gathered.clear();
        Poll::Ready(Ok(()))
    }

    /// Sends the gathered bytes and `bytes` in one write where the socket takes them.
    fn poll_send_with(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        while !self.gathered.is_empty() {
            let for_worker = self.gathered.len();
            let parts = [IoSlice::new(&self.gathered), IoSlice::new(bytes)];
            let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, &parts))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.drain(..count.min(for_worker));
            if count > for_worker {
                return Poll::Ready(Ok(count - for_worker));
            }
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }
}

/// What is wrong with a head that the parser rejects without saying why.
const UNREADABLE: &str =
    "its head cannot be parsed: a malformed line, two Host fields, more than 256 fields, or CONNECT";

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gather && self.connection.is_within_head() && bytes.starts_with(b"HTTP/1.1 4") {
            // Only Pingora's parser writes before a head is complete.
            let fault = self.connection.fault();
            let reason = fault.map_or(Reason::BadRequest, Fault::reason);
            self.connection.note_rejected(reason);
            let rejection = early_rejection(reason, fault.map_or(UNREADABLE, Fault::text));
            self.buffer_write(&rejection);
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.gather
            && let Some(date) = self.connection.take_date()
        {
            let at = self.gathered.len();
            self.buffer_write(bytes);
            set_date(&mut self.gathered[at..], date.as_bytes());
            if self.connection.sends_at_once() {
                // What the socket does not take goes with the next write.
                let _ = self.poll_send(context)?;
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        if self.gather && self.gathered.len() + bytes.len() <= GATHER && !self.connection.sends_at_once() {
            self.buffer_write(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        let outcome = self.poll_send_with(context, bytes);
        self.count_sent(&outcome);
        self.watch(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.gather || !self.gathered.is_empty() {
            let first = parts.iter().find(|p| !p.is_empty()).map_or(&[][..], |p| p);
            return self.poll_write(context, first);
        }
        let outcome = Pin::new(&mut self.inner).poll_write_vectored(context, parts);
        self.count_sent(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        !self.gather && self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gather && self.connection.uncork() {
            return Poll::Ready(Ok(()));
        }
        let outcome = match self.poll_send(context) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.inner).poll_flush(context),
            other => other,
        };
        self.watch(context, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// Replaces the date in a head. Both have the one length of RFC 9110, section 5.6.7; obsolete forms are not kept.
fn set_date(head: &mut [u8], date: &[u8]) {
    const LENGTH: usize = "Tue, 15 Nov 1994 08:12:31 GMT".len();
    let name = memchr::memmem::find(head, b"\r\nDate: ").or_else(|| memchr::memmem::find(head, b"\r\ndate: "));
    if let Some(at) = name.map(|at| at + "\r\nDate: ".len())
        && let (Some(place), LENGTH) = (head.get_mut(at..at + LENGTH), date.len())
    {
        place.copy_from_slice(date);
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send> Shutdown for Guarded<S> {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl<S> UniqueID for Guarded<S> {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

// Pingora would collect this for every request; the connection knows it once.
impl<S> Ssl for Guarded<S> {}

impl<S> GetTimingDigest for Guarded<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Guarded<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for Guarded<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl<S: Send> Peek for Guarded<S> {}
