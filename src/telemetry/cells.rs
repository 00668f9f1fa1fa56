//! Numbers that all workers add to and that are rarely read: every worker has cache lines of its own, and a reader
//! adds them up.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The maximum number of workers with a slot of their own; further ones share.
const MAX_SLOTS: usize = 16;

/// The number of slots: a power of two.
pub static SLOTS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, |n| n.get().next_power_of_two().min(MAX_SLOTS)));

/// Returns the current thread's slot, below [`SLOTS`].
pub fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) & (*SLOTS - 1);
    }
    OWN.with(|own| *own)
}

/// A value that one worker alone writes, most of the time. Processors fetch cache lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PerWorker<T>(pub T);

/// Returns one value for each worker.
pub fn per_worker<T>(make: impl FnMut() -> T) -> Box<[PerWorker<T>]> {
    std::iter::repeat_with(make).map(PerWorker).take(*SLOTS).collect()
}

/// `N` numbers. They wrap around, so that one worker may subtract what another has added.
#[derive(Debug)]
pub struct Cells<const N: usize>(Box<[PerWorker<[AtomicU64; N]>]>);

impl<const N: usize> Default for Cells<N> {
    fn default() -> Self {
        Self(per_worker(|| [const { AtomicU64::new(0) }; N]))
    }
}

impl<const N: usize> Cells<N> {
    /// Adds to number `cell`; an index out of range is ignored.
    pub fn add(&self, cell: usize, by: u64) {
        self.add_all([(cell, by)]);
    }

    /// Adds to several numbers, which costs less than one by one: the worker's own are looked up once.
    pub fn add_all<const M: usize>(&self, all: [(usize, u64); M]) {
        let Some(own) = self.0.get(slot()) else { return };
        for (cell, by) in all {
            if let Some(number) = own.0.get(cell) {
                number.fetch_add(by, Ordering::Relaxed);
            }
        }
    }

    /// Returns all numbers.
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

/// A count of events.
#[derive(Debug, Default)]
pub struct Counter(Cells<1>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.0.add(0, 1);
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.sums()[0]
    }
}

/// The number of operations in progress.
#[derive(Debug, Default)]
pub struct ActiveCount(Cells<1>);

impl ActiveCount {
    /// Adds one.
    pub fn inc(&self) {
        self.0.add(0, 1);
    }

    /// Subtracts one, on any worker.
    pub fn dec(&self) {
        self.0.add(0, u64::MAX);
    }

    /// Returns the number.
    pub fn get(&self) -> i64 {
        self.0.sums()[0].cast_signed()
    }
}

/// The bounds of histograms in seconds, from a cached response to a long poll.
pub const HISTOGRAM_BOUNDS: [f64; 15] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// One cell for each bound, one for values above the last, and one for the sum.
const TIMING_CELLS: usize = HISTOGRAM_BOUNDS.len() + 2;

/// A histogram of durations, with the bounds [`HISTOGRAM_BOUNDS`].
#[derive(Debug, Default)]
pub struct Timings(Cells<TIMING_CELLS>);

/// The values of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Counted {
    /// The number of values within each of [`HISTOGRAM_BOUNDS`] and above the one before it.
    pub within: [u64; HISTOGRAM_BOUNDS.len()],
    /// The number of values.
    pub count: u64,
    /// Their sum in seconds.
    pub seconds: f64,
}

impl Timings {
    /// Records a duration in seconds.
    pub fn observe(&self, seconds: f64) {
        let within = HISTOGRAM_BOUNDS.partition_point(|bound| *bound < seconds);
        // Negative values, NaN, and durations of more than 584 years are handled by the conversion.
        self.0.add_all([(within, 1), (TIMING_CELLS - 1, (seconds * 1e9) as u64)]);
    }

    /// Returns the values of the histogram.
    pub fn counted(&self) -> Counted {
        let sums = self.0.sums();
        let mut within = [0; HISTOGRAM_BOUNDS.len()];
        within.copy_from_slice(&sums[..HISTOGRAM_BOUNDS.len()]);
        Counted {
            within,
            count: sums[..=HISTOGRAM_BOUNDS.len()].iter().sum(),
            seconds: sums[TIMING_CELLS - 1] as f64 / 1e9,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn many_threads_lose_nothing() {
        let (counter, level) = (Counter::default(), ActiveCount::default());
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
            times in prop::collection::vec(prop_oneof![0.0..40.0f64,
            prop::sample::select(HISTOGRAM_BOUNDS.to_vec())], 0..50),
        ) {
            let timings = Timings::default();
            let options = prometheus::HistogramOpts::new("model", "model").buckets(HISTOGRAM_BOUNDS.to_vec());
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
            let buckets = families[0].get_metric()[0].get_histogram().get_bucket();
            for (bucket, within) in buckets.iter().zip(counted.within) {
                all += within;
                prop_assert_eq!(bucket.cumulative_count(), all);
            }
        }
    }
}
