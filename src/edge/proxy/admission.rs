//! Admission of a request to its upstream, once per request: chooses the upstream, waits for a place, picks the first
//! target, and decides how the request is carried there. It comes after everything that may respond without an
//! upstream.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::CONTENT_LENGTH;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::deadline::deadline;
use super::pick::{caller, consumer, fail_with, request_facts, wait_while_client_present};
use super::relay::is_relayed;
use super::translate::earlier;
use super::{Context, Gateway};
use crate::actions::Forward;
use crate::exchange::{Exchange, Reason, Rejection};
use crate::filters::Verdict;
use crate::rules::balance::{NoLoads, PickInput};
use crate::upstreams::Visit;

/// The error of an exchange that has ended and leaves Pingora nothing to write: the client or its connection is gone.
pub(super) const EXCHANGE_OVER: ErrorType = ErrorType::Custom("Over");

/// Returns the place of the upstream among those of the action.
pub(super) fn choose(forward: &Forward, request: &RequestHeader, exchange: &Exchange) -> Option<usize> {
    let Some(split) = &forward.split else { return Some(0) };
    let key = split.key.as_ref().and_then(|key| key.hash(&request_facts(request, exchange), consumer(exchange)));
    let input = PickInput { key, random: fastrand::u64(..), loads: &NoLoads, tried: &[] };
    split.shares.pick(&input)
}

impl Gateway {
    /// Admits a request to its upstream and returns whether Pingora's proxy is to carry it. A request that is
    /// rejected here keeps its connection, which matters when many are.
    ///
    /// # Errors
    /// Fails where the response was broken off, or where nothing remains to be responded to.
    pub(super) async fn admit(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let serving = Arc::clone(&ctx.serving);
        let Some(forward) =
            serving.route(ctx.matched.route).and_then(|route| route.action.forward(ctx.exchange.operation))
        else {
            return Ok(true);
        };
        if let Err(rejection) = self.enter_upstream(session.req_header(), forward, None, ctx).await {
            if rejection.reason == Reason::ClientGone {
                return Err(fail_with(ctx, rejection));
            }
            Box::pin(self.reject(session, &rejection, ctx)).await?;
        } else if is_websocket(session) {
            Box::pin(self.tunnel(session, ctx)).await?;
        } else if is_relayed(session, ctx) {
            Box::pin(self.relay(session, ctx)).await?;
        } else {
            return Ok(true);
        }
        if session.response_written().is_none() {
            // Otherwise Pingora would write a 502.
            return Error::err(EXCHANGE_OVER);
        }
        Ok(false)
    }

    /// Chooses the upstream for a request of a client that waits so long, waits for a place if it has too many
    /// requests, and picks the first target.
    pub(super) async fn enter_upstream(
        &self,
        request: &RequestHeader,
        forward: &Forward,
        wait: Option<Duration>,
        ctx: &mut Context,
    ) -> Verdict {
        let deadline = deadline(&request.headers, forward, ctx.exchange.started, ctx.exchange.grpc);
        let deadline = earlier(deadline, ctx.exchange.started, wait);
        if let (Some(route), false) = (ctx.serving.route(ctx.matched.route), ctx.matched.counted) {
            route.metrics().in_flight.inc();
            ctx.matched.counted = true;
        }
        let chosen = choose(forward, request, &ctx.exchange);
        let Some((share, upstream)) = chosen.and_then(|share| Some((share, forward.upstreams.get(share)?))) else {
            return Err(Rejection::new(Reason::NoHealthyTarget, ""));
        };
        if let Some(edits) = forward.share_edits.get(share) {
            ctx.exchange.edits.push(&edits.request);
            ctx.exchange.response_edits.push(Arc::clone(&edits.response));
        }
        let visit = ctx.visit.insert(Visit::new(Arc::clone(upstream), forward.class, deadline));
        let caller = caller(request, &ctx.exchange);
        match visit.try_admit(&caller) {
            Some(admitted) => admitted,
            None => Box::pin(wait_while_client_present(&ctx.downstream, visit.admit(&caller))).await,
        }
    }
}

/// Returns whether the request is a WebSocket handshake (RFC 6455, section 4.1), the only upgrade that is forwarded.
fn is_websocket(session: &Session) -> bool {
    let request = session.req_header();
    let has = |name: &http::HeaderName| request.headers.contains_key(name);
    let upgrade = request.headers.get(http::header::UPGRADE);
    let is_websocket = upgrade.is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    is_websocket
        && session.is_upgrade_req()
        && request.version >= http::Version::HTTP_11
        && request.method == Method::GET
        && has(&http::header::SEC_WEBSOCKET_KEY)
        && request.headers.get(CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !has(&http::header::TRANSFER_ENCODING)
}
