//! What a filter can do: the trait that each implements, with a default for every hook.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use pingora::http::{RequestHeader, ResponseHeader};

use super::{Authenticated, CompileContext, Refusal};
use crate::exchange::{Edit, Exchange, Reason, Rejection};
use crate::rules::payload::Step;

/// The stages, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// CORS first: a preflight carries no credentials, so nothing that needs them may come before it.
    Cors,
    /// Who is it? Before all that depends on who it is.
    Authenticate,
    /// Within the limits? Behind authentication, because limits are by consumer, and because a stranger must not use up
    /// the quota of another.
    Limit,
    /// Is it what the API takes? Behind the limits, because it costs more than they do.
    Validate,
    /// Content codings: what encodes a response comes after all edits of it, which run in reverse.
    Encode,
    /// Edits of what targets and clients are sent.
    Edit,
}

impl Stage {
    /// Whether a request has at most one filter of the stage: a second one would have nothing to decide.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Cors | Self::Authenticate | Self::Encode)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cors => "cross-origin rules",
            Self::Authenticate => "who is it?",
            Self::Limit => "within the limits?",
            Self::Validate => "is it valid?",
            Self::Encode => "content codings",
            Self::Edit => "edits",
        })
    }
}

/// What a filter has to be given besides the heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Heads,
    /// The whole body of the request, of so many bytes at most; a longer one is rejected with 413.
    RequestBody(u64),
    /// The body of the target's response as it passes.
    ResponseBody,
}

/// The outcome of a filter: the request goes on, or this is the response.
pub type Verdict = Result<(), Box<Rejection>>;

/// A change of the response's body, or the response to give instead when the body cannot be looked into.
pub type BodyStep = Result<Option<Box<dyn Step>>, Box<Rejection>>;

/// What a filter may look at when a response has come.
#[derive(Debug)]
pub struct ResponseView<'r> {
    /// The request's head as the client sent it.
    pub request: &'r RequestHeader,
    /// What is known of the request.
    pub exchange: &'r Exchange,
    /// Whether the response is the gateway's own.
    pub own: bool,
}

/// A filter. The request's head is read-only: what the target is to be sent otherwise is an [`Edit`].
pub trait HttpFilter: Sized {
    /// Its settings.
    type Config;
    /// What it remembers of a request from one hook to the next.
    type Memory: Default + Send + fmt::Debug;
    /// The stage in which it runs.
    const STAGE: Stage;

    /// Compiles it; `None` when errors were noted.
    fn compile(config: &Self::Config, context: &mut CompileContext<'_>) -> Option<Self>;

    /// Returns the headers of a request that it reads, each with the keys that lead to its name.
    fn headers_read(_config: &Self::Config) -> Vec<(HeaderName, Vec<String>)> {
        Vec::new()
    }

    /// Returns the headers of a request that it sets or removes for the target.
    fn headers_written(_config: &Self::Config) -> Vec<HeaderName> {
        Vec::new()
    }

    /// Returns what it has to be given besides the heads.
    fn needs(&self) -> Needs {
        Needs::Heads
    }

    /// Returns the edits of every request that it lets through.
    fn edits(&self) -> Option<&Arc<[Edit]>> {
        None
    }

    /// Finds out who calls. Filters of [`Stage::Authenticate`] implement this, and no other hook of requests.
    ///
    /// # Errors
    /// Why the caller is not let in by it.
    fn authenticate<'a>(
        &'a self,
        _request: &'a RequestHeader,
        _exchange: &'a Exchange,
    ) -> impl Future<Output = Result<Authenticated, Refusal>> + Send + 'a {
        // Whoever cannot tell lets nobody in.
        std::future::ready(Err(Refusal::unavailable("not an authenticator")))
    }

    /// Decides on a request.
    ///
    /// # Errors
    /// The response to give instead of going on.
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
    /// The response to give instead of going on.
    fn on_request_body(&self, _body: &[u8], _request: &RequestHeader, _exchange: &mut Exchange) -> Verdict {
        Ok(())
    }

    /// Edits the head of a response.
    fn on_response(&self, _response: &mut ResponseHeader, _view: &ResponseView<'_>, _memory: &Self::Memory) {}

    /// Returns how it changes the body of the target's response, whose head it may edit for that. Where it returns a step,
    /// the chain takes off the content coding first and repairs what the head says of the body.
    ///
    /// # Errors
    /// The response to give instead, when the body cannot be looked into.
    fn on_response_body(&self, _response: &mut ResponseHeader, _view: &ResponseView<'_>) -> BodyStep {
        Ok(None)
    }
}

/// Returns the rejection of a request whose filter found the memory of another: a fault of the gateway, which lets
/// nobody in.
pub(super) fn misplaced() -> Box<Rejection> {
    Rejection::new(Reason::Internal, "").log("a filter found the memory of another")
}
