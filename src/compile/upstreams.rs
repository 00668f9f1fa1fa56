//! `upstreams`.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use ahash::AHashSet;

use super::zones::zone_rule;
use crate::clients::Resolver;
use crate::config::{
    self, BalanceConfig, Discovery, HashTable, Loaded, ProbeMethod, RetryWhen, SameSite, UpstreamProtocol,
};
use crate::exchange::clock::nanos;
use crate::live::Live;
use crate::notation::{Duration, Header, Mistakes, Place};
use crate::rules::balance::Algorithm;
use crate::rules::identity::RequestKey;
use crate::rules::protocols::ProxyVersion;
use crate::rules::resilience::{AdaptiveShape, BreakerShape, Deviation, FailureShare, OutlierShape, RetryBudget};
use crate::tls::{PeerIdentity, PeerRoots};
use crate::upstreams::{
    ActiveProbe, DiscoveryShape, Expression, GateShape, HttpProbe, PoolShape, ProbeKind, ProxyHeaderShape, Retry,
    SessionKey, SocketOptions, Sticky, TargetSpec, TargetTransport, Thresholds, TransportTls, Upstream,
};

/// The most upstreams of a configuration.
const MAX_UPSTREAMS: usize = 50_000;

/// The most bytes of the hash tables of all upstreams together.
const MAX_TABLES: u64 = 512 << 20;

/// About how many bytes the hash table of an upstream has.
fn table_size(upstream: &config::UpstreamConfig) -> u64 {
    let BalanceConfig::Hash(hash) = &upstream.balance else { return 0 };
    match hash.table {
        HashTable::Maglev => 256 << 10,
        // 160 points for each unit of weight, as many as a ring has at most, of 20 bytes.
        HashTable::Ring => {
            let weight: u64 = upstream.targets.iter().map(|target| u64::from(target.spec().weight)).sum();
            (160 * weight).min(1 << 20) * 20
        }
    }
}

/// Returns the upstreams by name, with every error in them among `mistakes`.
pub fn compile(loaded: &Loaded, live: &Live, mistakes: &mut Mistakes) -> BTreeMap<String, Arc<Upstream>> {
    let mut out = BTreeMap::new();
    let tables: u64 = loaded.config.upstreams.values().map(table_size).sum();
    if tables > MAX_TABLES {
        let (size, most) = (tables >> 20, MAX_TABLES >> 20);
        mistakes.add(
            &Place::default().key("upstreams"),
            format!("hash tables of {size} MiB are too large: at most {most} MiB together"),
        );
    }
    if loaded.config.upstreams.len() > MAX_UPSTREAMS {
        let text =
            format!("{} upstreams are too many: at most {MAX_UPSTREAMS} are allowed", loaded.config.upstreams.len());
        mistakes.add(&Place::default().key("upstreams"), text);
        return out;
    }
    let all = &loaded.config.upstreams;
    // Those that others fall back to come first; they have no backup themselves.
    for backed in [false, true] {
        for (name, upstream) in all.iter().filter(|(_, u)| u.backup.is_some() == backed) {
            let place = Place::default().key("upstreams").key(name.clone());
            mistakes.take(&place, config::is_name(name).map_err(|e| format!("expected {e}")));
            super::upstream_checks::check(upstream, &place, mistakes);
            let backup =
                upstream.backup.as_ref().and_then(|name| backup(name, &out, loaded, &place.key("backup"), mistakes));
            let pool = live.pool(shape(loaded, live, name, upstream, &place, mistakes));
            let key = match &upstream.balance {
                BalanceConfig::Hash(hash) => Some(hash.by.request_key()),
                _ => None,
            };
            let compiled = Upstream {
                name: name.clone(),
                pool,
                key,
                retry: retry(&upstream.retry, &place.key("retry"), mistakes),
                sticky: upstream.sticky.as_ref().map(|s| sticky(s, name, live)),
                backup,
                metrics: OnceLock::new(),
            };
            out.insert(name.clone(), Arc::new(compiled));
        }
    }
    out
}

fn backup(
    name: &str,
    known: &BTreeMap<String, Arc<Upstream>>,
    loaded: &Loaded,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Option<Arc<Upstream>> {
    match (known.get(name), loaded.config.upstreams.get(name)) {
        (Some(found), Some(config)) if config.backup.is_none() => return Some(Arc::clone(found)),
        (_, Some(_)) if place.0.get(1) == Some(&crate::notation::PlaceStep::Key(name.to_owned().into())) => {
            mistakes.add(place, "an upstream is no backup of itself");
        }
        (_, Some(_)) => mistakes.add(place, format!("the upstream \"{name}\" has a backup itself: a backup has none")),
        (_, None) if loaded.is_left_out("upstreams", name) => {}
        (_, None) => {
            let known = loaded.config.upstreams.keys().map(String::as_str);
            mistakes.add(place, super::unknown_name::there_is_no("upstream", name, known));
        }
    }
    None
}

fn algorithm(balance: &BalanceConfig) -> Algorithm {
    match balance {
        BalanceConfig::RoundRobin => Algorithm::RoundRobin,
        BalanceConfig::LeastConnections => Algorithm::LeastConnections,
        BalanceConfig::LeastResponseTime => Algorithm::LeastResponseTime,
        BalanceConfig::Random => Algorithm::Random,
        BalanceConfig::PowerOfTwo => Algorithm::PowerOfTwo,
        BalanceConfig::Hash(hash) => {
            let load_factor = hash.load_factor.unwrap_or(0);
            match hash.table {
                HashTable::Maglev => Algorithm::Maglev { load_factor },
                HashTable::Ring => Algorithm::Ring { load_factor },
            }
        }
    }
}

fn retry(retry: &config::RetryConfig, place: &Place, mistakes: &mut Mistakes) -> Retry {
    if retry.per_try.as_ref().is_some_and(|t| t.0.is_zero()) {
        mistakes.add(&place.key("per_try"), "expected a time longer than nothing");
    }
    let when = |what| retry.when.contains(&what);
    Retry {
        attempts: retry.attempts,
        connect: when(RetryWhen::Connect),
        reset: when(RetryWhen::Reset),
        timeout: when(RetryWhen::Timeout),
        statuses: retry.statuses.clone(),
        grpc_statuses: retry.grpc_statuses.clone(),
        per_try: retry.per_try.as_ref().map(|t| t.0),
        backoff: nanos(retry.backoff.0),
        backoff_max: nanos(retry.backoff_max.0),
        hedge_after: retry.hedge_after.as_ref().map(|t| t.0),
    }
}

fn sticky(sticky: &config::StickyConfig, upstream: &str, live: &Live) -> Sticky {
    let table = |key, ttl: &Duration| Sticky::Table { key, ttl: nanos(ttl.0), sessions: live.sessions(upstream) };
    match sticky {
        config::StickyConfig::Cookie(cookie) => {
            let same_site = match cookie.same_site {
                SameSite::Lax => "Lax",
                SameSite::Strict => "Strict",
                SameSite::None => "None",
            };
            let age = cookie.ttl.as_ref().map(|t| format!("; Max-Age={}", t.0.as_secs())).unwrap_or_default();
            let attributes = format!("; Path={}{age}; HttpOnly; SameSite={same_site}", cookie.path);
            Sticky::Cookie { name: cookie.name.0.clone(), attributes, secure: cookie.secure }
        }
        config::StickyConfig::Header(header) => table(RequestKey::Header(header.name.0.clone()), &header.ttl),
        config::StickyConfig::Address(address) => table(RequestKey::Address, &address.ttl),
    }
}

fn session_key(sticky: &config::StickyConfig, live: &Live) -> SessionKey {
    let secret = match sticky {
        config::StickyConfig::Cookie(cookie) => cookie.secret.as_ref().map(|s| s.0.reveal()),
        _ => None,
    };
    SessionKey::new(secret, live.sticky_key())
}

fn breaker(breaker: &config::Breaker, place: &Place, mistakes: &mut Mistakes) -> BreakerShape {
    if breaker.failures == 0 && breaker.ratio == 0 {
        mistakes.add(place, "it can never open: give failures or ratio");
    }
    BreakerShape {
        failures: breaker.failures,
        ratio: breaker.ratio,
        min_requests: breaker.min_requests,
        window: nanos(breaker.window.0),
        cool_down: nanos(breaker.cool_down.0),
        probes: breaker.probes,
    }
}

fn gate(limits: &config::UpstreamLimits, place: &Place, mistakes: &mut Mistakes) -> GateShape {
    let adaptive = limits.adaptive.as_ref().map(|adaptive| {
        if adaptive.min > adaptive.max {
            mistakes.add(&place.key("adaptive"), "min is greater than max");
        }
        AdaptiveShape { min: adaptive.min, max: adaptive.max.max(adaptive.min), window: nanos(adaptive.window.0) }
    });
    GateShape {
        requests: limits.requests,
        per_target: limits.requests_per_target.unwrap_or(0),
        pending: limits.pending.unwrap_or(if adaptive.is_some() { 0 } else { 1024 }),
        pending_time: limits.pending_time.0,
        adaptive,
    }
}

fn outlier(passive: &config::PassiveHealth) -> OutlierShape {
    OutlierShape {
        failures: passive.failures,
        gateway_failures: passive.gateway_failures,
        interval: nanos(passive.interval.0),
        base: nanos(passive.ejection.0),
        max: nanos(passive.max_ejection.0),
        max_percent: passive.max_ejected,
        failure_share: passive.failure_percentage.as_ref().map(|f| FailureShare {
            percent: f.percent,
            min_targets: f.min_targets,
            min_requests: f.min_requests,
        }),
        deviation: passive.success_rate.as_ref().map(|s| Deviation {
            factor: (s.deviations * 1_000.0).round() as u32,
            min_targets: s.min_targets,
            min_requests: s.min_requests,
        }),
    }
}

fn targets(upstream: &config::UpstreamConfig, place: &Place, mistakes: &mut Mistakes) -> Vec<TargetSpec> {
    let mut seen = AHashSet::new();
    let mut targets = Vec::new();
    for (index, target) in upstream.targets.iter().enumerate() {
        let spec = target.spec();
        if !seen.insert((spec.host.clone(), spec.port)) {
            let (host, port) = (&spec.host, spec.port);
            mistakes.add(
                &place.key("targets").index(index),
                format!("the target {host}:{port} is there twice; give one a weight"),
            );
        }
        targets.push(spec);
    }
    if targets.is_empty() && upstream.discovery.is_none() {
        mistakes.add(&place.key("targets"), "expected at least one target");
    }
    targets
}

fn shape(
    loaded: &Loaded,
    live: &Live,
    name: &str,
    upstream: &config::UpstreamConfig,
    place: &Place,
    mistakes: &mut Mistakes,
) -> PoolShape {
    let timeouts = &upstream.timeouts;
    let health = &upstream.health;
    let limits = place.key("limits");
    PoolShape {
        name: name.to_owned(),
        algorithm: algorithm(&upstream.balance),
        targets: targets(upstream, place, mistakes),
        transport: transport(loaded, upstream, timeouts, place, mistakes),
        probe: health.active.as_ref().map(|a| probe(a, &place.key("health").key("active"), mistakes)),
        outlier: health.passive.as_ref().map(outlier),
        panic_threshold: health.panic_threshold,
        slow_start: health.slow_start.as_ref().map(|s| (nanos(s.window.0), (s.aggression * 1_000.0).round() as u32)),
        breaker: upstream.breaker.as_ref().map(|b| breaker(b, &place.key("breaker"), mistakes)),
        target_breaker: upstream.target_breaker.as_ref().map(|b| breaker(b, &place.key("target_breaker"), mistakes)),
        gate: gate(&upstream.limits, &limits, mistakes),
        budget: RetryBudget { percent: upstream.retry.budget, min: upstream.retry.budget_min },
        sessions: upstream.sticky.as_ref().map(|sticky| session_key(sticky, live)),
        zone: loaded.config.process.zone.as_ref().map(|z| z.0.clone()),
        zones: zone_rule(loaded, upstream, place, mistakes),
        discovery: upstream.discovery.as_ref().map(|d| match d {
            Discovery::File(path) => DiscoveryShape::File(loaded.base.join(path)),
            Discovery::Srv(name) => DiscoveryShape::Srv(name.clone()),
        }),
        resolver: match loaded.config.process.dns_servers.as_slice() {
            [] => None,
            servers => Some(Resolver::new(servers.iter().map(|s| s.0).collect())),
        },
        resolve_interval: upstream.resolve_interval.0.max(std::time::Duration::from_millis(100)),
    }
}

fn transport(
    loaded: &Loaded,
    upstream: &config::UpstreamConfig,
    timeouts: &config::Timeouts,
    place: &Place,
    mistakes: &mut Mistakes,
) -> TargetTransport {
    let versions = match (upstream.protocol, &upstream.tls) {
        (UpstreamProtocol::Http1, _) => (1, 1),
        (UpstreamProtocol::Http2, _) => (2, 2),
        (UpstreamProtocol::Auto, Some(_)) => (1, 2),
        (UpstreamProtocol::Auto, None) => {
            mistakes.add(&place.key("protocol"), "auto is negotiated over TLS: add tls, or say http1 or http2");
            (1, 1)
        }
    };
    let tls = upstream.tls.as_ref().map(|tls| {
        let ca = tls
            .ca
            .as_ref()
            .and_then(|ca| mistakes.take(&place.key("tls").key("ca"), PeerRoots::read(&loaded.base.join(ca))));
        let identity = match (&tls.cert, &tls.key) {
            (Some(cert), Some(key)) => {
                let read = PeerIdentity::read(&loaded.base.join(cert), &loaded.base.join(key));
                mistakes.take(&place.key("tls").key("cert"), read)
            }
            (None, None) => None,
            (cert, _) => {
                let (key, missing) = if cert.is_some() { ("cert", "key") } else { ("key", "cert") };
                mistakes.add(&place.key("tls").key(key), format!("the key \"{missing}\" is missing beside it"));
                None
            }
        };
        TransportTls { verify: tls.verify, name: tls.name.clone(), ca, identity }
    });
    TargetTransport {
        versions,
        proxy: upstream.proxy_protocol.as_ref().map(proxy_header),
        tls,
        socket: SocketOptions {
            bind: upstream.socket.bind.as_ref().map(|bind| bind.0),
            keepalive: upstream.socket.keepalive.as_ref().map(|time| time.0),
        },
        connect: timeouts.connect.0,
        read: timeouts.read.0,
        write: timeouts.write.0,
        idle: timeouts.idle.0,
    }
}

fn proxy_header(config: &config::ProxyHeaderConfig) -> ProxyHeaderShape {
    use config::ProxyHeaderValue as V;
    let (version, values) = config.parts();
    let has = |value| values.contains(&value);
    ProxyHeaderShape {
        version: match version {
            config::ProxyHeaderVersion::V1 => ProxyVersion::V1,
            config::ProxyHeaderVersion::V2 => ProxyVersion::V2 { checksum: has(V::Checksum) },
        },
        authority: has(V::Authority),
        alpn: has(V::Alpn),
        unique_id: has(V::UniqueId),
        tls: has(V::Tls),
    }
}

fn check_intervals(active: &config::ActiveHealth, place: &Place, mistakes: &mut Mistakes) {
    let intervals = [
        Some(&active.interval),
        active.interval_changing.as_ref(),
        active.interval_down.as_ref(),
        Some(&active.timeout),
    ];
    if intervals.into_iter().flatten().any(|i| i.0.is_zero()) {
        mistakes.add(place, "expected intervals and a timeout longer than nothing");
    }
}

fn probe(active: &config::ActiveHealth, place: &Place, mistakes: &mut Mistakes) -> ActiveProbe {
    let headers = active.headers.iter().filter_map(|(text, value)| {
        let name: Result<Header, String> = text.parse();
        let name = mistakes.take(&place.key("headers").key(text.clone()), name.map_err(|e| format!("expected {e}")))?;
        Some((name.0, value.0.clone()))
    });
    let headers: Vec<_> = headers.collect();
    let usual = config::ActiveHealth::default();
    let other = !matches!(active.method, ProbeMethod::Get) || active.status.0 != usual.status.0;
    let http_only = other
        || active.host.is_some()
        || active.expect_header.is_some()
        || active.expect_body.is_some()
        || !headers.is_empty();
    let kind = match (&active.path, &active.grpc) {
        (Some(path), None) => {
            if !path.starts_with('/') {
                mistakes.add(&place.key("path"), "expected a path that starts with /");
            }
            ProbeKind::Http(HttpProbe {
                method: match active.method {
                    ProbeMethod::Get => http::Method::GET,
                    ProbeMethod::Head => http::Method::HEAD,
                    ProbeMethod::Options => http::Method::OPTIONS,
                    ProbeMethod::Post => http::Method::POST,
                },
                path: path.clone(),
                headers,
                host: active.host.as_ref().and_then(|h| h.0.to_str().ok()).map(str::to_owned),
                status: active.status.clone(),
                expect_header: active.expect_header.as_ref().map(|h| h.0.clone()),
                expect_body: active.expect_body.as_ref().map(|p| Expression(p.0.clone())),
            })
        }
        (Some(_), Some(_)) => {
            mistakes.add(place, "expected at most one of path and grpc");
            ProbeKind::Tcp
        }
        (None, grpc) => {
            if http_only {
                mistakes.add(
                    place,
                    "method, host, headers, status, expect_header and expect_body are for HTTP probes: add a path",
                );
            }
            grpc.as_ref().map_or(ProbeKind::Tcp, |service| {
                if service.len() > 127 {
                    mistakes.add(&place.key("grpc"), "expected a name of at most 127 bytes");
                }
                ProbeKind::Grpc { service: service.clone() }
            })
        }
    };
    let kind = super::datagram_probe::compile(active, place, mistakes).unwrap_or(kind);
    check_intervals(active, place, mistakes);
    let or_usual = |interval: &Option<Duration>| interval.as_ref().map_or(active.interval.0, |i| i.0);
    ActiveProbe {
        kind,
        interval: active.interval.0,
        interval_changing: or_usual(&active.interval_changing),
        interval_down: or_usual(&active.interval_down),
        timeout: active.timeout.0,
        thresholds: Thresholds { fall: active.fall, rise: active.rise },
    }
}
