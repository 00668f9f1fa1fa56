//! What a request carries from phase to phase.

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::interim::Interims;
use super::mirror::Mirroring;
use super::whole::WholeBody;
use crate::actions::Forward;
use crate::edge::listeners::{Connection, Pace, Progress, current_connection};
use crate::exchange::{Client, Exchange, Rejection};
use crate::filters::Memories;
use crate::rules::payload::BodyChain;
use crate::rules::routing::PathPattern;
use crate::snapshot::{Held, Limits, Listener, Route};
use crate::upstreams::{Upstream, Visit};

/// A direction in which a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the target.
    Request,
    /// To the client.
    Answer,
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
    /// Whether the client has closed its side or, on HTTP/2, reset the stream.
    pub fn is_gone(&self) -> bool {
        match &self.progress {
            Some(progress) => progress.gone().now_or_never().is_some(),
            // On HTTP/1 the session holds the socket that is asked.
            None => self.connection.as_ref().is_some_and(|connection| connection.is_gone()),
        }
    }

    /// Returns the pace at which the response is read.
    pub fn pace(&self) -> Option<&Pace> {
        let of_stream = self.progress.as_ref().map(|progress| &progress.pace);
        of_stream.or_else(|| self.connection.as_ref().map(|connection| &connection.pace))
    }
}

/// The route that takes the request.
#[derive(Debug, Default)]
pub struct Matched {
    /// Its place in the snapshot, once there is one.
    pub route: Option<usize>,
    /// The router's entry that matched.
    pub entry: usize,
    /// Whether the request is counted as under way on it.
    pub counted: bool,
}

/// The request's body, as it passes.
#[derive(Debug)]
pub struct RequestBody {
    /// Bytes that it may have.
    pub limit: u64,
    /// Bytes that it had so far, in the present try.
    pub seen: u64,
    /// Whether it has ended.
    over: bool,
}

/// How the request ends, for its log line, which is written once.
#[derive(Debug, Default)]
pub struct Ending {
    /// The request's head, when the session has it no more.
    pub head: Option<Box<RequestHeader>>,
    /// Bytes that went through a tunnel, in and out.
    pub tunnelled: Option<(u64, u64)>,
    /// Whether the target's response has ended.
    response_over: bool,
    /// Whether it ended with a reset that only says so.
    pub ended_by_reset: bool,
    /// Whether it was counted and logged.
    pub recorded: bool,
}

/// One request. The snapshot that it holds is the only one that it sees.
#[derive(Debug)]
pub struct Context {
    /// The configuration of its whole life.
    pub serving: Arc<Held>,
    /// Who waits for the response.
    pub downstream: Downstream,
    /// Its listener's place in the snapshot; `None` when the listener is in it no more.
    pub listener: Option<usize>,
    /// What is known of it.
    pub exchange: Exchange,
    /// Its route.
    pub matched: Matched,
    /// What it has to do with an upstream.
    pub visit: Option<Visit>,
    /// The copy of it for a mirror.
    pub mirroring: Mirroring,
    /// Its body, as it passes.
    pub request_body: RequestBody,
    /// Its body, if that is held whole.
    pub whole: Option<Box<WholeBody>>,
    /// How the response's body is changed.
    pub body: BodyChain,
    /// What filters remember of it.
    pub memories: Memories,
    /// Interim responses.
    pub interims: Interims,
    /// The response to give where a phase can only fail.
    pub rejection: Option<Box<Rejection>>,
    /// The status of the response.
    pub status: u16,
    /// How it ends.
    pub ending: Ending,
}

impl Context {
    /// Has the connection end with this response, and say so, if its listener is closing by now.
    pub fn end_with_the_listener(&self, session: &mut Session) {
        if self.downstream.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
            self.close_after(session);
        }
    }

    /// Has the client's connection closed after the response.
    pub fn close_after(&self, session: &mut Session) {
        session.set_keepalive(None);
        self.whole.iter().for_each(|whole| whole.close());
    }

    /// A request on the running connection.
    pub fn new(serving: Arc<Held>) -> Self {
        let connection = current_connection();
        let client = match &connection {
            Some(connection) => {
                connection.head_complete();
                connection.client()
            }
            None => Client::unknown(),
        };
        let (serving, listener) = match &connection {
            Some(connection) => connection.home.serving(serving),
            None => (serving, None),
        };
        Self {
            downstream: Downstream { connection, progress: Progress::current() },
            listener,
            exchange: Exchange::new(client),
            matched: Matched::default(),
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
            serving,
        }
    }

    /// Its listener.
    pub fn listener(&self) -> Option<&Listener> {
        self.serving.snapshot.listeners.get(self.listener?)
    }

    /// Its route.
    pub fn route(&self) -> Option<&Route> {
        self.serving.route(self.matched.route)
    }

    /// The upstream that was chosen.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.visit.as_ref().map(|visit| &**visit.upstream())
    }

    /// When the route's time is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.visit.as_ref().and_then(Visit::deadline)
    }

    /// Its listener's limits.
    pub fn limits(&self) -> Option<&Limits> {
        self.listener()?.http().map(|http| &http.limits)
    }

    /// The request's body, or the target's response, has come to its end. After both neither the target nor the
    /// upstream has it under way any longer, however long the client takes for the rest of the response.
    pub fn end_of(&mut self, side: Side) {
        match side {
            Side::Request => {
                self.request_body.over = true;
                self.pace().iter().for_each(|pace| pace.end_request());
            }
            Side::Answer => {
                self.ending.response_over = true;
                self.pace().iter().for_each(|pace| pace.end());
            }
        }
        if self.request_body.over && self.ending.response_over {
            self.leave_upstream();
        }
    }

    /// The pace at which its response is read.
    pub fn pace(&self) -> Option<&Pace> {
        self.downstream.pace()
    }

    /// Frees the request's places at the upstream and at the target.
    pub fn leave_upstream(&mut self) {
        self.visit.iter_mut().for_each(Visit::leave);
    }

    /// How its route forwards, if it does.
    pub fn forward(&self) -> Option<&Forward> {
        self.route()?.action.forward()
    }

    /// Returns the pattern of the path that took the request.
    pub fn pattern(&self) -> Option<&PathPattern> {
        self.matched.route?;
        let router = self.serving.snapshot.routers.get(self.listener?)?;
        Some(&router.entry(self.matched.entry).path)
    }
}
