//! Peak EWMA: a moving average of response times that follows a rise at once and a fall slowly.
//!
//! After Finagle and tower (`load/peak_ewma.rs`): a time above the average becomes the average; a time below it is
//! mixed in with a weight that grows with the time passed, with the constant [`TAU`]. The value that is read decays
//! towards zero, so that a target that was avoided gets requests again.

use std::sync::atomic::{AtomicU64, Ordering};

/// The time constant of the decay, in nanoseconds: after this time 37 % of an old value is left.
pub const TAU: f64 = 10e9;

/// The response time assumed for a target without any observation, in seconds. It is low, so that the target gets
/// requests.
pub const UNKNOWN_LATENCY: f64 = 0.030;

/// The average. It consists of two numbers without a lock: a reader between the two writes sees a value with a
/// slightly wrong age, and the error decays with the value.
#[derive(Debug)]
pub struct Ewma {
    /// Seconds, as bits.
    value: AtomicU64,
    /// The time of the last observation, in nanoseconds of the caller's clock.
    at: AtomicU64,
}

/// Returns e^-x. For a small x, the common case, the first terms of the series give it to within 10^-9.
fn decay(x: f64) -> f64 {
    if x < 0.001 { x.mul_add(x.mul_add(0.5, -1.0), 1.0) } else { (-x).exp() }
}

impl Ewma {
    /// Returns an average without any observation.
    pub fn new(now: u64) -> Self {
        Self { value: AtomicU64::new(UNKNOWN_LATENCY.to_bits()), at: AtomicU64::new(now) }
    }

    /// Returns whether anything was observed.
    pub fn is_known(&self) -> bool {
        self.value.load(Ordering::Relaxed) != UNKNOWN_LATENCY.to_bits()
    }

    /// Returns the average at `now`, in seconds.
    pub fn read(&self, now: u64) -> f64 {
        let value = f64::from_bits(self.value.load(Ordering::Relaxed));
        let passed = now.saturating_sub(self.at.load(Ordering::Relaxed)) as f64;
        // After so short a time the decay is negligible, and most reads come soon after one another.
        if passed < TAU / 1_000.0 { value } else { value * decay(passed / TAU) }
    }

    /// Sets the average to a value that is known at `now`.
    pub fn set(&self, seconds: f64, now: u64) {
        self.value.store(seconds.to_bits(), Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
    }

    /// Records a response time in seconds.
    pub fn observe(&self, seconds: f64, now: u64) {
        let value = f64::from_bits(self.value.load(Ordering::Relaxed));
        let passed = now.saturating_sub(self.at.load(Ordering::Relaxed)) as f64;
        let kept = decay(passed / TAU);
        let next = if seconds > value * kept { seconds } else { value.mul_add(kept, seconds * (1.0 - kept)) };
        self.set(next, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let ewma = Ewma::new(0);
        ewma.observe(0.5, SECOND);
        assert!((ewma.read(SECOND) - 0.5).abs() < 1e-9);
        ewma.observe(0.01, SECOND + SECOND / 10);
        assert!(ewma.read(SECOND + SECOND / 10) > 0.4);
        // After three time constants without an observation, the target gets requests again.
        assert!(ewma.read(31 * SECOND) < 0.05);
    }
}
