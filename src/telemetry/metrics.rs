//! The registry of all metrics. Labels are bounded: names from the configuration, the closed list of reasons, classes
//! of status.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::RwLock;
use prometheus::proto::{Metric, MetricFamily};
use prometheus::{Encoder, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

use super::cells::{ActiveCount, Cells, Counter, Timings};
use super::family;
use crate::exchange::Reason;

/// The maximum number of routes with a series of their own; the others share `route="(other)"`.
const MAX_ROUTES: usize = 2_000;

/// The label of the routes above the maximum.
const OTHER: &str = "(other)";

/// The label of requests without a route.
const NONE: &str = "(none)";

/// The maximum number of files that are named after a rejected reload.
const MAX_BAD_FILES: usize = 10;

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of one route, looked up once per snapshot and never by name on a request.
#[derive(Debug, Default)]
pub struct RouteMetrics {
    by_class: Cells<{ CLASSES.len() }>,
    duration: Timings,
    /// Requests in flight.
    pub in_flight: ActiveCount,
}

impl RouteMetrics {
    /// Records a response.
    pub fn observe(&self, status: u16, seconds: f64) {
        let class = usize::from(status / 100);
        self.by_class.add(if class < CLASSES.len() { class } else { 0 }, 1);
        self.duration.observe(seconds);
    }
}

/// The metrics of one upstream, looked up once per snapshot.
#[derive(Debug, Default)]
pub struct UpstreamMetrics {
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
}

/// The state of an upstream at the time of a scrape.
#[derive(Debug)]
pub struct UpstreamState {
    /// Its name.
    pub name: String,
    /// Requests in flight, queued requests, and the limit.
    pub gate: [u32; 3],
    /// Whether its breaker is open or half-open, if it has one.
    pub breaker: Option<f64>,
    /// Its targets: address, eligible, requests in flight, ejected.
    pub targets: Vec<(String, bool, u32, bool)>,
}

/// These gauges get their values anew at each scrape.
#[derive(Debug)]
struct ScrapedGauges {
    gate: GaugeVec,
    breaker: GaugeVec,
    jwks_age: GaugeVec,
    target_ejected: GaugeVec,
    target_health: GaugeVec,
    target_active: GaugeVec,
}

impl ScrapedGauges {
    fn new(r: &Registry) -> Self {
        Self {
            gate: gauges(
                r,
                "portcullis_upstream_requests",
                "Requests in flight, queued requests, and the limit",
                &["upstream", "state"],
            ),
            breaker: gauges(
                r,
                "portcullis_upstream_breaker_open",
                "1 if the breaker is open, 0.5 if it is half-open",
                &["upstream"],
            ),
            jwks_age: gauges(
                r,
                "portcullis_jwks_age_seconds",
                "Seconds since the key set was last fetched or read",
                &["source"],
            ),
            target_ejected: gauges(
                r,
                "portcullis_target_ejected",
                "1 if the target is ejected",
                &["upstream", "target"],
            ),
            target_health: gauges(
                r,
                "portcullis_target_healthy",
                "1 if the target is eligible",
                &["upstream", "target"],
            ),
            target_active: gauges(
                r,
                "portcullis_target_requests_in_flight",
                "Requests in flight on the target",
                &["upstream", "target"],
            ),
        }
    }

    fn reset(&self) {
        let of_targets = [&self.target_ejected, &self.target_health, &self.target_active];
        for gauges in [&self.gate, &self.breaker, &self.jwks_age].into_iter().chain(of_targets) {
            gauges.reset();
        }
    }
}

/// These metrics tell how reloads ended, and when the present configuration was loaded.
#[derive(Debug)]
struct ReloadMetrics {
    by_outcome: IntCounterVec,
    time: Gauge,
    ok: IntGauge,
    bad_files: GaugeVec,
}

impl ReloadMetrics {
    fn new(r: &Registry) -> Self {
        Self {
            by_outcome: counters(r, "portcullis_reloads_total", "Reloads by outcome", &["outcome"]),
            time: gauges(
                r,
                "portcullis_config_loaded_timestamp_seconds",
                "When the present configuration was loaded",
                &[],
            )
            .with_label_values(&[] as &[&str]),
            ok: gauge(r, "portcullis_config_last_reload_successful", "1 if the last reload succeeded"),
            bad_files: gauges(
                r,
                "portcullis_config_bad_file",
                "1 for a file for which the last reload was rejected",
                &["file"],
            ),
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reasons: Cells<{ Reason::ALL.len() }>,
    ejections: IntCounterVec,
    scraped: ScrapedGauges,
    /// Open downstream connections.
    pub open_connections: ActiveCount,
    /// Accepted downstream connections.
    pub accepted: Counter,
    /// Connections that ended before a request could be read, by cause.
    pub refused: IntCounterVec,
    /// Caught panics.
    pub panics: IntCounter,
    /// Log lines that were dropped because the writer was too slow.
    pub log_dropped: IntCounter,
    reloads: ReloadMetrics,
    upgrades: IntCounterVec,
    upstreams: RwLock<BTreeMap<String, Arc<UpstreamMetrics>>>,
    routes: RwLock<BTreeMap<String, Arc<RouteMetrics>>>,
    unrouted: OnceLock<Arc<RouteMetrics>>,
}

/// The metrics of the process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    /// Registers every metric. Names and label sets are constants, so registration cannot clash.
    fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        Self {
            reasons: Cells::default(),
            ejections: counters(
                r,
                "portcullis_target_ejections_total",
                "Ejections of targets",
                &["upstream", "reason"],
            ),
            scraped: ScrapedGauges::new(r),
            open_connections: ActiveCount::default(),
            accepted: Counter::default(),
            refused: counters(
                r,
                "portcullis_connections_refused_total",
                "Connections that ended before a request was read",
                &["cause"],
            ),
            panics: counters(
                r,
                "portcullis_panics_total",
                "Panics: each is a defect of the gateway and failed one request",
                &[],
            )
            .with_label_values(&[] as &[&str]),
            log_dropped: counters(
                r,
                "portcullis_log_lines_dropped_total",
                "Lines of the access log, and of the process's own, that were dropped",
                &[],
            )
            .with_label_values(&[] as &[&str]),
            reloads: ReloadMetrics::new(r),
            upgrades: counters(
                r,
                "portcullis_upgrades_total",
                "Successors that this process started, by outcome",
                &["outcome"],
            ),
            upstreams: RwLock::default(),
            routes: RwLock::default(),
            unrouted: OnceLock::new(),
            registry,
        }
    }

    /// Returns the metrics of a route; above the maximum, those of all others.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        if let Some(known) = self.routes.read().get(name) {
            return Arc::clone(known);
        }
        let mut routes = self.routes.write();
        let name = if routes.len() < MAX_ROUTES { name } else { OTHER };
        Arc::clone(routes.entry(name.to_owned()).or_default())
    }

    /// Returns the metrics of an upstream.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        Arc::clone(self.upstreams.write().entry(name.to_owned()).or_default())
    }

    /// Returns the metrics of requests without a route.
    pub fn unrouted(&self) -> &RouteMetrics {
        self.unrouted.get_or_init(|| Arc::clone(self.routes.write().entry(NONE.to_owned()).or_default()))
    }

    /// Counts the end of a request.
    pub fn ended(&self, reason: Reason) {
        self.reasons.add(reason.index(), 1);
    }

    /// Records that a configuration was loaded.
    pub fn loaded(&self) {
        self.reloads.ok.set(1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.reloads.time.set(now.map_or(0.0, |d| d.as_secs_f64()));
    }

    /// Records a reload, and the files for which it was rejected.
    pub fn reloaded(&self, ok: bool, bad_files: &[String]) {
        self.reloads.by_outcome.with_label_values(&[if ok { "taken" } else { "refused" }]).inc();
        if ok {
            self.loaded();
        } else {
            self.reloads.ok.set(0);
        }
        self.reloads.bad_files.reset();
        for file in bad_files.iter().take(MAX_BAD_FILES) {
            self.reloads.bad_files.with_label_values(&[file]).set(1.0);
        }
    }

    /// Records an upgrade.
    pub fn upgraded(&self, settled: bool) {
        self.upgrades.with_label_values(&[if settled { "settled" } else { "failed" }]).inc();
    }

    /// Removes the routes and upstreams that no configuration has any more.
    pub fn retain(&self, has_route: impl Fn(&str) -> bool, has_upstream: impl Fn(&str) -> bool) {
        // Requests of a removed route are counted to their end.
        let is_used = |route: &RouteMetrics| route.in_flight.get() > 0;
        self.routes.write().retain(|name, route| has_route(name) || name == OTHER || name == NONE || is_used(route));
        self.upstreams.write().retain(|name, _| has_upstream(name));
    }

    /// Counts an ejection.
    pub fn ejected(&self, upstream: &str, reason: &str) {
        self.ejections.with_label_values(&[upstream, reason]).inc();
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn render(
        &self,
        upstreams: impl Iterator<Item = UpstreamState>,
        key_sets: impl Iterator<Item = (String, f64)>,
    ) -> Vec<u8> {
        let scraped = &self.scraped;
        scraped.reset();
        for (source, age) in key_sets {
            scraped.jwks_age.with_label_values(&[&source]).set(age);
        }
        for UpstreamState { name, gate, breaker, targets } in upstreams {
            for (state, value) in ["active", "pending", "limit"].iter().zip(gate) {
                scraped.gate.with_label_values(&[&name, *state]).set(f64::from(value));
            }
            if let Some(open) = breaker {
                scraped.breaker.with_label_values(&[&name]).set(open);
            }
            for (target, healthy, active, ejected) in targets {
                scraped.target_health.with_label_values(&[&name, &target]).set(f64::from(u8::from(healthy)));
                scraped.target_active.with_label_values(&[&name, &target]).set(f64::from(active));
                scraped.target_ejected.with_label_values(&[&name, &target]).set(f64::from(u8::from(ejected)));
            }
        }
        let mut families = self.registry.gather();
        families.extend(self.counted());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut out = Vec::new();
        // Encoding families that have a metric into memory cannot fail.
        let _ = TextEncoder::new().encode(&families, &mut out);
        out
    }

    /// Returns the families of what is counted per worker.
    fn counted(&self) -> Vec<MetricFamily> {
        let reasons = Reason::ALL.iter().zip(self.reasons.sums());
        let reasons = reasons.map(|(reason, count)| family::counter(&[("reason", reason.code())], count)).collect();
        let mut all = vec![
            family::counters(
                "portcullis_requests_ended_total",
                "Requests by the reason with which they ended",
                reasons,
            ),
            family::gauges(
                "portcullis_connections_open",
                "Client connections that are open",
                vec![family::gauge(&[], self.open_connections.get())],
            ),
            family::counters(
                "portcullis_connections_total",
                "Client connections that were accepted",
                vec![family::counter(&[], self.accepted.get())],
            ),
        ];
        all.extend(of_routes(&self.routes.read()));
        all.extend(of_upstreams(&self.upstreams.read()));
        all
    }
}

fn of_routes(routes: &BTreeMap<String, Arc<RouteMetrics>>) -> [MetricFamily; 3] {
    let by_class = routes.iter().flat_map(|(name, route)| {
        let counts = CLASSES.iter().zip(route.by_class.sums());
        counts.map(move |(class, count)| family::counter(&[("route", name), ("status", class)], count))
    });
    let durations = routes.iter().map(|(name, route)| family::histogram(&[("route", name)], &route.duration));
    let in_flight = routes.iter().map(|(name, route)| family::gauge(&[("route", name)], route.in_flight.get()));
    [
        family::counters("portcullis_requests_total", "Requests by route and class of status", by_class.collect()),
        family::histograms(
            "portcullis_request_duration_seconds",
            "From a request's headers to the end of its response",
            durations.collect(),
        ),
        family::gauges("portcullis_requests_in_flight", "Requests in flight", in_flight.collect()),
    ]
}

fn of_upstreams(upstreams: &BTreeMap<String, Arc<UpstreamMetrics>>) -> Vec<MetricFamily> {
    let each = |metric: &dyn Fn(&str, &UpstreamMetrics) -> Vec<Metric>| -> Vec<Metric> {
        upstreams.iter().flat_map(|(name, upstream)| metric(name, upstream)).collect()
    };
    let times = |name: &str, timings: &Timings| vec![family::histogram(&[("upstream", name)], timings)];
    let count = |name: &str, counter: &Counter| vec![family::counter(&[("upstream", name)], counter.get())];
    let outcomes = |name: &str, counters: [(&str, &Counter); 2]| {
        let metrics = counters
            .map(|(outcome, counter)| family::counter(&[("outcome", outcome), ("upstream", name)], counter.get()));
        metrics.to_vec()
    };
    vec![
        family::histograms(
            "portcullis_upstream_connect_seconds",
            "To connect to a target",
            each(&|name, u| times(name, &u.connect)),
        ),
        family::histograms(
            "portcullis_upstream_response_seconds",
            "From forwarding to the response's headers",
            each(&|name, u| times(name, &u.response)),
        ),
        family::counters(
            "portcullis_upstream_connections_total",
            "Connections made to targets",
            each(&|name, u| count(name, &u.connections)),
        ),
        family::counters(
            "portcullis_upstream_reused_total",
            "Requests on a reused connection",
            each(&|name, u| count(name, &u.reused)),
        ),
        family::counters(
            "portcullis_upstream_hedges_total",
            "Hedged requests to a second target while the first was slow",
            each(&|name, u| count(name, &u.hedges)),
        ),
        family::counters(
            "portcullis_upstream_retries_total",
            "Retries, and those that the budget denied",
            each(&|name, u| outcomes(name, [("begun", &u.retries), ("denied", &u.retries_denied)])),
        ),
        family::counters(
            "portcullis_mirrored_total",
            "Mirrored requests",
            each(&|name, u| outcomes(name, [("answered", &u.mirrored[0]), ("failed", &u.mirrored[1])])),
        ),
    ]
}

/// Registers a metric. A malformed or repeated name is a defect of this file, which the test below finds: names
/// contain nothing from outside.
#[expect(
    clippy::expect_used,
    reason = "names and label sets are constants of this file, made once, and the test makes them all"
)]
fn registered<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a valid name");
    let clash = registry.register(Box::new(collector.clone()));
    debug_assert!(clash.is_ok(), "{clash:?}");
    collector
}

fn counters(r: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    registered(r, IntCounterVec::new(Opts::new(name, help), labels))
}

fn gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
    registered(r, GaugeVec::new(Opts::new(name, help), labels))
}

fn int_gauges(r: &Registry, name: &str, help: &str, labels: &[&str]) -> prometheus::IntGaugeVec {
    registered(r, prometheus::IntGaugeVec::new(Opts::new(name, help), labels))
}

fn gauge(r: &Registry, name: &str, help: &str) -> IntGauge {
    int_gauges(r, name, help, &[]).with_label_values(&[] as &[&str])
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_registers_and_shows() {
        let metrics = super::Metrics::new();
        metrics.route("r").observe(204, 0.01);
        metrics.reloaded(true, &[]);
        let text = metrics.render(
            std::iter::once(super::UpstreamState {
                name: "u".into(),
                gate: [1, 0, 10],
                breaker: Some(0.5),
                targets: vec![("t".into(), true, 3, false)],
            }),
            std::iter::once(("https://id.test/jwks".into(), 2.5)),
        );
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains(r#"portcullis_requests_total{route="r",status="2xx"} 1"#));
        assert!(text.contains(r#"portcullis_jwks_age_seconds{source="https://id.test/jwks"} 2.5"#));
        assert!(text.contains(r#"portcullis_target_healthy{target="t",upstream="u"} 1"#));
    }
}
