//! The registry of all metrics. Labels are bounded: names from the configuration, the closed list of reasons, classes
//! of status.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use parking_lot::RwLock;
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, GaugeVec, IntCounter, IntCounterVec, Opts, Registry, TextEncoder};

use super::aggregate_calls;
use super::calls::AllCalls;
use super::catalogue::{
    BAD_FILE, BUILD_INFO, CONFIG_LOADED, CONNECTIONS, CONNECTIONS_OPEN, CONNECTIONS_REFUSED, GRAPHQL_OPERATIONS,
    LOG_DROPPED, MetricFacts, PANICS, RELOAD_SUCCESSFUL, RELOADS, TARGET_EJECTIONS, TRANSLATED, UPGRADES, WOULD_REJECT,
};
use super::cells::{ActiveCount, Counter};
use super::counts::{OTHER, of_operations, of_routes, of_upstreams};
use super::datagrams::{DatagramMetrics, of_datagrams};
use super::family::{Series, single};
use super::version_usage::{self, AllVersions};
use super::{process_stats, scrape, stream_counts};
use crate::exchange::Reason;

pub use super::aggregate_calls::{PartMetrics, PartOutcome};
pub use super::calls::{CallKind, CallMetrics, CallOutcome};
pub use super::counts::{OperationMetrics, RouteMetrics, UpstreamMetrics, ZoneTraffic};
pub use super::scrape::{CacheState, CertificateState, KeySetState, Scrape, TargetState, UpstreamState};
pub use super::stream_counts::StreamMetrics;
pub use super::version_usage::VersionUsage;

/// The maximum number of routes with a series of their own; the others share `route="(other)"`.
const MAX_ROUTES: usize = 2_000;

/// The maximum number of upstreams with a series of their own; the others share `upstream="(other)"`.
const MAX_UPSTREAMS: usize = 2_000;

/// The maximum number of versions of APIs with series of their own.
const MAX_VERSIONS: usize = 500;
/// The maximum number of operations with a series of their own; those of a route above it share `operation="(other)"`.
const MAX_OPERATIONS: usize = 5_000;
/// The maximum number of calls of aggregated responses with series of their own; the others share `call="(other)"`.
const MAX_PARTS: usize = 2_000;

/// The maximum number of listeners for datagrams with series of their own.
const MAX_DATAGRAM_LISTENERS: usize = 1_000;

/// The maximum number of rules of layer 4, for each listener, with series of their own.
const MAX_STREAMS: usize = 2_000;

/// The label of requests without a route.
const NONE: &str = "(none)";

/// The maximum number of files that are named after a rejected reload.
const MAX_BAD_FILES: usize = 10;

/// The commit that the binary was built from.
const COMMIT: &str = env!("PORTCULLIS_COMMIT");

/// These metrics tell how reloads ended, and when the present configuration was loaded.
#[derive(Debug)]
struct ReloadMetrics {
    by_outcome: IntCounterVec,
    time: GaugeVec,
    ok: GaugeVec,
    bad_files: GaugeVec,
}

impl ReloadMetrics {
    fn new(r: &Registry) -> Self {
        Self {
            by_outcome: counters(r, &RELOADS),
            time: gauges(r, &CONFIG_LOADED),
            ok: gauges(r, &RELOAD_SUCCESSFUL),
            bad_files: gauges(r, &BAD_FILE),
        }
    }
}

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ejections: IntCounterVec,
    /// Open downstream connections.
    pub open_connections: ActiveCount,
    /// Accepted downstream connections.
    pub accepted: Counter,
    /// Connections that ended before a request could be read, by cause.
    pub refused: IntCounterVec,
    calls: AllCalls,
    /// Caught panics.
    pub panics: IntCounter,
    /// Log lines that were dropped because the writer was too slow.
    pub log_dropped: IntCounter,
    reloads: ReloadMetrics,
    upgrades: IntCounterVec,
    translated: IntCounterVec,
    graphql: IntCounterVec,
    would_reject: IntCounterVec,
    upstreams: RwLock<BTreeMap<String, Arc<UpstreamMetrics>>>,
    routes: RwLock<BTreeMap<String, Arc<RouteMetrics>>>,
    operations: RwLock<BTreeMap<(String, String), Arc<OperationMetrics>>>,
    parts: RwLock<BTreeMap<String, Arc<PartMetrics>>>,
    datagrams: RwLock<BTreeMap<String, Arc<DatagramMetrics>>>,
    streams: RwLock<BTreeMap<(String, String), Arc<StreamMetrics>>>,
    unrouted: OnceLock<Arc<RouteMetrics>>,
    versions: RwLock<AllVersions>,
}

/// The metrics of the process.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// Returns the entry of that name; above the maximum, that of all others.
fn entry<T: Default>(all: &RwLock<BTreeMap<String, Arc<T>>>, most: usize, name: &str) -> Arc<T> {
    if let Some(known) = all.read().get(name) {
        return Arc::clone(known);
    }
    let mut all = all.write();
    let name = if all.len() < most { name } else { OTHER };
    Arc::clone(all.entry(name.to_owned()).or_default())
}

impl Metrics {
    /// Registers every metric. Names and label sets are constants, so registration cannot clash.
    fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let reloads = ReloadMetrics::new(r);
        // Alerts compare with what was before: counters begin at 0, and not with the first event.
        ["taken", "refused"].iter().for_each(|outcome| reloads.by_outcome.with_label_values(&[*outcome]).inc_by(0));
        Self {
            ejections: counters(r, &TARGET_EJECTIONS),
            open_connections: ActiveCount::default(),
            accepted: Counter::default(),
            refused: counters(r, &CONNECTIONS_REFUSED),
            calls: AllCalls::default(),
            panics: counters(r, &PANICS).with_label_values(&[] as &[&str]),
            log_dropped: counters(r, &LOG_DROPPED).with_label_values(&[] as &[&str]),
            reloads,
            upgrades: counters(r, &UPGRADES),
            translated: counters(r, &TRANSLATED),
            graphql: counters(r, &GRAPHQL_OPERATIONS),
            would_reject: counters(r, &WOULD_REJECT),
            upstreams: RwLock::default(),
            routes: RwLock::default(),
            operations: RwLock::default(),
            parts: RwLock::default(),
            datagrams: RwLock::default(),
            streams: RwLock::default(),
            unrouted: OnceLock::new(),
            versions: RwLock::default(),
            registry,
        }
    }

    /// Counts a request of that route that was translated.
    pub fn translated(&self, route: &str, from: &str, to: &str) {
        self.translated.with_label_values(&[from, route, to]).inc();
    }

    /// Counts a GraphQL operation of that kind.
    pub fn graphql(&self, route: &str, kind: &str) {
        self.graphql.with_label_values(&[kind, route]).inc();
    }

    /// Counts a request that a filter would have rejected, were it enforced.
    pub fn would_reject(&self, filter: &str, reason: Reason) {
        self.would_reject.with_label_values(&[filter, reason.code()]).inc();
    }

    /// Returns the counts of the calls of a kind.
    pub fn calls(&self, kind: CallKind) -> &CallMetrics {
        self.calls.of(kind)
    }

    /// Returns the metrics of a route; above the maximum, those of all others.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        entry(&self.routes, MAX_ROUTES, name)
    }

    /// Returns the metrics of an operation of a route; above the maximum, those of all others of the route.
    pub fn operation(&self, route: &str, operation: &str) -> Arc<OperationMetrics> {
        let mut all = self.operations.write();
        let key = (route.to_owned(), operation.to_owned());
        let key = if all.len() < MAX_OPERATIONS || all.contains_key(&key) { key } else { (key.0, OTHER.to_owned()) };
        Arc::clone(all.entry(key).or_default())
    }

    /// Returns the metrics of an upstream; above the maximum, those of all others.
    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        entry(&self.upstreams, MAX_UPSTREAMS, name)
    }

    /// Returns the counts of a version of an API; above the maximum, those of all others.
    pub fn version(&self, api: &str, version: &str) -> Arc<VersionUsage> {
        let mut all = self.versions.write();
        let is_full = all.len() >= MAX_VERSIONS && !all.contains_key(&(api.to_owned(), version.to_owned()));
        let (api, version) = if is_full { (OTHER, OTHER) } else { (api, version) };
        Arc::clone(all.entry((api.to_owned(), version.to_owned())).or_default())
    }

    /// Returns the metrics of a call of an aggregated response; above the maximum, those of all others.
    pub fn aggregate_call(&self, route: &str, call: &str) -> Arc<PartMetrics> {
        entry(&self.parts, MAX_PARTS, &aggregate_calls::key(route, call))
    }

    /// Returns the metrics of a listener for datagrams; above the maximum, those of all others.
    pub fn datagrams(&self, listener: &str) -> Arc<DatagramMetrics> {
        entry(&self.datagrams, MAX_DATAGRAM_LISTENERS, listener)
    }

    /// Returns the metrics of a rule of layer 4 on a listener; above the maximum, those of all others.
    pub fn stream(&self, listener: &str, stream: &str) -> Arc<StreamMetrics> {
        let mut all = self.streams.write();
        let key = (listener.to_owned(), stream.to_owned());
        let is_full = all.len() >= MAX_STREAMS && !all.contains_key(&key);
        let key = if is_full { (OTHER.to_owned(), OTHER.to_owned()) } else { key };
        Arc::clone(all.entry(key).or_default())
    }

    /// Removes the rules of layer 4 that no configuration has any more.
    pub fn retain_streams(&self, has: impl Fn(&str, &str) -> bool) {
        // Sessions of a removed rule are counted to their end.
        let is_used = |metrics: &StreamMetrics| metrics.open.get() > 0;
        self.streams.write().retain(|(listener, stream), m| has(listener, stream) || stream == OTHER || is_used(m));
    }

    /// Returns the metrics of requests without a route.
    pub fn unrouted(&self) -> &RouteMetrics {
        self.unrouted.get_or_init(|| Arc::clone(self.routes.write().entry(NONE.to_owned()).or_default()))
    }

    /// Records that a configuration was loaded.
    pub fn loaded(&self) {
        self.reloads.ok.with_label_values(&[] as &[&str]).set(1.0);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.reloads.time.with_label_values(&[] as &[&str]).set(now.map_or(0.0, |d| d.as_secs_f64()));
    }

    /// Records a reload, and the files for which it was rejected.
    pub fn reloaded(&self, ok: bool, bad_files: &[String]) {
        self.reloads.by_outcome.with_label_values(&[if ok { "taken" } else { "refused" }]).inc();
        if ok {
            self.loaded();
        } else {
            self.reloads.ok.with_label_values(&[] as &[&str]).set(0.0);
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
        self.operations.write().retain(|(route, _), _| has_route(route));
        self.upstreams.write().retain(|name, _| has_upstream(name) || name == OTHER);
        // Only those of listeners that serve are referred to.
        self.datagrams.write().retain(|_, listener| Arc::strong_count(listener) > 1);
        self.parts.write().retain(|key, _| has_route(aggregate_calls::route_of(key)) || key == OTHER);
    }

    /// Counts an ejection.
    pub fn ejected(&self, upstream: &str, reason: &str) {
        self.ejections.with_label_values(&[reason, upstream]).inc();
    }

    /// Renders all metrics in Prometheus' text format.
    pub fn render(&self, state: &Scrape) -> Vec<u8> {
        let mut families = self.registry.gather();
        families.extend(self.counted());
        families.extend(scrape::families(state));
        families.extend(process_stats::families());
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut out = Vec::new();
        // Encoding families that have a metric into memory cannot fail.
        let _ = TextEncoder::new().encode(&families, &mut out);
        out
    }

    /// Returns the families of what is counted per worker.
    fn counted(&self) -> Vec<MetricFamily> {
        let mut build = Series::of(&BUILD_INFO);
        build.add(&[COMMIT, env!("CARGO_PKG_VERSION")], 1.0);
        let mut all = vec![
            build.family(),
            single(&CONNECTIONS_OPEN, self.open_connections.get() as f64),
            single(&CONNECTIONS, self.accepted.get() as f64),
        ];
        all.extend(self.calls.families());
        all.extend(aggregate_calls::families(&self.parts.read()));
        all.extend(of_routes(&self.routes.read()));
        all.push(version_usage::family(&self.versions.read()));
        all.extend(of_operations(&self.operations.read()));
        all.extend(of_upstreams(&self.upstreams.read()));
        all.extend(of_datagrams(&self.datagrams.read()));
        all.extend(stream_counts::families(&self.streams.read()));
        all
    }
}

/// Registers a metric. A malformed or repeated name is a defect of the catalogue, which the test below finds: names
/// contain nothing from outside.
#[expect(
    clippy::expect_used,
    reason = "names and label sets are constants of the catalogue, made once, and the test makes them all"
)]
fn registered<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("a valid name");
    let clash = registry.register(Box::new(collector.clone()));
    debug_assert!(clash.is_ok(), "{clash:?}");
    collector
}

fn counters(r: &Registry, facts: &MetricFacts) -> IntCounterVec {
    registered(r, IntCounterVec::new(Opts::new(facts.name, facts.help), facts.labels))
}

fn gauges(r: &Registry, facts: &MetricFacts) -> GaugeVec {
    registered(r, GaugeVec::new(Opts::new(facts.name, facts.help), facts.labels))
}

#[cfg(test)]
mod tests {
    use super::super::DatagramDrop;
    use super::super::catalogue::{CATALOGUE, OF_PROCESS};
    use super::*;
    use crate::exchange::Reason;

    fn scrape() -> Scrape {
        let target = TargetState {
            address: "t".into(),
            eligible: true,
            ejected: false,
            in_flight: 3,
            outcomes: vec![("good", 7), ("failed", 0)],
        };
        let upstream = UpstreamState {
            name: "u".into(),
            gate: [1, 0, 10],
            breaker: Some(0.5),
            eligible: 1,
            targets: vec![target],
        };
        Scrape {
            ready: true,
            listeners: vec![("main".into(), 20_000)],
            certificates: vec![CertificateState {
                listener: "main".into(),
                file: "a.pem".into(),
                expires: 1_800_000_000,
            }],
            key_sets: vec![KeySetState { source: "https://id.test/jwks".into(), usable: true, age: Some(2.5) }],
            upstreams: vec![upstream],
            caches: vec![CacheState {
                name: "default".into(),
                tiers: vec![("memory", [1, 2, 3, 4])],
                lookups: vec![("miss", 5)],
                disk_errors: vec![("damaged", 0)],
                counts: [1, 2, 3],
            }],
        }
    }

    #[test]
    fn every_metric_of_the_catalogue_shows_and_no_other() {
        let metrics = Metrics::new();
        metrics.route("r").observe(Reason::Responded, 204, 0.01);
        metrics.route("r").count_cache(crate::rules::caching::CacheOutcome::Hit);
        metrics.operation("r", "getItem").observe(200, 0.01);
        metrics.upstream("u").by_class.count(503);
        metrics.upstream("u").zone("z", false).count(1, [2, 3]);
        let stream = metrics.stream("databases", "orders");
        stream.observe(Reason::SessionEnded, 0.5);
        stream.count_connect_failure(Reason::ConnectRefused);
        stream.count_bytes(7, 9);
        metrics.reloaded(true, &[]);
        metrics.reloaded(false, &["bad.yaml".to_owned()]);
        metrics.upgraded(true);
        metrics.ejected("u", "consecutive_failures");
        metrics.refused.with_label_values(&["tls"]).inc();
        let datagrams = metrics.datagrams("dns");
        datagrams.count_in(1);
        datagrams.count_dropped(DatagramDrop::Flows, 3);
        metrics.translated("r", "grpc_web", "grpc");
        metrics.graphql("r", "query");
        metrics.would_reject("rate_limit", Reason::RateLimited);
        metrics.version("orders", "v1").count(Some("one"));
        metrics.calls(CallKind::ForwardAuth).observe(CallOutcome::TimedOut, 2.0);
        metrics.aggregate_call("r", "user").observe(PartOutcome::Completed, Some(0.1));
        let text = String::from_utf8(metrics.render(&scrape())).expect("text");
        for series in [
            r#"_requests_total{route="r",status="2xx"} 1"#,
            r#"_requests_ended_total{reason="responded",route="r"} 1"#,
            r#"_operation_requests_total{operation="getItem",route="r",status="2xx"} 1"#,
            r#"_upstream_requests_total{status="5xx",upstream="u"} 1"#,
            r#"_upstream_zone_requests_total{own="false",upstream="u",zone="z"} 1"#,
            r#"_upstream_zone_bytes_total{direction="received",own="false",upstream="u",zone="z"} 3"#,
            r#"_stream_sessions_total{listener="databases",reason="session_ended",stream="orders"} 1"#,
            r#"_stream_connect_failures_total{listener="databases",reason="connect_refused",stream="orders"} 1"#,
            r#"_stream_bytes_total{direction="out",listener="databases",stream="orders"} 9"#,
            r#"_calls_total{client="forward_auth",outcome="timed_out"} 1"#,
            r#"_api_requests_total{api="orders",consumer="one",version="v1"} 1"#,
            r#"_aggregate_calls_total{call="user",outcome="completed",route="r"} 1"#,
            r#"_jwks_age_seconds{source="https://id.test/jwks"} 2.5"#,
            r#"_target_healthy{target="t",upstream="u"} 1"#,
            r#"_datagrams_total{direction="in",listener="dns"} 1"#,
            r#"_datagrams_dropped_total{listener="dns",reason="flows"} 3"#,
            r#"_target_requests_total{outcome="good",target="t",upstream="u"} 7"#,
            r#"_target_ejections_total{reason="consecutive_failures",upstream="u"} 1"#,
            r#"_certificate_expiry_timestamp_seconds{file="a.pem",listener="main"} 1800000000"#,
            r#"_upstream_requests_limit{upstream="u"} 10"#,
            r#"_cache_bytes_limit{cache="default",tier="memory"} 3"#,
            r#"_cache_lookups_total{cache="default",outcome="miss"} 5"#,
        ] {
            assert!(text.contains(&format!("{series}\n")), "{series} is not in {text}");
        }
        let mut shown: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        let mut wanted: Vec<&str> = CATALOGUE.iter().chain(OF_PROCESS).map(|facts| facts.name).collect();
        shown.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(shown, wanted);
    }

    #[test]
    fn above_the_maximum_routes_and_upstreams_share_a_series() {
        let metrics = Metrics::new();
        for number in 0..MAX_UPSTREAMS.max(MAX_ROUTES) + 10 {
            metrics.upstream(&format!("u{number}")).by_class.count(200);
            metrics.route(&format!("r{number}")).observe(Reason::Forwarded, 200, 0.0);
        }
        let text = String::from_utf8(metrics.render(&Scrape::default())).expect("text");
        assert!(text.contains("_upstream_requests_total{status=\"2xx\",upstream=\"(other)\"} 10\n"));
        assert!(text.contains("_requests_ended_total{reason=\"forwarded\",route=\"(other)\"} 10\n"));
    }
}
