//! The hooks of a filter: the trait that each implements, with a default for every hook.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};

use super::{Authenticated, CompileContext, Unauthenticated};
use crate::exchange::{Edit, Exchange, Reason, Rejection, RequestView};
use crate::rules::payload::Step;
use crate::rules::routing::PathPattern;

/// The stages, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// CORS first: a preflight carries no credentials, so nothing that needs them may come before it.
    Cors,
    /// Request bodies are decoded, before anything inspects them.
    Decode,
    /// Whether the request looks like an attack. It comes before authentication, which attacks may aim at.
    Guard,
    /// The client is identified, before everything that depends on its identity.
    Authenticate,
    /// Whether the client may do this. It needs the identity.
    Authorize,
    /// The limits. They come after authentication, because they are by consumer, and because an unauthenticated
    /// client must not use up the quota of another.
    Limit,
    /// Whether the request is valid. It comes after the limits, because it costs more.
    Validate,
    /// The cache: what comes before it runs for every request, and what changes responses runs for each that comes from
    /// it.
    Cache,
    /// Content codings: the encoding of a response comes after all edits of it, which run in reverse.
    Encode,
    /// Edits of what targets and clients are sent.
    Edit,
}

impl Stage {
    /// Returns whether filters of the stage reject requests.
    pub fn rejects(self) -> bool {
        matches!(self, Self::Decode | Self::Guard | Self::Authenticate | Self::Authorize | Self::Limit | Self::Validate)
    }

    /// Returns whether a request has at most one filter of the stage: a second one would have nothing to decide.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Cors | Self::Decode | Self::Authenticate | Self::Cache | Self::Encode)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cors => "cross-origin rules",
            Self::Decode => "decoding",
            Self::Guard => "is it an attack?",
            Self::Authenticate => "who is it?",
            Self::Authorize => "is it allowed?",
            Self::Limit => "within the limits?",
            Self::Validate => "is it valid?",
            Self::Cache => "is it cached?",
            Self::Encode => "content codings",
            Self::Edit => "edits",
        })
    }
}

/// What a filter needs besides the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Heads,
    /// The whole body of the request, of at most that many bytes; a longer one is rejected with 413.
    RequestBody(u64),
    /// The body of the target's response as it streams.
    ResponseBody,
    /// Both, the first as [`Self::RequestBody`].
    Bodies(u64),
}

impl Needs {
    /// Returns how many bytes of the request's body are needed whole.
    pub fn request_body(self) -> Option<u64> {
        match self {
            Self::RequestBody(most) | Self::Bodies(most) => Some(most),
            Self::Heads | Self::ResponseBody => None,
        }
    }

    /// Returns whether the body of the target's response is needed.
    pub fn response_body(self) -> bool {
        matches!(self, Self::ResponseBody | Self::Bodies(_))
    }
}

/// The outcome of a filter: the request goes on, or this is the response.
pub type Verdict = Result<(), Box<Rejection>>;

/// A change of the response body, or the response to send instead when the body cannot be decoded or parsed.
pub type BodyStep = Result<Option<Box<dyn Step>>, Box<Rejection>>;

/// The values that a filter may use when a response has come.
#[derive(Debug)]
pub struct ResponseView<'r> {
    /// The request's head as the client sent it.
    pub request: &'r RequestHeader,
    /// The facts about the exchange.
    pub exchange: &'r Exchange,
    /// The path pattern that matched it, if a route did.
    pub pattern: Option<&'r PathPattern>,
    /// Whether the response is the gateway's own.
    pub own: bool,
}

impl<'r> ResponseView<'r> {
    /// Returns the request, for texts that name values of it.
    pub fn request_view(&self) -> RequestView<'r> {
        RequestView { request: self.request, exchange: self.exchange, pattern: self.pattern, response: None }
    }
}

/// A filter. The request's head is read-only: changes for the target are [`Edit`]s.
pub trait HttpFilter: Sized {
    /// The settings.
    type Config;
    /// What the filter remembers of a request from one hook to the next.
    type Memory: Default + Send + fmt::Debug;
    /// The stage in which the filter runs.
    const STAGE: Stage;

    /// Compiles the filter; returns `None` when errors were noted.
    fn compile(config: &Self::Config, context: &mut CompileContext<'_>) -> Option<Self>;

    /// Returns the headers of a request that the filter reads, each with the keys that lead to its name.
    fn headers_read(_config: &Self::Config) -> Vec<(HeaderName, Vec<String>)> {
        Vec::new()
    }

    /// Returns the headers of a request that the filter sets or removes for the target.
    fn headers_written(_config: &Self::Config) -> Vec<HeaderName> {
        Vec::new()
    }

    /// Returns what the filter needs besides the heads.
    fn needs(&self) -> Needs {
        Needs::Heads
    }

    /// Returns whether the filter may replace a response by another once it has seen the body: the head is held back
    /// until then.
    fn judges_responses(&self) -> bool {
        false
    }

    /// Returns whether the filter may change the body of a response, replace the response, or treat it by its status.
    /// What it is given is the whole response as it is stored, never a part of it.
    fn needs_whole_responses(&self) -> bool {
        self.needs().response_body() || self.judges_responses()
    }

    /// Returns whether the filter runs where its condition cannot be evaluated, as one that protects something has to.
    fn runs_in_doubt(&self) -> bool {
        true
    }

    /// Returns whether a filter that needs bodies of requests needs that of this one.
    fn wants_body(&self, _request: &RequestHeader, _exchange: &Exchange) -> bool {
        true
    }

    /// Returns whether the filter reads the parameters of the path, which are noted for it.
    fn reads_params(&self) -> bool {
        false
    }

    /// Returns the edits of every request that the filter accepts.
    fn edits(&self) -> Option<&Arc<[Edit]>> {
        None
    }

    /// Returns the edits that remove every credential that it reads, for authenticators: one that was not accepted does
    /// not go on beside another that was.
    fn credentials(&self) -> Vec<Edit> {
        Vec::new()
    }

    /// Returns the challenges of an authenticator (RFC 9110, section 11.6.1), for a request that went on without an
    /// identity and needs one.
    fn challenges(&self) -> Vec<HeaderValue> {
        Vec::new()
    }

    /// Returns whether [`Self::on_request`] may wait for a long time: the client's presence is watched then.
    fn may_wait(&self) -> bool {
        false
    }

    /// Authenticates a request. Filters of [`Stage::Authenticate`] implement this, and no other hook of requests.
    ///
    /// # Errors
    /// Returns why the filter does not authenticate the request.
    fn authenticate<'a>(
        &'a self,
        _request: &'a RequestHeader,
        _exchange: &'a Exchange,
    ) -> impl Future<Output = Result<Authenticated, Unauthenticated>> + Send + 'a {
        // A filter that does not authenticate accepts nothing.
        std::future::ready(Err(Unauthenticated::unavailable("not an authenticator")))
    }

    /// Decides on a request.
    ///
    /// # Errors
    /// Returns the response to send instead of going on.
    fn on_request(
        &self,
        _request: &RequestHeader,
        _exchange: &mut Exchange,
        _memory: &mut Self::Memory,
    ) -> impl Future<Output = Verdict> + Send {
        std::future::ready(Ok(()))
    }

    /// Decides on the whole body of a request, for filters that need it.
    ///
    /// # Errors
    /// Returns the response to send instead of going on.
    fn on_request_body(&self, _body: &[u8], _request: &RequestHeader, _exchange: &mut Exchange) -> Verdict {
        Ok(())
    }

    /// Returns the body that is sent in place of the request's, for filters that need it and change it. What filters
    /// of [`Stage::Authenticate`] see is always what the client sent.
    ///
    /// # Errors
    /// Returns the response to send instead of going on.
    fn edit_request_body(
        &self,
        _body: &Bytes,
        _request: &RequestHeader,
        _exchange: &mut Exchange,
    ) -> Result<Option<Bytes>, Box<Rejection>> {
        Ok(None)
    }

    /// Edits the head of a response.
    fn on_response(&self, _response: &mut ResponseHeader, _view: &ResponseView<'_>, _memory: &Self::Memory) {}

    /// Returns how the filter changes the body of the target's response, whose head it may edit for that. Where it
    /// returns a step, the chain decodes the body first and repairs the fields that describe it.
    ///
    /// # Errors
    /// Returns the response to send instead, when the body cannot be decoded or parsed.
    fn on_response_body(&self, _response: &mut ResponseHeader, _view: &ResponseView<'_>) -> BodyStep {
        Ok(None)
    }
}

/// Returns the rejection of a request whose filter found the memory of another: a fault of the gateway, which accepts
/// nothing.
pub(super) fn wrong_memory() -> Box<Rejection> {
    Rejection::new(Reason::Internal, "").log("a filter found the memory of another")
}
