//! `upstreams`: groups of targets.

use schemars::JsonSchema;
use serde::Deserialize;

use super::balance::BalanceConfig;
use super::health::Health;
use super::resilience::{Breaker, RetryConfig, StickyConfig, UpstreamLimits};
use crate::notation::{Duration, File, FollowedFile};
use crate::upstreams::TargetText;

/// A group of targets that serve the same requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamConfig {
    /// How a target is picked. Default `round_robin`.
    #[serde(default)]
    pub balance: BalanceConfig,
    /// The targets that are known beforehand. May be empty with `discovery`.
    #[serde(default)]
    pub targets: Vec<TargetText>,
    /// The protocol of the targets. Default `http1`.
    #[serde(default)]
    pub protocol: UpstreamProtocol,
    /// TLS towards the targets; `{}` is enough for public certificates.
    pub tls: Option<UpstreamTls>,
    /// Health checks.
    #[serde(default)]
    pub health: Health,
    /// The timeouts of each step.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// The breaker of the upstream as a whole. Default: none.
    pub breaker: Option<Breaker>,
    /// A breaker for each target. Default: none.
    pub target_breaker: Option<Breaker>,
    /// How many requests it handles at a time.
    #[serde(default)]
    pub limits: UpstreamLimits,
    /// Which failures are retried.
    #[serde(default)]
    pub retry: RetryConfig,
    /// Keeps clients on their targets. Default: each request is balanced by itself.
    pub sticky: Option<StickyConfig>,
    /// The upstream that takes the requests for which this one has no target. It has no `backup` itself.
    pub backup: Option<String>,
    /// Where further targets come from. Default: nowhere.
    pub discovery: Option<Discovery>,
    /// How often host names are looked up again that only the system knows (`/etc/hosts`, search domains); those of
    /// name servers are cached for the TTL of their records. Default 30s.
    #[serde(default = "default_resolve")]
    pub resolve_interval: Duration,
}

fn default_resolve() -> Duration {
    Duration(std::time::Duration::from_secs(30))
}

/// Where further targets come from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Discovery {
    /// A YAML or JSON file with a list like `targets`. It is read again when it changes; where it has an error, the
    /// known targets stay.
    File(FollowedFile),
    /// The SRV records of a service such as `_http._tcp.users.internal`, for as long as they hold.
    Srv(String),
}

/// The protocol of targets.
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
    /// The name that is requested and verified. Default: the host name of the target.
    pub name: Option<String>,
    /// A CA file (PEM) that is trusted instead of the system's.
    pub ca: Option<File>,
    /// The gateway's own certificate (PEM) for targets that require one, and its chain.
    pub cert: Option<File>,
    /// The private key of `cert` (PEM).
    pub key: Option<File>,
}

impl Default for UpstreamTls {
    fn default() -> Self {
        Self { verify: true, name: None, ca: None, cert: None, key: None }
    }
}

/// The timeouts of each step towards a target.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To connect, TLS included. Default 5s.
    pub connect: Duration,
    /// Between two reads of the response, and to its first byte. Default 60s.
    pub read: Duration,
    /// For one write of the request. Default 60s.
    pub write: Duration,
    /// How long an idle connection is kept. It should be shorter than the target's own timeout, so that a request
    /// seldom uses a connection that is being closed. Default 50s.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |s| Duration(std::time::Duration::from_secs(s));
        Self { connect: seconds(5), read: seconds(60), write: seconds(60), idle: seconds(50) }
    }
}
