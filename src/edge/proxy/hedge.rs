//! Hedging: a second target is asked when the first takes long, the first answer is taken, and the
//! other target is let go (J. Dean, L. Barroso, "The Tail at Scale", 2013).
//!
//! Pingora's proxy speaks to one target for a request, so both are asked here, over its connectors.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

use super::pick::picked_address;
use super::tunnel::strip_hop_by_hop;
use super::{Calls, Context, Gateway};
use crate::upstreams::{Begun, Outcome, Picked, begin, finish};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// One target that is asked.
struct Try {
    peer: Box<HttpPeer>,
    picked: Option<Picked>,
    request: RequestHeader,
    begun: Instant,
}

impl Try {
    async fn ask(self, calls: Arc<Calls>) -> (Self, Result<Begun>) {
        let result = begin(&calls, &self.peer, self.request.clone(), bytes::Bytes::new()).await;
        (self, result)
    }
}

impl Gateway {
    /// Asks one target, and another when that takes long. Always true: the request is answered.
    pub(super) async fn hedge(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        let (won, begun) = match self.race(session, ctx).await {
            Ok(won) => won,
            Err(error) => {
                self.answer_failure(session, &error, ctx).await;
                return Ok(true);
            }
        };
        ctx.forwarded = Some(won.begun);
        ctx.picked = won.picked;
        self.connected(begun.reused, ctx);
        let peer = won.peer;
        match self.pass_on(session, ctx, begun, &peer).await {
            Ok(()) => Ok(true),
            Err(error) => {
                self.answer_failure(session, &error, ctx).await;
                Err(error)
            }
        }
    }

    /// The first answer of at most two targets. The other is dropped with what is under way.
    async fn race(&self, session: &mut Session, ctx: &mut Context) -> Result<(Try, Begun)> {
        let first = self.prepare_try(session, ctx).await?;
        let mut pause = ctx.upstream.as_ref().and_then(|u| u.retry.hedge_after);
        let mut asked = FuturesUnordered::new();
        asked.push(first.ask(Arc::clone(&self.calls)).boxed());
        loop {
            let next = match pause {
                Some(pause) => tokio::time::timeout(pause, asked.next()).await.ok().flatten(),
                None => asked.next().await,
            };
            let failed = match next {
                Some((won, Ok(begun))) => return Ok((won, begun)),
                Some((mut lost, Err(error))) => {
                    if let (Some(upstream), Some(picked)) = (&ctx.upstream, &mut lost.picked) {
                        upstream.pool.report(picked, Outcome::GatewayFailed, None);
                    }
                    Some((lost, error))
                }
                None => None,
            };
            // One more is asked, once: when the first takes long, or has failed.
            if pause.take().is_some()
                && let Some(second) = self.prepare_second(session, ctx).await
            {
                asked.push(second.ask(Arc::clone(&self.calls)).boxed());
            }
            if let (Some((lost, error)), true) = (failed, asked.is_empty()) {
                ctx.picked = lost.picked;
                return Err(error);
            }
        }
    }

    async fn prepare_try(&self, session: &mut Session, ctx: &mut Context) -> Result<Try> {
        let peer = self.pick(session, ctx).await?;
        let mut request = session.req_header().clone();
        strip_hop_by_hop(&mut request);
        self.prepare(session.req_header(), &mut request, ctx)?;
        ctx.tried.extend(picked_address(ctx));
        Ok(Try { peer, picked: ctx.picked.take(), request, begun: Instant::now() })
    }

    /// A second target, if there is one and the budget of retries has room.
    async fn prepare_second(&self, session: &mut Session, ctx: &mut Context) -> Option<Try> {
        let upstream = ctx.upstream.clone()?;
        let other = upstream.pool.choice().members().any(|m| !ctx.tried.contains(&m.target.address));
        if !other || !upstream.pool.begin_retry() {
            return None;
        }
        let second = self.prepare_try(session, ctx).await;
        // Had there been nobody, the first would still be under way: that is no refusal.
        ctx.rejection = None;
        let second = second.ok()?;
        upstream.metrics.hedges.inc();
        Some(second)
    }

    /// Passes the winner's answer on, through the route's filters.
    async fn pass_on(&self, session: &mut Session, ctx: &mut Context, begun: Begun, peer: &HttpPeer) -> Result<()> {
        let Begun { session: mut target, mut head, .. } = begun;
        self.answered(session, &head, ctx)?;
        let request = session.req_header().clone();
        frame(&request, &mut head)?;
        self.edit_answer(&request, &mut head, ctx)?;
        session.write_response_header(Box::new(head), false).await?;
        loop {
            let mut body = target.read_response_body().await.map_err(Error::into_up)?;
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
    for name in [CONNECTION, KEEP_ALIVE, TRANSFER_ENCODING] {
        head.remove_header(&name);
    }
    let bodiless = request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
    if request.version == Version::HTTP_11 && !bodiless && !head.headers.contains_key(CONTENT_LENGTH) {
        head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    Ok(())
}
