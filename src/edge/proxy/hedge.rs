//! Hedging: a second target is asked when the first takes long, the first answer is taken, and the
//! other target is let go (J. Dean, L. Barroso, "The Tail at Scale", 2013).
//!
//! Pingora's proxy speaks to one target for a request, so both are asked here, over its connectors.
//! When neither answers, the request goes on as any other that is tried again.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::context::Side;
use super::failure::{exhausted, is_method_repeatable, is_retried_answer};
use super::mirror::Copy;
use super::pick::{reach, refuse};
use super::tunnel::strip_hop_by_hop;
use super::waiting::{Waited, wait};
use super::{Calls, Context, Gateway, interim};
use crate::exchange::{Reason, Rejection};
use crate::upstreams::{Begun, Outcome, Picked, Wish, begin, finish, is_exhaustion};

const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// One target that is asked.
struct Try {
    peer: Box<HttpPeer>,
    picked: Picked,
    request: RequestHeader,
    begun: Instant,
}

impl Try {
    async fn ask(self, calls: Arc<Calls>, interim: Sender<ResponseHeader>) -> (Self, Result<Begun>) {
        // There is room for as many as a target may send; those of a second one are hints as well.
        let mut pass = |head| drop(interim.try_send(head));
        let result = begin(&calls, &self.peer, self.request.clone(), bytes::Bytes::new(), &mut pass).await;
        (self, result)
    }
}

/// What comes of targets that are asked.
enum Came<T> {
    /// A head, or a failure.
    Result(Option<T>),
    /// The head of an interim response.
    Interim(ResponseHeader),
}

/// Whether a second target may be asked beside the first: without a body, and with no effect that could
/// happen twice. And whether the response of an HTTP/2 target is for a client of HTTP/1.0: Pingora's proxy would send it
/// in chunks, of which that client knows nothing (RFC 9112, section 6.1).
pub(super) fn may_hedge(session: &mut Session, ctx: &Context) -> bool {
    let speaks_http2 = || ctx.picked.as_ref().is_some_and(|picked| picked.member.peer.options.alpn.get_max_http_version() == 2);
    if session.req_header().version == Version::HTTP_10 && speaks_http2() {
        return session.is_body_empty();
    }
    let wanted = ctx.upstream().is_some_and(|u| u.retry.hedge_after.is_some() && u.retry.attempts > 1);
    wanted && is_method_repeatable(&session.req_header().method, ctx) && session.is_body_empty()
}

impl Gateway {
    /// Asks one target, and another when that takes long. False when neither answered and the request is
    /// to be tried further.
    pub(super) async fn hedge(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let won = match self.race(session, ctx).await {
            Ok(won) => won,
            Err(error) if error.retry() => return Ok(false),
            Err(error) => {
                self.answer_failure(session, &error, ctx).await;
                return Ok(true);
            }
        };
        let (Try { peer, picked, begun: at, .. }, begun) = won;
        (ctx.forwarded, ctx.picked) = (Some(at), Some(picked));
        self.connected(begun.reused, ctx);
        // There is no body to wait for.
        ctx.end_of(Side::Request);
        if let Err(error) = self.pass_on(session, ctx, begun, &peer).await {
            if session.response_written().is_some() {
                // It is not to look whole.
                return Err(error);
            }
            self.answer_failure(session, &error, ctx).await;
            ctx.close_after(session);
        }
        Ok(true)
    }

    /// The first answer of at most two targets. The other is dropped with what is under way.
    async fn race(&self, session: &mut Session, ctx: &mut Context) -> Result<(Try, Begun)> {
        let peer = self.pick(session, ctx).await?;
        let picked = ctx.picked.take().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        let mut asked = FuturesUnordered::new();
        let (sender, mut interim) = channel(interim::MOST as usize);
        asked.push(self.prepare_try(session, ctx, peer, picked)?.ask(Arc::clone(&self.calls), sender.clone()).boxed());
        let mut pause = ctx.upstream().and_then(|u| u.retry.hedge_after).map(|after| Instant::now() + after);
        // An answer that is tried again is still better than none.
        let mut poor = None;
        loop {
            let failed = match self.next(&mut asked, &mut interim, pause, session, ctx).await? {
                Some((won, Ok(begun))) if pause.is_none() && asked.is_empty() => return Ok((won, begun)),
                Some((won, Ok(begun))) if !is_retried_answer(&begun.head, ctx) => return Ok((won, begun)),
                Some((won, Ok(begun))) => {
                    poor = Some((won, begun));
                    None
                }
                Some((lost, Err(error))) => Some((lost, error)),
                None => None,
            };
            if pause.take().is_some()
                && let Some(second) = self.prepare_second(session, ctx)
            {
                asked.push(second.ask(Arc::clone(&self.calls), sender.clone()).boxed());
            }
            match (failed, asked.is_empty()) {
                (Some((_, error)), true) if poor.is_none() && is_exhaustion(&error) => return Err(exhausted(ctx, error)),
                (Some((_, error)), _) if is_exhaustion(&error) => {}
                (Some((lost, error)), true) if poor.is_none() => {
                    ctx.picked = Some(lost.picked);
                    let reused = false;
                    return Err(self.exchange_failed(session, ctx, error.into_up(), reused));
                }
                (Some((mut lost, error)), _) => {
                    if let Some(upstream) = ctx.upstream() {
                        let late = *error.etype() == ErrorType::ReadTimedout;
                        let outcome = if late { Outcome::TimedOut } else { Outcome::GatewayFailed };
                        upstream.pool.report(&mut lost.picked, outcome, None);
                    }
                }
                (None, _) => {}
            }
            if let (true, Some(poor)) = (asked.is_empty(), poor.take()) {
                return Ok(poor);
            }
        }
    }

    /// The next result; `None` when it is time for a second target. Fails when the client is gone.
    async fn next<F>(
        &self,
        asked: &mut FuturesUnordered<F>,
        interim: &mut Receiver<ResponseHeader>,
        pause: Option<Instant>,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Option<F::Output>>
    where
        F: Future + Send,
    {
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    Some(head) = interim.recv() => Came::Interim(head),
                    result = asked.next() => Came::Result(result),
                }
            };
            match wait(session, ctx, pause, next).await {
                Waited::Done(Came::Result(result)) => {
                    // They may have come in one go.
                    while let Ok(head) = interim.try_recv() {
                        interim::pass(session, head, ctx).await?;
                    }
                    return Ok(result);
                }
                Waited::Done(Came::Interim(head)) => interim::pass(session, head, ctx).await?,
                Waited::Late => return Ok(None),
                Waited::Gone => return Err(refuse(ctx, Rejection::new(Reason::ClientGone, ""))),
            }
        }
    }

    fn prepare_try(&self, session: &Session, ctx: &mut Context, peer: Box<HttpPeer>, picked: Picked) -> Result<Try> {
        let mut request = session.req_header().clone();
        strip_hop_by_hop(&mut request);
        for name in [CONNECTION, UPGRADE, HTTP2_SETTINGS] {
            request.remove_header(&name);
        }
        ctx.tried.push(picked.member.target.address);
        ctx.picked = Some(picked);
        let prepared = self.prepare(session.req_header(), &mut request, ctx);
        if !std::mem::replace(&mut ctx.copied, true) {
            ctx.copy = Copy::begin(ctx, &request);
            self.copy_body(ctx, None, true);
        }
        let picked = ctx.picked.take().ok_or_else(|| Error::new(ErrorType::InternalError))?;
        prepared.map(|()| Try { peer, picked, request, begun: Instant::now() })
    }

    /// A second target of the same upstream, if there is one and the budget of retries has room.
    fn prepare_second(&self, session: &Session, ctx: &mut Context) -> Option<Try> {
        let serving = Arc::clone(&ctx.serving);
        let upstream = serving.upstream(ctx.upstream)?;
        let left = ctx.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
        let picked = upstream.pool.pick(&Wish { tried: &ctx.tried, ..Wish::default() }).ok()?;
        if !upstream.pool.begin_retry() {
            upstream.metrics().retries_denied.inc();
            return None;
        }
        let peer = reach(&picked, ctx, left);
        ctx.tries += 1;
        let second = self.prepare_try(session, ctx, peer, picked).ok()?;
        upstream.metrics().hedges.inc();
        Some(second)
    }

    /// Passes the winner's answer on, through the route's filters.
    async fn pass_on(&self, session: &mut Session, ctx: &mut Context, begun: Begun, peer: &HttpPeer) -> Result<()> {
        let Begun { session: mut target, mut head, .. } = begun;
        self.note_answer(&head, ctx);
        let request = session.req_header().clone();
        frame(&request, &mut head)?;
        self.edit_answer(&request, &mut head, ctx)?;
        if request.version == http::Version::HTTP_10 {
            // As without hedging: the end of the connection may be the end of the body.
            ctx.close_after(session);
        }
        interim::keep_after(session, &head, ctx);
        ctx.end_with_the_listener(session);
        // Nobody reads from the client meanwhile, so nobody would send a head that is kept back.
        ctx.connection.iter().for_each(|connection| connection.clear_corks());
        session.write_response_header(Box::new(head), false).await?;
        loop {
            let mut body = match wait(session, ctx, ctx.deadline, target.read_response_body()).await {
                Waited::Done(body) => body.map_err(Error::into_up)?,
                Waited::Late => return Err(refuse(ctx, Rejection::new(Reason::RouteTimeout, ""))),
                Waited::Gone => return Err(refuse(ctx, Rejection::new(Reason::ClientGone, ""))),
            };
            let end = body.is_none() || target.response_done();
            self.edit_body(&mut body, end, ctx)?;
            session.write_response_body(body, end).await?;
            if end {
                break;
            }
        }
        finish(&self.calls, peer, target).await;
        Ok(())
    }
}

/// The framing between target and gateway ends here; a body of unknown length is sent in chunks.
fn frame(request: &RequestHeader, head: &mut ResponseHeader) -> Result<()> {
    head.set_version(Version::HTTP_11);
    head.remove_header(&TRANSFER_ENCODING);
    let bodiless = request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    if request.version == Version::HTTP_11 && !bodiless && !head.headers.contains_key(CONTENT_LENGTH) {
        head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}
