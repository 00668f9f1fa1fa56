//! Which upstream, which target: the way in, once for a request, and the pick, once for a try.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderValue, RETRY_AFTER};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use super::connect::opener;
use super::deadline::deadline;
use super::sticky::StickySession;
use super::waiting::{Waited, wait};
use super::{Context, Gateway};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::rules::balance::{Ask, Loads};
use crate::rules::routing::Question;
use crate::snapshot::{Forward, Upstream};
use crate::upstreams::{Class, Entered, Gate, NoPick, Picked, Wish, widen_window};

/// A split is by weight alone.
struct NoLoads;

impl Loads for NoLoads {
    fn active(&self, _: usize) -> u32 {
        0
    }

    fn latency(&self, _: usize) -> f64 {
        0.0
    }

    fn total(&self) -> u32 {
        0
    }
}

/// The request as rules see it.
pub(super) fn question<'q>(request: &'q RequestHeader, exchange: &'q Exchange) -> Question<'q> {
    Question {
        host: &exchange.host,
        path: request.uri.path(),
        query: request.uri.query(),
        method: &request.method,
        headers: &request.headers,
        client: exchange.client,
    }
}

fn consumer(exchange: &Exchange) -> Option<&str> {
    exchange.identity.as_ref().map(|i| &*i.name)
}

fn choose<'f>(forward: &'f Forward, request: &RequestHeader, exchange: &Exchange) -> Option<&'f Arc<Upstream>> {
    let Some(split) = &forward.split else { return forward.upstreams.first() };
    let key = split.key.as_ref().and_then(|key| key.hash(&question(request, exchange), consumer(exchange)));
    let ask = Ask { key, random: fastrand::u64(..), loads: &NoLoads, tried: &[] };
    forward.upstreams.get(split.shares.pick(&ask)?)
}

type Allowed = std::result::Result<(), Box<Rejection>>;

impl Gateway {
    /// Chooses the upstream, waits for its turn where there are too many, and picks the first target.
    pub(super) async fn enter(&self, session: &mut Session, forward: &Forward, ctx: &mut Context) -> Allowed {
        ctx.deadline = deadline(&session.req_header().headers, forward, ctx.exchange.started, ctx.exchange.grpc);
        if let (Some(route), false) = (ctx.serving.route(ctx.route), ctx.counted) {
            route.metrics().in_flight.inc();
            ctx.counted = true;
        }
        let chosen = choose(forward, session.req_header(), &ctx.exchange);
        let Some(upstream) = chosen else { return Err(Rejection::new(Reason::NoHealthyTarget, "")) };
        self.enter_upstream(upstream, forward.class, session, ctx).await?;
        self.pick_target(upstream, session, forward.class, ctx).await
    }

    /// Says how to reach the target of this try; a try after the first picks another.
    pub(super) async fn pick(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        if let Some(pause) = ctx.backoff.take() {
            let left = ctx.deadline.map_or(pause, |deadline| deadline.saturating_duration_since(Instant::now()));
            let until = Instant::now() + pause.min(left);
            if let Waited::Gone = Box::pin(wait(session, ctx, Some(until), std::future::pending::<()>())).await {
                return Err(refuse(ctx, Rejection::new(Reason::ClientGone, "")));
            }
        }
        let first = ctx.tries == 0;
        ctx.tries += 1;
        // Each attempt sends the body from its beginning.
        ctx.body_seen = 0;
        ctx.copy.iter_mut().for_each(|copy| copy.begin_anew());
        let now = Instant::now();
        ctx.forwarded = Some(now);
        ctx.answered = None;
        let left = ctx.deadline.map(|deadline| deadline.saturating_duration_since(now));
        if left.is_some_and(|left| left.is_zero()) {
            return Err(refuse(ctx, Rejection::new(Reason::RouteTimeout, "")));
        }
        if !first || ctx.picked.is_none() {
            let class = ctx.forward().map(|f| f.class).unwrap_or_default();
            let serving = Arc::clone(&ctx.serving);
            let Some(upstream) = serving.upstream(ctx.upstream) else { return Error::err(ErrorType::InternalError) };
            if let Err(rejection) = self.pick_target(upstream, session, class, ctx).await {
                return Err(refuse(ctx, rejection));
            }
        }
        let Some(picked) = &ctx.picked else { return Error::err(ErrorType::InternalError) };
        let mut peer = reach(picked, ctx, left);
        let sending = !session.is_body_done() || ctx.whole.is_some();
        if sending {
            widen_window(&mut peer);
        }
        ctx.pace().iter().for_each(|pace| pace.begin(peer.options.read_timeout, sending));
        if session.is_body_empty() {
            // What there is to write fits into any socket's buffer: no timer for it.
            peer.options.write_timeout = None;
        }
        Ok(peer)
    }

    async fn enter_upstream(&self, upstream: &Upstream, class: Class, session: &mut Session, ctx: &mut Context) -> Allowed {
        // The place of a request that goes over to the backup is free first.
        ctx.entered = None;
        let gate = upstream.pool.gate();
        ctx.entered = match gate.try_now(class) {
            Some(entered) => Some(entered),
            None => Box::pin(turn(gate, class, session, ctx)).await?,
        };
        if upstream.sticky.is_some() {
            ctx.sticky = StickySession::of(upstream, session.req_header(), ctx);
        }
        let entered = ctx.entered.is_some();
        if entered {
            upstream.pool.count_request();
        }
        ctx.upstream = Some(upstream.place);
        if entered { Ok(()) } else { Err(overloaded("too many requests are under way")) }
    }

    /// Picks a target of the upstream, or of its backup when it has none.
    async fn pick_target(&self, mut upstream: &Upstream, session: &mut Session, class: Class, ctx: &mut Context) -> Allowed {
        loop {
            // The guards of an earlier attempt are let go before the next is counted.
            ctx.picked = None;
            let question = question(session.req_header(), &ctx.exchange);
            let key = upstream.key.as_ref().and_then(|key| key.hash(&question, consumer(&ctx.exchange)));
            let why = match upstream.pool.pick(&Wish { key, session: ctx.sticky.tag(), tried: &ctx.tried }) {
                Ok(picked) => {
                    if upstream.sticky.is_some() && !picked.away {
                        ctx.sticky.bind(upstream, picked.member.tag);
                    }
                    ctx.picked = Some(picked);
                    return Ok(());
                }
                Err(why) => why,
            };
            match &upstream.backup {
                Some(backup) if why != NoPick::Full => {
                    upstream = backup;
                    self.enter_upstream(upstream, class, session, ctx).await?;
                }
                _ => return Err(no_target(upstream, why, ctx.tried.len())),
            }
        }
    }
}

/// Waits for a turn.
async fn turn(
    gate: &Arc<Gate>,
    class: Class,
    session: &mut Session,
    ctx: &Context,
) -> std::result::Result<Option<Entered>, Box<Rejection>> {
    match wait(session, ctx, ctx.deadline, gate.enter(class)).await {
        Waited::Done(entered) => Ok(entered),
        Waited::Late => Err(Rejection::new(Reason::RouteTimeout, "")),
        Waited::Gone => Err(Rejection::new(Reason::ClientGone, "")),
    }
}

/// Keeps a rejection for the answer, and fails with it.
pub(super) fn refuse(ctx: &mut Context, rejection: Box<Rejection>) -> Box<Error> {
    let status = rejection.reason.status();
    ctx.rejection = Some(rejection);
    Error::new(ErrorType::HTTPStatus(status))
}

fn overloaded(why: &str) -> Box<Rejection> {
    Rejection::new(Reason::Overloaded, "").log(why).header(RETRY_AFTER, HeaderValue::from(1))
}

/// Why there is no target: none that is healthy, none at all, none that was not tried, or none that
/// may be asked.
fn no_target(upstream: &Upstream, why: NoPick, tried: usize) -> Box<Rejection> {
    let name = &upstream.name;
    let total = upstream.pool.choice().total;
    match why {
        NoPick::Full => overloaded("every target has as many requests as it may have"),
        NoPick::Open(nanos) => {
            let seconds = nanos.div_ceil(1_000_000_000).max(1);
            Rejection::new(Reason::BreakerOpen, "").log(format!("upstream {name}")).header(RETRY_AFTER, HeaderValue::from(seconds))
        }
        NoPick::NoTarget if total == 0 && upstream.pool.has_names() => {
            Rejection::new(Reason::DnsError, "").log(format!("upstream {name} has no targets: no name could be resolved"))
        }
        NoPick::NoTarget if total == 0 => Rejection::new(Reason::NoHealthyTarget, "").log(format!("upstream {name} has no targets")),
        NoPick::NoTarget => Rejection::new(Reason::NoHealthyTarget, "")
            .log(format!("upstream {name}: none of {total} targets may be picked, {tried} were tried")),
    }
}

/// How the target is reached in a try that has so much time.
pub(super) fn reach(picked: &Picked, ctx: &Context, left: Option<Duration>) -> Box<HttpPeer> {
    let mut peer = Box::new(picked.member.peer.clone());
    peer.options.custom_l4 = Some(opener(&picked.member));
    if ctx.fresh {
        // Under a key that no kept connection has.
        peer.group_key = fastrand::u64(..);
    }
    if let Some(per_try) = ctx.upstream().and_then(|u| u.retry.per_try) {
        peer.options.read_timeout = Some(peer.options.read_timeout.map_or(per_try, |read| read.min(per_try)));
    }
    if let Some(left) = left {
        cap(&mut peer, left);
    }
    peer
}

/// No step may take longer than the route has left.
fn cap(peer: &mut HttpPeer, left: Duration) {
    let options = &mut peer.options;
    for limit in
        [&mut options.connection_timeout, &mut options.total_connection_timeout, &mut options.read_timeout, &mut options.write_timeout]
    {
        *limit = Some(limit.map_or(left, |l| l.min(left)));
    }
}

/// The address of the target that was picked last.
pub(super) fn picked_address(ctx: &Context) -> Option<SocketAddr> {
    ctx.picked.as_ref().map(|p| p.member.target.address)
}
