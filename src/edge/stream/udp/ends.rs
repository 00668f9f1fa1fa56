//! The ends of flows, and what a reload changes about them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::UdpServer;
use super::flow::{ClientFlow, terms_of};
use crate::exchange::{Reason, address_text, clock};
use crate::rules::datagrams::{Flow, FlowId};
use crate::rules::routing::StreamFacts;
use crate::snapshot::{Streams, UdpListener};
use crate::telemetry::SessionRecord;
use crate::telemetry::metrics::METRICS;

/// The idle time, in nanoseconds, of the flows of a listener that ends.
const ENDING_IDLE_TIME: u64 = 3_000_000_000;

impl UdpServer {
    /// Ends a flow.
    pub(super) fn end_flow(&mut self, id: FlowId, reason: Reason) {
        let Some(mut flow) = self.table.end(id) else { return };
        let now = clock::now();
        // One whose datagrams are balanced one by one is counted on one of its targets.
        if let Some(leg) = flow.owned.legs.first() {
            leg.visit.count_traffic([flow.counts.bytes_in, flow.counts.bytes_out]);
        }
        for mut leg in std::mem::take(&mut flow.owned.legs) {
            self.sockets.remove(&leg.socket);
            // Silence says nothing about a target: any client, with any source address, can send what it discards.
            leg.visit.end();
            self.retired.add(leg.socket, now);
        }
        let duration = Duration::from_nanos(now.saturating_sub(flow.counts.begun));
        flow.owned.metrics.observe(reason, duration.as_secs_f64());
        flow.owned.metrics.open.dec();
        self.log(&flow, reason, duration);
    }

    fn log(&self, flow: &Flow<Box<ClientFlow>>, reason: Reason, duration: Duration) {
        let serving = self.serving.for_worker();
        if serving.access_log.is_off() {
            return;
        }
        let client = address_text(flow.key.client.ip());
        let (upstream, target) = &flow.owned.last;
        let record = SessionRecord {
            time: SystemTime::now(),
            client: client.as_bytes(),
            protocol: "UDP",
            tls: None,
            server_name: None,
            alpn: None,
            id: None,
            reason,
            detail: None,
            listener: &self.listener_state.name.load(),
            stream: Some(&flow.owned.rule.name),
            upstream: Some(&upstream.name),
            target: Some(&target.to_string()),
            duration,
            connect_time: None,
            tries: flow.owned.tries,
            bytes_in: flow.counts.bytes_in,
            bytes_out: flow.counts.bytes_out,
            datagrams: Some([flow.counts.datagrams_in, flow.counts.datagrams_out]),
        };
        serving.access_log.push_session(&record, &serving.snapshot.log.1);
    }

    /// Ends a flow whose time is over.
    pub(super) fn end_by_time(&mut self, id: FlowId, now: u64) {
        let Some(flow) = self.table.get(id) else { return };
        let is_unanswered = flow.terms.responses > 0 && flow.owned.legs.iter().all(|leg| !leg.has_responded);
        let is_idle = now.saturating_sub(flow.counts.last) >= flow.terms.idle;
        let reason = match (is_unanswered, is_idle) {
            (true, _) => Reason::TargetTimeout,
            (false, true) => Reason::IdleTimeout,
            (false, false) => Reason::TotalTimeout,
        };
        self.end_flow(id, reason);
    }

    /// Ends the flows whose time is over, after a look at so many at most.
    pub(super) fn end_over(&mut self, now: u64, mut most: usize) {
        while let Some(id) = self.table.next_over(now, &mut most) {
            self.end_by_time(id, now);
        }
    }

    /// Ends flows that have been quiet for a moment, since the listener ends.
    pub(super) fn end_quiet(&mut self, now: u64) {
        let is_quiet = |flow: &Flow<Box<ClientFlow>>| now.saturating_sub(flow.counts.last) >= ENDING_IDLE_TIME;
        let quiet: Vec<FlowId> = self.table.ids().filter(|id| self.table.get(*id).is_some_and(is_quiet)).collect();
        quiet.into_iter().for_each(|id| self.end_flow(id, Reason::IdleTimeout));
    }

    /// Ends all flows.
    pub(super) fn end_all(&mut self, reason: Reason) {
        let all: Vec<FlowId> = self.table.ids().collect();
        all.into_iter().for_each(|id| self.end_flow(id, reason));
    }

    /// Applies the settings of a new configuration. A flow goes on if its client has the same rule as before, by its
    /// name, and the target is still one.
    pub(super) fn apply_settings(&mut self, settings: Arc<UdpListener>) {
        self.settings = settings;
        self.table.set_limits(self.settings.limits.flows);
        self.metrics = METRICS.datagrams(&self.listener_state.name.load());
        let streams = Arc::clone(&self.settings.streams);
        let all: Vec<FlowId> = self.table.ids().collect();
        for id in all {
            let Some(flow) = self.table.get_mut(id) else { continue };
            if !rebind(flow, &streams) {
                self.end_flow(id, Reason::RuleRemoved);
            } else if !flow.owned.keeps_target() {
                self.end_flow(id, Reason::TargetUnhealthy);
            }
        }
    }
}

/// Gives a flow the present form of its rule. Returns whether it has one.
fn rebind(flow: &mut Flow<Box<ClientFlow>>, streams: &Streams) -> bool {
    let facts = StreamFacts { client: flow.key.client.ip(), server_name: None, alpn: &[] };
    let before = &flow.owned.rule;
    let Some(rule) = streams.find(&facts).filter(|rule| rule.name == before.name) else { return false };
    if rule.datagrams.per_datagram != before.datagrams.per_datagram {
        return false;
    }
    for leg in &mut flow.owned.legs {
        let Some(upstream) = rule.upstream(&leg.visit.upstream().name) else { return false };
        flow.owned.pool = Arc::clone(&upstream.pool);
        // It is checked anew.
        leg.version = u64::MAX;
    }
    flow.owned.rule = Arc::clone(rule);
    flow.terms = terms_of(rule);
    true
}
