//! What operators see: readiness, metrics, upstreams, routes, and the process.

use http::StatusCode;
use serde_json::{Value, json};

use super::{AdminResponse, ManagedProcess, document, text};
use crate::exchange::Reason;
use crate::live::CacheView;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::{CacheState, CertificateState, METRICS, Scrape, UpstreamState};
use crate::telemetry::rfc3339;
use crate::tls::{CertificateSource, validity};
use crate::upstreams::{SharedBreaker, Upstream};

/// Returns whether requests are accepted, and the result of the last reload.
pub fn ready(process: &dyn ManagedProcess) -> AdminResponse {
    let ready = process.is_ready();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    document(status, &json!({"ready": ready, "last_reload": last_reload(process)}))
}

fn last_reload(process: &dyn ManagedProcess) -> Value {
    let (at, refused, files) = process.last_reload();
    // Errors may quote the configuration: their number is public, their text is for operators.
    let mistakes = refused.map(|r| r.lines().last().unwrap_or_default().to_owned());
    json!({"at": rfc3339(at), "refused": mistakes, "files": files})
}

/// Returns the process: what runs, since when, and with which file.
pub fn process(process: &dyn ManagedProcess) -> Value {
    let listeners = process.listeners().into_iter().map(|(name, address)| json!({"name": name, "address": address}));
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": env!("PORTCULLIS_COMMIT"),
        "pid": std::process::id(),
        "started": rfc3339(process.started()),
        "file": process.file(),
        "source": process.source(),
        "listeners": listeners.collect::<Vec<_>>(),
        "ready": process.is_ready(),
        "last_reload": last_reload(process),
    })
}

/// Returns the metrics.
pub fn metrics(process: &dyn ManagedProcess) -> AdminResponse {
    let serving = process.serving();
    let snapshot = &serving.snapshot;
    let upstreams = snapshot.upstreams.iter().map(|upstream| {
        let (pool, gate) = (&upstream.pool, upstream.pool.gate());
        UpstreamState {
            name: upstream.name.clone(),
            gate: [gate.active(), gate.waiting(), gate.limit()],
            breaker: pool.breaker().map(|b| match b.phase() {
                "closed" => 0.0,
                "open" => 1.0,
                _ => 0.5,
            }),
            eligible: pool.choice().eligible,
            targets: pool.states(),
        }
    });
    let scrape = Scrape {
        ready: process.is_ready(),
        listeners: snapshot.listeners.iter().map(|l| (l.name.clone(), l.connections.connections)).collect(),
        certificates: certificates(snapshot),
        key_sets: snapshot.kept.iter().filter_map(|kept| kept.key_set()).collect(),
        upstreams: upstreams.collect(),
        caches: snapshot.caches.iter().map(|used| cache_state(used.cache.view())).collect(),
    };
    text(StatusCode::OK, "text/plain; version=0.0.4", METRICS.render(&scrape))
}

fn cache_state(view: CacheView) -> CacheState {
    let tier = |(entries, bytes, limit): (usize, u64, u64), evicted| [entries as u64, bytes, limit, evicted];
    let [evicted, damaged, failed, not_written] = view.disk_counts;
    let disk = view.disk.map(|disk| ("disk", tier(disk, evicted)));
    let errors = [("damaged", damaged), ("failed", failed), ("not_written", not_written)];
    CacheState {
        tiers: [("memory", tier(view.memory, view.evicted))].into_iter().chain(disk).collect(),
        lookups: view.lookups,
        disk_errors: if view.disk.is_some() { errors.to_vec() } else { Vec::new() },
        counts: [view.fills as u64, view.stored, view.purges],
        name: view.name,
    }
}

/// Returns when each certificate expires; those from an ACME server change while a configuration serves.
fn certificates(snapshot: &Snapshot) -> Vec<CertificateState> {
    let mut all = snapshot.certificates.clone();
    for listener in &snapshot.listeners {
        let tls = listener.tls();
        for source in tls.iter().flat_map(|tls| &tls.certificates) {
            let CertificateSource::Acme(certificate) = source else { continue };
            if let Some((_, expires)) = validity(&certificate.current()).filter(|_| certificate.is_obtained()) {
                let file = format!("acme:{}", certificate.names.join(","));
                all.push(CertificateState { listener: listener.name.clone(), file, expires });
            }
        }
    }
    all
}

/// Returns the key sets.
pub fn key_sets(process: &dyn ManagedProcess) -> Value {
    let serving = process.serving();
    serving.snapshot.kept.iter().filter(|kept| kept.kind() == "key_set").map(|kept| kept.view()).collect()
}

/// Returns the upstreams.
pub fn upstreams(process: &dyn ManagedProcess) -> Value {
    process.serving().snapshot.upstreams.iter().map(|u| upstream(u)).collect()
}

/// Returns an upstream.
pub fn upstream(upstream: &Upstream) -> Value {
    let pool = &upstream.pool;
    let choice = pool.choice();
    json!({
        "name": upstream.name,
        "eligible": choice.eligible,
        "panic": choice.panic,
        "shares": choice.shares,
        "breaker": pool.breaker().map(SharedBreaker::phase),
        "requests": {"active": pool.gate().active(), "pending": pool.gate().waiting(), "limit": pool.gate().limit()},
        "targets": pool.targets(),
    })
}

/// Returns the routes in the order of the configuration, with match and action as they are written.
pub fn routes(process: &dyn ManagedProcess) -> Value {
    let (serving, (shown, _)) = (process.serving(), process.shown());
    let snapshot = &serving.snapshot;
    let written = shown.document();
    let all: Vec<&str> = snapshot.listeners.iter().map(|listener| listener.name.as_str()).collect();
    let view = |(index, route): (usize, &crate::snapshot::Route)| {
        let here = &written["routes"][index];
        let keys = |place| route.filters(place).filters().map(|filter| filter.key()).collect::<Vec<_>>();
        let own = route.chains.of_listeners.iter();
        let own: serde_json::Map<_, _> =
            own.filter_map(|(place, _)| Some(((*all.get(*place)?).to_owned(), json!(keys(Some(*place)))))).collect();
        let mut view = json!({
            "name": here["name"],
            "listeners": if here["listeners"].is_null() { json!(all) } else { here["listeners"].clone() },
            "match": here["match"],
            "filters": keys(None),
            "action": here["action"],
        });
        if !own.is_empty() {
            view["filters_on_listeners"] = own.into();
        }
        view
    };
    snapshot.routes.iter().enumerate().map(view).collect()
}

/// Returns the rules of layer 4, listener by listener, with match and action as they are written.
pub fn streams(process: &dyn ManagedProcess) -> Value {
    let (serving, (shown, _)) = (process.serving(), process.shown());
    let written = shown.document();
    let all = written["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut view = Vec::new();
    for listener in &serving.snapshot.listeners {
        for (name, open) in listener.streams().iter().flat_map(|streams| streams.open_sessions()) {
            let here = all.iter().find(|stream| stream["name"] == name).unwrap_or(&Value::Null);
            view.push(json!({
                "name": name,
                "listener": listener.name,
                "match": here["match"],
                "action": here["action"],
                "open": open,
            }));
        }
    }
    view.into()
}

/// Returns the closed list of reasons.
pub fn reasons() -> Value {
    let status = |reason: Reason| Some(reason.status()).filter(|status| *status > 0);
    let view = |reason: &Reason| {
        json!({
            "reason": reason.code(),
            "status": status(*reason),
            "title": reason.title(),
            "meaning": reason.meaning(),
            "grpc_status": reason.grpc_status(),
            "proxy_error": reason.proxy_error(),
        })
    };
    Reason::ALL.iter().map(view).collect()
}
