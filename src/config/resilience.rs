//! `breaker`, `limits`, `retry` and `sticky` of an upstream.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Duration, Header, Name, Secret, Statuses};

fn millis(millis: u64) -> Duration {
    Duration(std::time::Duration::from_millis(millis))
}

/// Responds at once with 503 after too many failures, and admits a few requests again later.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures in a row (5xx, no connection, reset, timeout) that open it; 0 is never. Default 5.
    pub failures: u32,
    /// Percent of failures in a window that open it; 0 is never. Default 0.
    #[schemars(range(max = 100))]
    pub ratio: u32,
    /// Requests that a window must have before its percentage counts. Default 20.
    pub min_requests: u32,
    /// The window of `ratio`. Default 10s.
    pub window: Duration,
    /// How long it stays open. Default 5s.
    pub cool_down: Duration,
    /// Requests that are admitted then; all have to succeed to close it. Default 3.
    #[schemars(range(min = 1, max = 1000))]
    pub probes: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 5, ratio: 0, min_requests: 20, window: millis(10_000), cool_down: millis(5_000), probes: 3 }
    }
}

/// How many requests an upstream handles at a time. Over HTTP/1.1 each has a connection of its own.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamLimits {
    /// Requests at a time. Default 10000.
    #[schemars(range(min = 1))]
    pub requests: u32,
    /// Requests at a time on one target. Default: any number.
    #[schemars(range(min = 1))]
    pub requests_per_target: Option<u32>,
    /// Requests that wait for a place; further ones are rejected with 503. Default 1024, and 0 with `adaptive`, whose
    /// purpose is that no request waits.
    pub pending: Option<u32>,
    /// The longest time that one waits. Default 5s.
    pub pending_time: Duration,
    /// Finds the number of requests at a time that does not slow the upstream down.
    pub adaptive: Option<Adaptive>,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self { requests: 10_000, requests_per_target: None, pending: None, pending_time: millis(5_000), adaptive: None }
    }
}

/// A limit that follows the response time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Adaptive {
    /// The lowest limit. Default 5.
    #[schemars(range(min = 1))]
    pub min: u32,
    /// The highest limit. Default 1000.
    #[schemars(range(min = 1))]
    pub max: u32,
    /// Time between two adjustments. Default 100ms.
    pub window: Duration,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { min: 5, max: 1_000, window: millis(100) }
    }
}

/// Which failures are retried: on another target while there is one, and on the same where there is none. A request
/// is never retried once a byte of the response was sent, and never with a body longer than 64 KiB.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// Attempts, the first included; 1 is no retry. Default 3.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: u32,
    /// The failures that are retried. Default `[connect, reset, timeout]`.
    pub when: Vec<RetryWhen>,
    /// The statuses that are retried, such as `502-504`. Default: none.
    pub statuses: Option<Statuses>,
    /// The gRPC statuses that are retried, when they come without a message. Default: none.
    pub grpc_statuses: Vec<u32>,
    /// How long a target may be silent in a try: up to the response's head, and between two parts of it. Default: the
    /// upstream's read timeout.
    pub per_try: Option<Duration>,
    /// The pause before the n-th retry is random, from 0 to (2^n − 1) times this. Default 25ms.
    pub backoff: Duration,
    /// The longest pause. Default 250ms.
    pub backoff_max: Duration,
    /// Retries of the last ten seconds, in percent of its requests. Attempts to connect do not count.
    /// Default 20.
    #[schemars(range(max = 100))]
    pub budget: u32,
    /// Retries a second that there may always be. Default 10.
    #[schemars(range(max = 1000000))]
    pub budget_min: u32,
    /// A request without a body that may be repeated is also sent to a second target when the first has not responded
    /// after this time; the first response is used. Default: never.
    pub hedge_after: Option<Duration>,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 3,
            when: vec![RetryWhen::Connect, RetryWhen::Reset, RetryWhen::Timeout],
            statuses: None,
            grpc_statuses: Vec::new(),
            per_try: None,
            backoff: millis(25),
            backoff_max: millis(250),
            budget: 20,
            budget_min: 10,
            hedge_after: None,
        }
    }
}

/// A failure that is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryWhen {
    /// No connection could be made; the request was never sent, so it may be any.
    Connect,
    /// The connection broke before a response.
    Reset,
    /// A try took too long.
    Timeout,
}

/// Keeps a client's requests on one target while that exists.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StickyConfig {
    /// By a cookie of the gateway's own.
    Cookie(StickyCookie),
    /// By the value of a header.
    Header(StickyKey),
    /// By the client's address.
    Address(StickyTable),
}

/// A cookie of the gateway's own. Its value reveals nothing about the target.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyCookie {
    /// Its name.
    pub name: Name,
    /// How long it lives (`Max-Age`). Default: as long as the browser is open.
    pub ttl: Option<Duration>,
    /// Its `Path`. Default `/`.
    #[serde(default = "root")]
    pub path: String,
    /// Its `SameSite`. Default `lax`.
    #[serde(default)]
    pub same_site: SameSite,
    /// Whether it is `Secure`. Default: on listeners with TLS.
    pub secure: Option<bool>,
    /// The secret that signs it; the same on all gateways that share sessions. Default: a random one at each start.
    pub secret: Option<Secret>,
}

fn root() -> String {
    "/".to_owned()
}

/// `SameSite` of a cookie.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Sent with top-level navigation too.
    #[default]
    Lax,
    /// Sent within the site alone.
    Strict,
    /// Sent always; browsers require it to be `Secure`.
    None,
}

/// A table of sessions by a header's value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyKey {
    /// The header; a request without it has no session.
    pub name: Header,
    /// How long a session without requests is remembered. Default 1h.
    #[serde(default = "hour")]
    pub ttl: Duration,
}

/// A table of sessions.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StickyTable {
    /// How long a session without requests is remembered. Default 1h.
    #[serde(default = "hour")]
    pub ttl: Duration,
}

fn hour() -> Duration {
    millis(3_600_000)
}
