//! Whole request bodies: read before the request goes on, for filters that have to see all of one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::Version;
use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue, RETRY_AFTER};
use pingora::Result;
use pingora::proxy::Session;

use super::deadline::deadline;
use super::replay::Replay;
use super::{Context, Gateway, interim};
use crate::exchange::{Reason, Rejection};
use crate::snapshot::Route;

/// Room that is made at once for a body of a known length, in bytes.
const FIRST: u64 = 256 * 1024;

/// The memory of the request bodies that are held whole at one time.
#[derive(Debug, Default)]
pub struct BodyBudget {
    used: AtomicU64,
}

/// A share of that memory, given back with it.
#[derive(Debug)]
struct Share {
    budget: Arc<BodyBudget>,
    bytes: u64,
}

impl Share {
    /// Takes so many bytes more, of `most` for all; whether there are so many.
    fn grow(&mut self, bytes: u64, most: u64) -> bool {
        let room = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        self.bytes += if grown { bytes } else { 0 };
        grown
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request body that is held whole, for as long as the request is under way.
#[derive(Debug)]
pub struct WholeBody {
    _share: Share,
    replay: Replay,
}

impl WholeBody {
    /// Returns how many bytes it has.
    pub fn length(&self) -> usize {
        self.replay.body.len()
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> Bytes {
        self.replay.body.clone()
    }

    /// Has the client's connection closed after the response.
    pub(super) fn close(&self) {
        self.replay.close();
    }

    /// Gives the client's session back, at the end of the request.
    pub(super) fn end(self, session: &mut Session) {
        self.replay.end(session);
    }
}

type Judged = std::result::Result<(), Box<Rejection>>;

impl Gateway {
    /// Reads the whole body, of at most so many bytes, and has the route's filters decide on it. What goes on is the same
    /// body, which can be sent any number of times.
    pub(super) async fn judge_body(&self, session: &mut Session, ctx: &mut Context, route: &Route, most: u64) -> Result<Judged> {
        if session.is_body_empty() {
            return Ok(route.filters(ctx.listener).on_request_body(&[], session.req_header(), &mut ctx.exchange));
        }
        let deadline = route
            .action
            .forward()
            .and_then(|forward| deadline(&session.req_header().headers, forward, ctx.exchange.started, ctx.exchange.grpc));
        let mut share = Share { budget: Arc::clone(&self.bodies), bytes: 0 };
        let body = match self.read_whole(session, ctx, (most.min(ctx.request_body.limit), deadline), &mut share).await? {
            Ok(body) => body,
            Err(rejection) => return Ok(Err(rejection)),
        };
        interim::keep(session, &mut ctx.interims);
        let judged = route.filters(ctx.listener).on_request_body(&body, session.req_header(), &mut ctx.exchange);
        if judged.is_ok() {
            ctx.whole = Some(Box::new(WholeBody { _share: share, replay: Replay::begin(session, body) }));
        }
        Ok(judged)
    }

    async fn read_whole(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        (most, deadline): (u64, Option<Instant>),
        share: &mut Share,
    ) -> Result<std::result::Result<Bytes, Box<Rejection>>> {
        let too_large = || Rejection::new(Reason::BodyTooLarge, format!("at most {most} bytes are taken here"));
        let headers = &session.req_header().headers;
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > most) {
            return Ok(Err(too_large()));
        }
        if headers.contains_key(EXPECT) && session.req_header().version != Version::HTTP_10 {
            interim::go_on(session, &mut ctx.interims).await?;
        }
        let memory = ctx.serving.snapshot.process.body_memory;
        let mut body = BytesMut::with_capacity(length.unwrap_or(0).min(FIRST) as usize);
        loop {
            let read = session.downstream_session.read_request_body();
            let part = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline.into(), read).await {
                    Ok(part) => part,
                    Err(_) => return Ok(Err(Rejection::new(Reason::RouteTimeout, ""))),
                },
                None => read.await,
            };
            let Some(part) = part.map_err(pingora::Error::into_down)? else { break };
            ctx.downstream.progress.iter().for_each(|progress| progress.note(true));
            if (body.len() + part.len()) as u64 > most {
                return Ok(Err(too_large()));
            }
            if !share.grow(part.len() as u64, memory) {
                return Ok(Err(Rejection::new(Reason::BuffersFull, "").header(RETRY_AFTER, HeaderValue::from(1))));
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
        let share = || Share { budget: Arc::clone(&budget), bytes: 0 };
        let (mut one, mut two) = (share(), share());
        assert!(one.grow(60, 100) && !two.grow(50, 100) && two.grow(40, 100));
        drop(one);
        assert!(two.grow(60, 100) && !two.grow(1, 100) && !two.grow(u64::MAX, 100));
        drop(two);
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }
}
