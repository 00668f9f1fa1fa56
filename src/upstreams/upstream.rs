//! An upstream as routes see it: its pool, and its rules for retries, sessions and the backup.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::choice::Member;
use super::pool::Pool;
use super::sticky::Sticky;
use crate::notation::Statuses;
use crate::rules::identity::RequestKey;
use crate::telemetry::metrics::{METRICS, UpstreamMetrics};

/// An upstream with its rules and metrics. The alignment keeps the counter of its [`Arc`], which every request
/// writes, out of the cache lines that every request reads; processors fetch lines in pairs.
#[derive(Debug)]
#[repr(align(128))]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Its targets.
    pub pool: Arc<Pool>,
    /// The key that is hashed.
    pub key: Option<RequestKey>,
    /// Which failures are retried.
    pub retry: Retry,
    /// How clients are kept on their targets.
    pub sticky: Option<Sticky>,
    /// The upstream that takes the requests for which this one has no target.
    pub backup: Option<Arc<Self>>,
    /// Its metrics; see [`Upstream::metrics`].
    pub metrics: OnceLock<Arc<UpstreamMetrics>>,
}

impl Upstream {
    /// Returns the metrics. They are created on first use, so that a configuration that never serves leaves none.
    pub fn metrics(&self) -> &UpstreamMetrics {
        self.metrics.get_or_init(|| METRICS.upstream(&self.name))
    }

    /// Counts requests to a target and the bytes that were sent to it and received from it, if its traffic is counted
    /// by zones.
    pub fn count_traffic(&self, member: &Member, requests: u64, bytes: [u64; 2]) {
        if let Some(zone) = &member.zone {
            zone.traffic(self.metrics()).count(requests, bytes);
        }
    }

    /// Counts a connection to one of the targets; `took` is the time that a new one took.
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

/// Which failures are retried.
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
    /// The statuses that are retried.
    pub statuses: Option<Statuses>,
    /// The gRPC statuses that are retried.
    pub grpc_statuses: Vec<u32>,
    /// The longest time that one try may take to the response's head.
    pub per_try: Option<Duration>,
    /// The base of the pauses, in nanoseconds.
    pub backoff: u64,
    /// The longest pause, in nanoseconds.
    pub backoff_max: u64,
    /// When the request is sent to a second target beside the first.
    pub hedge_after: Option<Duration>,
}

impl Retry {
    /// Returns whether these retries apply to a response.
    pub fn is_for(&self, response: &http::response::Parts) -> bool {
        let status = self.statuses.as_ref().is_some_and(|s| s.contains(response.status.as_u16()));
        let grpc = || {
            let code = response.headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u32>().ok());
            code.is_some_and(|code| self.grpc_statuses.contains(&code))
        };
        status || (!self.grpc_statuses.is_empty() && grpc())
    }
}
