//! `upstreams`: groups of targets.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Address, Duration, Header, HeaderText, Statuses};
use crate::rules::balance::Algorithm;

/// A group of targets that answer the same requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// How a target is picked. Default `round_robin`.
    #[serde(default)]
    pub balance: Algorithm,
    /// The targets.
    #[schemars(length(min = 1))]
    pub targets: Vec<TargetText>,
    /// What is spoken to them. Default `http1`.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// TLS towards the targets; `{}` is enough for public certificates.
    pub tls: Option<UpstreamTls>,
    /// Health checks.
    #[serde(default)]
    pub health: Health,
    /// How long each step may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// How often host names are looked up again. Default 30s.
    #[serde(default = "default_resolve")]
    pub resolve_interval: Duration,
}

fn default_resolve() -> Duration {
    Duration(std::time::Duration::from_secs(30))
}

/// A target: `address`, or `{address, weight}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetText {
    /// Just its address.
    Short(Address),
    /// With its weight.
    Full(Target),
}

/// A target with its settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// An address or a host name, with a port. Every address of a name becomes a target.
    pub address: Address,
    /// Its share relative to the others. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

impl TargetText {
    /// Both forms as one.
    pub fn full(&self) -> Target {
        match self {
            Self::Short(address) => Target { address: address.clone(), weight: 1 },
            Self::Full(target) => target.clone(),
        }
    }
}

/// What is spoken to targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; without TLS with prior knowledge (h2c).
    Http2,
    /// Over TLS whichever the target prefers.
    Auto,
}

/// TLS towards targets.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// Whether certificate and name are verified. Default true.
    pub verify: bool,
    /// The name that is asked for and verified. Default: the host name of the target.
    pub name: Option<String>,
    /// A PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { verify: true, name: None, ca: None }
    }
}

/// Health checks.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Probes that the gateway sends. Without them every target is taken to be healthy.
    pub active: Option<ActiveHealth>,
}

/// Active probes: HTTP when `path` is given, a TCP connection otherwise.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ActiveHealth {
    /// The path to `GET`. Without it a TCP (or TLS) connection is the probe.
    pub path: Option<String>,
    /// The `Host` to send. Default: the target's own name.
    pub host: Option<HeaderText>,
    /// Further headers to send.
    pub headers: std::collections::BTreeMap<String, HeaderText>,
    /// The statuses of a healthy target. Default `200-399`.
    pub status: Statuses,
    /// A header that a healthy answer has.
    pub expect_header: Option<Header>,
    /// Time between two probes of a target. Default 2s.
    pub interval: Duration,
    /// The longest that a probe may take. Default 1s.
    pub timeout: Duration,
    /// Failures in a row that take a healthy target out. Default 3.
    #[schemars(range(min = 1, max = 100))]
    pub fall: u32,
    /// Successes in a row that bring an unhealthy target back. Default 2.
    #[schemars(range(min = 1, max = 100))]
    pub rise: u32,
}

impl Default for ActiveHealth {
    fn default() -> Self {
        Self {
            path: None,
            host: None,
            headers: std::collections::BTreeMap::new(),
            status: Statuses(vec![(200, 399)]),
            expect_header: None,
            interval: Duration(std::time::Duration::from_secs(2)),
            timeout: Duration(std::time::Duration::from_secs(1)),
            fall: 3,
            rise: 2,
        }
    }
}

/// How long each step towards a target may take.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To connect, TLS included. Default 5s.
    pub connect: Duration,
    /// Between two reads of the answer, and to its first byte. Default 60s.
    pub read: Duration,
    /// For one write of the request. Default 60s.
    pub write: Duration,
    /// How long an unused connection is kept. Shorter than the target's own, so that a request
    /// seldom meets a connection that is being closed. Default 50s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |s| Duration(std::time::Duration::from_secs(s));
        Self { connect: seconds(5), read: seconds(60), write: seconds(60), idle: seconds(50) }
    }
}
