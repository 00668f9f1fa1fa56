//! The breaker of a client.

use http::StatusCode;
use parking_lot::Mutex;

use super::error::CallError;
use crate::exchange::clock;
use crate::rules::resilience::{Admission, BreakerShape, BreakerState};

/// A breaker that all calls of a client share. Calls are rare beside requests, so that each takes its lock.
#[derive(Debug)]
pub struct CallBreaker {
    shape: Option<BreakerShape>,
    state: Mutex<BreakerState>,
    /// The name of the dependency, for the log.
    label: String,
}

/// The turn of one call. Its outcome is unknown when it is dropped without a record, as when the caller has gone.
#[derive(Debug)]
pub struct CallTurn<'b> {
    breaker: &'b CallBreaker,
    admission: Option<Admission>,
}

impl CallBreaker {
    /// Returns a closed breaker; without a shape it never opens.
    pub fn new(shape: Option<BreakerShape>, label: String) -> Self {
        Self { shape, state: Mutex::default(), label }
    }

    /// Decides on a call.
    ///
    /// # Errors
    /// When it is open.
    pub fn admit(&self) -> Result<CallTurn<'_>, CallError> {
        let admission = self.shape.as_ref().map(|shape| self.state.lock().admit(shape, clock::now()));
        match admission {
            Some(Admission::Rejected(_)) => Err(CallError::Open),
            admission => Ok(CallTurn { breaker: self, admission }),
        }
    }
}

impl CallTurn<'_> {
    /// Records the outcome, once. A response of the other side is a success, unless it says that it is a gateway that
    /// cannot reach its own target: a defect that one request meets must not stop all others.
    pub fn record(&mut self, result: Result<StatusCode, &CallError>) {
        let success = match result {
            Ok(status) => Some(!matches!(status.as_u16(), 502..=504)),
            Err(error) if error.is_failure() => Some(false),
            Err(_) => None,
        };
        self.end(success);
    }

    fn end(&mut self, success: Option<bool>) {
        let (Some(admission), Some(shape)) = (self.admission.take(), &self.breaker.shape) else { return };
        let has_changed = self.breaker.state.lock().record(shape, clock::now(), admission, success);
        match (has_changed, admission) {
            (true, Admission::Probe(_)) if success == Some(true) => log::info!("{} responds again", self.breaker.label),
            (true, Admission::Closed) => {
                log::warn!("calls to {} fail; none is made for a moment", self.breaker.label);
            }
            _ => {}
        }
    }
}

impl Drop for CallTurn<'_> {
    fn drop(&mut self) {
        self.end(None);
    }
}
