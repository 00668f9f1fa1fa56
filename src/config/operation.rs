//! `shield`, `admin`, `log` and `process`: the operation of the gateway.

use std::collections::BTreeMap;

use http::HeaderName;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{
    AdminAddress, AdminListen, Duration, FilePath, Header, Listen, Name, RateText, Secret, Size, Statuses,
};

/// A coarse limit before routing and authentication: approximate, and almost free.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shield {
    /// Requests from one client address (or one IPv6 /64). They are counted in windows, so up to twice this may pass
    /// at the border of two; use `rate_limit` for an exact limit. Default: no limit.
    pub requests_per_address: Option<RateText>,
}

/// The headers in which targets get the client's identity. What clients send under these names is removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IdentityHeadersConfig {
    /// The consumer's name, on routes that authenticate; `none` for no header. Default `x-consumer`.
    pub consumer: Header,
}

impl Default for IdentityHeadersConfig {
    fn default() -> Self {
        Self { consumer: Header(HeaderName::from_static("x-consumer")) }
    }
}

impl IdentityHeadersConfig {
    /// Returns the header of the consumer's name, unless it is `none`.
    pub fn consumer(&self) -> Option<HeaderName> {
        Some(&self.consumer.0).filter(|name| *name != "none").cloned()
    }
}

/// The listener for operators: metrics, health, reload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Its address, read at the start: `127.0.0.1:9901`, `unix:/run/portcullis/admin.sock` (for the gateway's user and
    /// root alone), or `none`. An address other than loopback needs a `token`; without one, requests by a name other
    /// than `localhost` are rejected. Default `127.0.0.1:9901`.
    #[schemars(extend("x-read-at-start" = "start or upgrade"))]
    pub address: AdminListen,
    /// The token that `Authorization: Bearer` must carry for everything except `/healthz` and `/readyz`.
    pub token: Option<Secret>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { address: AdminListen(AdminAddress::Tcp(([127, 0, 0, 1], 9901).into())), token: None }
    }
}

/// What is logged.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Logging {
    /// One line per request.
    pub access: AccessLog,
    /// The process's own log, on standard error.
    pub process: ProcessLogConfig,
}

/// The process's own log, on standard error.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessLogConfig {
    /// The format of a line. Default `text`.
    pub format: ProcessLogFormat,
    /// The least important lines that are written. Default `info`. `--quiet` and `RUST_LOG` take precedence.
    pub level: LogLevel,
}

/// What a line of the process's own log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessLogFormat {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object with `time`, `level` and `message`.
    Json,
}

/// How important a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something has failed, and needs an operator.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What an operator wants to know of.
    #[default]
    Info,
    /// What helps to find an error.
    Debug,
    /// More than that.
    Trace,
}

/// The access log.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// Where the log goes. Default `stdout`.
    pub output: LogOutput,
    /// The file when `output` is `file`; it is opened again at every reload and at SIGUSR1.
    pub file: Option<FilePath>,
    /// The format of a line. Default `json`.
    pub format: LogFormat,
    /// The fields of a JSON line. Default: all but `referer`.
    pub fields: Option<Vec<String>>,
    /// Further fields with values of the request, as `{tenant: "{header.x-tenant}"}`; not in the combined format.
    pub add: BTreeMap<String, String>,
    /// Which requests are logged: those for which any of these holds. Default: all.
    pub when: Option<LogWhenConfig>,
}

/// Where a log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
    /// The file in `file`.
    File,
    /// Nowhere.
    None,
}

/// What a log line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// A line for people, in colours on a terminal.
    Text,
    /// The combined format of Apache and nginx.
    Combined,
}

/// Which requests are logged.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogWhenConfig {
    /// Those whose response has one of these statuses, such as `5xx` or `404`.
    pub status: Vec<Statuses>,
    /// Those that take longer.
    pub slower_than: Option<Duration>,
    /// The share of all others, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub sample_percent: f64,
}

/// The process. `threads` and `upgrade_socket` are read at the start and do not change by a reload.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Worker threads; 0 is one for each core. Default 0.
    #[schemars(range(max = 1024), extend("x-read-at-start" = "start or upgrade"))]
    pub threads: usize,
    /// The memory of all request bodies together that filters need whole; when it is used up, requests are rejected
    /// with 503. Default 256MiB.
    pub body_memory: Size,
    /// How long the gateway goes on accepting at SIGTERM once `/readyz` says that it is not ready, so that load
    /// balancers stop sending to it before its listeners close. Default 0s: they close at once.
    pub readiness_time: Duration,
    /// The longest that draining may take, at SIGTERM and after an upgrade, where it is no shorter than
    /// `standby_time`. It ends with the last request; requests that are still active then are cut. Default 30s.
    pub drain_time: Duration,
    /// How long WebSockets may go on in a drain before they are closed with 1012 (service restart), at the
    /// latest when half of `drain_time`, or all but 5s of it, is over. Default 20s.
    pub websocket_time: Duration,
    /// The socket over which a new binary takes the listeners. Default: no upgrades.
    #[schemars(extend("x-read-at-start" = "start or upgrade, which until then SIGUSR2 asks for"))]
    pub upgrade_socket: Option<FilePath>,
    /// How long a successor may take until it is ready. Default 60s.
    pub upgrade_time: Duration,
    /// How long this process stands by once a successor serves: if that crashes or hangs meanwhile, this one goes on
    /// serving. Default 3s.
    pub standby_time: Duration,
    /// The folder in which counts of quotas are kept. It is created if it does not exist, for the gateway's user alone.
    /// Default: none, and no quotas.
    pub state: Option<FilePath>,
    /// What happens where the limits allow more memory or descriptors in the worst case than the system does.
    pub ceiling: Ceiling,
    /// How often the configuration's files are checked: once they have changed and then not changed for as long, they
    /// are loaded. Default: never.
    pub watch: Option<Duration>,
    /// The zone that this gateway is in, whose targets are preferred; see `zones` of an upstream. Default: none.
    pub zone: Option<Name>,
    /// The number of gateways in each zone, this one included, for upstreams with `zones: {aware: …}`. Default: none.
    pub gateways: BTreeMap<String, u32>,
    /// The name servers that targets are looked up with. Default: those of `/etc/resolv.conf`.
    pub dns_servers: Vec<Listen>,
}

/// The memory and the descriptors that the process may have, with which the limits of connections, heads, streams and
/// bodies are compared.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ceiling {
    /// The memory. Default: that of the process's cgroup, if it has a limit.
    pub memory: Option<Size>,
    /// The descriptors. Default: the hard limit (`ulimit -Hn`), where `limits.connections` of a listener is set.
    #[schemars(range(min = 1))]
    pub descriptors: Option<u64>,
    /// Whether a configuration that allows more is rejected; otherwise it is a warning. Default false.
    pub strict: bool,
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            body_memory: Size(256 << 20),
            readiness_time: Duration(std::time::Duration::ZERO),
            drain_time: Duration(std::time::Duration::from_secs(30)),
            websocket_time: Duration(std::time::Duration::from_secs(20)),
            upgrade_socket: None,
            upgrade_time: Duration(std::time::Duration::from_secs(60)),
            standby_time: Duration(std::time::Duration::from_secs(3)),
            state: None,
            ceiling: Ceiling::default(),
            watch: None,
            zone: None,
            gateways: BTreeMap::new(),
            dns_servers: Vec::new(),
        }
    }
}
