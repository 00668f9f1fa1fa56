//! The meaning of a try's error: for the target, for a retry, and for the response.

use std::net::SocketAddr;

use http::header::{HeaderValue, RETRY_AFTER};
use pingora::{Error, ErrorSource, ErrorType};

use super::call::error_text;
use crate::exchange::{Reason, Rejection};

/// The error of work that has ended because its client is gone.
pub const CLIENT_GONE: ErrorType = ErrorType::Custom("ClientGone");

/// How a try failed after its connection was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failure {
    /// Whether the target or the way to it failed, and not the client.
    pub by_target: bool,
    /// Whether it took too long.
    pub timed_out: bool,
    /// Whether the target has reported that it has not processed the request, so that it may be sent again whatever
    /// its method: the stream is beyond the last of a GOAWAY, or was refused (RFC 9113, sections 6.8 and 8.7).
    pub unprocessed: bool,
    /// Whether the target has reset only this HTTP/2 stream.
    pub stream_reset: bool,
}

impl Failure {
    /// Returns the failure of an error; `late` is a timeout that the error does not show.
    pub fn of(error: &Error, late: bool) -> Self {
        let timed_out = late || matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        let by_target = *error.esource() == ErrorSource::Upstream;
        Self { by_target, timed_out, unprocessed: is_unprocessed(error), stream_reset: is_stream_reset(error) }
    }
}

fn is_unprocessed(error: &Error) -> bool {
    let by_target = error.root_cause().downcast_ref::<h2::Error>().filter(|cause| cause.is_remote());
    by_target.is_some_and(|cause| match cause.reason() {
        Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
        Some(h2::Reason::REFUSED_STREAM) => cause.is_reset(),
        _ => false,
    })
}

fn is_stream_reset(error: &Error) -> bool {
    error.root_cause().downcast_ref::<h2::Error>().is_some_and(|cause| cause.is_remote() && cause.is_reset())
}

/// Returns the reason behind an error that is not the client's.
pub fn reason_of(error: &Error) -> Reason {
    use ErrorType as E;
    match (error.esource(), error.etype()) {
        (_, E::ConnectTimedout | E::TLSHandshakeTimedout) => Reason::ConnectTimeout,
        (_, E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::BindError | E::SocketError) => {
            Reason::ConnectRefused
        }
        (_, E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError | E::TLSWantX509Lookup) => Reason::TargetTls,
        (ErrorSource::Upstream, E::ReadTimedout | E::WriteTimedout) => Reason::TargetTimeout,
        (ErrorSource::Upstream, _) if is_stream_reset(error) || is_unprocessed(error) => Reason::TargetReset,
        (ErrorSource::Upstream, E::ConnectionClosed | E::ReadError | E::WriteError) => Reason::TargetReset,
        (ErrorSource::Upstream, _) => Reason::TargetProtocol,
        _ => Reason::Internal,
    }
}

/// Returns the rejection for the error of a try at that target.
pub fn rejection_of(error: &Error, target: Option<SocketAddr>, deadline_passed: bool) -> Box<Rejection> {
    let mut reason = reason_of(error);
    if deadline_passed && matches!(reason, Reason::TargetTimeout | Reason::ConnectTimeout) {
        reason = Reason::RouteTimeout;
    }
    let place = target.map(|address| format!("{address}: ")).unwrap_or_default();
    Rejection::new(reason, "").log(format!("{place}{}", error_text(error)))
}

/// Returns the rejection when the gateway lacks a resource to connect with.
pub fn exhausted() -> Box<Rejection> {
    let detail = "no file descriptor or port is left for a connection to a target";
    Rejection::new(Reason::Exhausted, "").header(RETRY_AFTER, HeaderValue::from(1)).log(detail)
}
