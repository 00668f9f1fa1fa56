//! An upstream as routes see it: its pool, and the rules of what is tried again, kept together, handed on.

use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use crate::live::Sessions;
use crate::notation::Statuses;
use crate::rules::identity::RequestKey;
use crate::telemetry::metrics::{METRICS, UpstreamMetrics};
use crate::upstreams::Pool;

/// An upstream with its metrics.
#[derive(Debug)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its place in [`Snapshot::upstreams`](super::Snapshot::upstreams).
    pub place: usize,
    /// Its targets.
    pub pool: Arc<Pool>,
    /// What a hash is taken over.
    pub key: Option<RequestKey>,
    /// What is tried again.
    pub retry: Retry,
    /// What keeps a client on its target.
    pub sticky: Option<Sticky>,
    /// Who takes what this one has no target for.
    pub backup: Option<Arc<Self>>,
    /// Its metrics; see [`Upstream::metrics`].
    pub metrics: OnceLock<Arc<UpstreamMetrics>>,
}

impl Upstream {
    /// Its metrics; made when it is first used, so that a configuration that is never taken leaves none.
    pub fn metrics(&self) -> &UpstreamMetrics {
        self.metrics.get_or_init(|| METRICS.upstream(&self.name))
    }
}

/// What is tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Attempts, the first included.
    pub attempts: u32,
    /// When no connection could be made.
    pub connect: bool,
    /// When the connection broke before an answer.
    pub reset: bool,
    /// When a try took too long.
    pub timeout: bool,
    /// These answers.
    pub statuses: Option<Statuses>,
    /// These statuses of gRPC.
    pub grpc_statuses: Vec<u32>,
    /// The longest that one try may take to the answer's head.
    pub per_try: Option<Duration>,
    /// What the pauses grow from, in nanoseconds.
    pub backoff: u64,
    /// The longest pause, in nanoseconds.
    pub backoff_max: u64,
    /// When a second target is asked beside the first.
    pub hedge_after: Option<Duration>,
}

/// What keeps a client on its target.
#[derive(Debug)]
pub enum Sticky {
    /// A cookie of the gateway's own.
    Cookie {
        /// Its name.
        name: String,
        /// What stands behind its value: `; Path=/; HttpOnly…`.
        attributes: String,
        /// Whether it is `Secure`; `None` is on listeners with TLS.
        secure: Option<bool>,
    },
    /// A table of what clients have come with.
    Table {
        /// What they come with.
        key: RequestKey,
        /// How long a session without requests is remembered, in nanoseconds.
        ttl: u64,
        /// The table.
        sessions: Arc<Sessions>,
    },
}

/// Copies for another upstream.
#[derive(Debug)]
pub struct Mirror {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The share of requests, of 2³².
    pub share: u64,
    /// Copies at a time.
    pub concurrent: u32,
    /// Copies under way.
    pub active: Arc<AtomicU32>,
}

/// Where the client says how long it waits.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The value of a cookie's header: `name=tag; attributes`.
pub fn set_cookie(name: &str, tag: u128, attributes: &str, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    HeaderValue::try_from(format!("{name}={tag:032x}{attributes}{secure}")).ok()
}
