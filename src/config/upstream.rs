//! `upstreams`: groups of targets.

use schemars::JsonSchema;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::balance::{BalanceConfig, ZonesConfig};
use super::health::Health;
use super::resilience::{Breaker, RetryConfig, StickyConfig, UpstreamLimits};
use crate::notation::{Duration, File, FollowedFile, IpAddress};
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
    /// How load is divided among the zones of targets. Default `{spill_over: []}`: targets in the gateway's own zone
    /// (`process.zone`) are preferred.
    #[serde(default)]
    pub zones: ZonesConfig,
    /// The PROXY header that targets expect before everything else, also before TLS: `v1`, `v2`, or a mapping. It names
    /// the client, so each connection serves one client alone, and one request of HTTP. Default: none.
    pub proxy_protocol: Option<ProxyHeaderConfig>,
    /// TLS towards the targets; `{}` is enough for public certificates.
    pub tls: Option<UpstreamTls>,
    /// The sockets towards the targets.
    #[serde(default)]
    pub socket: SocketConfig,
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

/// The PROXY header for targets.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum ProxyHeaderConfig {
    /// The version, without further values.
    Version(ProxyHeaderVersion),
    /// The version, and the further values.
    Full(FullProxyHeader),
}

impl ProxyHeaderConfig {
    /// Returns the version and the further values.
    pub fn parts(&self) -> (ProxyHeaderVersion, &[ProxyHeaderValue]) {
        match self {
            Self::Version(version) => (*version, &[]),
            Self::Full(full) => (full.version, &full.values),
        }
    }
}

/// Reads either form by its type, so that an error is that of the form in use.
impl<'de> Deserialize<'de> for ProxyHeaderConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ProxyHeaderVisitor)
    }
}

struct ProxyHeaderVisitor;

impl<'de> Visitor<'de> for ProxyHeaderVisitor {
    type Value = ProxyHeaderConfig;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("v1, v2, or a mapping with the keys version and values")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        ProxyHeaderVersion::deserialize(StrDeserializer::new(text)).map(ProxyHeaderConfig::Version)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        FullProxyHeader::deserialize(MapAccessDeserializer::new(map)).map(ProxyHeaderConfig::Full)
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeaderVersion {
    /// A line of text with the addresses.
    V1,
    /// A binary header.
    V2,
}

/// The PROXY header for targets, with further values.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FullProxyHeader {
    /// The version.
    pub version: ProxyHeaderVersion,
    /// The values beside the addresses, in version 2. Default: none.
    #[serde(default)]
    pub values: Vec<ProxyHeaderValue>,
}

/// A value in a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyHeaderValue {
    /// The host name that the client requested.
    Authority,
    /// The application protocol.
    Alpn,
    /// The id of the request or of the connection, as in the access log.
    UniqueId,
    /// The version of TLS that the client uses, and the common name of its certificate.
    Tls,
    /// A checksum of the header (CRC32c).
    Checksum,
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

/// The sockets towards targets.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SocketConfig {
    /// The address of this host that connections come from. Default: the system's choice.
    pub bind: Option<IpAddress>,
    /// How long a connection is silent before the system probes its peer (TCP keep-alive), again after a quarter of
    /// that time each, until the connection fails. 0s is never. Default: 60s at layer 4, and never for HTTP, whose
    /// connections have timeouts.
    pub keepalive: Option<Duration>,
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
