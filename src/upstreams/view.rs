//! Targets in the admin interface.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::health::HealthView;
use super::members::KnownTarget;
use crate::exchange::clock;
use crate::telemetry::metrics::TargetState;
use crate::telemetry::rfc3339;

/// A target in the admin interface.
#[derive(Clone, Debug, Serialize)]
pub struct TargetView {
    /// Its address.
    pub address: SocketAddr,
    /// The host name that stands for the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Its weight.
    pub weight: u32,
    /// Its priority.
    pub priority: u32,
    /// Its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The number of requests in flight.
    pub in_flight: u32,
    /// Whether it takes no new sessions.
    pub draining: bool,
    /// Whether it is eligible for a request without a session.
    pub eligible: bool,
    /// The result of its probes, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// Its ejection, if it is ejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejected: Option<EjectedView>,
    /// Its breaker, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<&'static str>,
    /// Its response time in milliseconds, as least_response_time uses it, once there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<f64>,
}

/// An ejection in the admin interface.
#[derive(Clone, Debug, Serialize)]
pub struct EjectedView {
    /// The reason.
    pub reason: &'static str,
    /// The remaining seconds.
    pub seconds_left: u64,
    /// The time at which it ends.
    pub until: String,
}

impl KnownTarget {
    /// Returns whether a request without a session may be sent to it.
    fn takes_requests(&self) -> bool {
        let closed = self.member.breaker.as_ref().is_none_or(|b| b.phase() != "open");
        self.is_eligible() && !self.spec.draining && closed
    }

    /// Returns the state of a target for metrics.
    pub fn state(&self) -> TargetState {
        TargetState {
            address: self.target.label.clone(),
            eligible: self.takes_requests(),
            ejected: self.target.is_ejected(),
            in_flight: self.target.active(),
            outcomes: self.target.outcomes().collect(),
        }
    }
}

impl TargetView {
    /// Returns the view of a target.
    pub fn of(known: &KnownTarget) -> Self {
        let now = clock::now();
        let target = &known.target;
        let left = |until: u64| until.saturating_sub(now).div_ceil(1_000_000_000);
        Self {
            address: target.address,
            host: Some(&known.spec.host).filter(|host| host.parse::<IpAddr>().is_err()).cloned(),
            weight: known.spec.weight,
            priority: known.spec.priority,
            zone: known.spec.zone.clone(),
            in_flight: target.active(),
            draining: known.spec.draining,
            eligible: known.takes_requests(),
            health: known.watch.as_ref().map(|w| w.view()),
            ejected: target.ejection().map(|(reason, until)| EjectedView {
                reason,
                seconds_left: left(until),
                until: rfc3339(SystemTime::now() + Duration::from_secs(left(until))),
            }),
            breaker: known.member.breaker.as_ref().map(|b| b.phase()),
            latency_ms: target.latency().is_known().then(|| (target.latency().read(now) * 1e6).round() / 1e3),
        }
    }
}
