//! The state of a session, and what is counted and logged of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::prelude::SessionClient;
use super::pump::PumpCounts;
use crate::edge::listeners::ListenerState;
use crate::exchange::{Reason, address_text};
use crate::snapshot::{StreamRule, WorkerServing};
use crate::telemetry::SessionRecord;
use crate::telemetry::metrics::StreamMetrics;
use crate::upstreams::Visit;

/// How a session has ended.
#[derive(Debug)]
pub struct SessionEnd {
    /// The reason.
    pub reason: Reason,
    /// A detail beyond it.
    pub detail: Option<String>,
}

impl From<Reason> for SessionEnd {
    fn from(reason: Reason) -> Self {
        Self { reason, detail: None }
    }
}

/// One session. It is counted as open for as long as it lives.
pub struct Session {
    /// Its listener.
    pub listener_state: Arc<ListenerState>,
    /// The client.
    pub about: SessionClient,
    /// The rule; `None` where none matches.
    pub rule: Option<Arc<StreamRule>>,
    /// The metrics of the rule.
    pub metrics: Option<Arc<StreamMetrics>>,
    /// Its dealings with the upstream.
    pub visit: Option<Visit>,
    /// How long the connection to the target took.
    pub connected: Option<Duration>,
    /// The bytes that were carried.
    pub counts: Arc<PumpCounts>,
    /// When it has begun.
    pub begun: Instant,
}

impl Session {
    /// Returns a session that begins.
    pub fn new(
        listener_state: Arc<ListenerState>,
        about: SessionClient,
        rule: Option<Arc<StreamRule>>,
        metrics: Option<Arc<StreamMetrics>>,
    ) -> Self {
        metrics.iter().for_each(|metrics| metrics.open.inc());
        Self {
            listener_state,
            about,
            rule,
            counts: Arc::default(),
            metrics,
            visit: None,
            connected: None,
            begun: Instant::now(),
        }
    }

    /// Returns how long it has lived.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Counts and logs the session, which has ended.
    pub fn finish(self, end: &SessionEnd, serving: &WorkerServing) {
        let duration = self.age();
        self.metrics.iter().for_each(|metrics| metrics.observe(end.reason, duration.as_secs_f64()));
        self.visit.iter().for_each(|visit| visit.count_traffic([self.counts.received(), self.counts.sent()]));
        if serving.access_log.is_off() {
            return;
        }
        let client = address_text(self.about.address.ip());
        let tls = self.about.tls.as_ref();
        let visit = self.visit.as_ref();
        let (alpn, id) = (self.about.offered(), self.about.id());
        let record = SessionRecord {
            time: SystemTime::now(),
            client: client.as_bytes(),
            protocol: "TCP",
            tls: tls.map(|tls| tls.version),
            server_name: tls.and_then(|tls| tls.server_name.as_deref()).or(self.about.requested.server_name.as_deref()),
            alpn: alpn.as_deref(),
            id: id.as_deref(),
            reason: end.reason,
            detail: end.detail.as_deref(),
            listener: &self.listener_state.name.load(),
            stream: self.rule.as_ref().map(|rule| rule.name.as_str()),
            upstream: visit.map(|visit| visit.upstream().name.as_str()),
            target: visit.and_then(Visit::member).map(|member| member.target.label.as_str()),
            duration,
            connect_time: self.connected,
            tries: visit.map_or(0, Visit::tries),
            bytes_in: self.counts.received(),
            bytes_out: self.counts.sent(),
            datagrams: None,
        };
        serving.access_log.push_session(&record, &serving.snapshot.log.1);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.metrics.iter().for_each(|metrics| metrics.open.dec());
    }
}
