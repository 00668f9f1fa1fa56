//! Responses that the gateway itself generates.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::Reason;

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
}

impl Rejection {
    /// Returns a rejection with a detail for the client.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { reason, detail: detail.into(), log: None, headers: Vec::new() })
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    /// Adds a detail for the log alone.
    #[must_use]
    pub fn log(mut self: Box<Self>, text: impl Into<String>) -> Box<Self> {
        self.log = Some(text.into());
        self
    }
}
