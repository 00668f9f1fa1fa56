//! The rules of layer 4, as they serve.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::rules::balance::{Balancer, NoLoads, PickInput};
use crate::rules::routing::{StreamFacts, StreamTable};
use crate::telemetry::metrics::{METRICS, StreamMetrics};
use crate::upstreams::Upstream;

/// A rule of layer 4. A connection keeps its rule over reloads.
#[derive(Debug)]
pub struct StreamRule {
    /// The name.
    pub name: String,
    /// What happens to TLS; `None` is as the listener.
    pub tls: Option<StreamTls>,
    /// The application protocols that it is for; empty is any.
    pub protocols: Vec<Vec<u8>>,
    /// Where it goes; `None` is nowhere: it is closed.
    pub forward: Option<StreamForward>,
    /// The times of a connection.
    pub times: StreamTimes,
    /// The most bytes in a second from a client, and to it.
    pub rate: [Option<u64>; 2],
    /// The rules for datagrams.
    pub datagrams: DatagramRules,
}

impl StreamRule {
    /// Returns the application protocol to accept in TLS that ends here (ALPN, RFC 7301), of those that a client
    /// offers: the first that the rule is for. A rule for any accepts the only one of a client, since that client
    /// speaks nothing else.
    pub fn protocol<'p>(&self, offered: &'p [Vec<u8>]) -> Option<&'p [u8]> {
        match (self.protocols.as_slice(), offered) {
            ([], [only]) => Some(only),
            ([], _) => None,
            (own, offered) => offered.iter().find(|protocol| own.contains(protocol)).map(Vec::as_slice),
        }
    }
}

impl StreamRule {
    /// Returns the upstream of that name, which is one of the rule's or a backup of one.
    pub fn upstream(&self, name: &str) -> Option<&Arc<Upstream>> {
        let with_backups =
            |upstream| std::iter::successors(Some(upstream), |upstream: &&Arc<Upstream>| upstream.backup.as_ref());
        self.forward.as_ref()?.upstreams.iter().flat_map(with_backups).find(|upstream| upstream.name == name)
    }
}

/// What happens to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamTls {
    /// It goes on to the target as it came.
    Pass,
    /// It ends here.
    Terminate,
}

/// The upstreams of a rule.
pub struct StreamForward {
    /// The upstreams; at least one.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The choice among them by weight; `None` where there is only one.
    pub shares: Option<Box<dyn Balancer>>,
}

impl std::fmt::Debug for StreamForward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        f.debug_struct("StreamForward").field("upstreams", &names).finish_non_exhaustive()
    }
}

impl StreamForward {
    /// Returns the upstream of the next connection.
    pub fn choose(&self) -> Option<&Arc<Upstream>> {
        let input = PickInput { key: None, random: fastrand::u64(..), loads: &NoLoads, tried: &[] };
        let place = self.shares.as_ref().map_or(Some(0), |shares| shares.pick(&input))?;
        self.upstreams.get(place)
    }
}

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub struct StreamTimes {
    /// How long it may be silent; `None` is the usual time.
    pub idle: Option<Duration>,
    /// How long one direction may be silent once the other has ended.
    pub half_closed: Option<Duration>,
    /// How long it lives at most.
    pub total: Option<Duration>,
}

/// The rules for datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub struct DatagramRules {
    /// The datagrams of a client after which its flow ends.
    pub requests: Option<u32>,
    /// The datagrams of the target after which a flow ends.
    pub responses: Option<u32>,
    /// Whether each datagram is balanced by itself.
    pub per_datagram: bool,
    /// The most bytes to a client for each from it, until it has sent another datagram after a response.
    pub amplification: Option<u32>,
    /// Whether a flow goes on to a target that is no longer healthy.
    pub keep_unhealthy: bool,
}

/// The rules of a listener.
#[derive(Debug, Default)]
pub struct Streams {
    /// The choice among them.
    pub table: StreamTable,
    /// The rules.
    pub rules: Vec<Arc<StreamRule>>,
    /// The metrics of each rule on the listener, once they are needed.
    metrics: Box<[OnceLock<Arc<StreamMetrics>>]>,
}

impl Streams {
    /// Returns the rules of a listener with the choice among them.
    pub fn new(table: StreamTable, rules: Vec<Arc<StreamRule>>) -> Self {
        let metrics = rules.iter().map(|_| OnceLock::new()).collect();
        Self { table, rules, metrics }
    }

    /// Returns the names of the rules, each with the number of its open sessions.
    pub fn open_sessions(&self) -> impl Iterator<Item = (&str, i64)> {
        let open = |metrics: &OnceLock<Arc<StreamMetrics>>| metrics.get().map_or(0, |metrics| metrics.open.get());
        self.rules.iter().zip(&self.metrics).map(move |(rule, metrics)| (rule.name.as_str(), open(metrics)))
    }

    /// Returns the metrics of the rule at a place on a listener of that name. They are created on first use, so that a
    /// configuration that never serves leaves none.
    pub fn metrics(&self, place: usize, listener: &str) -> Option<&Arc<StreamMetrics>> {
        let (rule, metrics) = (self.rules.get(place)?, self.metrics.get(place)?);
        Some(metrics.get_or_init(|| METRICS.stream(listener, &rule.name)))
    }

    /// Returns the rule for a connection or a datagram.
    pub fn find(&self, facts: &StreamFacts<'_>) -> Option<&Arc<StreamRule>> {
        self.rules.get(self.table.find(facts)?)
    }
}
