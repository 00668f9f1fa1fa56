//! Sends requests to the targets of a visit, until one responds or no further try is left.
//!
//! It serves every request that Pingora's proxy does not carry: hedged ones, WebSockets, copies for a mirror. The
//! request may be sent to a second target when the first takes long; the first response is used, and the other try is
//! dropped (J. Dean, L. Barroso, "The Tail at Scale", 2013).

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora::connectors::http::Connector;
use pingora::connectors::{ConnectorOptions, L4Connect};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v1::client::HttpSession as Http1Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout_at;

use super::call::{connect, error_text, exchange, is_exhaustion, is_reset_in_order, read_body, release};
use super::choice::Member;
use super::failure::{CLIENT_GONE, Failure, exhausted, rejection_of};
use super::proxy_header::{ProxiedClient, keep_to_one_client};
use super::shape::widen_window;
use super::target::TargetOutcome;
use super::upstream::Upstream;
use super::visit::{Caller, ResendConditions, Try, Visit};
use crate::exchange::{Reason, Rejection};

/// Returns what opens the sockets of a target.
pub type OpenSockets = fn(&Member, Option<&ProxiedClient<'_>>) -> Arc<dyn L4Connect + Send + Sync>;

/// Connections to targets for requests that Pingora's proxy does not carry.
pub struct Calls {
    connector: Connector<()>,
    opener: OpenSockets,
}

/// Edits the request for a target, with the deadline of the request.
pub type TargetEdit<'e> = &'e (dyn Fn(&mut RequestHeader, &Member, Option<Instant>) -> Result<()> + Sync);

/// A request to send to targets. The head is without the fields of the client's connection.
pub struct OutgoingRequest<'a> {
    /// The head.
    pub head: &'a RequestHeader,
    /// The body, which can be sent again.
    pub body: Bytes,
    /// The facts about the client's request that decide on the target.
    pub caller: Caller<'a>,
    /// Whether its method permits to send it again.
    pub safe: bool,
    /// Whether it may go to a second target beside the first.
    pub hedged: bool,
    /// Whether another protocol is requested, on a connection of its own.
    pub upgrade: bool,
    /// Whether the caller speaks gRPC.
    pub grpc: bool,
    /// The edit of the head for each target.
    pub edit: TargetEdit<'a>,
    /// The channel for the heads of interim responses; those that do not fit are dropped.
    pub interim: Option<Sender<ResponseHeader>>,
    /// Returns whether the response is still needed.
    pub is_wanted: &'a (dyn Fn() -> bool + Sync),
}

/// A response whose head has come.
pub struct Response {
    /// The head.
    pub head: ResponseHeader,
    session: HttpSession<()>,
    peer: Box<HttpPeer>,
    /// The bytes of the body so far.
    read: usize,
}

impl Response {
    /// Returns the next part of the body.
    ///
    /// # Errors
    /// Fails when the target breaks off.
    pub async fn part(&mut self) -> Result<Option<Bytes>> {
        match self.session.read_response_body().await {
            Ok(part) => {
                self.read += part.as_ref().map_or(0, Bytes::len);
                Ok(part)
            }
            Err(error) if is_reset_in_order(&error) && self.is_whole() => Ok(None),
            Err(error) => Err(error.into_up()),
        }
    }

    /// Returns whether as many bytes have come as the head says, if it says so.
    fn is_whole(&self) -> bool {
        let length = self.head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        length.is_none_or(|length: usize| length == self.read)
    }

    /// Returns whether the whole body has been read.
    pub fn is_done(&mut self) -> bool {
        self.session.response_done()
    }

    /// Returns the trailers, which exist only on HTTP/2. It must be called after the body.
    ///
    /// # Errors
    /// Fails when the target breaks off.
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>> {
        match &mut self.session {
            HttpSession::H2(session) => session.read_trailers().await.map_err(Error::into_up),
            _ => Ok(None),
        }
    }

    /// Reads at most `most` bytes of the body.
    ///
    /// # Errors
    /// Fails when the target breaks off.
    pub async fn read(&mut self, most: usize) -> Result<Bytes> {
        read_body(&mut self.session, most).await.map(|(body, _)| body).map_err(Error::into_up)
    }

    /// Returns the HTTP/1 session, whose stream another protocol goes on with.
    pub fn into_http1(self) -> Option<Http1Session> {
        match self.session {
            HttpSession::H1(session) => Some(session),
            _ => None,
        }
    }
}

/// A try that has ended.
struct EndedTry {
    attempt: Try,
    peer: Box<HttpPeer>,
    result: std::result::Result<(HttpSession<()>, ResponseHeader), FailedTry>,
}

struct FailedTry {
    error: Box<Error>,
    /// Whether there was a connection.
    connected: bool,
}

/// The tries that are active at the same time.
type ActiveTries<'a> = FuturesUnordered<BoxFuture<'a, EndedTry>>;

type OrRejection<T> = std::result::Result<T, Box<Rejection>>;

impl Calls {
    /// Returns calls that connect with those options, over sockets that `opener` opens.
    pub fn new(options: Option<ConnectorOptions>, opener: OpenSockets) -> Self {
        Self { connector: Connector::new(options), opener }
    }

    /// Sends the request to targets of a visit until one responds. The visit may have been admitted before.
    ///
    /// # Errors
    /// Returns the rejection of a request that gets no response.
    pub async fn send(&self, visit: &mut Visit, request: &OutgoingRequest<'_>) -> OrRejection<Response> {
        let replay = ResendConditions { unsent: true, safe: request.safe, possible: true };
        loop {
            visit.next(&request.caller).await?;
            let tries = visit.tries();
            let EndedTry { attempt, peer, result } = self.race(visit, request).await?;
            visit.set_try(attempt);
            match result {
                Ok((session, head)) => {
                    let now = Instant::now();
                    visit.note_response(&head, request.grpc, now);
                    // With a second target, both have responded so.
                    let again = visit.tries() == tries && visit.is_retried(&head) && visit.retry_response(replay, now);
                    if !again {
                        return Ok(Response { head, session, peer, read: 0 });
                    }
                }
                Err(failed) => after_failure(visit, failed, request, replay)?,
            }
        }
    }

    /// Returns the try that the request goes on with: the first whose response is not to be retried, or else the last
    /// with any response, or else the last.
    async fn race(&self, visit: &mut Visit, request: &OutgoingRequest<'_>) -> OrRejection<EndedTry> {
        let Some(first) = visit.take_try() else { return Err(Rejection::new(Reason::Internal, "")) };
        let (mut active, present) = (ActiveTries::new(), first.address());
        let after = visit.upstream().retry.hedge_after.filter(|_| request.hedged && visit.tries() == 1);
        let mut beside = after.map(|after| Instant::now() + after);
        active.push(self.begin(visit, first, request)?);
        let mut poor = None;
        loop {
            let ended = next_ended(&mut active, beside).await;
            if let Some(EndedTry { result: Ok((_, head)), .. }) = &ended
                && !visit.is_retried(head)
            {
                return ended.ok_or_else(|| Rejection::new(Reason::Internal, ""));
            }
            if beside.take().is_some()
                && let Some(second) = visit.try_beside(present, Instant::now())
            {
                active.push(self.begin(visit, second, request)?);
            }
            let Some(mut ended) = ended else { continue };
            let over = active.is_empty();
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
    fn begin<'c>(
        &'c self,
        visit: &Visit,
        attempt: Try,
        request: &OutgoingRequest<'_>,
    ) -> OrRejection<BoxFuture<'c, EndedTry>> {
        let (deadline, upstream) = (visit.deadline(), Arc::clone(visit.upstream()));
        let mut peer = visit.peer_of(&attempt, Instant::now());
        let member = &attempt.picked.member;
        peer.options.custom_l4 = Some((self.opener)(member, request.caller.client.as_ref()));
        if member.proxy.is_some() {
            keep_to_one_client(&mut peer);
        }
        if request.upgrade {
            // Such a request is one of HTTP/1.1, and its connection is never reused.
            peer.options.set_http_version(1, 1);
            peer.group_key = fastrand::u64(..);
        }
        if !request.body.is_empty() {
            widen_window(&mut peer);
        }
        let mut head = request.head.clone();
        let edited = (request.edit)(&mut head, &attempt.picked.member, deadline);
        edited.map_err(|error| Rejection::new(Reason::Internal, "").log(error_text(&error)))?;
        let (body, interim, upgrade) = (request.body.clone(), request.interim.clone(), request.upgrade);
        let work = async move {
            let mut ended =
                EndedTry { attempt, peer, result: Err(FailedTry { error: deadline_error(), connected: true }) };
            let EndedTry { attempt, peer, .. } = &mut ended;
            let work = self.attempt((attempt, peer, &upstream), (head, body, upgrade), interim);
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
    ) -> std::result::Result<(HttpSession<()>, ResponseHeader), FailedTry> {
        let failed = |connected| move |error: Box<Error>| FailedTry { error: error.into_up(), connected };
        let (mut session, reused) = connect(&self.connector, peer).await.map_err(failed(false))?;
        attempt.note_connection(upstream, reused);
        let mut pass = |head| {
            if let Some(interim) = &interim {
                drop(interim.try_send(head));
            }
        };
        let head = exchange(&mut session, request, body, upgrade, peer.options.read_timeout, &mut pass)
            .await
            .map_err(failed(true))?;
        Ok((session, head))
    }

    /// Releases the connection of a response for reuse, if the whole body was read.
    pub async fn release(&self, response: Response) {
        release(&self.connector, &response.peer, response.session).await;
    }
}

/// Returns the next try that ends; `None` when it is time for a second one.
async fn next_ended(active: &mut ActiveTries<'_>, beside: Option<Instant>) -> Option<EndedTry> {
    match beside {
        Some(at) => timeout_at(at.into(), active.next()).await.ok().flatten(),
        None => active.next().await,
    }
}

fn deadline_error() -> Box<Error> {
    Error::explain(ErrorType::ReadTimedout, "the time of the route is over").into_up()
}

/// Reports the failure of a try while another one goes on.
fn report(visit: &Visit, attempt: &mut Try, failed: &FailedTry) {
    let exhausted = !failed.connected && is_exhaustion(&failed.error);
    if !exhausted && *failed.error.etype() != CLIENT_GONE {
        let late = *failed.error.etype() == ErrorType::ReadTimedout;
        visit.report_try(attempt, if late { TargetOutcome::TimedOut } else { TargetOutcome::GatewayFailed });
    }
}

/// Decides whether a request is retried whose last try failed.
///
/// # Errors
/// Returns the rejection where it is not.
fn after_failure(
    visit: &mut Visit,
    FailedTry { error, connected }: FailedTry,
    request: &OutgoingRequest<'_>,
    replay: ResendConditions,
) -> OrRejection<()> {
    let gone = || Rejection::new(Reason::ClientGone, "");
    let now = Instant::now();
    let again = if connected {
        let how = visit.note_failure(Failure::of(&error, false), replay);
        if how.is_some() && !(request.is_wanted)() {
            return Err(gone());
        }
        how.is_some_and(|how| visit.prepare_resend(how, now))
    } else if *error.etype() == CLIENT_GONE || !(request.is_wanted)() {
        return Err(gone());
    } else if is_exhaustion(&error) {
        // No target is at fault, and another one would not help.
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
    use crate::rules::resilience::RetryBudget;
    use crate::upstreams::discovery::TargetChanges;
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

    /// Returns the port of a target that sends these bytes to each request, and then closes; it sends nothing without
    /// them.
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
        (shape.breaker, shape.target_breaker, shape.outlier, shape.algorithm) =
            (None, None, None, Algorithm::RoundRobin);
        shape.gate = GateShape { requests: 100, per_target: 0, ..shape.gate };
        shape.budget = RetryBudget { percent: 100, min: 100 };
        let pool = Pool::new(shape, None, Arc::new(TargetChanges::default()));
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
        Arc::new(Upstream {
            name: "asked".to_owned(),
            pool,
            key: None,
            retry,
            sticky: None,
            backup: None,
            metrics: OnceLock::new(),
        })
    }

    /// Sends a request, and returns the status and the body, or the reason, with the number of tries.
    async fn try_send(visit: &mut Visit, safe: bool, wanted: bool) -> (std::result::Result<(u16, Bytes), Reason>, u32) {
        let calls = Calls::new(crate::tls::connector_options(), |_, _| Arc::new(Plain));
        let mut head = RequestHeader::build("GET", b"/", None).expect("a head");
        head.insert_header("host", "a").expect("a field");
        let request = OutgoingRequest {
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
        let result = match calls.send(visit, &request).await {
            Ok(mut response) => Ok((response.head.status.as_u16(), response.read(100).await.expect("a body"))),
            Err(rejection) => Err(rejection.reason),
        };
        visit.end();
        let active: u32 =
            visit.upstream().pool.members().by_address.lock().values().map(|known| known.target.active()).sum();
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
                let (result, tries) = try_send(&mut visit(&upstream), true, true).await;
                assert_eq!(result, good);
                assert!(tries <= 2);
            }
        }
        let last = Ok((503, Bytes::from_static(b"busy")));
        assert_eq!(try_send(&mut visit(&upstream(&[busy], None)), true, true).await, (last.clone(), 3));
        let once = &mut Visit::single(upstream(&[busy], None), Class::Low, None);
        assert_eq!(try_send(once, true, true).await, (last, 1));
    }

    #[tokio::test]
    async fn what_has_an_effect_or_nobody_who_waits_is_tried_once() {
        let broken = upstream(&[target(Some(b""))], None);
        assert_eq!(try_send(&mut visit(&broken), true, true).await, (Err(Reason::TargetReset), 3));
        assert_eq!(try_send(&mut visit(&broken), false, true).await, (Err(Reason::TargetReset), 1));
        assert_eq!(try_send(&mut visit(&broken), true, false).await, (Err(Reason::ClientGone), 1));
    }

    #[tokio::test]
    async fn a_second_target_is_asked_and_time_has_an_end() {
        let silent = target(None);
        let hedged = upstream(&[silent, target(Some(WELL))], Some(Duration::from_millis(5)));
        for _ in 0..3 {
            assert_eq!(try_send(&mut visit(&hedged), true, true).await.0.map(|(status, _)| status), Ok(200));
        }
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut late = Visit::new(upstream(&[silent], None), Class::Normal, Some(deadline));
        assert_eq!(try_send(&mut late, true, true).await.0, Err(Reason::RouteTimeout));
    }
}
