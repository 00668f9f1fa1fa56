//! Waiting for something else than the client, for as long as there is a client.

use std::time::Instant;

use futures::FutureExt;
use pingora::proxy::Session;

use super::Context;
use crate::edge::listeners::LOOK;

/// How waiting has ended.
pub(super) enum Waited<T> {
    /// With what was waited for.
    Done(T),
    /// The time is over.
    Late,
    /// The client has gone, or has taken the request back.
    Gone,
}

/// Waits for `work`, until then at most.
pub(super) async fn wait<F: Future>(session: &mut Session, ctx: &Context, until: Option<Instant>, work: F) -> Waited<F::Output> {
    tokio::pin!(work);
    loop {
        let look = until.map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        if let Ok(done) = tokio::time::timeout(look, &mut work).await {
            return Waited::Done(done);
        }
        if is_client_gone(session, ctx) {
            return Waited::Gone;
        }
        if until.is_some_and(|at| Instant::now() >= at) {
            return Waited::Late;
        }
    }
}

/// Whether the client has closed its side or, on HTTP/2, reset the stream.
pub(super) fn is_client_gone(_session: &mut Session, ctx: &Context) -> bool {
    match &ctx.progress {
        Some(progress) => progress.gone().now_or_never().is_some(),
        // On HTTP/1 the session, which is borrowed here, holds the socket that is asked.
        None => ctx.connection.as_ref().is_some_and(|connection| connection.is_gone()),
    }
}
