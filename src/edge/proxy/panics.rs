//! Panics: one becomes a 500 with its reason, is counted, and the process goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::FutureExt;
use pingora::{Error, ErrorType, Result};

use super::Context;
use crate::exchange::{Reason, Rejection};

/// Returns the outcome of a phase, or `None` after a panic. The state of the phase is then used only by the code that
/// responds to the request and counts it.
pub async fn catch_panic<T>(phase: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(phase).catch_unwind().await.ok()
}

/// Runs a phase that does not wait.
pub fn catch_panic_now<T>(phase: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(phase)).ok()
}

/// Returns the result of a phase; a panic becomes a rejection.
pub fn resolve_panic<T>(outcome: Option<Result<T>>, ctx: &mut Context) -> Result<T> {
    outcome.unwrap_or_else(|| {
        // Where it was has been logged and counted by the process's panic hook.
        ctx.rejection = Some(Rejection::new(Reason::Internal, "").log("a panic; the process's own log says where"));
        let mut error = Error::explain(ErrorType::InternalError, "a panic");
        error.set_retry(false);
        Err(error)
    })
}
