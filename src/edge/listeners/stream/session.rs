//! The stream as a session of Pingora's.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use h2::Reason;
use http::HeaderMap;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, ErrorType, OrErr, Result};

use super::{Http2Stream, RetryBuffer, SocketParts, is_end};

#[async_trait]
impl Session for Http2Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.next_part().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        if self.ended {
            return self.finish().await;
        }
        let limit = self.drain_timeout;
        let drain = async {
            while self.next_part().await?.is_some() {}
            Ok(())
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, drain)
                .await
                .or_err(ErrorType::ReadTimedout, "while draining the request body")?,
            None => drain.await,
        }
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.write_head(head, end).map_err(pingora::Error::into_down)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_head(Box::new(head.clone()), end).map_err(pingora::Error::into_down)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write_part(data, end).await.map_err(pingora::Error::into_down)
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.write_task(HttpTask::Trailer(Some(Box::new(trailers))), true)
            .await
            .map(|_| ())
            .map_err(pingora::Error::into_down)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut ended = false;
        let mut tasks = tasks.into_iter().peekable();
        while let Some(task) = tasks.next() {
            // The end is sent with what is before it.
            let last = tasks.peek().is_some_and(is_end);
            let failed = matches!(task, HttpTask::Failed(_));
            let done = self.write_task(task, last).await;
            ended |= if failed { done? } else { done.map_err(pingora::Error::into_down)? };
        }
        if ended {
            self.end().map_err(pingora::Error::into_down)?;
        }
        Ok(ended)
    }

    /// A stalled body is ended by [`Progress`], by the listener's limits.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri.path())
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        if !self.ended {
            self.progress.sending.reset(Reason::INTERNAL_ERROR);
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.body_over && self.early.is_empty()
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()?;
        if self.ended && !self.body_over {
            self.early.clear();
            self.linger().await;
        }
        Ok(())
    }

    fn is_body_empty(&mut self) -> bool {
        self.read == 0 && self.is_body_done()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_done() {
            self.progress.gone().await;
            return Error::e_explain(ErrorType::ConnectionClosed, "the client has reset the stream");
        }
        self.next_part().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.sent
    }

    fn body_bytes_read(&self) -> usize {
        self.read
    }

    fn digest(&self) -> Option<&Digest> {
        None
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        None
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    /// Only Pingora's subrequests would read it.
    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        let mut raw = BytesMut::new();
        raw.put_slice(self.request.method.as_str().as_bytes());
        raw.put_u8(b' ');
        raw.put_slice(self.request.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
        raw.put_slice(b" HTTP/1.1\r\n");
        self.request.header_to_h1_wire(&mut raw);
        raw.put_slice(b"\r\n");
        raw.freeze()
    }

    fn enable_retry_buffering(&mut self) {
        self.retry.get_or_insert_default();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry.as_ref().is_some_and(RetryBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry.as_ref()?.whole()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        let body = self.body.take_if(|_| self.is_socket)?;
        Some(Box::new(SocketParts(body)))
    }

    fn is_upgrade_req(&self) -> bool {
        self.is_socket
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
