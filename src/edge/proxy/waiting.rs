//! Waiting for something other than the client, while the client is there.

use std::time::{Duration, Instant};

use super::Context;
use super::context::Downstream;
use super::pick::fail_with;
use crate::edge::listeners::PRESENCE_CHECK_INTERVAL;
use crate::exchange::{Reason, Rejection};

/// How a wait has ended.
pub(super) enum Waited<T> {
    /// The work is done.
    Done(T),
    /// The time is over.
    Late,
    /// The client has gone, or has cancelled the request.
    Gone,
}

/// Waits for `work` until the deadline, or until the client goes.
pub(super) async fn wait<F: Future>(downstream: &Downstream, until: Option<Instant>, work: F) -> Waited<F::Output> {
    tokio::pin!(work);
    loop {
        let look = until.map_or(PRESENCE_CHECK_INTERVAL, |at| {
            at.saturating_duration_since(Instant::now()).min(PRESENCE_CHECK_INTERVAL)
        });
        if let Ok(done) = tokio::time::timeout(look, &mut work).await {
            return Waited::Done(done);
        }
        if downstream.is_gone() {
            return Waited::Gone;
        }
        if until.is_some_and(|at| Instant::now() >= at) {
            return Waited::Late;
        }
    }
}

/// Waits before a part of a response is sent, while the client is there and the route's time is not over.
///
/// # Errors
/// Fails when either ends.
pub(super) async fn pause(ctx: &mut Context, delay: Duration) -> pingora::Result<()> {
    let reason = match wait(&ctx.downstream, ctx.deadline(), tokio::time::sleep(delay)).await {
        Waited::Done(()) => return Ok(()),
        Waited::Late => Reason::RouteTimeout,
        Waited::Gone => Reason::ClientGone,
    };
    Err(fail_with(ctx, Rejection::new(reason, "")))
}
