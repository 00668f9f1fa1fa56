//! The two directions of a WebSocket over an HTTP/2 stream (RFC 8441) as streams of bytes.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::Stream;
use h2::RecvStream;
use h2::ext::Protocol;
use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request};
use pingora::{Error, ErrorType, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::progress::Progress;

const SEC_WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");

/// The longest part that is written at a time.
const MAX_WRITTEN: usize = 16 * 1024;

/// Returns whether a request opens a WebSocket (RFC 8441, section 4).
pub fn is_extended_connect(request: &Request<RecvStream>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    request.method() == Method::CONNECT && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// Gives such a request the form of the handshake of HTTP/1.1 (RFC 8441, section 5), which routes, filters and targets
/// know. The key is the gateway's own.
pub fn set_handshake(head: &mut http::request::Parts) {
    head.method = Method::GET;
    head.extensions.remove::<Protocol>();
    head.headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    head.headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let key = std::array::from_fn::<u8, 16, _>(|_| fastrand::u8(..));
    let key = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, key);
    if let Ok(key) = HeaderValue::try_from(key) {
        head.headers.insert(SEC_WEBSOCKET_KEY, key);
    }
}

/// What the client sends.
pub struct SocketParts(pub RecvStream);

impl Stream for SocketParts {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let part = ready!(self.0.poll_data(context));
        Poll::Ready(part.map(|part| match part {
            Ok(part) => {
                // An error here is that of a stream that has ended.
                let _ = self.0.flow_control().release_capacity(part.len());
                Ok(part)
            }
            Err(error) => Err(Error::because(ErrorType::ReadError, "while reading a WebSocket", error)),
        }))
    }
}

/// The parts of a stream as bytes.
pub struct SocketReader {
    parts: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync>,
    rest: Bytes,
}

impl SocketReader {
    /// Returns the bytes of those parts.
    pub fn new(parts: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync>) -> Self {
        Self { parts, rest: Bytes::new() }
    }
}

impl AsyncRead for SocketReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.parts).poll_next(context)) {
                Some(Ok(part)) => self.rest = part,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error.to_string()))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest[..taken]);
        self.rest.advance(taken);
        Poll::Ready(Ok(()))
    }
}

/// What the client is sent, once the head of the response was.
pub struct SocketWriter(pub Arc<Progress>);

impl AsyncWrite for SocketWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sending = &self.0.sending;
        sending.reserve(bytes.len().min(MAX_WRITTEN));
        let free = match ready!(sending.poll_capacity(context)) {
            Some(Ok(free)) => free,
            Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        let taken = free.min(bytes.len());
        let sent = sending.data(Bytes::copy_from_slice(&bytes[..taken]), false);
        Poll::Ready(sent.map(|()| taken).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // An error here is that of a stream that has ended.
        let _ = self.0.sending.data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}
