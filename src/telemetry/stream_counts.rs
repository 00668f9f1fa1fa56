//! What is counted of the rules of layer 4. Sessions find the counts by reference, and never by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::catalogue::{STREAM_BYTES, STREAM_CONNECT_FAILURES, STREAM_DURATION, STREAM_SESSIONS, STREAM_SESSIONS_OPEN};
use super::cells::{ActiveCount, Cells, Timings};
use super::family::Series;
use crate::exchange::Reason;

/// The metrics of one rule on one listener.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    by_reason: Cells<{ Reason::ALL.len() }>,
    connect_failures: Cells<{ Reason::ALL.len() }>,
    /// The bytes to targets, and to clients.
    bytes: Cells<2>,
    duration: Timings,
    /// Open sessions.
    pub open: ActiveCount,
}

impl StreamMetrics {
    /// Records the end of a session.
    pub fn observe(&self, reason: Reason, seconds: f64) {
        self.by_reason.add(reason.index(), 1);
        self.duration.observe(seconds);
    }

    /// Counts an attempt to connect to a target that has failed.
    pub fn count_connect_failure(&self, reason: Reason) {
        self.connect_failures.add(reason.index(), 1);
    }

    /// Counts bytes to targets, and to clients.
    pub fn count_bytes(&self, inward: u64, outward: u64) {
        self.bytes.add_all([(0, inward), (1, outward)]);
    }
}

/// Returns the families of all rules, by listener and rule.
pub fn families(all: &BTreeMap<(String, String), Arc<StreamMetrics>>) -> [MetricFamily; 5] {
    let (mut sessions, mut failures) = (Series::of(&STREAM_SESSIONS), Series::of(&STREAM_CONNECT_FAILURES));
    let (mut bytes, mut open) = (Series::of(&STREAM_BYTES), Series::of(&STREAM_SESSIONS_OPEN));
    let mut durations = Series::of(&STREAM_DURATION);
    for ((listener, stream), metrics) in all {
        // Those that none has ended with have no series.
        for (cells, series) in [(&metrics.by_reason, &mut sessions), (&metrics.connect_failures, &mut failures)] {
            let counted = Reason::ALL.iter().zip(cells.sums()).filter(|(_, count)| *count > 0);
            counted.for_each(|(reason, count)| series.add(&[listener, reason.code(), stream], count as f64));
        }
        let counted = ["in", "out"].into_iter().zip(metrics.bytes.sums());
        counted.for_each(|(direction, count)| bytes.add(&[direction, listener, stream], count as f64));
        open.add(&[listener, stream], metrics.open.get() as f64);
        durations.add_timings(&[listener, stream], &metrics.duration);
    }
    [sessions, failures, bytes, open, durations].map(Series::family)
}
