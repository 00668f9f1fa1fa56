//! What is not counted but read at the time of a scrape, as gauges.

use prometheus::proto::MetricFamily;

use super::catalogue::{
    CACHE_BYTES, CACHE_BYTES_LIMIT, CACHE_DISK_ERRORS, CACHE_ENTRIES, CACHE_EVICTIONS, CACHE_FILLS, CACHE_LOOKUPS,
    CACHE_PURGES, CACHE_STORED, CERTIFICATE_EXPIRY, CONNECTIONS_LIMIT, JWKS_AGE, JWKS_USABLE, READY, TARGET_EJECTED,
    TARGET_HEALTHY, TARGET_IN_FLIGHT, TARGET_REQUESTS, UPSTREAM_BREAKER, UPSTREAM_IN_FLIGHT, UPSTREAM_LIMIT,
    UPSTREAM_PENDING, UPSTREAM_TARGETS, UPSTREAM_TARGETS_ELIGIBLE,
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
    /// The caches.
    pub caches: Vec<CacheState>,
}

/// A cache.
#[derive(Clone, Debug)]
pub struct CacheState {
    /// Its name.
    pub name: String,
    /// Its tiers: the name, entries, bytes, the most bytes, and evictions.
    pub tiers: Vec<(&'static str, [u64; 4])>,
    /// Look-ups by their outcomes.
    pub lookups: Vec<(&'static str, u64)>,
    /// Errors of the disk by their kinds.
    pub disk_errors: Vec<(&'static str, u64)>,
    /// Responses that are being received, responses that were stored, and purges.
    pub counts: [u64; 3],
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
    all.extend(of_caches(&scrape.caches));
    all
}

fn of_caches(caches: &[CacheState]) -> impl Iterator<Item = MetricFamily> {
    let [mut entries, mut bytes, mut limits, mut evictions] =
        [&CACHE_ENTRIES, &CACHE_BYTES, &CACHE_BYTES_LIMIT, &CACHE_EVICTIONS].map(Series::of);
    let [mut fills, mut stored, mut purges] = [&CACHE_FILLS, &CACHE_STORED, &CACHE_PURGES].map(Series::of);
    let (mut lookups, mut errors) = (Series::of(&CACHE_LOOKUPS), Series::of(&CACHE_DISK_ERRORS));
    for cache in caches {
        for (tier, values) in &cache.tiers {
            for (series, value) in [&mut entries, &mut bytes, &mut limits, &mut evictions].into_iter().zip(values) {
                series.add(&[&cache.name, tier], *value as f64);
            }
        }
        cache.lookups.iter().for_each(|(outcome, count)| lookups.add(&[&cache.name, outcome], *count as f64));
        cache.disk_errors.iter().for_each(|(kind, count)| errors.add(&[&cache.name, kind], *count as f64));
        for (series, value) in [&mut fills, &mut stored, &mut purges].into_iter().zip(cache.counts) {
            series.add(&[&cache.name], value as f64);
        }
    }
    [entries, bytes, limits, evictions, fills, stored, purges, lookups, errors].into_iter().map(Series::family)
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
