//! Responses that the gateway itself generates.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderName, HeaderValue};

use super::Reason;
use crate::rules::grpc::GrpcStatus;
use crate::rules::schema::Violation;

/// A response of the gateway's own, with its reason. The texts for the client and for the log are separate.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// The reason.
    pub reason: Reason,
    /// The detail for the client beyond the reason's title.
    pub detail: Cow<'static, str>,
    /// The detail for the log beyond that.
    pub log: Option<String>,
    /// The headers of the response.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The status, where it is another than that of the reason.
    pub status: Option<u16>,
    /// The status of gRPC, where it is another than that of the reason.
    pub grpc: Option<GrpcStatus>,
    /// The rest of the response, where it is another than that of the reason.
    pub relayed: Option<RelayedResponse>,
    /// The violations of a schema, for a request that is not valid.
    pub violations: Vec<Violation>,
}

/// The status and the body of a response that another server, or a filter, has made.
#[derive(Clone, Debug)]
pub struct RelayedResponse {
    /// The status, of 200 or above.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Rejection {
    /// Returns a rejection with a detail for the client. Where the detail says which of several faults it is, the log
    /// has it too.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        let detail = detail.into();
        let is_logged = matches!(
            reason,
            Reason::UriTooLong | Reason::HeadersTooLarge | Reason::TokenInvalid | Reason::SignatureInvalid
        );
        let log = (is_logged && !detail.is_empty()).then(|| detail.to_string());
        Box::new(Self {
            reason,
            detail,
            log,
            headers: Vec::new(),
            status: None,
            grpc: None,
            relayed: None,
            violations: Vec::new(),
        })
    }

    /// Returns a rejection for violations of a schema. The detail is the first of them; the log has it too, since it
    /// repeats no value.
    pub fn violating(reason: Reason, violations: Vec<Violation>) -> Box<Self> {
        let more = violations.len().saturating_sub(1);
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        let detail = if more > 0 { format!("{first} (and {more} more)") } else { first };
        let mut rejection = Self::new(reason, detail.clone()).log(detail);
        rejection.violations = violations;
        rejection
    }

    /// Returns a redirect.
    pub fn redirect(reason: Reason, to: HeaderValue) -> Box<Self> {
        let mut rejection = Self::new(reason, "").header(LOCATION, to);
        rejection.relayed = Some(RelayedResponse { status: 302, body: Bytes::new() });
        rejection.header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    /// Sets another status than that of the reason.
    #[must_use]
    pub fn status(mut self: Box<Self>, status: u16) -> Box<Self> {
        self.status = Some(status);
        self
    }

    /// Sets another status of gRPC than that of the reason, and the HTTP status for it.
    #[must_use]
    pub fn grpc(mut self: Box<Self>, status: GrpcStatus) -> Box<Self> {
        (self.grpc, self.status) = (Some(status), Some(status.http()));
        self
    }

    /// Returns the status of gRPC.
    pub fn grpc_status(&self) -> GrpcStatus {
        self.grpc.unwrap_or_else(|| GrpcStatus::of(self.reason.grpc_status().into()))
    }

    /// Returns the message for clients that get one text: the reason's title, and the detail.
    pub fn message(&self) -> Cow<'static, str> {
        let title = self.reason.title();
        if self.detail.is_empty() { title.into() } else { format!("{title}: {}", self.detail).into() }
    }

    /// Returns the HTTP status.
    pub fn http_status(&self) -> u16 {
        self.status.unwrap_or_else(|| self.reason.status())
    }

    /// Adds a detail for the log alone.
    #[must_use]
    pub fn log(mut self: Box<Self>, text: impl Into<String>) -> Box<Self> {
        self.log = Some(text.into());
        self
    }
}

/// A rejection by a filter that is not enforced.
#[derive(Clone, Debug)]
pub struct WouldReject {
    /// The reason.
    pub reason: Reason,
    /// The key of the filter.
    pub filter: &'static str,
    /// The detail for the log.
    pub detail: String,
}
