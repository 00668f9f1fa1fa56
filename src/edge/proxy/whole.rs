//! Whole request bodies: read before the request goes on, for filters that need all of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue, RETRY_AFTER};
use pingora::Result;
use pingora::proxy::Session;

use super::deadline::deadline;
use super::replay::ReplayedBody;
use super::{Context, Gateway, interim};
use crate::exchange::{Reason, Rejection};
use crate::filters::Verdict;
use crate::snapshot::Route;

/// The time in which a body has to be read whole, besides that for its bytes: what is held is held for all.
const READ_TIME: Duration = Duration::from_secs(30);

/// Bytes per second at which the longest body that the route accepts has to come, beyond [`READ_TIME`].
const MIN_RATE: u64 = 64 * 1024;

/// The memory of the request bodies that are held whole at the same time.
#[derive(Debug, Default)]
pub struct BodyBudget {
    used: AtomicU64,
}

/// A share of that memory, which is released with it.
#[derive(Debug)]
pub(super) struct BudgetShare {
    budget: Arc<BodyBudget>,
    bytes: u64,
}

impl BudgetShare {
    /// Returns a share of nothing.
    pub(super) fn new(budget: &Arc<BodyBudget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Adds `bytes` to the share if all shares then have no more than `most`; returns whether they do.
    pub(super) fn grow(&mut self, bytes: u64, most: u64) -> bool {
        let free = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request body that is held whole while the request is active.
#[derive(Debug)]
pub struct WholeBody {
    _share: BudgetShare,
    replay: ReplayedBody,
}

impl WholeBody {
    /// Returns the length of the body in bytes.
    pub fn length(&self) -> usize {
        self.replay.body.len()
    }

    /// Returns the bytes of the body.
    pub fn bytes(&self) -> Bytes {
        self.replay.body.clone()
    }

    /// Closes the client's connection after the response.
    pub(super) fn close(&self) {
        self.replay.close();
    }

    /// Returns the client's session at the end of the request.
    pub(super) fn end(self, session: &mut Session) {
        self.replay.end(session);
    }
}

/// Returns the rejection of a request whose body finds no memory.
fn buffers_full() -> Box<Rejection> {
    Rejection::new(Reason::BuffersFull, "").header(RETRY_AFTER, HeaderValue::from(1))
}

impl Gateway {
    /// Reads the whole body, of at most `most` bytes, and has the route's filters decide on it and change it. The same
    /// body is forwarded, and can be sent any number of times.
    pub(super) async fn check_whole_body(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        route: &Route,
        most: u64,
    ) -> Result<Verdict> {
        let mut share = BudgetShare { budget: Arc::clone(&self.bodies), bytes: 0 };
        let is_empty = session.is_body_empty();
        let body = if is_empty {
            Bytes::new()
        } else {
            let deadline = route.action.forward(ctx.exchange.operation).and_then(|forward| {
                deadline(&session.req_header().headers, forward, ctx.exchange.started, ctx.exchange.grpc)
            });
            let bounds = (most.min(ctx.request_body.limit), deadline);
            match self.read_whole(session, ctx, bounds, &mut share).await? {
                Ok(body) => body,
                Err(rejection) => return Ok(Err(rejection)),
            }
        };
        interim::restore_reuse(session, &mut ctx.interims);
        let chain = route.filters(ctx.listener);
        let edited = chain.on_request_body(&body, session.req_header(), &mut ctx.exchange, &mut ctx.memories);
        let edited = match edited {
            Ok(edited) => edited,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let grown = edited.len().saturating_sub(body.len()) as u64;
        if !share.grow(grown, ctx.serving.snapshot.process.body_memory) {
            return Ok(Err(buffers_full()));
        }
        if !is_empty || !edited.is_empty() {
            ctx.whole = Some(Box::new(WholeBody { _share: share, replay: ReplayedBody::begin(session, edited) }));
        }
        Ok(Ok(()))
    }

    /// Reads the whole body of a request that no filter needed whole, of at most `most` bytes.
    pub(super) async fn read_body_for_calls(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (most, deadline): (u64, Instant),
        share: &mut BudgetShare,
    ) -> Result<std::result::Result<Bytes, Box<Rejection>>> {
        if let Some(whole) = &ctx.whole {
            return Ok(Ok(whole.bytes()));
        }
        if session.is_body_empty() {
            return Ok(Ok(Bytes::new()));
        }
        let bounds = (most.min(ctx.request_body.limit), Some(deadline));
        let read = self.read_whole(session, ctx, bounds, share).await?;
        interim::restore_reuse(session, &mut ctx.interims);
        Ok(read)
    }

    async fn read_whole(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (most, deadline): (u64, Option<Instant>),
        share: &mut BudgetShare,
    ) -> Result<std::result::Result<Bytes, Box<Rejection>>> {
        let memory = ctx.serving.snapshot.process.body_memory;
        let too_large =
            || Rejection::new(Reason::BodyTooLarge, format!("at most {} bytes are accepted", most.min(memory)));
        let headers = &session.req_header().headers;
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most.min(memory)) {
            return Ok(Err(too_large()));
        }
        if headers.contains_key(EXPECT) && session.req_header().version != Version::HTTP_10 {
            interim::ask_for_body(session, &mut ctx.interims).await?;
        }
        // Nothing is reserved for a length that is only announced.
        let mut body = BytesMut::new();
        let read_by = Instant::now() + READ_TIME + Duration::from_secs(most / MIN_RATE);
        let read_by = read_by.min(deadline.unwrap_or(read_by));
        loop {
            let read = session.downstream_session.read_request_body();
            let Ok(part) = tokio::time::timeout_at(read_by.into(), read).await else {
                let reason = if deadline == Some(read_by) { Reason::RouteTimeout } else { Reason::ClientTimeout };
                return Ok(Err(Rejection::new(reason, "")));
            };
            let Some(part) = part.map_err(pingora::Error::into_down)? else { break };
            ctx.downstream.progress.iter().for_each(|progress| progress.note(true));
            // One that would not fit alone never will.
            if (body.len() + part.len()) as u64 > most.min(memory) {
                return Ok(Err(too_large()));
            }
            if !share.grow(part.len() as u64, memory) {
                return Ok(Err(buffers_full()));
            }
            body.extend_from_slice(&part);
        }
        ctx.downstream.progress.iter().for_each(|progress| progress.note(false));
        let late = deadline.is_some_and(|deadline| Instant::now() > deadline);
        Ok(if late { Err(Rejection::new(Reason::RouteTimeout, "")) } else { Ok(body.freeze()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_never_exceed_the_budget_and_come_back() {
        let budget = Arc::new(BodyBudget::default());
        let share = || BudgetShare { budget: Arc::clone(&budget), bytes: 0 };
        let (mut one, mut two) = (share(), share());
        assert!(one.grow(60, 100) && !two.grow(50, 100) && two.grow(40, 100));
        drop(one);
        assert!(two.grow(60, 100) && !two.grow(1, 100) && !two.grow(u64::MAX, 100));
        drop(two);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
