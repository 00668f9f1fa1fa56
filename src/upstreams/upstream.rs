//! An upstream as routes see it: its pool, and the rules by which requests are tried again, keep their target and go over
//! to a backup.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::pool::Pool;
use super::sticky::Sticky;
use crate::notation::Statuses;
use crate::rules::identity::RequestKey;
use crate::telemetry::metrics::{METRICS, UpstreamMetrics};

/// An upstream with its rules and metrics. The alignment keeps the counter of its [`Arc`], which every request writes, out of
/// the cache lines that every request reads; processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its targets.
    pub pool: Arc<Pool>,
    /// What a hash is taken over.
    pub key: Option<RequestKey>,
    /// What is tried again.
    pub retry: Retry,
    /// What keeps a client on its target.
    pub sticky: Option<Sticky>,
    /// The upstream that takes what this one has no target for.
    pub backup: Option<Arc<Self>>,
    /// Its metrics; see [`Upstream::metrics`].
    pub metrics: OnceLock<Arc<UpstreamMetrics>>,
}

impl Upstream {
    /// Returns its metrics. They are made when they are first used, so that a configuration that never serves leaves none.
    pub fn metrics(&self) -> &UpstreamMetrics {
        self.metrics.get_or_init(|| METRICS.upstream(&self.name))
    }

    /// Counts a connection to one of its targets; making a new one took that long.
    pub fn count_connection(&self, reused: bool, took: Duration) {
        let metrics = self.metrics();
        if reused {
            metrics.reused.inc();
        } else {
            metrics.connections.inc();
            metrics.connect.observe(took.as_secs_f64());
        }
    }
}

/// What is tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// Attempts, the first included.
    pub attempts: u32,
    /// When no connection could be made.
    pub connect: bool,
    /// When the connection broke before a response.
    pub reset: bool,
    /// When a try took too long.
    pub timeout: bool,
    /// These statuses.
    pub statuses: Option<Statuses>,
    /// These statuses of gRPC.
    pub grpc_statuses: Vec<u32>,
    /// The longest that one try may take to the response's head.
    pub per_try: Option<Duration>,
    /// What the pauses grow from, in nanoseconds.
    pub backoff: u64,
    /// The longest pause, in nanoseconds.
    pub backoff_max: u64,
    /// When a second target is asked beside the first.
    pub hedge_after: Option<Duration>,
}

impl Retry {
    /// Whether a response is one that these retries are for.
    pub fn is_for(&self, response: &http::response::Parts) -> bool {
        let status = self.statuses.as_ref().is_some_and(|s| s.contains(response.status.as_u16()));
        let grpc = || {
            let code = response.headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u32>().ok());
            code.is_some_and(|code| self.grpc_statuses.contains(&code))
        };
        status || (!self.grpc_statuses.is_empty() && grpc())
    }
}
