//! A breaker that all workers share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::exchange::clock;
use crate::rules::resilience::{Admission, Breaker, BreakerShape, Phase};

/// The breaker of an upstream or a target. While all is well nobody takes its lock, unless shares of
/// failures are counted.
#[derive(Debug)]
pub struct SharedBreaker {
    shape: BreakerShape,
    state: Mutex<Breaker>,
    calm: AtomicBool,
}

impl SharedBreaker {
    /// A closed one.
    pub fn new(shape: BreakerShape) -> Self {
        let state = Breaker::default();
        Self { shape, calm: AtomicBool::new(state.is_calm(&shape)), state: Mutex::new(state) }
    }

    /// This one if it is of that shape, or one of that shape that stands where this one does.
    pub fn reshaped(self: &Arc<Self>, shape: BreakerShape) -> Arc<Self> {
        if self.shape == shape {
            return Arc::clone(self);
        }
        let state = self.state.lock().reshaped(&shape, clock::now());
        Arc::new(Self { shape, calm: AtomicBool::new(state.is_calm(&shape)), state: Mutex::new(state) })
    }

    /// Asks for a request to pass.
    pub fn admit(&self) -> Admission {
        if self.calm.load(Ordering::Acquire) {
            return Admission::Closed;
        }
        self.state.lock().admit(&self.shape, clock::now())
    }

    /// Notes an outcome. Whether it opened or closed by it.
    pub fn record(&self, admission: Admission, success: Option<bool>) -> bool {
        if success != Some(false) && self.calm.load(Ordering::Acquire) {
            return false;
        }
        let mut state = self.state.lock();
        let changed = state.record(&self.shape, clock::now(), admission, success);
        self.calm.store(state.is_calm(&self.shape), Ordering::Release);
        changed
    }

    /// For how many nanoseconds it stays open; half-open it would be worth a try at once. `None` is closed.
    pub fn open_for(&self) -> Option<u64> {
        match self.state.lock().phase() {
            Phase::Closed => None,
            Phase::Open { until } => Some(until.saturating_sub(clock::now())),
            Phase::HalfOpen { .. } => Some(0),
        }
    }

    /// It is open for that many nanoseconds, but for no longer than it is when it opens by itself.
    pub fn open_again(&self, left: u64) {
        let mut state = self.state.lock();
        *state = Breaker::opened(clock::now() + left.min(self.shape.cool_down));
        self.calm.store(false, Ordering::Release);
    }

    /// `closed`, `open` or `half_open`.
    pub fn phase(&self) -> &'static str {
        match self.state.lock().phase() {
            Phase::Closed => "closed",
            // Its time may be over; the next request finds out.
            Phase::Open { .. } => "open",
            Phase::HalfOpen { .. } => "half_open",
        }
    }
}
