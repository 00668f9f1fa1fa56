//! Responses of targets, as the Connect protocol has them.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;

use crate::actions::translate::grpc_target::{Responding, malformed_response, no_grpc};
use crate::actions::translate::{ClientResponse, TranslateResponse};
use crate::exchange::{Connect, Rejection};
use crate::rules::grpc::{ConnectError, FrameBounds, FrameError, FrameReader, GrpcStatus, metadata, write_end_stream};

/// The prefix of trailers in the head of a unary response.
const TRAILER: &str = "trailer-";

/// Notes the status for the log.
fn note(error: Option<&ConnectError>, out: &mut ClientResponse) {
    out.target_status = Some(error.map_or(GrpcStatus::Ok, |error| error.status).name().into());
}

/// The response of a unary call, which is known only with the trailers.
#[derive(Debug)]
pub struct UnaryResponse {
    kind: Connect,
    reader: FrameReader,
    message: Option<Bytes>,
    messages: usize,
    /// The metadata of the target's head.
    fields: HeaderMap,
    /// The error that the head is.
    error: Option<ConnectError>,
    responding: Responding,
}

impl UnaryResponse {
    /// Returns the translation of a response with a message of at most `most` bytes.
    pub fn new(kind: Connect, most: u32) -> Self {
        Self {
            kind,
            reader: FrameReader::new(most),
            message: None,
            messages: 0,
            fields: HeaderMap::new(),
            error: None,
            responding: Responding::Messages,
        }
    }

    /// Returns the message, or why there is not just one.
    fn result(&mut self, trailers: &HeaderMap) -> Result<Bytes, ConnectError> {
        if let Some(error) = self.error.take().or_else(|| ConnectError::of_trailers(trailers)) {
            return Err(error);
        }
        match (self.message.take(), self.messages) {
            (Some(message), 1) => Ok(message),
            (_, count) => {
                let text = format!("a unary response has one message, and the target sent {count}");
                Err(ConnectError::new(GrpcStatus::Unimplemented, text))
            }
        }
    }
}

impl TranslateResponse for UnaryResponse {
    fn head(&mut self, head: &ResponseHeader, _out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        self.responding = Responding::of(head);
        self.fields = metadata(&head.headers, "", 8);
        self.error = match self.responding {
            Responding::Messages => None,
            Responding::TrailersOnly => ConnectError::of_trailers(&head.headers),
            Responding::Otherwise(status) => Some(ConnectError::new(status, no_grpc(head))),
        };
        Ok(())
    }

    fn part(&mut self, part: &Bytes, _out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if self.responding == Responding::Messages {
            self.reader.push(part);
            while let Some(frame) = self.reader.frame().map_err(malformed_response)? {
                self.messages += 1;
                self.message.get_or_insert(frame.message);
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if !self.reader.is_at_boundary() {
            return Err(malformed_response(FrameError::Incomplete));
        }
        let mut fields = std::mem::take(&mut self.fields);
        let none = HeaderMap::new();
        // Without an error in it a head with a status is that of a success without a message.
        let trailers = match self.responding {
            Responding::TrailersOnly if self.error.is_none() => {
                self.error = Some(ConnectError::new(GrpcStatus::Unimplemented, "the target sent no message"));
                &none
            }
            _ => trailers.unwrap_or(&none),
        };
        fields.extend(metadata(trailers, TRAILER, 0));
        match self.result(trailers) {
            Ok(message) => {
                note(None, out);
                fields.insert(CONTENT_TYPE, self.kind.content_type());
                out.body.extend_from_slice(&message);
                out.decide(StatusCode::OK, fields);
            }
            Err(error) => {
                note(Some(&error), out);
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                out.body.extend_from_slice(error.to_json().to_string().as_bytes());
                let status = StatusCode::from_u16(error.status.http());
                out.decide(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), fields);
            }
        }
        Ok(())
    }
}

/// The response of a call with a stream, whose frames are the same in both protocols.
#[derive(Debug)]
pub struct StreamResponse {
    kind: Connect,
    bounds: FrameBounds,
    responding: Responding,
    /// The result, where the head has it.
    ended: Option<Option<ConnectError>>,
}

impl StreamResponse {
    /// Returns the translation of a response.
    pub fn new(kind: Connect) -> Self {
        Self { kind, bounds: FrameBounds::accepting(0, u32::MAX), responding: Responding::Messages, ended: None }
    }
}

impl TranslateResponse for StreamResponse {
    fn head(&mut self, head: &ResponseHeader, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        self.responding = Responding::of(head);
        self.ended = match self.responding {
            Responding::Messages => None,
            Responding::TrailersOnly => Some(ConnectError::of_trailers(&head.headers)),
            Responding::Otherwise(status) => Some(Some(ConnectError::new(status, no_grpc(head)))),
        };
        let mut fields = metadata(&head.headers, "", 8);
        fields.insert(CONTENT_TYPE, self.kind.content_type());
        out.decide(StatusCode::OK, fields);
        Ok(())
    }

    fn part(&mut self, part: &Bytes, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if self.responding == Responding::Messages {
            self.bounds.follow(part).map_err(malformed_response)?;
            out.body.extend_from_slice(part);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if !self.bounds.is_at_boundary() {
            return Err(malformed_response(FrameError::Incomplete));
        }
        let none = HeaderMap::new();
        let trailers = trailers.unwrap_or(&none);
        let error = self.ended.take().unwrap_or_else(|| ConnectError::of_trailers(trailers));
        note(error.as_ref(), out);
        write_end_stream(error.as_ref(), trailers, &mut out.body);
        Ok(())
    }

    fn broken(&mut self, why: &Rejection, out: &mut ClientResponse) -> bool {
        if self.responding != Responding::Messages || !self.bounds.is_at_boundary() {
            return false;
        }
        let error = ConnectError::new(why.grpc_status(), why.message());
        write_end_stream(Some(&error), &HeaderMap::new(), &mut out.body);
        true
    }
}
