//! `health` of an upstream.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Duration, Header, HeaderText, Pattern, Statuses};

fn seconds(seconds: u64) -> Duration {
    Duration(std::time::Duration::from_secs(seconds))
}

/// Health checks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Probes that the gateway sends. Without them every target is considered healthy.
    pub active: Option<ActiveHealth>,
    /// Ejects targets for a time because of their responses. Default: none is.
    pub passive: Option<PassiveHealth>,
    /// The percentage of healthy targets below which health is ignored, so that the remaining ones are not
    /// overloaded. Default 0: never, and without a healthy target the response is 503.
    #[schemars(range(max = 100))]
    pub panic_threshold: u32,
    /// Gives targets that have just become healthy their share gradually.
    pub slow_start: Option<SlowStart>,
}

/// Active probes: HTTP when `path` is given, gRPC when `grpc` is, datagrams when `udp` or `dns` is, a TCP connection
/// otherwise.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveHealth {
    /// The path of the probe. Without it, and without `grpc`, `udp` and `dns`, a TCP (or TLS) connection is the probe.
    pub path: Option<String>,
    /// The service to ask `grpc.health.v1.Health` for; an empty text is the server as a whole.
    pub grpc: Option<String>,
    /// A request in a datagram, and what a healthy response contains.
    pub udp: Option<UdpProbeConfig>,
    /// A query of the DNS over UDP: a server that responds to it is healthy, whether or not the name exists.
    pub dns: Option<DnsProbeConfig>,
    /// `GET`, `HEAD`, `OPTIONS` or `POST`. Default `GET`.
    pub method: ProbeMethod,
    /// The `Host` to send. Default: the target's own name.
    pub host: Option<HeaderText>,
    /// Further headers to send.
    pub headers: BTreeMap<String, HeaderText>,
    /// The statuses of a healthy target. Default `200-399`.
    pub status: Statuses,
    /// A header that a healthy response has.
    pub expect_header: Option<Header>,
    /// A pattern that the body of a healthy response matches in its first 64 KiB.
    pub expect_body: Option<Pattern>,
    /// Time between two probes of a target. Default 2s.
    pub interval: Duration,
    /// Time between two probes while the last results disagree with the status. Default: `interval`.
    pub interval_changing: Option<Duration>,
    /// Time between two probes of a target that is down. Default: `interval`.
    pub interval_down: Option<Duration>,
    /// The longest time that a probe may take. Default 1s.
    pub timeout: Duration,
    /// Failures in a row that take a healthy target out. Default 3.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
    /// Successes in a row that bring an unhealthy target back. Default 2.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
}

/// A request in a datagram, and the response to it.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UdpProbeConfig {
    /// The request, as text.
    pub send: Option<String>,
    /// The request, in hexadecimal digits.
    pub send_hex: Option<String>,
    /// What a healthy response contains, as text. Default: any response is healthy.
    pub expect: Option<String>,
    /// What a healthy response contains, in hexadecimal digits.
    pub expect_hex: Option<String>,
}

/// A query of the DNS.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DnsProbeConfig {
    /// The name to ask for; `.` is the root.
    pub name: String,
    /// The type of the record. Default `A`.
    #[serde(default, rename = "type")]
    pub kind: DnsRecordType,
}

/// The type of a record in the DNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum DnsRecordType {
    /// An IPv4 address.
    #[default]
    A,
    /// An IPv6 address.
    Aaaa,
    /// An alias.
    Cname,
    /// A mail server.
    Mx,
    /// A name server.
    Ns,
    /// A name for an address.
    Ptr,
    /// The start of a zone.
    Soa,
    /// A service.
    Srv,
    /// A text.
    Txt,
}

/// The method of a probe.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeMethod {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`.
    Head,
    /// `OPTIONS`.
    Options,
    /// `POST`, with no body.
    Post,
}

impl Default for ActiveHealth {
    fn default() -> Self {
        Self {
            path: None,
            grpc: None,
            udp: None,
            dns: None,
            method: ProbeMethod::Get,
            host: None,
            headers: BTreeMap::new(),
            status: Statuses(vec![(200, 399)]),
            expect_header: None,
            expect_body: None,
            interval: seconds(2),
            interval_changing: None,
            interval_down: None,
            timeout: seconds(1),
            fall: 3,
            rise: 2,
        }
    }
}

/// Ejects targets because of their responses, as Envoy's outlier detection does.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PassiveHealth {
    /// Failures in a row (5xx, no connection, reset, timeout); 0 is never. Default 5.
    pub failures: u32,
    /// Failures of the path to the target in a row (502, 503, 504, no connection, reset, timeout); 0 is never.
    /// Default 5.
    pub gateway_failures: u32,
    /// Time between two comparisons of the targets. Default 10s.
    pub interval: Duration,
    /// How long the first ejection lasts; the n-th lasts n times as long. A successful active probe ends it, as in
    /// Envoy; one for timeouts only if the probe is HTTP or gRPC, since a process that hangs still accepts
    /// connections. Default 30s.
    pub ejection: Duration,
    /// The longest ejection. Default 300s.
    pub max_ejection: Duration,
    /// The most targets that may be ejected at a time, in percent of all; one always may. Default 10.
    #[schemars(range(max = 100))]
    pub max_ejected: u32,
    /// Ejects targets that fail too often in an interval. Default: targets are not compared so.
    pub failure_percentage: Option<FailurePercentage>,
    /// Ejects targets that succeed less often than the others. Default: targets are not compared so.
    pub success_rate: Option<SuccessRate>,
}

impl Default for PassiveHealth {
    fn default() -> Self {
        Self {
            failures: 5,
            gateway_failures: 5,
            interval: seconds(10),
            ejection: seconds(30),
            max_ejection: seconds(300),
            max_ejected: 10,
            failure_percentage: None,
            success_rate: None,
        }
    }
}

/// A bound on the share of failures.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FailurePercentage {
    /// Percent of an interval's requests. Default 85.
    #[schemars(range(min = 1, max = 100))]
    pub percent: u32,
    /// The number of targets that must have enough requests. Default 5.
    pub min_targets: u32,
    /// The number of requests that is enough. Default 50.
    pub min_requests: u32,
}

impl Default for FailurePercentage {
    fn default() -> Self {
        Self { percent: 85, min_targets: 5, min_requests: 50 }
    }
}

/// A bound on how far a target's share of successes may be below the mean of all.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// Standard deviations below the mean. Default 1.9.
    #[schemars(range(min = 0.1, max = 10))]
    pub deviations: f64,
    /// Targets that have to have enough requests. Default 5.
    pub min_targets: u32,
    /// Requests that are enough. Default 100.
    pub min_requests: u32,
}

impl Default for SuccessRate {
    fn default() -> Self {
        Self { deviations: 1.9, min_targets: 5, min_requests: 100 }
    }
}

/// Gives a target its share gradually.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlowStart {
    /// The time until it has its whole share.
    pub window: Duration,
    /// 1 grows evenly, more grows faster at first. Default 1.
    #[serde(default = "even")]
    #[schemars(range(min = 0.1, max = 10))]
    pub aggression: f64,
}

fn even() -> f64 {
    1.0
}
