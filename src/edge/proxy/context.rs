//! The state of a request that is carried from phase to phase.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::cache::CacheUse;
use super::interim::Interims;
use super::mirror::Mirroring;
use super::versions::RequestVersion;
use super::whole::WholeBody;
use crate::actions::Forward;
use crate::edge::listeners::{Connection, Pace, Progress, current_connection};
use crate::exchange::{Client, ErrorPages, Exchange, Rejection, RenderedPage, RequestView, error_page};
use crate::filters::Memories;
use crate::rules::payload::BodyChain;
use crate::rules::routing::PathPattern;
use crate::snapshot::{Limits, Listener, Route, WorkerServing};
use crate::upstreams::{Upstream, Visit};

/// The direction of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the target.
    Request,
    /// To the client.
    Response,
}

/// The side that waits for the response.
#[derive(Debug)]
pub struct Downstream {
    /// Its connection.
    pub connection: Option<Arc<Connection>>,
    /// The progress of the stream, on HTTP/2.
    pub progress: Option<Arc<Progress>>,
}

impl Downstream {
    /// Returns whether the client has closed its side or, on HTTP/2, reset the stream.
    pub fn is_gone(&self) -> bool {
        match &self.progress {
            Some(progress) => progress.gone().now_or_never().is_some(),
            // On HTTP/1 the session holds the socket that is checked.
            None => self.connection.as_ref().is_some_and(|connection| connection.is_gone()),
        }
    }

    /// Returns the pace at which the response is read.
    pub fn pace(&self) -> Option<&Pace> {
        let of_stream = self.progress.as_ref().map(|progress| &progress.pace);
        of_stream.or_else(|| self.connection.as_ref().map(|connection| &connection.pace))
    }
}

/// The route that matched the request.
#[derive(Debug, Default)]
pub struct MatchedRoute {
    /// Its place in the snapshot, once there is one.
    pub route: Option<usize>,
    /// The router's entry that matched.
    pub entry: usize,
    /// Whether the request is counted as under way on it.
    pub counted: bool,
    /// The version of its API that the request is for.
    pub version: Option<RequestVersion>,
    /// Whether the request is translated for its target.
    pub translated: bool,
}

impl MatchedRoute {
    /// Returns the router's entry that matched, once there is one.
    pub fn found(&self) -> Option<usize> {
        self.route.map(|_| self.entry)
    }
}

/// The progress of the request body.
#[derive(Debug)]
pub struct RequestBody {
    /// The most bytes that it may have.
    pub limit: u64,
    /// The bytes that have come in the present try.
    pub seen: u64,
    /// Whether it has ended.
    over: bool,
}

/// How the request ends, for its log line, which is written once.
#[derive(Debug, Default)]
pub struct Ending {
    /// The request's head, when the session no longer has it.
    pub head: Option<Box<RequestHeader>>,
    /// The bytes that went through a tunnel, in and out.
    pub tunnelled: Option<(u64, u64)>,
    /// Whether the target's response has ended.
    response_over: bool,
    /// Whether the response ended with a reset that only says so.
    pub ended_by_reset: bool,
    /// Whether it was counted and logged.
    pub recorded: bool,
}

/// The context of one request. The snapshot that it holds is the only one that the request sees.
#[derive(Debug)]
pub struct Context {
    /// The configuration that serves the request from begin to end.
    pub serving: Arc<WorkerServing>,
    /// The side that waits for the response.
    pub downstream: Downstream,
    /// The listener's place in the snapshot; `None` when the listener is no longer in it.
    pub listener: Option<usize>,
    /// The facts about the exchange, for the log and the metrics.
    pub exchange: Exchange,
    /// The route that matched.
    pub matched: MatchedRoute,
    /// The request's visit to an upstream.
    pub visit: Option<Visit>,
    /// The copy of the request for a mirror.
    pub mirroring: Mirroring,
    /// The progress of the request body.
    pub request_body: RequestBody,
    /// The request body, if it is held whole.
    pub whole: Option<Box<WholeBody>>,
    /// The stages that change the response body.
    pub body: BodyChain,
    /// The memories of filters.
    pub memories: Memories,
    /// The interim responses.
    pub interims: Interims,
    /// The rejection to respond with where a phase can only fail.
    pub rejection: Option<Box<Rejection>>,
    /// The status of the response.
    pub status: u16,
    /// How the request ends.
    pub ending: Ending,
    /// What the cache has to do with the request.
    pub cache: Option<Box<CacheUse>>,
}

impl Context {
    /// Closes the connection after this response, and says so in it, if the listener is closing.
    pub fn end_with_the_listener(&self, session: &mut Session) {
        if self.downstream.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
            self.close_after(session);
        }
    }

    /// Closes the client's connection after the response.
    pub fn close_after(&self, session: &mut Session) {
        session.set_keepalive(None);
        self.whole.iter().for_each(|whole| whole.close());
    }

    /// Returns the context of a request on the running connection.
    pub fn new(serving: Arc<WorkerServing>) -> Self {
        let connection = current_connection();
        let client = match &connection {
            Some(connection) => {
                connection.head_complete();
                connection.client()
            }
            None => Client::unknown(),
        };
        let (serving, listener) = match &connection {
            Some(connection) => connection.listener_state.serving(serving),
            None => (serving, None),
        };
        let mut exchange = Exchange::new(client);
        exchange.listener_port = connection.as_ref().map_or(0, |connection| connection.listener_state.port);
        Self::of(serving, Downstream { connection, progress: Progress::current() }, listener, exchange)
    }

    /// Returns the context of a request that the gateway makes in place of this one, for no client.
    pub fn for_fetch(&self) -> Self {
        let downstream = Downstream { connection: None, progress: None };
        let mut ctx = Self::of(Arc::clone(&self.serving), downstream, self.listener, self.exchange.for_fetch());
        (ctx.matched.route, ctx.matched.entry) = (self.matched.route, self.matched.entry);
        ctx
    }

    fn of(serving: Arc<WorkerServing>, downstream: Downstream, listener: Option<usize>, exchange: Exchange) -> Self {
        Self {
            downstream,
            listener,
            exchange,
            matched: MatchedRoute::default(),
            visit: None,
            mirroring: Mirroring::default(),
            request_body: RequestBody { limit: u64::MAX, seen: 0, over: false },
            whole: None,
            body: BodyChain::default(),
            memories: Memories::default(),
            interims: Interims::default(),
            rejection: None,
            status: 0,
            ending: Ending::default(),
            cache: None,
            serving,
        }
    }

    /// Returns the request's listener.
    pub fn listener(&self) -> Option<&Listener> {
        self.serving.snapshot.listeners.get(self.listener?)
    }

    /// Returns the request's route.
    pub fn route(&self) -> Option<&Route> {
        self.serving.route(self.matched.route)
    }

    /// Returns the upstream that was chosen.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.visit.as_ref().map(|visit| &**visit.upstream())
    }

    /// Returns when the route's time is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.visit.as_ref().and_then(Visit::deadline)
    }

    /// Returns the listener's limits.
    pub fn limits(&self) -> Option<&Limits> {
        self.listener()?.http().map(|http| &http.limits)
    }

    /// Notes that the request body, or the target's response, has ended. After both, the request is no longer active
    /// at the target and the upstream, however long the client takes for the rest of the response.
    pub fn end_of(&mut self, side: Side) {
        match side {
            Side::Request => {
                self.request_body.over = true;
                self.pace().iter().for_each(|pace| pace.end_request());
            }
            Side::Response => {
                self.ending.response_over = true;
                self.pace().iter().for_each(|pace| pace.end());
            }
        }
        if self.request_body.over && self.ending.response_over {
            self.leave_upstream();
        }
    }

    /// Returns the pace at which the response is read.
    pub fn pace(&self) -> Option<&Pace> {
        self.downstream.pace()
    }

    /// Frees the request's places at the upstream and at the target.
    pub fn leave_upstream(&mut self) {
        self.visit.iter_mut().for_each(Visit::leave);
    }

    /// Returns whether the gateway makes the response itself, so that no fetch in place of the request can.
    pub fn makes_response(&self) -> bool {
        self.matched.translated || self.forward().is_none()
    }

    /// Returns how the route forwards, if it does.
    pub fn forward(&self) -> Option<&Forward> {
        self.route()?.action.forward(self.exchange.operation)
    }

    /// Returns the path pattern that matched the request.
    pub fn pattern(&self) -> Option<&PathPattern> {
        self.serving.pattern(self.listener, self.matched.found())
    }

    /// Returns the page for a rejection, if there is one that the client prefers to a problem document.
    pub fn error_page(&self, rejection: &Rejection, request: &RequestHeader) -> Option<RenderedPage> {
        let none = ErrorPages::default();
        let of_route = self.route().map_or(&none, |route| &route.errors);
        let of_listener = self.listener().map_or(&none, |listener| &listener.errors);
        error_page(rejection, &self.view(request), [of_route, of_listener, &self.serving.snapshot.errors])
    }

    /// Returns the request, for texts that name values of it. `request` is its head as the client sent it.
    pub fn view<'v>(&'v self, request: &'v RequestHeader) -> RequestView<'v> {
        RequestView { request, exchange: &self.exchange, pattern: self.pattern(), response: None }
    }
}
