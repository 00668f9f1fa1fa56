//! What a request carries from phase to phase.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::mirror::Copy;
use super::sticky::StickySession;
use super::whole::WholeBody;
use crate::edge::listeners::{Connection, Pace, Progress, current_connection};
use crate::exchange::{Client, Exchange, Rejection};
use crate::filters::Memories;
use crate::rules::payload::BodyChain;
use crate::snapshot::{Action, Forward, Held, Limits, Listener, Route, Upstream};
use crate::upstreams::{Entered, Picked};

/// A direction in which a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// To the target.
    Request,
    /// To the client.
    Answer,
}

/// One request. The snapshot that it holds is the only one that it sees.
#[derive(Debug)]
pub struct Context {
    /// The configuration of its whole life.
    pub serving: Arc<Held>,
    /// Its connection.
    pub connection: Option<Arc<Connection>>,
    /// Its listener's place in the snapshot; `None` when the listener is in it no more.
    pub listener: Option<usize>,
    /// What is known of it.
    pub exchange: Exchange,
    /// Its route's place in the snapshot.
    pub route: Option<usize>,
    /// The router's entry that matched.
    pub entry: usize,
    /// The place of the upstream that was chosen.
    pub upstream: Option<usize>,
    /// The target that was picked last.
    pub picked: Option<Picked>,
    /// Targets that failed.
    pub tried: Vec<SocketAddr>,
    /// Attempts.
    pub tries: u32,
    /// Its place among the requests of the upstream.
    pub entered: Option<Entered>,
    /// How long to wait before the next attempt.
    pub backoff: Option<Duration>,
    /// Whether the next attempt is on a new connection, since a kept one was closed.
    pub fresh: bool,
    /// Whether the connection of the present attempt had been kept.
    pub reused: bool,
    /// Whether the answer that has come is to be tried again.
    pub again: bool,
    /// The copy of it that is being made for a mirror.
    pub copy: Option<Box<Copy>>,
    /// Whether that was decided.
    pub copied: bool,
    /// Its session.
    pub sticky: StickySession,
    /// When forwarding began.
    pub forwarded: Option<Instant>,
    /// When the answer's headers came.
    pub answered: Option<Instant>,
    /// When the route's time is over.
    pub deadline: Option<Instant>,
    /// Bytes that the request's body may have.
    pub body_limit: u64,
    /// Bytes that it had so far.
    pub body_seen: u64,
    /// The progress of the body on HTTP/2.
    pub progress: Option<Arc<Progress>>,
    /// How the response's body is changed.
    pub body: BodyChain,
    /// What filters remember of it.
    pub memories: Memories,
    /// Its body, if that is held whole.
    pub whole: Option<Box<WholeBody>>,
    /// The answer to give where a phase can only fail.
    pub rejection: Option<Box<Rejection>>,
    /// The status of the answer.
    pub status: u16,
    /// The request's head, when the session has it no more.
    pub head: Option<Box<RequestHeader>>,
    /// Bytes that went through a tunnel, in and out.
    pub tunnelled: Option<(u64, u64)>,
    /// Whether its body has ended.
    request_over: bool,
    /// Whether the target's answer has.
    answer_over: bool,
    /// Interim responses that its target has sent.
    pub interim: u32,
    /// Whether the gateway has told the client to go on with its body.
    pub continued: bool,
    /// Whether the client's connection was to be kept, as it was before an interim answer.
    pub kept: Option<Option<u64>>,
    /// Whether the response ended with a reset that only says so.
    pub ended_by_reset: bool,
    /// Whether it is counted as under way.
    pub counted: bool,
    /// Whether it was counted and logged.
    pub recorded: bool,
}

impl Context {
    /// Has the connection end with this answer, and say so, if its listener is closing by now.
    pub fn end_with_the_listener(&self, session: &mut Session) {
        if self.connection.as_ref().is_some_and(|connection| connection.is_closing()) {
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
            connection,
            listener,
            exchange: Exchange::new(client),
            route: None,
            entry: 0,
            upstream: None,
            picked: None,
            tried: Vec::new(),
            tries: 0,
            entered: None,
            backoff: None,
            fresh: false,
            reused: false,
            again: false,
            copy: None,
            copied: false,
            sticky: StickySession::default(),
            forwarded: None,
            answered: None,
            deadline: None,
            body_limit: u64::MAX,
            body_seen: 0,
            progress: Progress::current(),
            body: BodyChain::default(),
            memories: Memories::default(),
            whole: None,
            rejection: None,
            status: 0,
            head: None,
            tunnelled: None,
            request_over: false,
            answer_over: false,
            interim: 0,
            continued: false,
            kept: None,
            ended_by_reset: false,
            counted: false,
            recorded: false,
            serving,
        }
    }

    /// Its listener.
    pub fn listener(&self) -> Option<&Listener> {
        self.serving.snapshot.listeners.get(self.listener?)
    }

    /// Its route.
    pub fn route(&self) -> Option<&Route> {
        self.serving.route(self.route)
    }

    /// The upstream that was chosen.
    pub fn upstream(&self) -> Option<&Upstream> {
        self.serving.upstream(self.upstream)
    }

    /// Its listener's limits.
    pub fn limits(&self) -> Option<&Limits> {
        self.listener()?.http().map(|http| &http.limits)
    }

    /// The request's body, or the target's answer, has come to its end. After both neither the target nor the
    /// upstream has it under way any longer, however long the client takes for the rest of the answer.
    pub fn end_of(&mut self, side: Side) {
        match side {
            Side::Request => {
                self.request_over = true;
                self.pace().iter().for_each(|pace| pace.end_request());
            }
            Side::Answer => {
                self.answer_over = true;
                self.pace().iter().for_each(|pace| pace.end());
            }
        }
        if self.request_over && self.answer_over {
            self.leave_upstream();
        }
    }

    /// The pace at which its response is read.
    pub fn pace(&self) -> Option<&Pace> {
        let of_stream = self.progress.as_ref().map(|progress| &progress.pace);
        of_stream.or_else(|| self.connection.as_ref().map(|connection| &connection.pace))
    }

    /// Frees the request's places at the upstream and at the target.
    pub fn leave_upstream(&mut self) {
        self.entered = None;
        self.picked.iter_mut().for_each(Picked::release);
    }

    /// How its route forwards, if it does.
    pub fn forward(&self) -> Option<&Forward> {
        match self.route().map(|r| &r.action) {
            Some(Action::Forward(forward)) => Some(forward),
            _ => None,
        }
    }
}
