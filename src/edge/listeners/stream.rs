//! One HTTP/2 stream as Pingora's proxy sees it: a custom server session over the `h2` crate.
//!
//! Pingora 0.9.1 has a session too, and this is the one place that works round its faults. It passes an empty last
//! DATA frame on as a part of the body, so that an HTTP/1 target gets two closing chunks (pingora#935); it treats a
//! request with `content-length: 0` as one without a body, whatever follows; it drops interim responses; it loses the
//! END_STREAM of a response without a body; it overwrites `Date`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use h2::RecvStream;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, ErrorType, OrErr, Result};

use super::fields::{join_cookies, set_host};
use super::http2_socket::{SocketParts, is_extended_connect, set_handshake};
use super::progress::Progress;
use super::retry::RetryBuffer;

/// Connection-specific fields of HTTP/1, which make an HTTP/2 response malformed (RFC 9113, section 8.2.2).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

const SEC_WEBSOCKET_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");

/// The most bytes of a body that are checked before the request is forwarded, where they have come with the head.
const MAX_EARLY_BODY: usize = 16 * 1024;

/// How much is read at most of a body that is no longer needed, and for how long.
const MAX_LINGER_BODY: usize = 1024 * 1024;
const STREAM_LINGER_TIMEOUT: Duration = Duration::from_secs(2);

/// A stream.
pub struct Http2Stream {
    request: RequestHeader,
    /// `None` once a WebSocket reads it.
    body: Option<RecvStream>,
    /// Whether it is the handshake of a WebSocket.
    is_socket: bool,
    /// The parts of the body that were taken before they were read.
    early: VecDeque<Bytes>,
    body_over: bool,
    progress: Arc<Progress>,
    /// The head of the final response.
    written: Option<Box<ResponseHeader>>,
    /// Whether the response has ended.
    ended: bool,
    read: usize,
    sent: usize,
    retry: Option<RetryBuffer>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

/// The error that a request is malformed (RFC 9113, section 8.1.1); the stream is reset.
pub struct MalformedRequest;

impl Http2Stream {
    /// Takes a stream that was accepted. What has come of its body with the head is checked first: the `h2` crate
    /// counts the body against the content-length, and what is malformed by then is never forwarded.
    ///
    /// # Errors
    /// Fails when the request is malformed.
    pub async fn begin(
        request: Request<RecvStream>,
        progress: Arc<Progress>,
    ) -> std::result::Result<Self, MalformedRequest> {
        let is_socket = is_extended_connect(&request);
        let (mut head, body) = request.into_parts();
        join_cookies(&mut head.headers);
        set_host(&mut head);
        if is_socket {
            set_handshake(&mut head);
        }
        // What follows a handshake is no body.
        let body_over = is_socket || body.is_end_stream();
        let mut stream = Self {
            request: RequestHeader::from(head),
            body: Some(body),
            is_socket,
            early: VecDeque::new(),
            body_over,
            progress,
            written: None,
            ended: false,
            read: 0,
            sent: 0,
            retry: None,
            write_timeout: None,
            drain_timeout: None,
        };
        if !body_over {
            stream.take_early().await?;
        }
        Ok(stream)
    }

    async fn take_early(&mut self) -> std::result::Result<(), MalformedRequest> {
        let mut taken = 0;
        // No part can follow, so only the end is waited for.
        let is_empty = self.request.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        while !self.body_over && taken < MAX_EARLY_BODY {
            let Some(body) = &mut self.body else { break };
            let part = match is_empty {
                true => Some(body.data().await),
                false => body.data().now_or_never(),
            };
            match part {
                None => break,
                Some(Some(Ok(part))) => {
                    self.body_over = body.is_end_stream();
                    taken += part.len();
                    if !part.is_empty() {
                        self.early.push_back(part);
                    }
                }
                Some(Some(Err(_))) => return Err(MalformedRequest),
                Some(None) => self.body_over = true,
            }
        }
        Ok(())
    }

    /// Returns the next part of the body that is not empty; `None` at its end.
    async fn next_part(&mut self) -> Result<Option<Bytes>> {
        if let Some(part) = self.early.pop_front() {
            return Ok(Some(self.hand_out(part)));
        }
        while !self.body_over {
            let Some(body) = &mut self.body else { return Ok(None) };
            match body.data().await.transpose().or_err(ErrorType::ReadError, "while reading the request body")? {
                None => self.body_over = true,
                Some(part) => {
                    self.body_over = body.is_end_stream();
                    if !part.is_empty() {
                        return Ok(Some(self.hand_out(part)));
                    }
                }
            }
        }
        Ok(None)
    }

    fn hand_out(&mut self, part: Bytes) -> Bytes {
        self.read += part.len();
        if let Some(retry) = &mut self.retry {
            retry.push(&part);
        }
        // An error here is that of a stream that has ended.
        self.body.iter_mut().for_each(|body| _ = body.flow_control().release_capacity(part.len()));
        part
    }

    /// Returns whether the response has no body, whatever its head says of one (RFC 9110, section 6.4.1).
    fn is_bodiless(&self, status: StatusCode) -> bool {
        self.request.method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    fn write_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.is_socket && head.status == StatusCode::SWITCHING_PROTOCOLS {
            // RFC 8441, section 5.1.
            head.set_status(StatusCode::OK)?;
            head.remove_header(&SEC_WEBSOCKET_ACCEPT);
        } else if self.is_socket && head.status.is_success() {
            // It would say that the WebSocket is open.
            return self.decline_socket();
        }
        if self.written.is_some() || self.ended || head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        for name in &HOP_BY_HOP {
            head.remove_header(name);
        }
        if head.status.is_informational() {
            return self
                .progress
                .sending
                .interim(Response::from_parts(head.as_owned_parts(), ()))
                .or_err(ErrorType::WriteError, SENDING);
        }
        if !head.headers.contains_key(DATE) {
            head.insert_header(DATE, get_cached_date())?;
        }
        let end = end || self.is_bodiless(head.status);
        self.progress
            .sending
            .head(Response::from_parts(head.as_owned_parts(), ()), end)
            .or_err(ErrorType::WriteError, SENDING)?;
        (self.written, self.ended) = (Some(head), end);
        Ok(())
    }

    /// Responds to the handshake of a WebSocket that something else was the response to.
    fn decline_socket(&mut self) -> Result<()> {
        let head = ResponseHeader::build(StatusCode::NOT_IMPLEMENTED, Some(1))?;
        self.progress
            .sending
            .head(Response::from_parts(head.as_owned_parts(), ()), true)
            .or_err(ErrorType::WriteError, SENDING)?;
        (self.written, self.ended) = (Some(Box::new(head)), true);
        Ok(())
    }

    async fn write_part(&mut self, mut data: Bytes, end: bool) -> Result<()> {
        if self.ended || (data.is_empty() && !end) {
            return Ok(());
        }
        self.sent += data.len();
        while !data.is_empty() {
            let free = self.wait_for_capacity(data.len()).await?;
            let part = data.split_to(free.min(data.len()));
            self.progress.sending.data(part, end && data.is_empty()).or_err(ErrorType::WriteError, SENDING)?;
            self.ended = end && data.is_empty();
        }
        if end && !self.ended {
            self.end()?;
        }
        Ok(())
    }

    /// Waits until the client takes something.
    async fn wait_for_capacity(&self, wanted: usize) -> Result<usize> {
        let sending = &self.progress.sending;
        sending.reserve(wanted);
        let mut ready = std::future::poll_fn(|context| sending.poll_capacity(context));
        let capacity = match (&mut ready).now_or_never() {
            Some(capacity) => capacity,
            None => {
                self.progress.set_stalled(true);
                let capacity = within(self.write_timeout, ready).await;
                self.progress.set_stalled(false);
                capacity?
            }
        };
        match capacity {
            Some(capacity) => capacity.or_err(ErrorType::WriteError, SENDING),
            None => Error::e_explain(ErrorType::ConnectionClosed, "the client has reset the stream"),
        }
    }

    fn end(&mut self) -> Result<()> {
        if self.written.is_some() && !std::mem::replace(&mut self.ended, true) {
            self.progress.sending.data(Bytes::new(), true).or_err(ErrorType::WriteError, SENDING)?;
        }
        Ok(())
    }

    /// Reads for a while what a client still sends after the response: some clients read no response before they have
    /// sent all, and some drop it with the reset that ends them (as RFC 9112, section 9.6, has it for HTTP/1).
    async fn linger(&mut self) {
        let Some(body) = &mut self.body else { return };
        let discard = async {
            let mut left = MAX_LINGER_BODY;
            while let (Some(Ok(part)), true) = (body.data().await, left > 0) {
                let _ = body.flow_control().release_capacity(part.len());
                left = left.saturating_sub(part.len());
            }
        };
        let _ = tokio::time::timeout(STREAM_LINGER_TIMEOUT, discard).await;
    }

    async fn write_task(&mut self, task: HttpTask, last: bool) -> Result<bool> {
        match task {
            HttpTask::Header(head, end) => {
                let end = end || (last && !head.status.is_informational());
                self.write_head(head, end)?;
                Ok(end)
            }
            HttpTask::Body(data, end) => {
                self.write_part(data.unwrap_or_default(), end || last).await?;
                Ok(end)
            }
            HttpTask::Trailer(Some(trailers)) => {
                if self.written.is_some() && !std::mem::replace(&mut self.ended, true) {
                    self.progress.sending.trailers(*trailers).or_err(ErrorType::WriteError, SENDING)?;
                }
                Ok(true)
            }
            HttpTask::Trailer(None) | HttpTask::Done => Ok(true),
            HttpTask::Failed(error) => Err(error),
            HttpTask::UpgradedBody(..) => Error::e_explain(ErrorType::InternalError, "an upgraded body on HTTP/2"),
        }
    }
}

const SENDING: &str = "while sending to the client";

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await.or_err(ErrorType::WriteTimedout, SENDING),
        None => Ok(work.await),
    }
}

/// Returns whether a task only ends the response.
fn is_end(task: &HttpTask) -> bool {
    match task {
        HttpTask::Done | HttpTask::Trailer(None) => true,
        HttpTask::Body(data, end) => *end && data.as_ref().is_none_or(Bytes::is_empty),
        _ => false,
    }
}

mod session;
