//! Numbers that all workers add to and seldom anybody reads: every worker has cache lines of its own,
//! and a reader adds them up.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The most workers that are told apart; further ones share.
const MAX_SLOTS: usize = 16;

/// How many workers are told apart: a power of two.
pub static SLOTS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, |n| n.get().next_power_of_two().min(MAX_SLOTS)));

/// The running thread's number, below [`SLOTS`].
pub fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) & (*SLOTS - 1);
    }
    OWN.with(|own| *own)
}

/// What one worker alone writes to, most of the time. Processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Own<T>(pub T);

/// One of a thing for each worker.
pub fn own_each<T>(make: impl FnMut() -> T) -> Box<[Own<T>]> {
    std::iter::repeat_with(make).map(Own).take(*SLOTS).collect()
}

/// `N` numbers. They wrap, so that what one worker adds another may take away.
#[derive(Debug)]
pub struct Cells<const N: usize>(Box<[Own<[AtomicU64; N]>]>);

impl<const N: usize> Default for Cells<N> {
    fn default() -> Self {
        Self(own_each(|| [const { AtomicU64::new(0) }; N]))
    }
}

impl<const N: usize> Cells<N> {
    /// Adds to number `cell`; to one that is not there nothing is added.
    pub fn add(&self, cell: usize, by: u64) {
        if let Some(number) = self.0.get(slot()).and_then(|own| own.0.get(cell)) {
            number.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// All numbers.
    pub fn sums(&self) -> [u64; N] {
        let mut sums = [0u64; N];
        for own in &self.0 {
            for (sum, number) in sums.iter_mut().zip(&own.0) {
                *sum = sum.wrapping_add(number.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

/// A number of things.
#[derive(Debug, Default)]
pub struct Counter(Cells<1>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.0.add(0, 1);
    }

    /// How many there were.
    pub fn get(&self) -> u64 {
        self.0.sums()[0]
    }
}

/// A number of things that are under way.
#[derive(Debug, Default)]
pub struct Level(Cells<1>);

impl Level {
    /// One begins.
    pub fn inc(&self) {
        self.0.add(0, 1);
    }

    /// One ends, on whatever worker.
    pub fn dec(&self) {
        self.0.add(0, u64::MAX);
    }

    /// How many there are.
    pub fn get(&self) -> i64 {
        self.0.sums()[0].cast_signed()
    }
}

/// Bounds in seconds, from a cached answer to a long poll.
pub const BOUNDS: [f64; 15] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The bounds, those over the last, and the sum.
const TIMING_CELLS: usize = BOUNDS.len() + 2;

/// How long things took, counted by [`BOUNDS`].
#[derive(Debug, Default)]
pub struct Timings(Cells<TIMING_CELLS>);

/// What was counted of times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    /// How many were within each of [`BOUNDS`] and not within the one before it.
    pub within: [u64; BOUNDS.len()],
    /// How many there were.
    pub count: u64,
    /// Their sum in seconds.
    pub seconds: f64,
}

impl Timings {
    /// Counts a time in seconds.
    pub fn observe(&self, seconds: f64) {
        self.0.add(BOUNDS.partition_point(|bound| *bound < seconds), 1);
        // What is no time, and what is over 584 years, is stopped by the conversion.
        self.0.add(TIMING_CELLS - 1, (seconds * 1e9) as u64);
    }

    /// What was counted.
    pub fn counted(&self) -> Counted {
        let sums = self.0.sums();
        let mut within = [0; BOUNDS.len()];
        within.copy_from_slice(&sums[..BOUNDS.len()]);
        Counted { within, count: sums[..=BOUNDS.len()].iter().sum(), seconds: sums[TIMING_CELLS - 1] as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_threads_lose_nothing() {
        let (counter, level) = (Counter::default(), Level::default());
        std::thread::scope(|scope| {
            for number in 0..2 * MAX_SLOTS {
                let (counter, level) = (&counter, &level);
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        counter.inc();
                        if number % 2 == 0 { level.inc() } else { level.dec() }
                    }
                });
            }
        });
        assert_eq!((counter.get(), level.get()), (2_000 * MAX_SLOTS as u64, 0));
        level.dec();
        assert_eq!(level.get(), -1);
    }

    proptest! {
        #[test]
        fn times_are_counted_as_prometheus_counts_them(
            times in prop::collection::vec(prop_oneof![0.0..40.0f64, prop::sample::select(BOUNDS.to_vec())], 0..50),
        ) {
            let timings = Timings::default();
            let options = prometheus::HistogramOpts::new("model", "model").buckets(BOUNDS.to_vec());
            let model = prometheus::Histogram::with_opts(options).expect("a histogram");
            for time in &times {
                timings.observe(*time);
                model.observe(*time);
            }
            let counted = timings.counted();
            prop_assert_eq!(counted.count, model.get_sample_count());
            prop_assert!((counted.seconds - model.get_sample_sum()).abs() < 1e-6);
            let families = prometheus::core::Collector::collect(&model);
            let mut all = 0;
            for (bucket, within) in families[0].get_metric()[0].get_histogram().get_bucket().iter().zip(counted.within) {
                all += within;
                prop_assert_eq!(bucket.cumulative_count(), all);
            }
        }
    }
}
