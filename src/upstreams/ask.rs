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
use super::shape::widen_window;
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
        if !asked.body.is_empty() {
            widen_window(&mut peer);
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

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::OnceLock;
    use std::time::Duration;

    use async_trait::async_trait;
    use pingora::protocols::l4::{socket::SocketAddr, stream::Stream};

    use super::*;
    use crate::rules::balance::Algorithm;
    use crate::rules::resilience::Budget;
    use crate::upstreams::discovery::Changes;
    use crate::upstreams::gate::{Class, GateShape};
    use crate::upstreams::pool::Pool;
    use crate::upstreams::simulation::{backends, shape};
    use crate::upstreams::upstream::Retry;

    #[derive(Debug)]
    struct Plain;

    #[async_trait]
    impl L4Connect for Plain {
        async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
            let address = address.as_inet().expect("an address of a network");
            Ok(tokio::net::TcpStream::connect(address).await.expect("a connection").into())
        }
    }

    /// A port at which each request gets these bytes, and then the end; nothing at all if there are none.
    fn target(response: Option<&'static [u8]>) -> usize {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for mut stream in listener.incoming().flatten() {
                let mut head = [0; 4096];
                let _ = stream.read(&mut head);
                match response {
                    Some(response) => _ = stream.write_all(response),
                    None => silent.push(stream),
                }
            }
        });
        usize::from(port)
    }

    fn upstream(ports: &[usize], hedge_after: Option<Duration>) -> Arc<Upstream> {
        let mut shape = shape(&mut fastrand::Rng::with_seed(1));
        (shape.breaker, shape.target_breaker, shape.outlier, shape.algorithm) = (None, None, None, Algorithm::RoundRobin);
        shape.gate = GateShape { requests: 100, per_target: 0, ..shape.gate };
        shape.budget = Budget { percent: 100, min: 100 };
        let pool = Pool::new(shape, None, Arc::new(Changes::default()));
        pool.members().replace(&ports.iter().flat_map(|port| backends(*port..=*port)).collect());
        let retry = Retry {
            attempts: 3,
            connect: true,
            reset: true,
            timeout: true,
            statuses: Some("503".parse().expect("a status")),
            grpc_statuses: Vec::new(),
            per_try: None,
            backoff: 1_000,
            backoff_max: 1_000,
            hedge_after,
        };
        Arc::new(Upstream { name: "asked".to_owned(), pool, key: None, retry, sticky: None, backup: None, metrics: OnceLock::new() })
    }

    /// Asks, and returns the status and the body, or the reason, with the number of tries.
    async fn ask(visit: &mut Visit, safe: bool, wanted: bool) -> (std::result::Result<(u16, Bytes), Reason>, u32) {
        let calls = Calls::new(crate::tls::connector_options(), |_| Arc::new(Plain));
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        head.insert_header("host", "a").expect("a field");
        let asked = Asked {
            head: &head,
            body: Bytes::new(),
            caller: Caller::default(),
            safe,
            hedged: true,
            upgrade: false,
            grpc: false,
            edit: &|_, _, _| Ok(()),
            interim: None,
            is_wanted: &|| wanted,
        };
        let result = match calls.ask(visit, &asked).await {
            Ok(mut response) => Ok((response.head.status.as_u16(), response.read(100).await.expect("a body"))),
            Err(rejection) => Err(rejection.reason),
        };
        visit.end();
        let active: u32 = visit.upstream().pool.members().by_address.lock().values().map(|known| known.target.active()).sum();
        assert_eq!((active, visit.upstream().pool.gate().active()), (0, 0), "nothing is counted after the end");
        (result, visit.tries())
    }

    const WELL: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell";
    const BUSY: &[u8] = b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy";

    fn visit(upstream: &Arc<Upstream>) -> Visit {
        Visit::new(Arc::clone(upstream), Class::Normal, None)
    }

    #[tokio::test]
    async fn without_a_client_a_request_is_tried_again() {
        let (broken, busy, well) = (target(Some(b"")), target(Some(BUSY)), target(Some(WELL)));
        let good = Ok((200, Bytes::from_static(b"well")));
        for poor in [broken, busy] {
            let upstream = upstream(&[poor, well], None);
            for _ in 0..3 {
                let (result, tries) = ask(&mut visit(&upstream), true, true).await;
                assert_eq!(result, good);
                assert!(tries <= 2);
            }
        }
        let last = Ok((503, Bytes::from_static(b"busy")));
        assert_eq!(ask(&mut visit(&upstream(&[busy], None)), true, true).await, (last.clone(), 3));
        let once = &mut Visit::single(upstream(&[busy], None), Class::Low, None);
        assert_eq!(ask(once, true, true).await, (last, 1));
    }

    #[tokio::test]
    async fn what_has_an_effect_or_nobody_who_waits_is_tried_once() {
        let broken = upstream(&[target(Some(b""))], None);
        assert_eq!(ask(&mut visit(&broken), true, true).await, (Err(Reason::TargetReset), 3));
        assert_eq!(ask(&mut visit(&broken), false, true).await, (Err(Reason::TargetReset), 1));
        assert_eq!(ask(&mut visit(&broken), true, false).await, (Err(Reason::ClientGone), 1));
    }

    #[tokio::test]
    async fn a_second_target_is_asked_and_time_has_an_end() {
        let silent = target(None);
        let hedged = upstream(&[silent, target(Some(WELL))], Some(Duration::from_millis(5)));
        for _ in 0..3 {
            assert_eq!(ask(&mut visit(&hedged), true, true).await.0.map(|(status, _)| status), Ok(200));
        }
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut late = Visit::new(upstream(&[silent], None), Class::Normal, Some(deadline));
        assert_eq!(ask(&mut late, true, true).await.0, Err(Reason::RouteTimeout));
    }
}
