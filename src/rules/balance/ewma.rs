//! Peak EWMA: a moving average of response times that follows a rise at once and a fall slowly.
//!
//! After Finagle and tower (`load/peak_ewma.rs`): a time above the average becomes the average; one
//! below is mixed in by the time that passed, with the constant [`TAU`]. Read, it decays as if
//! nothing were slow any more, so that a target that was avoided is asked again.

use std::sync::atomic::{AtomicU64, Ordering};

/// The constant of decay, in nanoseconds: after this time a third of an old value is left.
pub const TAU: f64 = 10e9;

/// What a target is taken to need of which nothing is known, in seconds: so that it gets requests.
pub const UNKNOWN_LATENCY: f64 = 0.030;

/// The average. Two numbers without a lock: a reader between the two writes sees a value that is a
/// moment old or young, which decays the wrong way by that moment.
#[derive(Debug)]
pub struct Ewma {
    /// Seconds, as bits.
    value: AtomicU64,
    /// When it was observed, in nanoseconds of the caller's clock.
    at: AtomicU64,
}

/// e^-x; for a small x by the first terms of its series, to within 10^-9, since most answers come soon after
/// one another.
fn decay(x: f64) -> f64 {
    if x < 0.001 { x.mul_add(x.mul_add(0.5, -1.0), 1.0) } else { (-x).exp() }
}

impl Ewma {
    /// Of a target of which nothing is known at `now`.
    pub fn new(now: u64) -> Self {
        Self { value: AtomicU64::new(UNKNOWN_LATENCY.to_bits()), at: AtomicU64::new(now) }
    }

    /// Whether anything was observed.
    pub fn is_known(&self) -> bool {
        self.value.load(Ordering::Relaxed) != UNKNOWN_LATENCY.to_bits()
    }

    /// The average at `now`, in seconds.
    pub fn read(&self, now: u64) -> f64 {
        let value = f64::from_bits(self.value.load(Ordering::Relaxed));
        let passed = now.saturating_sub(self.at.load(Ordering::Relaxed)) as f64;
        // Of so short a time there is nothing to see, and most reads are after one.
        if passed < TAU / 1_000.0 { value } else { value * decay(passed / TAU) }
    }

    /// It is known to be so at `now`.
    pub fn set(&self, seconds: f64, now: u64) {
        self.value.store(seconds.to_bits(), Ordering::Relaxed);
        self.at.store(now, Ordering::Relaxed);
    }

    /// Notes a response time in seconds.
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
        // Nothing was heard for three constants of time: it is asked again.
        assert!(ewma.read(31 * SECOND) < 0.05);
    }
}
