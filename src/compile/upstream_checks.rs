//! Contradictions within an upstream: values that are each valid and together have no effect, or another one than
//! documented.

use std::net::IpAddr;

use crate::config::{self, Discovery, SameSite, StickyConfig};
use crate::notation::{Mistakes, Place};
use crate::upstreams::TargetText;

/// Notes contradictions in an upstream.
pub fn check(upstream: &config::UpstreamConfig, place: &Place, mistakes: &mut Mistakes) {
    let mut wrong = |key: &[&'static str], holds: bool, text: &str| {
        if holds {
            let place = key.iter().fold(place.clone(), |place, key| place.key(*key));
            mistakes.add(&place, text);
        }
    };
    let times = &upstream.timeouts;
    for (key, time) in [("connect", &times.connect), ("read", &times.read), ("write", &times.write)] {
        wrong(&["timeouts", key], time.0.is_zero(), "expected a time longer than nothing");
    }
    if let Some(active) = &upstream.health.active {
        let head = matches!(active.method, config::ProbeMethod::Head) && active.expect_body.is_some();
        wrong(&["health", "active", "expect_body"], head, "a response to HEAD has no body");
    }
    if let Some(passive) = &upstream.health.passive {
        let place = ["health", "passive"];
        let never = passive.failures == 0 && passive.gateway_failures == 0;
        let compares = passive.failure_percentage.is_some() || passive.success_rate.is_some();
        wrong(
            &place,
            never && !compares,
            "no target can ever be ejected: give failures, gateway_failures or a comparison",
        );
        wrong(&place, passive.max_ejection.0 < passive.ejection.0, "max_ejection is shorter than ejection");
        wrong(
            &place,
            passive.interval.0.is_zero() || passive.ejection.0.is_zero(),
            "expected times longer than nothing",
        );
    }
    if let Some((version, values)) = upstream.proxy_protocol.as_ref().map(config::ProxyHeaderConfig::parts) {
        let shared = upstream.protocol != config::UpstreamProtocol::Http1;
        let text = "names one client, and connections of HTTP/2 are shared by many: remove it, or the key \"protocol\"";
        wrong(&["proxy_protocol"], shared, text);
        let is_v1 = version == config::ProxyHeaderVersion::V1;
        wrong(&["proxy_protocol", "values"], is_v1 && !values.is_empty(), "only version v2 has values");
    }
    if let Some(bind) = &upstream.socket.bind {
        let family = |target: &TargetText| target.spec().host.parse::<IpAddr>().ok().map(|address| address.is_ipv4());
        let other = upstream.targets.iter().filter_map(family).any(|is_ipv4| is_ipv4 != bind.0.is_ipv4());
        wrong(&["socket", "bind"], other, "is of another family than the address of a target");
    }
    let limits = &upstream.limits;
    let per_target = limits.requests_per_target.is_some_and(|each| each > limits.requests);
    wrong(&["limits", "requests_per_target"], per_target, "is more than requests, which all targets have together");
    let adaptive = limits.adaptive.as_ref().is_some_and(|a| a.min > limits.requests);
    wrong(&["limits", "adaptive", "min"], adaptive, "is more than requests");
    let retry = &upstream.retry;
    wrong(&["retry", "hedge_after"], retry.hedge_after.is_some() && retry.attempts < 2, "needs attempts of at least 2");
    wrong(&["retry", "backoff"], retry.backoff.0 > retry.backoff_max.0, "is longer than backoff_max");
    wrong(&["retry", "grpc_statuses"], retry.grpc_statuses.iter().any(|s| *s > 16), "expected statuses from 0 to 16");
    for (key, breaker) in [("breaker", &upstream.breaker), ("target_breaker", &upstream.target_breaker)] {
        let zero = breaker.as_ref().is_some_and(|b| b.cool_down.0.is_zero() || b.window.0.is_zero());
        wrong(&[key], zero, "expected a window and a cool_down longer than nothing");
    }
    if let Some(StickyConfig::Cookie(cookie)) = &upstream.sticky {
        let fine = cookie.path.starts_with('/') && cookie.path.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b';');
        wrong(&["sticky", "cookie", "path"], !fine, "expected a path that starts with /, without ; and spaces");
        let dropped = matches!(cookie.same_site, SameSite::None) && cookie.secure == Some(false);
        wrong(&["sticky", "cookie", "secure"], dropped, "browsers drop a cookie of same_site: none that is not secure");
    }
    if let Some(Discovery::Srv(name)) = &upstream.discovery {
        wrong(&["discovery", "srv"], !name.starts_with('_'), "expected a service such as _http._tcp.users.internal");
    }
}
