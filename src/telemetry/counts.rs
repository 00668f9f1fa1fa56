//! What is counted of each route and each upstream. Requests find the counts by reference, and never by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus::proto::MetricFamily;

use super::catalogue::{
    CACHE_REQUESTS, MIRRORED, MetricFacts, OPERATION_DURATION, OPERATION_REQUESTS, REQUEST_DURATION, REQUESTS,
    REQUESTS_ENDED, REQUESTS_IN_FLIGHT, UPSTREAM_CONNECT, UPSTREAM_CONNECTIONS, UPSTREAM_HEDGES, UPSTREAM_REQUESTS,
    UPSTREAM_RESPONSE, UPSTREAM_RETRIES, UPSTREAM_REUSED, UPSTREAM_ZONE_BYTES, UPSTREAM_ZONE_REQUESTS,
};
use super::cells::{ActiveCount, Cells, Counter, Timings};
use super::family::Series;
use crate::exchange::Reason;
use crate::rules::caching::CacheOutcome;

/// The label of what is above a maximum.
pub const OTHER: &str = "(other)";

/// The classes of status.
const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests by class of status.
#[derive(Debug, Default)]
pub struct ByClass(Cells<{ CLASSES.len() }>);

impl ByClass {
    /// Counts a response.
    pub fn count(&self, status: u16) {
        let class = usize::from(status / 100);
        self.0.add(if class < CLASSES.len() { class } else { 0 }, 1);
    }

    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES.into_iter().zip(self.0.sums())
    }
}

/// The metrics of one route, looked up once per snapshot and never by name on a request.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    by_class: ByClass,
    by_reason: Cells<{ Reason::ALL.len() }>,
    by_cache: Cells<{ CacheOutcome::ALL.len() }>,
    duration: Timings,
    /// Requests in flight.
    pub in_flight: ActiveCount,
}

impl RouteMetrics {
    /// Records the end of a request.
    pub fn observe(&self, reason: Reason, status: u16, seconds: f64) {
        self.by_reason.add(reason.index(), 1);
        self.by_class.count(status);
        self.duration.observe(seconds);
    }

    /// Records what the cache did for a request.
    pub fn count_cache(&self, outcome: CacheOutcome) {
        self.by_cache.add(outcome as usize, 1);
    }
}

/// The metrics of one operation of an OpenAPI document.
#[derive(Debug, Default)]
pub struct OperationMetrics {
    by_class: ByClass,
    duration: Timings,
}

impl OperationMetrics {
    /// Records the end of a request.
    pub fn observe(&self, status: u16, seconds: f64) {
        self.by_class.count(status);
        self.duration.observe(seconds);
    }
}

/// Returns the families of operations, by route and operation.
pub fn of_operations(operations: &BTreeMap<(String, String), Arc<OperationMetrics>>) -> [MetricFamily; 2] {
    let (mut by_class, mut durations) = (Series::of(&OPERATION_REQUESTS), Series::of(&OPERATION_DURATION));
    for ((route, name), operation) in operations {
        let counted = operation.by_class.counts().filter(|(_, count)| *count > 0);
        counted.for_each(|(class, count)| by_class.add(&[name, route, class], count as f64));
        durations.add_timings(&[name, route], &operation.duration);
    }
    [by_class, durations].map(Series::family)
}

/// The maximum number of zones of an upstream with series of their own; the others share `zone="(other)"`.
const MAX_ZONES: usize = 100;

/// The traffic of an upstream with the targets of one zone.
#[derive(Debug, Default)]
pub struct ZoneTraffic(Cells<3>);

impl ZoneTraffic {
    /// Counts requests, and the bytes that were sent to targets and received from them.
    pub fn count(&self, requests: u64, [sent, received]: [u64; 2]) {
        self.0.add_all([(0, requests), (1, sent), (2, received)]);
    }
}

/// The metrics of one upstream, looked up once per snapshot.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
    /// Requests by class of status.
    pub by_class: ByClass,
    /// Seconds to connect, for new connections.
    pub connect: Timings,
    /// Seconds from the request to the response's headers.
    pub response: Timings,
    /// New connections.
    pub connections: Counter,
    /// Requests on a reused connection.
    pub reused: Counter,
    /// Attempts after the first.
    pub retries: Counter,
    /// Retries that the budget did not allow.
    pub retries_denied: Counter,
    /// Hedged requests to a second target, because the first was slow.
    pub hedges: Counter,
    /// Mirrored requests with a response, and those without.
    pub mirrored: [Counter; 2],
    /// The traffic by the zone, and whether that is the gateway's own.
    zones: RwLock<BTreeMap<(String, bool), Arc<ZoneTraffic>>>,
}

impl UpstreamMetrics {
    /// Returns the traffic with a zone; above the maximum, that with all others.
    pub fn zone(&self, zone: &str, is_own: bool) -> Arc<ZoneTraffic> {
        let mut all = self.zones.write();
        let key = (zone.to_owned(), is_own);
        let is_full = all.len() >= MAX_ZONES && !all.contains_key(&key);
        Arc::clone(all.entry(if is_full { (OTHER.to_owned(), is_own) } else { key }).or_default())
    }
}

/// Returns the families of routes.
pub fn of_routes(routes: &BTreeMap<String, Arc<RouteMetrics>>) -> [MetricFamily; 5] {
    let (mut by_class, mut by_reason) = (Series::of(&REQUESTS), Series::of(&REQUESTS_ENDED));
    let (mut durations, mut in_flight) = (Series::of(&REQUEST_DURATION), Series::of(&REQUESTS_IN_FLIGHT));
    let mut by_cache = Series::of(&CACHE_REQUESTS);
    for (name, route) in routes {
        route.by_class.counts().for_each(|(class, count)| by_class.add(&[name, class], count as f64));
        // Most routes see few of the reasons: those that none has ended with have no series.
        let reasons = Reason::ALL.iter().zip(route.by_reason.sums()).filter(|(_, count)| *count > 0);
        reasons.for_each(|(reason, count)| by_reason.add(&[reason.code(), name], count as f64));
        // Only routes with a cache have series of it, and each all of them once it has one.
        let by_outcome: Vec<u64> = route.by_cache.sums().into_iter().collect();
        if by_outcome.iter().any(|count| *count > 0) {
            let outcomes = CacheOutcome::ALL.iter().zip(by_outcome);
            outcomes.for_each(|(outcome, count)| by_cache.add(&[outcome.word(), name], count as f64));
        }
        durations.add_timings(&[name], &route.duration);
        in_flight.add(&[name], route.in_flight.get() as f64);
    }
    [by_class, by_reason, durations, in_flight, by_cache].map(Series::family)
}

/// Returns the families of upstreams.
pub fn of_upstreams(upstreams: &BTreeMap<String, Arc<UpstreamMetrics>>) -> Vec<MetricFamily> {
    let times = |facts: &'static MetricFacts, timings: fn(&UpstreamMetrics) -> &Timings| {
        let mut series = Series::of(facts);
        upstreams.iter().for_each(|(name, upstream)| series.add_timings(&[name], timings(upstream)));
        series.family()
    };
    let count = |facts: &'static MetricFacts, counter: fn(&UpstreamMetrics) -> &Counter| {
        let mut series = Series::of(facts);
        upstreams.iter().for_each(|(name, upstream)| series.add(&[name], counter(upstream).get() as f64));
        series.family()
    };
    let outcomes = |facts: &'static MetricFacts, counters: fn(&UpstreamMetrics) -> [(&'static str, &Counter); 2]| {
        let mut series = Series::of(facts);
        for (name, upstream) in upstreams {
            let both = counters(upstream).into_iter();
            both.for_each(|(outcome, counter)| series.add(&[outcome, name], counter.get() as f64));
        }
        series.family()
    };
    let mut by_class = Series::of(&UPSTREAM_REQUESTS);
    for (name, upstream) in upstreams {
        upstream.by_class.counts().for_each(|(class, count)| by_class.add(&[class, name], count as f64));
    }
    let (mut zone_requests, mut zone_bytes) = (Series::of(&UPSTREAM_ZONE_REQUESTS), Series::of(&UPSTREAM_ZONE_BYTES));
    for (name, upstream) in upstreams {
        for ((zone, is_own), traffic) in &*upstream.zones.read() {
            let own = if *is_own { "true" } else { "false" };
            let [requests, sent, received] = traffic.0.sums();
            zone_requests.add(&[own, name, zone], requests as f64);
            zone_bytes.add(&["received", own, name, zone], received as f64);
            zone_bytes.add(&["sent", own, name, zone], sent as f64);
        }
    }
    vec![
        zone_requests.family(),
        zone_bytes.family(),
        by_class.family(),
        times(&UPSTREAM_CONNECT, |u| &u.connect),
        times(&UPSTREAM_RESPONSE, |u| &u.response),
        count(&UPSTREAM_CONNECTIONS, |u| &u.connections),
        count(&UPSTREAM_REUSED, |u| &u.reused),
        count(&UPSTREAM_HEDGES, |u| &u.hedges),
        outcomes(&UPSTREAM_RETRIES, |u| [("begun", &u.retries), ("denied", &u.retries_denied)]),
        outcomes(&MIRRORED, |u| [("answered", &u.mirrored[0]), ("failed", &u.mirrored[1])]),
    ]
}
