//! Asking the targets of a visit, until one responds or no further try is left.
//!
//! For every request that Pingora's proxy does not carry: hedged ones, WebSockets, copies for a mirror. A second target may be
//! asked when the first takes long, the first response is taken, and the other target is let go (J. Dean, L. Barroso, "The
//! Tail at Scale", 2013).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::HeaderMap;
use pingora::connectors::http::Connector;
use pingora::connectors::{ConnectorOptions, L4Connect};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as Http1Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout_at;

use super::call::{connect, error_text, exchange, is_exhaustion, read_body, release};
use super::choice::Member;
use super::failure::{CLIENT_GONE, Failure, exhausted, rejection_of};
use super::target::Outcome;
use super::upstream::Upstream;
use super::visit::{Caller, Replay, Try, Visit};
use crate::exchange::{Reason, Rejection};

/// Returns what opens the sockets of a target.
pub type Opener = fn(&Member) -> Arc<dyn L4Connect + Send + Sync>;

/// Connections to targets for requests that Pingora's proxy does not carry.
pub struct Calls {
    connector: Connector<()>,
    opener: Opener,
}

/// Edits the request for a target; a deadline is the end of its time.
pub type Edit<'e> = &'e (dyn Fn(&mut RequestHeader, &Member, Option<Instant>) -> Result<()> + Sync);

/// What targets are asked. The head is without the fields of the client's connection.
pub struct Asked<'a> {
    /// The head.
    pub head: &'a RequestHeader,
    /// The body, which can be sent again.
    pub body: Bytes,
    /// What of the client's request decides on the target.
    pub caller: Caller<'a>,
    /// Whether its method is one whose requests may be sent twice.
    pub safe: bool,
    /// Whether it may go to a second target beside the first.
    pub hedged: bool,
    /// Whether another protocol is asked for, on a connection of its own.
    pub upgrade: bool,
    /// Whether the caller speaks gRPC.
    pub grpc: bool,
    /// What is edited for each target.
    pub edit: Edit<'a>,
    /// Where the heads of interim responses go; what does not fit is dropped.
    pub interim: Option<Sender<ResponseHeader>>,
    /// Whether somebody still waits for the response.
    pub is_wanted: &'a (dyn Fn() -> bool + Sync),
}

/// A response whose head has come.
pub struct Response {
    /// The head.
    pub head: ResponseHeader,
    session: HttpSession<()>,
    peer: Box<HttpPeer>,
}

impl Response {
    /// Returns the next part of the body.
    ///
    /// # Errors
    /// When the target breaks off.
    pub async fn part(&mut self) -> Result<Option<Bytes>> {
        self.session.read_response_body().await.map_err(Error::into_up)
    }

    /// Whether the whole of the body has been read.
    pub fn is_done(&mut self) -> bool {
        self.session.response_done()
    }

    /// Returns the trailers, which come on HTTP/2 alone; to be asked for after the body.
    ///
    /// # Errors
    /// When the target breaks off.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        match &mut self.session {
            HttpSession::H2(session) => session.read_trailers().await.map_err(Error::into_up),
            _ => Ok(None),
        }
    }

    /// Returns at most so many bytes of the body at once.
    ///
    /// # Errors
    /// When the target breaks off.
    pub async fn read(&mut self, most: usize) -> Result<Bytes> {
        read_body(&mut self.session, most).await.map(|(body, _)| body).map_err(Error::into_up)
    }

    /// Returns the session of HTTP/1, whose stream another protocol goes on with.
    pub fn into_http1(self) -> Option<Http1Session> {
        match self.session {
            HttpSession::H1(session) => Some(session),
            _ => None,
        }
    }
}

/// A try that has ended.
struct Ended {
    attempt: Try,
    peer: Box<HttpPeer>,
    result: std::result::Result<(HttpSession<()>, ResponseHeader), Failed>,
}

struct Failed {
    error: Box<Error>,
    /// Whether there was a connection.
    connected: bool,
}

/// Tries that are under way at the same time.
type UnderWay<'a> = FuturesUnordered<BoxFuture<'a, Ended>>;

type Allowed<T> = std::result::Result<T, Box<Rejection>>;

impl Calls {
    /// Makes connections with those options, over sockets that `opener` opens.
    pub fn new(options: Option<ConnectorOptions>, opener: Opener) -> Self {
        Self { connector: Connector::new(options), opener }
    }

    /// Asks targets of a visit until one responds. The visit may have been admitted before.
    ///
    /// # Errors
    /// With the rejection of a request that gets no response.
    pub async fn ask(&self, visit: &mut Visit, asked: &Asked<'_>) -> Allowed<Response> {
        let replay = Replay { unsent: true, safe: asked.safe, possible: true };
        loop {
            visit.next(&asked.caller).await?;
            let tries = visit.tries();
            let Ended { attempt, peer, result } = self.race(visit, asked).await?;
            visit.set_try(attempt);
            match result {
                Ok((session, head)) => {
                    let now = Instant::now();
                    visit.note_response(&head, asked.grpc, now);
                    // Where a second target was asked, both have responded so.
                    let again = visit.tries() == tries && visit.is_retried(&head) && visit.retry_response(replay, now);
                    if !again {
                        return Ok(Response { head, session, peer });
                    }
                }
                Err(failed) => after_failure(visit, failed, asked, replay)?,
            }
        }
    }

    /// Returns the try that the request goes on with: the first with a response that is not one to be tried again, or else
    /// the last with any response, or else the last.
    async fn race(&self, visit: &mut Visit, asked: &Asked<'_>) -> Allowed<Ended> {
        let Some(first) = visit.take_try() else { return Err(Rejection::new(Reason::Internal, "")) };
        let (mut under_way, present) = (UnderWay::new(), first.address());
        let after = visit.upstream().retry.hedge_after.filter(|_| asked.hedged && visit.tries() == 1);
        let mut beside = after.map(|after| Instant::now() + after);
        under_way.push(self.begin(visit, first, asked)?);
        let mut poor = None;
        loop {
            let ended = next_ended(&mut under_way, beside).await;
            if let Some(Ended { result: Ok((_, head)), .. }) = &ended
                && !visit.is_retried(head)
            {
                return ended.ok_or_else(|| Rejection::new(Reason::Internal, ""));
            }
            if beside.take().is_some()
                && let Some(second) = visit.try_beside(present, Instant::now())
            {
                under_way.push(self.begin(visit, second, asked)?);
            }
            let Some(mut ended) = ended else { continue };
            let over = under_way.is_empty();
            match &ended.result {
                Ok(_) if over => return Ok(ended),
                Ok(_) => poor = Some(ended),
                Err(_) if over && poor.is_none() => return Ok(ended),
                Err(failed) => {
                    report(visit, &mut ended.attempt, failed);
                    if let (true, Some(poor)) = (over, poor.take()) {
                        return Ok(poor);
                    }
                }
            }
        }
    }

    /// Begins a try at a target.
    fn begin<'c>(&'c self, visit: &Visit, attempt: Try, asked: &Asked<'_>) -> Allowed<BoxFuture<'c, Ended>> {
        let (deadline, upstream) = (visit.deadline(), Arc::clone(visit.upstream()));
        let mut peer = visit.peer_of(&attempt, Instant::now());
        peer.options.custom_l4 = Some((self.opener)(&attempt.picked.member));
        if asked.upgrade {
            // Such a request is one of HTTP/1.1, and its connection is no other request's before or after.
            peer.options.set_http_version(1, 1);
            peer.group_key = fastrand::u64(..);
        }
        let mut request = asked.head.clone();
        let edited = (asked.edit)(&mut request, &attempt.picked.member, deadline);
        edited.map_err(|error| Rejection::new(Reason::Internal, "").log(error_text(&error)))?;
        let (body, interim, upgrade) = (asked.body.clone(), asked.interim.clone(), asked.upgrade);
        let work = async move {
            let mut ended = Ended { attempt, peer, result: Err(Failed { error: late(), connected: true }) };
            let Ended { attempt, peer, .. } = &mut ended;
            let work = self.attempt((attempt, peer, &upstream), (request, body, upgrade), interim);
            let result = match deadline {
                Some(deadline) => timeout_at(deadline.into(), work).await.ok(),
                None => Some(work.await),
            };
            ended.result = result.unwrap_or(ended.result);
            ended
        };
        Ok(work.boxed())
    }

    async fn attempt(
        &self,
        (attempt, peer, upstream): (&mut Try, &HttpPeer, &Upstream),
        (request, body, upgrade): (RequestHeader, Bytes, bool),
        interim: Option<Sender<ResponseHeader>>,
    ) -> std::result::Result<(HttpSession<()>, ResponseHeader), Failed> {
        let failed = |connected| move |error: Box<Error>| Failed { error: error.into_up(), connected };
        let (mut session, reused) = connect(&self.connector, peer).await.map_err(failed(false))?;
        attempt.note_connection(upstream, reused);
        let mut pass = |head| {
            if let Some(interim) = &interim {
                drop(interim.try_send(head));
            }
        };
        let head = exchange(&mut session, request, body, upgrade, peer.options.read_timeout, &mut pass).await.map_err(failed(true))?;
        Ok((session, head))
    }

    /// Keeps the connection of a response, if the whole of that was read.
    pub async fn release(&self, response: Response) {
        release(&self.connector, &response.peer, response.session).await;
    }
}

/// Returns the next try that ends; `None` when it is time for a second one.
async fn next_ended(under_way: &mut UnderWay<'_>, beside: Option<Instant>) -> Option<Ended> {
    match beside {
        Some(at) => timeout_at(at.into(), under_way.next()).await.ok().flatten(),
        None => under_way.next().await,
    }
}

fn late() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the time of the route is over").into_up()
}

/// Notes that a try failed beside which there is another.
fn report(visit: &Visit, attempt: &mut Try, failed: &Failed) {
    let exhausted = !failed.connected && is_exhaustion(&failed.error);
    if !exhausted && *failed.error.etype() != CLIENT_GONE {
        let late = *failed.error.etype() == ErrorType::ReadTimedout;
        visit.report_try(attempt, if late { Outcome::TimedOut } else { Outcome::GatewayFailed });
    }
}

/// Decides whether a request is tried again whose last try failed.
///
/// # Errors
/// With its rejection where it is not.
fn after_failure(visit: &mut Visit, Failed { error, connected }: Failed, asked: &Asked<'_>, replay: Replay) -> Allowed<()> {
    let gone = || Rejection::new(Reason::ClientGone, "");
    let now = Instant::now();
    let again = if connected {
        let how = visit.note_failure(Failure::of(&error, false), replay);
        if how.is_some() && !(asked.is_wanted)() {
            return Err(gone());
        }
        how.is_some_and(|how| visit.again(how, now))
    } else if *error.etype() == CLIENT_GONE || !(asked.is_wanted)() {
        return Err(gone());
    } else if is_exhaustion(&error) {
        // No target is to blame, and another would be of no help.
        return Err(exhausted());
    } else {
        visit.note_no_connection(now)
    };
    if again { Ok(()) } else { Err(rejection_of(&error, visit.address(), visit.is_over(now))) }
}
