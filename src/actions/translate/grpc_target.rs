//! What translations into gRPC have in common.

use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::ResponseHeader;

use crate::exchange::{Reason, Rejection, is_grpc};
use crate::rules::grpc::{FrameError, GrpcStatus};

/// The codings of messages that the target may use.
pub const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Returns the name of what is called.
pub fn operation(path: &str) -> Option<Box<str>> {
    Some(path.trim_start_matches('/').into())
}

/// Returns the fields that every request of gRPC has, for messages in that format.
pub fn request_fields(format: &str) -> Vec<(HeaderName, HeaderValue)> {
    let content_type = HeaderValue::try_from(format!("application/grpc{format}"));
    let content_type = content_type.unwrap_or_else(|_| HeaderValue::from_static("application/grpc"));
    vec![(CONTENT_TYPE, content_type), (TE, HeaderValue::from_static("trailers"))]
}

/// How a target responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Responding {
    /// With messages and trailers.
    Messages,
    /// With a head that has the status ("Trailers-Only").
    TrailersOnly,
    /// With something else than gRPC, which stands for this status.
    Otherwise(GrpcStatus),
}

impl Responding {
    /// Returns how the target responds by the head of its response.
    pub fn of(head: &ResponseHeader) -> Self {
        let is_grpc = head.headers.get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()));
        if GrpcStatus::of_fields(&head.headers).is_some() {
            Self::TrailersOnly
        } else if head.status == StatusCode::OK && is_grpc {
            Self::Messages
        } else {
            Self::Otherwise(GrpcStatus::of_http(head.status.as_u16()))
        }
    }
}

/// Returns the message for a client where the target responded with something else than gRPC.
pub fn no_grpc(head: &ResponseHeader) -> String {
    match head.status {
        StatusCode::OK => "the target did not respond with gRPC".to_owned(),
        status => format!("the target responded with the HTTP status {}", status.as_u16()),
    }
}

/// Returns the trailers of a response that has none: an unknown error.
pub fn no_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    GrpcStatus::Unknown.write("the target sent no status", &mut trailers);
    trailers
}

/// Returns the rejection of a request whose frames are malformed.
pub fn malformed(error: FrameError) -> Box<Rejection> {
    let rejection = Rejection::new(Reason::RequestUntranslatable, error.to_string());
    match error {
        FrameError::TooLong { .. } => rejection.grpc(GrpcStatus::ResourceExhausted).status(413),
        _ => rejection,
    }
}

/// Returns the rejection in place of a response whose frames are malformed.
pub fn malformed_response(error: FrameError) -> Box<Rejection> {
    let rejection = Rejection::new(Reason::ResponseUntranslatable, "").log(error.to_string());
    match error {
        FrameError::TooLong { .. } => rejection.grpc(GrpcStatus::ResourceExhausted).status(502),
        _ => rejection,
    }
}
