//! An upstream at work: its members, the healthy ones among them, and the pick.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::lb::{Backend, Backends};
use pingora::upstreams::peer::HttpPeer;

use super::discovery::Names;
use super::health::Thresholds;
use super::probe::Probe;
use super::target::{InFlight, Target, TargetSpec};
use crate::notation::Statuses;
use crate::rules::balance::{Algorithm, Ask, Balance, Loads};

/// All that makes a pool what it is. Two configurations that ask for the same shape share the pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PoolShape {
    /// The upstream's name.
    pub name: String,
    /// How a target is picked.
    pub algorithm: Algorithm,
    /// The targets.
    pub targets: Vec<TargetSpec>,
    /// How they are spoken to.
    pub transport: Transport,
    /// How they are probed.
    pub probe: Option<ActiveProbe>,
    /// Time between two look-ups of host names.
    pub resolve_interval: Duration,
}

/// How targets are spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transport {
    /// The least and the greatest major version of HTTP.
    pub versions: (u8, u8),
    /// TLS, if any.
    pub tls: Option<TransportTls>,
    /// To connect, TLS included.
    pub connect: Duration,
    /// Between two reads.
    pub read: Duration,
    /// For one write.
    pub write: Duration,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// TLS towards targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TransportTls {
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The name to ask for and verify instead of the target's own.
    pub name: Option<String>,
    /// Authorities instead of the system's.
    pub ca: Option<crate::tls::PeerAuthorities>,
}

/// An active probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ActiveProbe {
    /// What is sent.
    pub kind: ProbeKind,
    /// Time between two probes.
    pub interval: Duration,
    /// The longest that one may take.
    pub timeout: Duration,
    /// Results in a row that count.
    pub thresholds: Thresholds,
}

/// What a probe sends and wants.
#[derive(Clone, Debug)]
pub enum ProbeKind {
    /// A connection.
    Tcp,
    /// A request.
    Http {
        /// The path to `GET`.
        path: String,
        /// `Host`, instead of the target's own.
        host: Option<String>,
        /// Further headers.
        headers: Vec<(http::HeaderName, http::HeaderValue)>,
        /// The statuses of health.
        status: Statuses,
        /// A header that has to be there.
        expect_header: Option<http::HeaderName>,
    },
}

impl ProbeKind {
    fn key(&self) -> String {
        format!("{self:?}")
    }
}

impl PartialEq for ProbeKind {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ProbeKind {}

impl std::hash::Hash for ProbeKind {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Transport {
    /// Gives a peer the settings of this transport; `host` is the target's configured name.
    pub fn apply(&self, mut peer: HttpPeer, host: &str) -> HttpPeer {
        if let Some(tls) = &self.tls {
            peer.scheme = pingora::upstreams::peer::Scheme::HTTPS;
            // Never empty: Pingora takes an empty name to mean that nothing is to be verified.
            peer.sni = tls.name.clone().unwrap_or_else(|| host.to_owned());
            peer.options.verify_cert = tls.verify;
            peer.options.verify_hostname = tls.verify;
            peer.options.ca = tls.ca.as_ref().map(|ca| Arc::clone(&ca.certificates));
        }
        let (least, most) = self.versions;
        peer.options.set_http_version(most, least);
        peer.options.max_h2_streams = 100;
        // Upgrades have a tunnel of their own; Pingora's would lose some.
        peer.options.http_upstream_request_policy = pingora::upstreams::peer::HttpUpstreamRequestPolicy::deny_upgrades();
        peer.options.connection_timeout = Some(self.connect);
        peer.options.total_connection_timeout = Some(self.connect);
        peer.options.read_timeout = Some(self.read);
        peer.options.write_timeout = Some(self.write);
        peer.options.idle_timeout = Some(self.idle);
        // Pingora's own hash leaves out authorities and protocol, so that a connection made under
        // other terms could be reused; fixed seeds, since it has to be the same at every reload.
        peer.group_key = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one((&self.tls, self.versions));
        peer
    }
}

/// A target that may be picked, and how to reach it.
#[derive(Debug)]
pub struct Member {
    /// The target.
    pub target: Arc<Target>,
    /// `Host` for it when the route asks for the target's own.
    pub authority: http::HeaderValue,
    /// Its peer, to be cloned for a request.
    pub peer: HttpPeer,
}

/// The healthy targets at one time, and the algorithm over them.
pub struct Choice {
    /// The targets.
    pub members: Vec<Arc<Member>>,
    balance: Box<dyn Balance>,
    /// How many targets there are, healthy or not.
    pub total: usize,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choice").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Loads for Choice {
    fn active(&self, index: usize) -> u32 {
        self.members.get(index).map_or(u32::MAX, |m| m.target.active())
    }

    fn latency(&self, _index: usize) -> f64 {
        0.0
    }
}

/// The answer to a pick: the target, and the guard that counts the request on it.
#[derive(Debug)]
pub struct Picked {
    /// The target.
    pub member: Arc<Member>,
    /// The count.
    pub in_flight: InFlight,
}

/// The targets of a pool, by address.
#[derive(Debug)]
pub struct Members {
    shape: PoolShape,
    by_address: Mutex<HashMap<SocketAddr, (Arc<Target>, TargetSpec)>>,
    choice: ArcSwap<Choice>,
}

/// An upstream at work.
pub struct Pool {
    backends: Backends,
    members: Arc<Members>,
    /// Whether a snapshot that serves has it.
    wanted: AtomicBool,
    /// Whether someone looks after it.
    running: AtomicBool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("members", &self.members).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of that shape, which takes over the targets that `before` has too.
    pub fn new(shape: PoolShape, before: Option<&Self>) -> Arc<Self> {
        let known = before.map(|p| p.members.by_address.lock().clone()).unwrap_or_default();
        let mut backends = Backends::new(Box::new(Names::new(shape.targets.clone())));
        let empty = Choice { members: Vec::new(), balance: shape.algorithm.build(&[]), total: 0 };
        let members = Arc::new(Members { shape, by_address: Mutex::new(known), choice: ArcSwap::from_pointee(empty) });
        if let Some(active) = &members.shape.probe {
            let probe = Probe::new(active, &members.shape.transport, &members.shape.targets, Arc::downgrade(&members));
            backends.set_health_check(Box::new(probe));
        }
        Arc::new(Self { backends, members, wanted: AtomicBool::new(true), running: AtomicBool::new(false) })
    }

    /// Its shape.
    pub fn shape(&self) -> &PoolShape {
        &self.members.shape
    }

    /// The healthy targets at this moment.
    pub fn choice(&self) -> Arc<Choice> {
        self.members.choice.load_full()
    }

    /// Every target with its configured weight.
    pub fn targets(&self) -> Vec<(Arc<Target>, u32)> {
        let known = self.members.by_address.lock();
        let mut targets: Vec<_> = known.values().map(|(t, s)| (Arc::clone(t), s.weight)).collect();
        targets.sort_by_key(|(t, _)| t.address);
        targets
    }

    /// Picks a healthy target that is none of `tried`.
    pub fn pick(&self, key: Option<u64>, tried: &[SocketAddr]) -> Option<Picked> {
        let choice = self.members.choice.load();
        let tried: Vec<usize> = if tried.is_empty() {
            Vec::new()
        } else {
            let was = |m: &Arc<Member>| tried.contains(&m.target.address);
            choice.members.iter().enumerate().filter(|(_, m)| was(m)).map(|(i, _)| i).collect()
        };
        let ask = Ask { key, random: fastrand::u64(..), loads: &**choice, tried: &tried };
        let member = Arc::clone(choice.members.get(choice.balance.pick(&ask)?)?);
        let in_flight = member.target.begin();
        Some(Picked { member, in_flight })
    }

    /// It is wanted from now on. True if nobody looks after it: whoever asked is to do so.
    pub fn start(&self) -> bool {
        self.wanted.store(true, Ordering::Release);
        !self.running.swap(true, Ordering::AcqRel)
    }

    /// No snapshot that serves has it any more: its probes end, although requests may still hold it.
    /// A pool that took its targets over must not share their probes' results with it.
    pub fn retire(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    /// Looks at its targets' health anew.
    pub fn refresh(&self) {
        self.members.rebuild();
    }

    /// Looks names up and probes every target once, so that the first request meets known targets.
    pub async fn first_round(&self) {
        self.discover().await;
        if self.shape().probe.is_some() {
            self.backends.run_health_check(true).await;
        }
    }

    async fn discover(&self) {
        // Our discovery has no failing way: what cannot be resolved keeps its addresses.
        let _ = self.backends.update(|backends| self.members.replace(&backends)).await;
    }

    /// Keeps membership and health fresh until the pool is dropped.
    pub async fn keep_fresh(pool: Weak<Self>) {
        let Some(this) = pool.upgrade() else { return };
        let resolve = this.shape().resolve_interval;
        let probe = this.shape().probe.as_ref().map(|p| p.interval);
        drop(this);
        let mut last_resolve = tokio::time::Instant::now();
        loop {
            // A fifth of jitter, so that many gateways do not probe in step.
            let pause = probe.unwrap_or(resolve).min(resolve);
            tokio::time::sleep(pause.mul_f64(fastrand::f64().mul_add(0.2, 0.9))).await;
            let Some(this) = pool.upgrade() else { return };
            if !this.wanted.load(Ordering::Acquire) {
                return this.running.store(false, Ordering::Release);
            }
            if last_resolve.elapsed() >= resolve {
                last_resolve = tokio::time::Instant::now();
                this.discover().await;
            }
            if probe.is_some() {
                this.backends.run_health_check(true).await;
            }
        }
    }
}

impl Members {
    /// The target behind a backend.
    pub(super) fn target(&self, backend: &Backend) -> Option<Arc<Target>> {
        let address = backend.addr.as_inet()?;
        self.by_address.lock().get(address).map(|(target, _)| Arc::clone(target))
    }

    pub(super) fn health_changed(&self, target: &Target, failure: Option<&str>) {
        match failure {
            Some(why) => log::warn!("upstream {}: target {} is unhealthy: {why}", self.shape.name, target.label),
            None => log::info!("upstream {}: target {} is healthy", self.shape.name, target.label),
        }
        self.rebuild();
    }

    /// Takes a new membership: who stays keeps its health and its counters.
    fn replace(&self, backends: &std::collections::BTreeSet<Backend>) {
        let probed = self.shape.probe.is_some();
        let mut known = self.by_address.lock();
        let mut next = HashMap::new();
        for backend in backends {
            let (Some(address), Some(spec)) = (backend.addr.as_inet(), backend.ext.get::<TargetSpec>()) else { continue };
            let target = known.get(address).map_or_else(|| Arc::new(Target::new(*address, probed)), |(t, _)| Arc::clone(t));
            target.set_probed(probed);
            next.insert(*address, (target, spec.clone()));
        }
        *known = next;
        drop(known);
        self.rebuild();
    }

    /// Builds the choice anew from the targets that are healthy now.
    fn rebuild(&self) {
        let known = self.by_address.lock();
        let mut healthy: Vec<(&Arc<Target>, &TargetSpec)> = known.values().filter(|(t, _)| t.is_healthy()).map(|(t, s)| (t, s)).collect();
        healthy.sort_by_key(|(target, _)| target.address);
        let weights: Vec<u32> = healthy.iter().map(|(_, spec)| spec.weight).collect();
        let members = healthy.into_iter().map(|(target, spec)| Arc::new(self.member(target, spec))).collect();
        let choice = Choice { members, balance: self.shape.algorithm.build(&weights), total: known.len() };
        self.choice.store(Arc::new(choice));
    }

    fn member(&self, target: &Arc<Target>, spec: &TargetSpec) -> Member {
        let peer = HttpPeer::new(target.address, false, String::new());
        let authority = http::HeaderValue::try_from(spec.authority());
        Member {
            target: Arc::clone(target),
            authority: authority.unwrap_or_else(|_| http::HeaderValue::from_static("target")),
            peer: self.shape.transport.apply(peer, &spec.host),
        }
    }
}
