//! A circuit breaker: closed, open after failures, half-open with counted probes after a cool-down.
//!
//! After M. Nygard, "Release It!", with the two triggers of Envoy's outlier detection and resilience4j: failures in a
//! row, and the share of failures in a window. The open state always ends after a time, and so does waiting for
//! probes without an outcome.

/// The conditions under which a breaker opens and closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BreakerShape {
    /// The number of failures in a row that open it; 0 is never.
    pub failures: u32,
    /// The percentage of failures in a window that opens it; 0 is never.
    pub ratio: u32,
    /// The number of requests that a window needs for the percentage to count.
    pub min_requests: u32,
    /// The window, in nanoseconds.
    pub window: u64,
    /// The time for which it stays open, in nanoseconds.
    pub cool_down: u64,
    /// The number of requests that are let through half-open, all of which have to succeed.
    pub probes: u32,
}

/// The decision about a request. It has to be returned with the request's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The request passes.
    Closed,
    /// The request passes as one of the probes of this round.
    Probe(u32),
    /// The request is rejected; nanoseconds until a retry makes sense.
    Rejected(u64),
}

/// The state of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerPhase {
    /// Requests pass.
    Closed,
    /// Requests are rejected until the given time.
    Open {
        /// The end of the cool-down.
        until: u64,
    },
    /// Probes pass.
    HalfOpen {
        /// When the round began.
        begun: u64,
        /// The number of probes in flight.
        out: u32,
        /// The number of probes that succeeded.
        good: u32,
    },
}

/// A circuit breaker.
#[derive(Clone, Copy, Debug)]
pub struct BreakerState {
    phase: BreakerPhase,
    /// The number of half-open rounds so far: a late probe of an earlier round does not count.
    round: u32,
    in_a_row: u32,
    window_begun: u64,
    total: u32,
    failed: u32,
}

impl Default for BreakerState {
    fn default() -> Self {
        Self { phase: BreakerPhase::Closed, round: 0, in_a_row: 0, window_begun: 0, total: 0, failed: 0 }
    }
}

impl BreakerState {
    /// Returns a breaker that is open until the given time.
    pub fn opened(until: u64) -> Self {
        Self { phase: BreakerPhase::Open { until }, ..Self::default() }
    }

    /// Returns this breaker with another shape. It is open for no longer than that shape says. Probes in flight are
    /// not awaited: their outcome belongs to this breaker.
    #[must_use]
    pub fn reshaped(self, shape: &BreakerShape, now: u64) -> Self {
        let phase = match self.phase {
            BreakerPhase::Closed => BreakerPhase::Closed,
            BreakerPhase::Open { until } => {
                BreakerPhase::Open { until: until.min(now.saturating_add(shape.cool_down)) }
            }
            BreakerPhase::HalfOpen { .. } => BreakerPhase::Open { until: now },
        };
        Self { phase, ..self }
    }

    /// Returns its phase.
    pub fn phase(&self) -> BreakerPhase {
        self.phase
    }

    /// Returns whether the next success changes nothing: the breaker is closed and has counted no failure.
    pub fn has_no_failures(&self, shape: &BreakerShape) -> bool {
        self.phase == BreakerPhase::Closed && self.in_a_row == 0 && shape.ratio == 0
    }

    /// Decides on a request.
    pub fn admit(&mut self, shape: &BreakerShape, now: u64) -> Admission {
        match &mut self.phase {
            BreakerPhase::Closed => Admission::Closed,
            BreakerPhase::Open { until } if now < *until => Admission::Rejected(*until - now),
            BreakerPhase::Open { .. } => self.half_open(now),
            BreakerPhase::HalfOpen { out, good, .. } if *out + *good < shape.probes => {
                *out += 1;
                Admission::Probe(self.round)
            }
            BreakerPhase::HalfOpen { begun, .. } if now.saturating_sub(*begun) >= shape.cool_down => {
                self.half_open(now)
            }
            BreakerPhase::HalfOpen { begun, .. } => Admission::Rejected((*begun + shape.cool_down).saturating_sub(now)),
        }
    }

    fn half_open(&mut self, now: u64) -> Admission {
        self.round = self.round.wrapping_add(1);
        self.phase = BreakerPhase::HalfOpen { begun: now, out: 1, good: 0 };
        Admission::Probe(self.round)
    }

    /// Records the outcome of a request that passed; `None` when it is unknown. Returns whether the breaker opened or
    /// closed.
    pub fn record(&mut self, shape: &BreakerShape, now: u64, admission: Admission, success: Option<bool>) -> bool {
        match (admission, self.phase) {
            (Admission::Closed, BreakerPhase::Closed) => self.count(shape, now, success),
            (Admission::Probe(round), BreakerPhase::HalfOpen { begun, out, good }) if round == self.round => {
                let out = out.saturating_sub(1);
                match success {
                    None => self.phase = BreakerPhase::HalfOpen { begun, out, good },
                    Some(false) => self.open(shape, now),
                    Some(true) if good + 1 >= shape.probes => {
                        *self = Self { round: self.round, window_begun: now, ..Self::default() }
                    }
                    Some(true) => self.phase = BreakerPhase::HalfOpen { begun, out, good: good + 1 },
                }
                !matches!(self.phase, BreakerPhase::HalfOpen { .. })
            }
            _ => false,
        }
    }

    fn count(&mut self, shape: &BreakerShape, now: u64, success: Option<bool>) -> bool {
        let Some(success) = success else { return false };
        if now.saturating_sub(self.window_begun) >= shape.window {
            (self.window_begun, self.total, self.failed) = (now, 0, 0);
        }
        self.total += 1;
        if success {
            self.in_a_row = 0;
            return false;
        }
        self.failed += 1;
        self.in_a_row += 1;
        let row = shape.failures > 0 && self.in_a_row >= shape.failures;
        let counts = shape.ratio > 0 && self.total >= shape.min_requests.max(1);
        let share = counts && u64::from(self.failed) * 100 >= u64::from(shape.ratio) * u64::from(self.total);
        if row || share {
            self.open(shape, now);
        }
        row || share
    }

    fn open(&mut self, shape: &BreakerShape, now: u64) {
        *self =
            Self { round: self.round, phase: BreakerPhase::Open { until: now + shape.cool_down }, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const SHAPE: BreakerShape =
        BreakerShape { failures: 3, ratio: 50, min_requests: 10, window: 10 * S, cool_down: 5 * S, probes: 2 };

    fn fail(breaker: &mut BreakerState, now: u64) -> bool {
        let admission = breaker.admit(&SHAPE, now);
        breaker.record(&SHAPE, now, admission, Some(false))
    }

    fn succeed(breaker: &mut BreakerState, now: u64) -> bool {
        let admission = breaker.admit(&SHAPE, now);
        breaker.record(&SHAPE, now, admission, Some(true))
    }

    #[test]
    fn failures_in_a_row_open_it_and_probes_close_it() {
        let mut breaker = BreakerState::default();
        assert!(!fail(&mut breaker, 0) && !fail(&mut breaker, 0) && !succeed(&mut breaker, 0));
        assert!(!fail(&mut breaker, 0) && !fail(&mut breaker, 0) && fail(&mut breaker, 0));
        assert_eq!(breaker.admit(&SHAPE, S), Admission::Rejected(4 * S));
        let (one, two) = (breaker.admit(&SHAPE, 5 * S), breaker.admit(&SHAPE, 5 * S));
        assert!(matches!((one, two), (Admission::Probe(1), Admission::Probe(1))));
        assert!(matches!(breaker.admit(&SHAPE, 6 * S), Admission::Rejected(_)));
        assert!(!breaker.record(&SHAPE, 6 * S, one, Some(true)) && breaker.record(&SHAPE, 6 * S, two, Some(true)));
        assert_eq!(breaker.phase(), BreakerPhase::Closed);
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_lost_ones_do_not_hold_it() {
        let mut breaker = BreakerState::default();
        (0..3).for_each(|_| _ = fail(&mut breaker, 0));
        let probe = breaker.admit(&SHAPE, 5 * S);
        assert!(breaker.record(&SHAPE, 5 * S, probe, Some(false)));
        assert!(matches!(breaker.admit(&SHAPE, 9 * S), Admission::Rejected(_)));
        // Both probes of the next round have no outcome: the round after them begins by time.
        let lost = [breaker.admit(&SHAPE, 10 * S), breaker.admit(&SHAPE, 10 * S)];
        assert!(matches!(breaker.admit(&SHAPE, 14 * S), Admission::Rejected(_)));
        assert!(matches!(breaker.admit(&SHAPE, 15 * S), Admission::Probe(3)));
        // Their late outcomes count for nothing.
        assert!(!breaker.record(&SHAPE, 15 * S, lost[0], Some(false)));
        assert!(matches!(breaker.phase(), BreakerPhase::HalfOpen { .. }));
    }

    #[test]
    fn another_shape_takes_over_where_it_stands() {
        let shorter = BreakerShape { cool_down: S, ..SHAPE };
        let longer = BreakerShape { cool_down: 99 * S, ..SHAPE };
        let mut breaker = BreakerState::default();
        (0..2).for_each(|_| _ = fail(&mut breaker, 0));
        assert!(fail(&mut breaker.reshaped(&longer, 0), 0), "the third in a row");
        assert!(fail(&mut breaker, 0));
        let until = |breaker: BreakerState| if let BreakerPhase::Open { until } = breaker.phase() { until } else { 0 };
        assert_eq!(until(breaker.reshaped(&longer, 0)), SHAPE.cool_down);
        assert_eq!(until(breaker.reshaped(&shorter, 2 * S)), 3 * S);
        breaker.admit(&SHAPE, 5 * S);
        let mut reshaped = breaker.reshaped(&longer, 6 * S);
        assert!(matches!(reshaped.admit(&longer, 6 * S), Admission::Probe(_)), "the probe that is out is another's");
    }

    #[test]
    fn a_share_of_failures_opens_it_once_there_are_enough() {
        let mut breaker = BreakerState::default();
        for _ in 0..4 {
            assert!(!fail(&mut breaker, 0) && !succeed(&mut breaker, 0));
        }
        assert!(!succeed(&mut breaker, 0));
        assert!(fail(&mut breaker, 0), "5 of 10");
    }
}
