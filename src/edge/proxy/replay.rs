//! A request whose whole body has been read, in the form that Pingora sees: with a body that can be sent any number
//! of times.
//!
//! Pingora sends a body again that a filter has read only up to its own buffer of 64 KiB. The session is therefore
//! wrapped in a custom one, whose buffer is the whole body; when the request ends the session is returned, so that
//! its connection can be reused.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;
use http::HeaderMap;
use parking_lot::Mutex;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::proxy;

/// The client's side of a request whose body is replayed.
#[derive(Default)]
struct ReplayState {
    /// The client's session, once its wrapper is dropped.
    back: Mutex<Option<ServerSession>>,
    /// Whether the connection is to be closed after the response.
    closes: AtomicBool,
}

/// A body that is replayed. Its holder can take the client's session back.
pub struct ReplayedBody {
    shared: Arc<ReplayState>,
    /// The body.
    pub body: Bytes,
}

impl std::fmt::Debug for ReplayedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("length", &self.body.len()).finish_non_exhaustive()
    }
}

impl ReplayedBody {
    /// Wraps the session in one with this body, which has been read from it whole.
    pub(super) fn begin(session: &mut proxy::Session, body: Bytes) -> Self {
        let shared = Arc::new(ReplayState::default());
        let client = mem::replace(&mut *session.downstream_session, placeholder());
        let replayed = ReplaySession { client, body: body.clone(), shared: Arc::clone(&shared) };
        *session.downstream_session = ServerSession::new_custom(Box::new(replayed));
        Self { shared, body }
    }

    /// Closes the connection after the response: Pingora checks only its own session.
    pub(super) fn close(&self) {
        self.shared.closes.store(true, Ordering::Relaxed);
    }

    /// Returns the session.
    pub(super) fn end(self, session: &mut proxy::Session) {
        // It is returned when its wrapper is dropped.
        *session.downstream_session = placeholder();
        if let Some(client) = self.shared.back.lock().take() {
            *session.downstream_session = client;
        }
    }
}

/// Returns a session that is never used.
pub(super) fn placeholder() -> ServerSession {
    ServerSession::new_http1(Box::new(tokio::io::duplex(1).0))
}

/// A wrapper of the client's session.
struct ReplaySession {
    client: ServerSession,
    body: Bytes,
    shared: Arc<ReplayState>,
}

impl Drop for ReplaySession {
    fn drop(&mut self) {
        let client = mem::replace(&mut self.client, placeholder());
        *self.shared.back.lock() = Some(client);
    }
}

impl ReplaySession {
    fn before_response(&mut self) {
        if self.shared.closes.load(Ordering::Relaxed) {
            self.client.set_keepalive(None);
        }
    }
}

#[async_trait]
impl Session for ReplaySession {
    fn req_header(&self) -> &RequestHeader {
        self.client.req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.client.req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        Ok(None)
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.before_response();
        match self.client.as_custom_mut() {
            Some(custom) => custom.write_response_header(head, end).await,
            None => self.client.write_response_header(head).await,
        }
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_response_header(Box::new(head.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.client.write_response_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.client.write_response_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.before_response();
        self.client.response_duplex_vec(tasks).await
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_read_timeout(timeout);
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.client.get_read_timeout()
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.client.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.client.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.client.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.client.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.client.response_written()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        self.client.shutdown().await;
    }

    fn is_body_done(&mut self) -> bool {
        true
    }

    async fn finish(&mut self) -> Result<()> {
        self.client.finish_body().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.body.is_empty()
    }

    /// Watches the client, which has nothing more to send.
    async fn read_body_or_idle(&mut self, _no_body_expected: bool) -> Result<Option<Bytes>> {
        self.client.read_body_or_idle(true).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.client.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.client.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.client.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.client.digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.client.client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.client.server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.client.to_h1_raw()
    }

    fn enable_retry_buffering(&mut self) {}

    fn retry_buffer_truncated(&self) -> bool {
        false
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        // Pingora would send an empty one on an HTTP/2 stream that has ended with its head.
        (!self.body.is_empty()).then(|| self.body.clone())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
