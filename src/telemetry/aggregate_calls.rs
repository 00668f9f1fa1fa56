//! Counts of the calls of aggregated responses.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::catalogue::{AGGREGATE_CALL_SECONDS, AGGREGATE_CALLS};
use super::cells::{Cells, Timings};
use super::family::Series;

/// The outcomes of calls.
const OUTCOMES: [&str; 4] = ["completed", "failed", "timed_out", "skipped"];

/// How a call of an aggregated response ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartOutcome {
    /// With a result.
    Completed,
    /// Without one.
    Failed,
    /// At the end of its time.
    TimedOut,
    /// It was not made, by its condition or because a call was not made whose result it needs.
    Skipped,
}

/// The counts of one call of a route.
#[derive(Debug, Default)]
pub struct PartMetrics {
    outcomes: Cells<{ OUTCOMES.len() }>,
    seconds: Timings,
}

impl PartMetrics {
    /// Records a call. Only calls that were made have a duration.
    pub fn observe(&self, outcome: PartOutcome, seconds: Option<f64>) {
        self.outcomes.add(outcome as usize, 1);
        seconds.into_iter().for_each(|seconds| self.seconds.observe(seconds));
    }
}

/// The sign between the names of route and call.
const BETWEEN: char = '\n';

/// Returns the key of a call of a route.
pub fn key(route: &str, call: &str) -> String {
    format!("{route}{BETWEEN}{call}")
}

/// Returns the route of a key.
pub fn route_of(key: &str) -> &str {
    key.split(BETWEEN).next().unwrap_or_default()
}

/// Returns the families of the calls of all routes.
pub fn families(all: &BTreeMap<String, Arc<PartMetrics>>) -> [MetricFamily; 2] {
    let (mut calls, mut seconds) = (Series::of(&AGGREGATE_CALLS), Series::of(&AGGREGATE_CALL_SECONDS));
    for (key, metrics) in all {
        let (route, call) = key.split_once(BETWEEN).unwrap_or((key, key));
        OUTCOMES
            .iter()
            .zip(metrics.outcomes.sums())
            .for_each(|(outcome, count)| calls.add(&[call, outcome, route], count as f64));
        seconds.add_timings(&[call, route], &metrics.seconds);
    }
    [calls.family(), seconds.family()]
}
