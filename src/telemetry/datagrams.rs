//! What is counted of listeners for datagrams.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::catalogue::{DATAGRAM_BYTES, DATAGRAMS, DATAGRAMS_DROPPED, FLOWS_ACTIVE, FLOWS_ENDED};
use super::cells::{ActiveCount, Cells};
use super::family::Series;

/// Defines an enumeration with a word for each variant.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Every variant in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns the word for it in logs and metrics.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

words! {
    /// The reason for which a datagram was dropped.
    DatagramDrop {
        /// No rule is for its client, or the rule drops it.
        Closed = "closed",
        /// There are as many flows as there may be.
        Flows = "flows",
        /// The client has as many flows as it may have.
        ClientFlows = "client_flows",
        /// Too many flows have begun within a short time.
        NewFlows = "new_flows",
        /// Too many datagrams have come within a short time.
        Rate = "rate",
        /// It has no PROXY header where it must have one, or a malformed one.
        ProxyHeader = "proxy_header",
        /// No target is healthy, or none could be used.
        NoTarget = "no_target",
        /// The upstream, or every target, has as much as it may have, or its breaker is open.
        Overloaded = "overloaded",
        /// No file descriptor or port is left for another flow.
        Exhausted = "exhausted",
        /// The target's socket takes no more at the moment.
        TargetFull = "target_full",
        /// The listener's socket takes no more at the moment, or cannot reach the client.
        ClientFull = "client_full",
        /// It is larger than the way to its destination permits.
        TooLarge = "too_large",
        /// The client's address is not proven, and was sent as much as it may be.
        Amplification = "amplification",
        /// The receive buffer of the listener's socket was full.
        ReceiveBuffer = "receive_buffer",
        /// The listener ends, and it is of no present flow.
        Draining = "draining",
    }
}

words! {
    /// The reason for which a flow ended.
    FlowEnd {
        /// No datagram has come for its idle time.
        Idle = "idle",
        /// Every response has come.
        Complete = "complete",
        /// It has lived for as long as it may.
        TotalTime = "total_time",
        /// No response has come where one was awaited.
        NoResponse = "no_response",
        /// The target refused its datagrams.
        TargetRefused = "target_refused",
        /// The target is no longer healthy, or no longer a target.
        TargetUnhealthy = "target_unhealthy",
        /// A reload has removed its rule, or another one is for its client now.
        RuleRemoved = "rule_removed",
        /// A reload has removed its listener.
        ListenerRemoved = "listener_removed",
        /// The process ended.
        Cut = "cut",
    }
}

/// The metrics of one listener. Its flows find them by reference.
#[derive(Debug, Default)]
pub struct DatagramMetrics {
    /// Datagrams and bytes from clients, then those to clients.
    passed: Cells<4>,
    dropped: Cells<{ DatagramDrop::ALL.len() }>,
    ended: Cells<{ FlowEnd::ALL.len() }>,
    /// The number of flows.
    pub flows: ActiveCount,
}

impl DatagramMetrics {
    /// Counts a datagram from a client.
    pub fn count_in(&self, bytes: usize) {
        self.passed.add_all([(0, 1), (1, bytes as u64)]);
    }

    /// Counts a datagram to a client.
    pub fn count_out(&self, bytes: usize) {
        self.passed.add_all([(2, 1), (3, bytes as u64)]);
    }

    /// Counts datagrams that were dropped.
    pub fn count_dropped(&self, reason: DatagramDrop, count: u64) {
        self.dropped.add(reason as usize, count);
    }

    /// Counts the end of a flow.
    pub fn count_end(&self, reason: FlowEnd) {
        self.ended.add(reason as usize, 1);
        self.flows.dec();
    }
}

/// Returns the families of listeners for datagrams.
pub fn of_datagrams(listeners: &BTreeMap<String, Arc<DatagramMetrics>>) -> [MetricFamily; 5] {
    let (mut datagrams, mut bytes) = (Series::of(&DATAGRAMS), Series::of(&DATAGRAM_BYTES));
    let (mut dropped, mut ended) = (Series::of(&DATAGRAMS_DROPPED), Series::of(&FLOWS_ENDED));
    let mut active = Series::of(&FLOWS_ACTIVE);
    for (name, listener) in listeners {
        let [datagrams_in, bytes_in, datagrams_out, bytes_out] = listener.passed.sums();
        datagrams.add(&["in", name], datagrams_in as f64);
        datagrams.add(&["out", name], datagrams_out as f64);
        bytes.add(&["in", name], bytes_in as f64);
        bytes.add(&["out", name], bytes_out as f64);
        let counted = DatagramDrop::ALL.iter().zip(listener.dropped.sums()).filter(|(_, count)| *count > 0);
        counted.for_each(|(reason, count)| dropped.add(&[name, reason.word()], count as f64));
        let counted = FlowEnd::ALL.iter().zip(listener.ended.sums()).filter(|(_, count)| *count > 0);
        counted.for_each(|(reason, count)| ended.add(&[name, reason.word()], count as f64));
        active.add(&[name], listener.flows.get() as f64);
    }
    [datagrams, bytes, dropped, ended, active].map(Series::family)
}
