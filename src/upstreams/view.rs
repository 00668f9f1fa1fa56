//! A target as operators see it.

use std::net::SocketAddr;

use serde::Serialize;

use super::health::HealthView;
use super::members::Known;
use crate::exchange::clock;

/// A target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetView {
    /// Where it is.
    pub address: SocketAddr,
    /// Its share.
    pub weight: u32,
    /// Its priority.
    pub priority: u32,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Requests that it is working on.
    pub in_flight: u32,
    /// Whether it takes no new sessions.
    pub draining: bool,
    /// Whether it may be picked for a request without a session.
    pub eligible: bool,
    /// What probes say, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// Why it is left out because of its answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected: Option<EjectedView>,
    /// Its breaker, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<&'static str>,
    /// Its response time in milliseconds, as least_response_time has it, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// An ejection.
#[derive(Clone, Debug, Serialize)]
pub struct EjectedView {
    /// Why.
    pub reason: &'static str,
    /// Seconds that are left of it.
    pub seconds_left: u64,
}

impl TargetView {
    /// Of a target.
    pub fn of(known: &Known) -> Self {
        let now = clock::now();
        let target = &known.target;
        let left = |until: u64| until.saturating_sub(now).div_ceil(1_000_000_000);
        Self {
            address: target.address,
            weight: known.spec.weight,
            priority: known.spec.priority,
            zone: known.spec.zone.clone(),
            in_flight: target.active(),
            draining: known.spec.draining,
            eligible: known.is_eligible() && !known.spec.draining && known.member.breaker.as_ref().is_none_or(|b| b.phase() != "open"),
            health: known.watch.as_ref().map(|w| w.view()),
            ejected: target.ejection().map(|(reason, until)| EjectedView { reason, seconds_left: left(until) }),
            breaker: known.member.breaker.as_ref().map(|b| b.phase()),
            latency_ms: target.latency().is_known().then(|| (target.latency().read(now) * 1e6).round() / 1e3),
        }
    }
}
