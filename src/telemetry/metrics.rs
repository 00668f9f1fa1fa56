//! The one registry of metric names. Labels are bounded: names from the configuration, the closed
//! list of reasons, classes of status.

use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use crate::exchange::Reason;

/// Bounds in seconds, from a cached answer to a long poll.
const BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Routes with a series of their own; the rest share `route="(other)"`.
const MAX_ROUTES: usize = 2_000;

/// The routes over the bound.
const OTHER: &str = "(other)";

/// The most files that are named after a refused reload.
const MAX_BAD_FILES: usize = 10;

const CLASSES: [&str; 6] = ["other", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of one route, looked up once for a snapshot and never by name on a request.
#[derive(Debug)]
pub struct RouteMetrics {
    by_class: [IntCounter; 6],
    duration: Histogram,
    /// Requests under way.
    pub in_flight: IntGauge,
}

impl RouteMetrics {
    /// Counts an answer.
    pub fn observe(&self, status: u16, seconds: f64) {
        let class = usize::from(status / 100);
        self.by_class[if class < 6 { class } else { 0 }].inc();
        self.duration.observe(seconds);
    }
}

/// The metrics of one upstream.
#[derive(Debug)]
pub struct UpstreamMetrics {
    /// Seconds to connect, for connections that were not reused.
    pub connect: Histogram,
    /// Seconds from the request to the answer's headers.
    pub response: Histogram,
    /// Connections that were made.
    pub connections: IntCounter,
    /// Requests on a connection that was kept.
    pub reused: IntCounter,
    /// Tries after the first.
    pub retries: IntCounter,
    /// Retries that the budget had no room for.
    pub retries_denied: IntCounter,
    /// Second targets that were asked because the first took long.
    pub hedges: IntCounter,
    /// Copies that were answered, and copies that were not.
    pub mirrored: [IntCounter; 2],
}

/// What an upstream does at the moment of a scrape.
#[derive(Debug)]
pub struct UpstreamState {
    /// Its name.
    pub name: String,
    /// Requests under way, requests that wait, and the limit.
    pub gate: [u32; 3],
    /// Whether its breaker is open or half-open, if it has one.
    pub breaker: Option<f64>,
    /// Its targets: address, eligible, requests under way, ejected.
    pub targets: Vec<(String, bool, u32, bool)>,
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    in_flight: prometheus::IntGaugeVec,
    reasons: Vec<IntCounter>,
    connect: HistogramVec,
    response: HistogramVec,
    connections: IntCounterVec,
    reused: IntCounterVec,
    retries: IntCounterVec,
    hedges: IntCounterVec,
    mirrored: IntCounterVec,
    ejections: IntCounterVec,
    gate: GaugeVec,
    breaker: GaugeVec,
    target_ejected: GaugeVec,
    target_health: GaugeVec,
    target_active: GaugeVec,
    /// Downstream connections that are open.
    pub open_connections: IntGauge,
    /// Downstream connections that were accepted.
    pub accepted: IntCounter,
    /// Connections that ended before a request could be read, by cause.
    pub refused: IntCounterVec,
    /// Panics that were caught.
    pub panics: IntCounter,
    /// Log lines that were dropped because the writer could not follow.
    pub log_dropped: IntCounter,
    reloads: IntCounterVec,
    upgrades: IntCounterVec,
    reload_time: Gauge,
    reload_ok: IntGauge,
    bad_files: GaugeVec,
    upstreams: RwLock<ahash::AHashSet<String>>,
    routes: RwLock<ahash::AHashMap<String, Arc<RouteMetrics>>>,
}

/// The process's metrics.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

impl Metrics {
    /// Registers every name. Names and label sets are constants, so registration cannot clash.
    fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let reasons_vec = counters(r, "portcullis_requests_ended_total", "Requests by the reason with which they ended", &["reason"]);
        let reasons = Reason::ALL.iter().map(|reason| reasons_vec.with_label_values(&[reason.code()])).collect();
        Self {
            requests: counters(r, "portcullis_requests_total", "Requests by route and class of status", &["route", "status"]),
            duration: histograms(r, "portcullis_request_duration_seconds", "From a request's headers to the end of its answer", "route"),
            in_flight: int_gauges(r, "portcullis_requests_in_flight", "Requests under way", &["route"]),
            reasons,
            connect: histograms(r, "portcullis_upstream_connect_seconds", "To connect to a target", "upstream"),
            response: histograms(r, "portcullis_upstream_response_seconds", "From forwarding to the answer's headers", "upstream"),
            connections: counters(r, "portcullis_upstream_connections_total", "Connections made to targets", &["upstream"]),
            reused: counters(r, "portcullis_upstream_reused_total", "Requests on a kept connection", &["upstream"]),
            retries: counters(
                r,
                "portcullis_upstream_retries_total",
                "Tries after the first, and those that the budget denied",
                &["upstream", "outcome"],
            ),
            hedges: counters(
                r,
                "portcullis_upstream_hedges_total",
                "Second targets that were asked while the first took long",
                &["upstream"],
            ),
            mirrored: counters(r, "portcullis_mirrored_total", "Copies of requests", &["upstream", "outcome"]),
            ejections: counters(
                r,
                "portcullis_target_ejections_total",
                "Targets that were left out because of their answers",
                &["upstream", "reason"],
            ),
            gate: gauges(
                r,
                "portcullis_upstream_requests",
                "Requests under way, requests that wait, and the limit",
                &["upstream", "state"],
            ),
            breaker: gauges(r, "portcullis_upstream_breaker_open", "1 if the breaker is open, 0.5 if it is half-open", &["upstream"]),
            target_ejected: gauges(
                r,
                "portcullis_target_ejected",
                "1 if the target is left out because of its answers",
                &["upstream", "target"],
            ),
            target_health: gauges(r, "portcullis_target_healthy", "1 if the target may be picked", &["upstream", "target"]),
            target_active: gauges(r, "portcullis_target_requests_in_flight", "Requests under way on the target", &["upstream", "target"]),
            open_connections: gauge(r, "portcullis_connections_open", "Client connections that are open"),
            accepted: counters(r, "portcullis_connections_total", "Client connections that were accepted", &[])
                .with_label_values(&[] as &[&str]),
            refused: counters(r, "portcullis_connections_refused_total", "Connections that ended before a request was read", &["cause"]),
            panics: counters(r, "portcullis_panics_total", "Panics: each is a defect of the gateway and cost one request", &[])
                .with_label_values(&[] as &[&str]),
            log_dropped: counters(r, "portcullis_log_lines_dropped_total", "Access log lines that were dropped", &[])
                .with_label_values(&[] as &[&str]),
            reloads: counters(r, "portcullis_reloads_total", "Reloads by outcome", &["outcome"]),
            upgrades: counters(r, "portcullis_upgrades_total", "Successors that this process started, by outcome", &["outcome"]),
            reload_time: gauges(r, "portcullis_config_loaded_timestamp_seconds", "When the present configuration was taken", &[])
                .with_label_values(&[] as &[&str]),
            reload_ok: gauge(r, "portcullis_config_last_reload_successful", "1 if the last reload succeeded"),
            bad_files: gauges(r, "portcullis_config_bad_file", "1 for a file for which the last reload was refused", &["file"]),
            upstreams: RwLock::default(),
            routes: RwLock::default(),
            registry,
        }
    }

    /// The metrics of a route; over the bound, those of all others.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        if let Some(known) = self.routes.read().get(name) {
            return Arc::clone(known);
        }
        let mut routes = self.routes.write();
        let name = if routes.len() < MAX_ROUTES { name } else { OTHER };
        let fresh = || {
            Arc::new(RouteMetrics {
                by_class: CLASSES.map(|class| self.requests.with_label_values(&[name, class])),
                duration: self.duration.with_label_values(&[name]),
                in_flight: self.in_flight.with_label_values(&[name]),
            })
        };
        Arc::clone(routes.entry(name.to_owned()).or_insert_with(fresh))
    }

    /// The metrics of an upstream.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        self.upstreams.write().insert(name.to_owned());
        UpstreamMetrics {
            connect: self.connect.with_label_values(&[name]),
            response: self.response.with_label_values(&[name]),
            connections: self.connections.with_label_values(&[name]),
            reused: self.reused.with_label_values(&[name]),
            retries: self.retries.with_label_values(&[name, "begun"]),
            retries_denied: self.retries.with_label_values(&[name, "denied"]),
            hedges: self.hedges.with_label_values(&[name]),
            mirrored: ["answered", "failed"].map(|outcome| self.mirrored.with_label_values(&[name, outcome])),
        }
    }

    /// Counts a request's end.
    pub fn ended(&self, reason: Reason) {
        if let Some(counter) = self.reasons.get(reason.index()) {
            counter.inc();
        }
    }

    /// Notes that a configuration was taken.
    pub fn loaded(&self) {
        self.reload_ok.set(1);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.reload_time.set(now.map_or(0.0, |d| d.as_secs_f64()));
    }

    /// Notes a reload, and the files for which it was refused.
    pub fn reloaded(&self, ok: bool, bad_files: &[String]) {
        self.reloads.with_label_values(&[if ok { "taken" } else { "refused" }]).inc();
        if ok {
            self.loaded();
        } else {
            self.reload_ok.set(0);
        }
        self.bad_files.reset();
        for file in bad_files.iter().take(MAX_BAD_FILES) {
            self.bad_files.with_label_values(&[file]).set(1.0);
        }
    }

    /// Notes an upgrade that was asked for.
    pub fn upgraded(&self, settled: bool) {
        self.upgrades.with_label_values(&[if settled { "settled" } else { "failed" }]).inc();
    }

    /// Forgets the routes and upstreams that no configuration has any more.
    pub fn retain(&self, has_route: impl Fn(&str) -> bool, has_upstream: impl Fn(&str) -> bool) {
        self.routes.write().retain(|name, _| {
            let stays = has_route(name) || name == OTHER;
            if !stays {
                for class in CLASSES {
                    let _ = self.requests.remove_label_values(&[name, class]);
                }
                let _ = self.duration.remove_label_values(&[name]);
                let _ = self.in_flight.remove_label_values(&[name]);
            }
            stays
        });
        self.upstreams.write().retain(|name| {
            let stays = has_upstream(name);
            if !stays {
                self.forget_upstream(name);
            }
            stays
        });
    }

    fn forget_upstream(&self, name: &str) {
        for histogram in [&self.connect, &self.response] {
            let _ = histogram.remove_label_values(&[name]);
        }
        for counter in [&self.connections, &self.reused, &self.hedges] {
            let _ = counter.remove_label_values(&[name]);
        }
        for (counter, outcomes) in [(&self.retries, ["begun", "denied"]), (&self.mirrored, ["answered", "failed"])] {
            for outcome in outcomes {
                let _ = counter.remove_label_values(&[name, outcome]);
            }
        }
    }

    /// Counts an ejection.
    pub fn ejected(&self, upstream: &str, reason: &str) {
        self.ejections.with_label_values(&[upstream, reason]).inc();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self, upstreams: impl Iterator<Item = UpstreamState>) -> Vec<u8> {
        for gauges in [&self.target_health, &self.target_active, &self.target_ejected, &self.gate, &self.breaker] {
            gauges.reset();
        }
        for UpstreamState { name, gate, breaker, targets } in upstreams {
            for (state, value) in ["active", "pending", "limit"].iter().zip(gate) {
                self.gate.with_label_values(&[&name, *state]).set(f64::from(value));
            }
            if let Some(open) = breaker {
                self.breaker.with_label_values(&[&name]).set(open);
            }
            for (target, healthy, active, ejected) in targets {
                self.target_health.with_label_values(&[&name, &target]).set(f64::from(u8::from(healthy)));
                self.target_active.with_label_values(&[&name, &target]).set(f64::from(active));
                self.target_ejected.with_label_values(&[&name, &target]).set(f64::from(u8::from(ejected)));
            }
        }
        let mut out = Vec::new();
        // Writing into memory what was registered cannot fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut out);
        out
    }
}

/// Registers. A name that is malformed or there twice is a mistake in this file, which the test below
/// finds: nothing that comes from outside is part of one.
#[allow(clippy::expect_used, reason = "names and label sets are constants of this file, made once, and the test makes them all")]
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

fn histograms(r: &Registry, name: &str, help: &str, label: &str) -> HistogramVec {
    let opts = HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
    registered(r, HistogramVec::new(opts, &[label]))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_name_registers_and_shows() {
        let metrics = super::Metrics::new();
        metrics.route("r").observe(204, 0.01);
        metrics.reloaded(true, &[]);
        let text = metrics.render(std::iter::once(super::UpstreamState {
            name: "u".into(),
            gate: [1, 0, 10],
            breaker: Some(0.5),
            targets: vec![("t".into(), true, 3, false)],
        }));
        let text = String::from_utf8(text).expect("text");
        assert!(text.contains(r#"portcullis_requests_total{route="r",status="2xx"} 1"#));
        assert!(text.contains(r#"portcullis_target_healthy{target="t",upstream="u"} 1"#));
    }
}
