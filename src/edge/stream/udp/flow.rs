//! What a flow consists of: its client, its rule, and its sockets to targets.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use smallvec::SmallVec;

use super::sockets::TargetSocket;
use crate::edge::listeners::DrainGuard;
use crate::exchange::{ProxyFacts, Reason, clock};
use crate::rules::datagrams::{FlowKey, FlowTerms};
use crate::rules::protocols::HeaderTransport;
use crate::snapshot::StreamRule;
use crate::telemetry::DatagramDrop;
use crate::telemetry::metrics::StreamMetrics;
use crate::upstreams::{Caller, Class, Pool, ProxiedClient, Upstream, Visit};

/// The idle time of a flow where the rule has none.
const IDLE_TIME: u64 = 30_000_000_000;

/// The most sockets of a flow whose datagrams are balanced one by one.
const MAX_LEGS: usize = 32;

/// The longest first datagram that is kept until there is a response, so that it can go to another target.
const MAX_KEPT: usize = 1_472;

/// The client of a flow.
#[derive(Debug)]
pub struct Origin {
    /// Its address, as a trusted PROXY header says.
    pub client: SocketAddr,
    /// The address that it sends to.
    pub destination: SocketAddr,
    /// What such a header said besides.
    pub proxy: Option<ProxyFacts>,
}

impl Origin {
    /// Returns the header that a target expects before the payload of each datagram; empty where it expects none.
    fn header(&self, visit: &Visit) -> Box<[u8]> {
        let Some(shape) = visit.member().and_then(|member| member.proxy.as_ref()) else { return Box::default() };
        let client = ProxiedClient {
            source: self.client,
            destination: Some(self.destination),
            tls: None,
            proxy: self.proxy.as_ref(),
            authority: None,
            alpn: None,
            id: None,
        };
        shape.header(Some(&client), HeaderTransport::Datagram).into()
    }
}

/// The way of a flow to one target. The flow is counted on the target, and at the gate of the upstream, while it lives.
pub struct Leg {
    /// The visit to the upstream.
    pub visit: Visit,
    /// The target.
    pub target: SocketAddr,
    /// The socket.
    pub socket: TargetSocket,
    /// The PROXY header of each datagram.
    pub header: Box<[u8]>,
    /// Whether the target has sent anything.
    pub has_responded: bool,
    /// The number of the arrangement of targets with which the target was found usable.
    pub version: u64,
}

/// Returns the next target of a visit.
///
/// # Errors
/// Returns why there is none.
pub fn pick(visit: &mut Visit, client: IpAddr) -> Result<SocketAddr, DatagramDrop> {
    let caller = Caller { address: Some(client), ..Caller::default() };
    match visit.try_next(&caller, Instant::now()) {
        Some(Ok(())) => visit.address().ok_or(DatagramDrop::NoTarget),
        Some(Err(rejection)) if matches!(rejection.reason, Reason::Overloaded | Reason::BreakerOpen) => {
            Err(DatagramDrop::Overloaded)
        }
        Some(Err(_)) => Err(DatagramDrop::NoTarget),
        // It would have to wait.
        None => Err(DatagramDrop::Overloaded),
    }
}

impl Leg {
    /// Opens a way to the target that the visit has picked, or to another one.
    ///
    /// # Errors
    /// Returns why there is none.
    pub fn open(mut visit: Visit, mut target: SocketAddr, origin: &Origin) -> Result<Self, DatagramDrop> {
        loop {
            match TargetSocket::connect(target, visit.member().and_then(|member| member.socket.bind)) {
                Ok(socket) => {
                    visit.note_connection(false);
                    let version = visit.upstream().pool.version();
                    let header = origin.header(&visit);
                    return Ok(Self { visit, target, socket, header, has_responded: false, version });
                }
                Err(None) => {
                    visit.end();
                    return Err(DatagramDrop::Exhausted);
                }
                Err(Some(_)) if visit.note_no_connection(Instant::now()) => {
                    target = pick(&mut visit, origin.client.ip())?;
                }
                Err(Some(_)) => return Err(DatagramDrop::NoTarget),
            }
        }
    }

    /// Begins a visit to an upstream, and opens a way to its first target.
    ///
    /// # Errors
    /// Returns why there is none.
    pub fn begin(upstream: &Arc<Upstream>, origin: &Origin) -> Result<Self, DatagramDrop> {
        let mut visit = Visit::new(Arc::clone(upstream), Class::Normal, None);
        let target = pick(&mut visit, origin.client.ip())?;
        Self::open(visit, target, origin)
    }
}

/// A flow.
pub struct ClientFlow {
    /// The client.
    pub origin: Origin,
    /// Where responses are sent: the client, or the load balancer in front of it.
    pub peer: SocketAddr,
    /// The local address that responses leave from, in the form of the socket's family.
    pub local: IpAddr,
    /// The rule.
    pub rule: Arc<StreamRule>,
    /// The metrics of the rule.
    pub metrics: Arc<StreamMetrics>,
    /// The upstream and the target that it had last.
    pub last: (Arc<Upstream>, SocketAddr),
    /// The number of targets that were tried.
    pub tries: u32,
    /// The targets that it may have, those of the present configuration.
    pub pool: Arc<Pool>,
    /// The ways to its targets: one, unless each datagram is balanced by itself.
    pub legs: SmallVec<[Leg; 1]>,
    /// The first datagram, until there is a response or a second one.
    pub first: Option<Box<[u8]>>,
    /// Counts it among what is active.
    pub _active: DrainGuard,
}

impl ClientFlow {
    /// Returns the flow of a first datagram.
    pub fn new(
        origin: Origin,
        (peer, local): (SocketAddr, IpAddr),
        (rule, metrics): (&Arc<StreamRule>, &Arc<StreamMetrics>),
        leg: Leg,
        bytes: &[u8],
        active: DrainGuard,
    ) -> Box<Self> {
        let is_kept = bytes.len() <= MAX_KEPT && !rule.datagrams.per_datagram;
        metrics.open.inc();
        Box::new(Self {
            origin,
            peer,
            local,
            rule: Arc::clone(rule),
            metrics: Arc::clone(metrics),
            last: (Arc::clone(leg.visit.upstream()), leg.target),
            tries: leg.visit.tries(),
            pool: Arc::clone(&leg.visit.upstream().pool),
            legs: SmallVec::from_iter([leg]),
            first: is_kept.then(|| bytes.into()),
            _active: active,
        })
    }

    /// Adds a way to a target. Returns its place.
    pub fn add(&mut self, leg: Leg) -> usize {
        self.last = (Arc::clone(leg.visit.upstream()), leg.target);
        self.tries = leg.visit.tries();
        self.legs.push(leg);
        self.legs.len() - 1
    }

    /// Returns whether it may have another leg.
    pub fn has_room(&self) -> bool {
        self.legs.len() < MAX_LEGS
    }

    /// Returns whether it may go on to its target, which is checked when anything has changed about the targets.
    pub fn keeps_target(&mut self) -> bool {
        let version = self.pool.version();
        // Datagrams that are balanced one by one go to healthy targets anyway.
        let is_free = self.rule.datagrams.keep_unhealthy || self.rule.datagrams.per_datagram;
        match self.legs.first_mut() {
            Some(leg) if leg.version != version && !is_free => {
                leg.version = version;
                self.pool.keeps(leg.target)
            }
            _ => true,
        }
    }
}

/// Returns the limits of a flow of a rule.
pub fn terms_of(rule: &StreamRule) -> FlowTerms {
    FlowTerms {
        idle: rule.times.idle.map_or(IDLE_TIME, clock::nanos),
        total: rule.times.total.map_or(0, clock::nanos),
        requests: rule.datagrams.requests.unwrap_or(0),
        responses: rule.datagrams.responses.unwrap_or(0),
        amplification: rule.datagrams.amplification.unwrap_or(0),
    }
}

/// Returns the identity of a flow: addresses of IPv4 are the same in either form.
pub fn key_of(client: SocketAddr, local: IpAddr, named_by: Option<IpAddr>) -> FlowKey {
    let ip = client.ip().to_canonical();
    let client = if ip.is_ipv4() { SocketAddr::new(ip, client.port()) } else { client };
    FlowKey { client, local: local.to_canonical(), named_by }
}
