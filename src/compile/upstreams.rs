//! `upstreams`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashSet;

use crate::config::{self, Loaded, UpstreamProtocol};
use crate::live::Live;
use crate::notation::{Header, Mistakes, Place};
use crate::snapshot::Upstream;
use crate::telemetry::metrics::METRICS;
use crate::tls::PeerAuthorities;
use crate::upstreams::{ActiveProbe, PoolShape, ProbeKind, TargetSpec, Thresholds, Transport, TransportTls};

pub fn compile(loaded: &Loaded, live: &Live, mistakes: &mut Mistakes) -> BTreeMap<String, Arc<Upstream>> {
    let mut out = BTreeMap::new();
    let all = Place::default().key("upstreams");
    for (name, upstream) in &loaded.config.upstreams {
        let place = all.key(name);
        mistakes.take(&place, config::is_name(name).map_err(|e| format!("expected {e}")));
        let shape = shape(loaded, name, upstream, &place, mistakes);
        let pool = live.pool(shape);
        out.insert(name.clone(), Arc::new(Upstream { name: name.clone(), pool, metrics: METRICS.upstream(name) }));
    }
    out
}

fn shape(loaded: &Loaded, name: &str, upstream: &config::Upstream, place: &Place, mistakes: &mut Mistakes) -> PoolShape {
    let mut seen = AHashSet::new();
    let mut targets = Vec::new();
    for (index, target) in upstream.targets.iter().enumerate() {
        let target = target.full();
        let (host, port) = target.address.0;
        if !seen.insert((host.clone(), port)) {
            mistakes.add(&place.key("targets").index(index), format!("the target {host}:{port} is there twice; give one a weight"));
        }
        targets.push(TargetSpec { host, port, weight: target.weight });
    }
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
        let ca = tls.ca.as_ref().and_then(|ca| mistakes.take(&place.key("tls").key("ca"), PeerAuthorities::read(&loaded.base.join(ca))));
        TransportTls { verify: tls.verify, name: tls.name.clone(), ca }
    });
    let timeouts = &upstream.timeouts;
    let probe = upstream.health.active.as_ref().map(|a| probe(a, &place.key("health").key("active"), mistakes));
    PoolShape {
        name: name.to_owned(),
        algorithm: upstream.balance,
        targets,
        transport: Transport {
            versions,
            tls,
            connect: timeouts.connect.0,
            read: timeouts.read.0,
            write: timeouts.write.0,
            idle: timeouts.idle.0,
        },
        probe,
        resolve_interval: upstream.resolve_interval.0.max(std::time::Duration::from_millis(100)),
    }
}

fn probe(active: &config::ActiveHealth, place: &Place, mistakes: &mut Mistakes) -> ActiveProbe {
    let kind = match &active.path {
        Some(path) => {
            if !path.starts_with('/') {
                mistakes.add(&place.key("path"), "expected a path that starts with /");
            }
            let headers = active.headers.iter().filter_map(|(text, value)| {
                let name: Result<Header, String> = text.parse();
                let name = mistakes.take(&place.key("headers").key(text), name.map_err(|e| format!("expected {e}")))?;
                Some((name.0, value.0.clone()))
            });
            ProbeKind::Http {
                path: path.clone(),
                headers: headers.collect(),
                host: active.host.as_ref().and_then(|h| h.0.to_str().ok()).map(str::to_owned),
                status: active.status.clone(),
                expect_header: active.expect_header.as_ref().map(|h| h.0.clone()),
            }
        }
        None => {
            if active.host.is_some() || active.expect_header.is_some() || !active.headers.is_empty() {
                mistakes.add(place, "host, headers and expect_header are for HTTP probes: add a path");
            }
            ProbeKind::Tcp
        }
    };
    if active.interval.0.is_zero() || active.timeout.0.is_zero() {
        mistakes.add(place, "expected an interval and a timeout longer than nothing");
    }
    ActiveProbe {
        kind,
        interval: active.interval.0,
        timeout: active.timeout.0,
        thresholds: Thresholds { fall: active.fall, rise: active.rise },
    }
}
