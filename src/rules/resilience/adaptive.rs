//! Adaptive concurrency: an upstream gets as many concurrent requests as it can handle without slowing down.
//!
//! The algorithm is the gradient of Netflix' concurrency-limits and Envoy's adaptive concurrency filter: the best
//! observed response time is that of an upstream without a queue, and the ratio to the present time says how far the
//! limit is too high. limit = gradient · limit + √limit, once per window.

/// The bounds of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdaptiveShape {
    /// The lowest limit.
    pub min: u32,
    /// The highest limit.
    pub max: u32,
    /// The time between two adjustments, in nanoseconds.
    pub window: u64,
}

/// The fraction by which a response time may exceed the best before it counts.
const TOLERANCE: f64 = 0.25;

/// The number of windows after which the best response time expires, so that an upstream that has become slower for
/// good is not throttled for ever. The limit is halved for one window equally often: under a steady load no request
/// would otherwise see how fast the upstream is without a queue.
const MEMORY_WINDOWS: usize = 50;

/// The number of samples that a window needs to be evaluated.
const MIN_SAMPLES: u32 = 5;

/// An adaptive limit.
#[derive(Clone, Debug)]
pub struct Gradient {
    limit: f64,
    /// The best time of each of the last windows, a ring buffer.
    best: Vec<f64>,
    next: usize,
    begun: u64,
    sum: f64,
    count: u32,
    least: f64,
    /// The maximum number of concurrent requests in this window.
    peak: u32,
    /// The limit to return to after a window at half of it.
    halved: Option<f64>,
}

impl Gradient {
    /// Returns a low limit; it grows quickly while response times do not.
    pub fn new(shape: &AdaptiveShape, now: u64) -> Self {
        let limit = f64::from(10_u32.clamp(shape.min, shape.max));
        Self {
            limit,
            best: Vec::new(),
            next: 0,
            begun: now,
            sum: 0.0,
            count: 0,
            least: f64::MAX,
            peak: 0,
            halved: None,
        }
    }

    /// Returns the limit.
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Records a response time in seconds, with the number of concurrent requests. Returns the new limit when a
    /// window has ended.
    pub fn observe(&mut self, shape: &AdaptiveShape, seconds: f64, active: u32, now: u64) -> Option<u32> {
        self.sum += seconds;
        self.count += 1;
        self.least = self.least.min(seconds);
        self.peak = self.peak.max(active);
        if now.saturating_sub(self.begun) < shape.window || self.count < MIN_SAMPLES {
            return None;
        }
        self.remember();
        match self.halved.take() {
            Some(limit) => self.limit = limit,
            None => self.adjust(shape),
        }
        *self = Self {
            begun: now,
            sum: 0.0,
            count: 0,
            least: f64::MAX,
            peak: 0,
            best: std::mem::take(&mut self.best),
            ..*self
        };
        Some(self.limit())
    }

    fn remember(&mut self) {
        if self.best.len() < MEMORY_WINDOWS {
            self.best.push(self.least);
        } else {
            self.best[self.next] = self.least;
        }
        self.next = (self.next + 1) % MEMORY_WINDOWS;
    }

    fn adjust(&mut self, shape: &AdaptiveShape) {
        let mean = self.sum / f64::from(self.count);
        let best = self.best.iter().copied().fold(f64::MAX, f64::min);
        let gradient = (best * (1.0 + TOLERANCE) / mean).clamp(0.5, 1.0);
        let next = gradient.mul_add(self.limit, self.limit.sqrt());
        let (min, max) = (f64::from(shape.min), f64::from(shape.max));
        // A limit that is not reached says nothing about higher limits.
        if next < self.limit || f64::from(self.peak) * 2.0 >= self.limit {
            self.limit = next.clamp(min, max);
        }
        if self.next == 0 {
            self.halved = Some(self.limit);
            self.limit = (self.limit / 2.0).max(min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: AdaptiveShape = AdaptiveShape { min: 4, max: 1_000, window: 100_000_000 };

    /// Simulates an upstream that handles ten requests at a time, 20 ms each, and queues the rest.
    fn run_windows(gradient: &mut Gradient, windows: u64, from: u64, offered: u32) -> u32 {
        for window in 0..windows {
            for sample in 0..20_u64 {
                let active = offered.min(gradient.limit());
                let seconds = 0.020 * (f64::from(active) / 10.0).max(1.0);
                let now = (from + window) * SHAPE.window + sample * SHAPE.window / 19;
                gradient.observe(&SHAPE, seconds, active, now);
            }
        }
        gradient.limit()
    }

    #[test]
    fn settles_near_what_the_upstream_can_do() {
        let mut gradient = Gradient::new(&SHAPE, 0);
        for round in 0..20 {
            let limit = run_windows(&mut gradient, 40, round * 40, 1_000);
            assert!((8..=20).contains(&limit), "{limit} after {round} rounds");
        }
    }

    #[test]
    fn does_not_grow_unused() {
        let mut gradient = Gradient::new(&SHAPE, 0);
        let limit = run_windows(&mut gradient, 200, 0, 5);
        assert!(limit <= 20, "{limit}");
    }
}
