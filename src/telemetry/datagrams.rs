//! What is counted of listeners for datagrams.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::MetricFamily;

use super::catalogue::{DATAGRAMS, DATAGRAMS_DROPPED};
use super::cells::Cells;
use super::family::Series;

/// Defines [`DatagramDrop`] with a word for each variant.
macro_rules! drops {
    ($($(#[$doc:meta])* $variant:ident = $word:literal,)*) => {
        /// The reason for which a datagram was dropped.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DatagramDrop {
            $($(#[$doc])* $variant,)*
        }

        /// The label of each, in their order.
        const DROPS: &[&str] = &[$($word,)*];
    };
}

drops! {
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

/// The metrics of one listener. Its service finds them by reference.
#[derive(Debug, Default)]
pub struct DatagramMetrics {
    /// Datagrams from clients, and to clients.
    passed: Cells<2>,
    dropped: Cells<{ DROPS.len() }>,
}

impl DatagramMetrics {
    /// Counts datagrams from a client.
    pub fn count_in(&self, count: u64) {
        self.passed.add(0, count);
    }

    /// Counts datagrams to a client.
    pub fn count_out(&self, count: u64) {
        self.passed.add(1, count);
    }

    /// Counts datagrams that were dropped.
    pub fn count_dropped(&self, reason: DatagramDrop, count: u64) {
        self.dropped.add(reason as usize, count);
    }
}

/// Returns the families of listeners for datagrams.
pub fn of_datagrams(listeners: &BTreeMap<String, Arc<DatagramMetrics>>) -> [MetricFamily; 2] {
    let (mut datagrams, mut dropped) = (Series::of(&DATAGRAMS), Series::of(&DATAGRAMS_DROPPED));
    for (name, listener) in listeners {
        let passed = ["in", "out"].into_iter().zip(listener.passed.sums());
        passed.for_each(|(direction, count)| datagrams.add(&[direction, name], count as f64));
        let counted = DROPS.iter().zip(listener.dropped.sums()).filter(|(_, count)| *count > 0);
        counted.for_each(|(reason, count)| dropped.add(&[name, reason], count as f64));
    }
    [datagrams, dropped].map(Series::family)
}
