//! What is not counted but read at the time of a scrape, as gauges.

use prometheus::proto::MetricFamily;

use super::catalogue::{
    CERTIFICATE_EXPIRY, CONNECTIONS_LIMIT, JWKS_AGE, JWKS_USABLE, READY, TARGET_EJECTED, TARGET_HEALTHY,
    TARGET_IN_FLIGHT, TARGET_REQUESTS, UPSTREAM_BREAKER, UPSTREAM_IN_FLIGHT, UPSTREAM_LIMIT, UPSTREAM_PENDING,
    UPSTREAM_TARGETS, UPSTREAM_TARGETS_ELIGIBLE,
};
use super::family::{Series, single};

/// The maximum number of targets with series of their own, in all upstreams together.
const MAX_TARGETS: usize = 5_000;

/// The state of the gateway at the time of a scrape.
#[derive(Debug, Default)]
pub struct Scrape {
    /// Whether requests are accepted.
    pub ready: bool,
    /// The listeners, and the most connections that each may have.
    pub listeners: Vec<(String, usize)>,
    /// The certificates of listeners.
    pub certificates: Vec<CertificateState>,
    /// The key sets.
    pub key_sets: Vec<KeySetState>,
    /// The upstreams.
    pub upstreams: Vec<UpstreamState>,
}

/// A certificate of a listener.
#[derive(Clone, Debug)]
pub struct CertificateState {
    /// The name of the listener.
    pub listener: String,
    /// The file, as it is written in the configuration.
    pub file: String,
    /// When it expires, in seconds of Unix time.
    pub expires: i64,
}

/// A key set.
#[derive(Clone, Debug)]
pub struct KeySetState {
    /// Its source.
    pub source: String,
    /// Whether tokens are verified with it.
    pub usable: bool,
    /// The seconds since it was last fetched or read, if it ever was.
    pub age: Option<f64>,
}

/// The state of an upstream.
#[derive(Debug)]
pub struct UpstreamState {
    /// Its name.
    pub name: String,
    /// Requests in flight, queued requests, and the limit.
    pub gate: [u32; 3],
    /// Whether its breaker is open or half-open, if it has one.
    pub breaker: Option<f64>,
    /// The number of targets that a request may be sent to.
    pub eligible: usize,
    /// Its targets.
    pub targets: Vec<TargetState>,
}

/// The state of a target.
#[derive(Clone, Debug)]
pub struct TargetState {
    /// Its address.
    pub address: String,
    /// Whether it is eligible.
    pub eligible: bool,
    /// Whether it is ejected.
    pub ejected: bool,
    /// Requests in flight.
    pub in_flight: u32,
    /// Tries by outcome.
    pub outcomes: Vec<(&'static str, u64)>,
}

/// Returns the families of a scrape.
pub fn families(scrape: &Scrape) -> Vec<MetricFamily> {
    let mut all = vec![single(&READY, f64::from(u8::from(scrape.ready)))];
    let mut limits = Series::of(&CONNECTIONS_LIMIT);
    scrape.listeners.iter().for_each(|(name, limit)| limits.add(&[name], *limit as f64));
    let mut certificates = Series::of(&CERTIFICATE_EXPIRY);
    for one in &scrape.certificates {
        certificates.add(&[&one.file, &one.listener], one.expires as f64);
    }
    let (mut ages, mut usable) = (Series::of(&JWKS_AGE), Series::of(&JWKS_USABLE));
    for set in &scrape.key_sets {
        set.age.iter().for_each(|age| ages.add(&[&set.source], *age));
        usable.add(&[&set.source], f64::from(u8::from(set.usable)));
    }
    all.extend([limits, certificates, ages, usable].map(Series::family));
    all.extend(of_upstreams(&scrape.upstreams));
    all.extend(of_targets(&scrape.upstreams));
    all
}

fn of_upstreams(upstreams: &[UpstreamState]) -> [MetricFamily; 6] {
    let each = |facts, value: fn(&UpstreamState) -> Option<f64>| {
        let mut series = Series::of(facts);
        for upstream in upstreams {
            value(upstream).iter().for_each(|value| series.add(&[&upstream.name], *value));
        }
        series.family()
    };
    [
        each(&UPSTREAM_IN_FLIGHT, |u| Some(f64::from(u.gate[0]))),
        each(&UPSTREAM_PENDING, |u| Some(f64::from(u.gate[1]))),
        each(&UPSTREAM_LIMIT, |u| Some(f64::from(u.gate[2]))),
        each(&UPSTREAM_BREAKER, |u| u.breaker),
        each(&UPSTREAM_TARGETS, |u| Some(u.targets.len() as f64)),
        each(&UPSTREAM_TARGETS_ELIGIBLE, |u| Some(u.eligible as f64)),
    ]
}

fn of_targets(upstreams: &[UpstreamState]) -> [MetricFamily; 4] {
    let mut healthy = Series::of(&TARGET_HEALTHY);
    let mut ejected = Series::of(&TARGET_EJECTED);
    let mut in_flight = Series::of(&TARGET_IN_FLIGHT);
    let mut requests = Series::of(&TARGET_REQUESTS);
    let all = upstreams.iter().flat_map(|upstream| upstream.targets.iter().map(|target| (&upstream.name, target)));
    for (upstream, target) in all.take(MAX_TARGETS) {
        let labels: [&str; 2] = [&target.address, upstream];
        healthy.add(&labels, f64::from(u8::from(target.eligible)));
        ejected.add(&labels, f64::from(u8::from(target.ejected)));
        in_flight.add(&labels, f64::from(target.in_flight));
        for (outcome, count) in &target.outcomes {
            requests.add(&[outcome, &target.address, upstream], *count as f64);
        }
    }
    [healthy, ejected, in_flight, requests].map(Series::family)
}
