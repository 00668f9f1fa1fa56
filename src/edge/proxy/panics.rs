//! A panic is one request's failure: a 500 with its reason, counted, and the process lives.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;
use pingora::{Error, ErrorType, Result};

use super::Context;
use crate::exchange::{Reason, Rejection};

/// The outcome of a phase, or `None` after a panic. What the phase was about is then looked at by nobody
/// but whoever answers and counts the request.
pub async fn caught<T>(phase: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(phase).catch_unwind().await.ok()
}

/// Runs a phase that does not wait.
pub fn caught_now<T>(phase: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(phase)).ok()
}

/// What a phase has come to.
pub fn settle<T>(outcome: Option<Result<T>>, ctx: &mut Context) -> Result<T> {
    outcome.unwrap_or_else(|| {
        // Where it was has been logged and counted by the process's panic hook.
        ctx.rejection = Some(Rejection::new(Reason::Internal, "").log("a panic; the process's own log says where"));
        let mut error = Error::explain(ErrorType::InternalError, "a panic");
        error.set_retry(false);
        Err(error)
    })
}
