//! The sending side of an HTTP/2 stream, and whether its client is still there.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use http::header::HeaderMap;
use parking_lot::Mutex;

/// The sending side of a stream. It is shared with everything that waits for something other than the client and has
/// to end with it: connecting to a target, a place in a queue.
#[derive(Debug)]
pub struct Sending(Mutex<SendState>);

#[derive(Debug)]
struct SendState {
    response: SendResponse<Bytes>,
    /// Once the head of the final response has been sent.
    body: Option<SendStream<Bytes>>,
}

impl Sending {
    /// Returns the sending side of a stream that was just accepted.
    pub fn new(response: SendResponse<Bytes>) -> Self {
        Self(Mutex::new(SendState { response, body: None }))
    }

    /// Returns ready once the client has reset the stream, or the connection has ended.
    pub fn poll_gone(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut side = self.0.lock();
        let reset = match &mut side.body {
            Some(body) => body.poll_reset(context),
            None => side.response.poll_reset(context),
        };
        reset.map(|_| ())
    }

    /// Resets the stream.
    pub fn reset(&self, reason: Reason) {
        self.0.lock().response.send_reset(reason);
    }

    /// Sends an interim response (RFC 9113, section 8.1).
    ///
    /// # Errors
    /// When the stream has ended.
    pub fn interim(&self, head: Response<()>) -> Result<(), h2::Error> {
        self.0.lock().response.send_informational(head)
    }

    /// Sends the head of the final response; with `end` it is the whole of it.
    ///
    /// # Errors
    /// When the stream has ended, or a head was sent before.
    pub fn head(&self, head: Response<()>, end: bool) -> Result<(), h2::Error> {
        let mut side = self.0.lock();
        side.body = Some(side.response.send_response(head, end)?);
        Ok(())
    }

    /// Sends a part of the body, for which there has to be capacity.
    ///
    /// # Errors
    /// When the stream has ended, or no head was sent.
    pub fn data(&self, data: Bytes, end: bool) -> Result<(), h2::Error> {
        self.with_body(|body| body.send_data(data, end))
    }

    /// Sends trailers, which end the response.
    ///
    /// # Errors
    /// When the stream has ended, or no head was sent.
    pub fn trailers(&self, trailers: HeaderMap) -> Result<(), h2::Error> {
        self.with_body(|body| body.send_trailers(trailers))
    }

    /// Asks for capacity for as many bytes.
    pub fn reserve(&self, bytes: usize) {
        if let Some(body) = &mut self.0.lock().body {
            body.reserve_capacity(bytes);
        }
    }

    /// Returns how many bytes the client takes now, once it takes any; `None` when the stream has ended.
    pub fn poll_capacity(&self, context: &mut Context<'_>) -> Poll<Option<Result<usize, h2::Error>>> {
        match &mut self.0.lock().body {
            Some(body) => body.poll_capacity(context),
            None => Poll::Ready(None),
        }
    }

    fn with_body(&self, work: impl FnOnce(&mut SendStream<Bytes>) -> Result<(), h2::Error>) -> Result<(), h2::Error> {
        match &mut self.0.lock().body {
            Some(body) => work(body),
            None => Err(Reason::INTERNAL_ERROR.into()),
        }
    }
}
