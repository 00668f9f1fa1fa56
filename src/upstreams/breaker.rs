//! A circuit breaker that all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::exchange::clock;
use crate::rules::resilience::{Admission, BreakerPhase, BreakerShape, BreakerState};

/// The breaker of an upstream or a target. While it is closed and has counted no failure, no request takes its lock,
/// unless shares of failures are counted.
#[derive(Debug)]
pub struct SharedBreaker {
    shape: BreakerShape,
    state: Mutex<BreakerState>,
    no_failures: AtomicBool,
}

impl SharedBreaker {
    /// Returns a closed breaker.
    pub fn new(shape: BreakerShape) -> Self {
        let state = BreakerState::default();
        Self { shape, no_failures: AtomicBool::new(state.has_no_failures(&shape)), state: Mutex::new(state) }
    }

    /// Returns this breaker if it has that shape, or else one of that shape in the same state.
    pub fn reshaped(self: &Arc<Self>, shape: BreakerShape) -> Arc<Self> {
        if self.shape == shape {
            return Arc::clone(self);
        }
        let state = self.state.lock().reshaped(&shape, clock::now());
        Arc::new(Self { shape, no_failures: AtomicBool::new(state.has_no_failures(&shape)), state: Mutex::new(state) })
    }

    /// Decides on a request.
    pub fn admit(&self) -> Admission {
        if self.no_failures.load(Ordering::Acquire) {
            return Admission::Closed;
        }
        self.state.lock().admit(&self.shape, clock::now())
    }

    /// Records an outcome. Returns whether the breaker opened or closed.
    pub fn record(&self, admission: Admission, success: Option<bool>) -> bool {
        if success != Some(false) && self.no_failures.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state.lock();
        let changed = state.record(&self.shape, clock::now(), admission, success);
        self.no_failures.store(state.has_no_failures(&self.shape), Ordering::Release);
        changed
    }

    /// Returns for how many nanoseconds it stays open, or 0 if a probe would pass. `None` is closed.
    pub fn open_for(&self) -> Option<u64> {
        match self.state.lock().phase() {
            BreakerPhase::Closed => None,
            BreakerPhase::Open { until } => Some(until.saturating_sub(clock::now())),
            BreakerPhase::HalfOpen { .. } => Some(0),
        }
    }

    /// Opens it for that many nanoseconds, but for no longer than its cool-down.
    pub fn reopen(&self, left: u64) {
        let mut state = self.state.lock();
        *state = BreakerState::opened(clock::now() + left.min(self.shape.cool_down));
        self.no_failures.store(false, Ordering::Release);
    }

    /// Returns its phase: `closed`, `open` or `half_open`.
    pub fn phase(&self) -> &'static str {
        match self.state.lock().phase() {
            BreakerPhase::Closed => "closed",
            // The cool-down may be over; the next request finds out.
            BreakerPhase::Open { .. } => "open",
            BreakerPhase::HalfOpen { .. } => "half_open",
        }
    }
}
