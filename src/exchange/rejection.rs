//! An answer that the gateway itself gives.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};

use super::Reason;

/// An answer of the gateway's own, with its reason. What the client is told and what the log is
/// told are separate.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// What the client is told beyond the reason's title.
    pub detail: Cow<'static, str>,
    /// What the log is told beyond that.
    pub log: Option<String>,
    /// Headers of the answer.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Rejection {
    /// With what the client is told.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Box<Self> {
        Box::new(Self { reason, detail: detail.into(), log: None, headers: Vec::new() })
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.headers.push((name, value));
        self
    }

    /// Adds what only the log is told.
    #[must_use]
    pub fn log(mut self: Box<Self>, text: impl Into<String>) -> Box<Self> {
        self.log = Some(text.into());
        self
    }
}
