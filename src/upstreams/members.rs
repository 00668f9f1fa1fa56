//! The targets of an upstream, their state, and the pick.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::lb::Backend;
use pingora::upstreams::peer::HttpPeer;

use super::breaker::SharedBreaker;
use super::choice::{Choice, Member, MemberZone, PickContext};
use super::gate::Gate;
use super::probe::ProbeKind;
use super::saved_state::SavedTarget;
use super::shape::PoolShape;
use super::target::{Target, TargetOutcome, TargetSpec};
use super::watch::{Watch, WatchShape};
use crate::exchange::clock;
use crate::rules::resilience::{Admission, OutlierShape, RecentCount, Tally, may_eject, outliers};
use crate::telemetry::cells::{PerWorker, per_worker, slot};
use crate::telemetry::metrics::METRICS;

/// A target with its state in a pool.
#[derive(Debug)]
pub struct KnownTarget {
    /// The target.
    pub target: Arc<Target>,
    /// Its configuration or discovery result.
    pub spec: TargetSpec,
    /// Its active probe, if it has one.
    pub watch: Option<Arc<Watch>>,
    /// Its view for requests.
    pub member: Arc<Member>,
}

impl KnownTarget {
    /// Returns whether its probes, if there are any, say that it is healthy.
    fn is_up(&self) -> bool {
        self.watch.as_ref().is_none_or(|w| w.is_healthy())
    }

    /// Returns whether it is eligible, regardless of draining.
    pub fn is_eligible(&self) -> bool {
        self.is_up() && !self.target.is_ejected()
    }
}

/// The input of a pick for one try.
#[derive(Clone, Copy, Debug, Default)]
pub struct PickRequest<'w> {
    /// The hash key.
    pub key: Option<u64>,
    /// The tag of the request's session.
    pub session: Option<u128>,
    /// Targets that the request has tried.
    pub tried: &'w [SocketAddr],
}

/// The reason for which no target was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPick {
    /// No target is eligible, or none is left.
    NoTarget,
    /// A breaker is open, for that many nanoseconds.
    Open(u64),
    /// Every target has its maximum number of requests.
    Full,
}

/// An admission of a breaker, to be returned with the outcome.
type BreakerPass = (Arc<SharedBreaker>, Admission);

/// Asks a breaker, if there is one; fails with the nanoseconds for which it stays open.
fn ask_breaker(breaker: Option<&Arc<SharedBreaker>>) -> Result<Option<BreakerPass>, u64> {
    let Some(breaker) = breaker else { return Ok(None) };
    match breaker.admit() {
        Admission::Rejected(left) => Err(left),
        admission => Ok(Some((Arc::clone(breaker), admission))),
    }
}

/// A picked target, with the guards that count the request on it.
#[derive(Debug)]
pub struct Picked {
    /// The target.
    pub member: Arc<Member>,
    /// Admissions of the upstream's and the target's breakers, removed when the outcome is known.
    passes: [Option<BreakerPass>; 2],
    /// Whether the session's own target exists and only could not take this request.
    pub away: bool,
    /// Whether the request is counted on the target.
    counted: bool,
}

impl Picked {
    /// Ends the request on the target: it is no longer counted there.
    pub fn release(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.member.target.end();
        }
    }
}

impl Picked {
    /// Abandons the request: it is no longer counted, and its outcome, if none was recorded, is unknown.
    pub fn abandon(&mut self) {
        self.release();
        for (breaker, admission) in self.passes.iter_mut().filter_map(Option::take) {
            breaker.record(admission, None);
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// The targets of a pool, by address.
#[derive(Debug)]
pub struct PoolMembers {
    /// The configuration of the upstream.
    pub shape: PoolShape,
    /// All targets.
    pub by_address: Mutex<HashMap<SocketAddr, KnownTarget>>,
    /// The eligible targets, arranged for picks.
    pub choice: ArcSwap<Choice>,
    /// The admission gate.
    pub gate: Arc<Gate>,
    /// The upstream's breaker.
    pub breaker: Option<Arc<SharedBreaker>>,
    /// The number of requests, for the retry budget: each worker counts its own.
    requests: Box<[PerWorker<RecentCount>]>,
    /// The number of retries.
    retries: RecentCount,
    /// The state of a predecessor for targets that are not known yet.
    pub saved: Mutex<HashMap<SocketAddr, SavedTarget>>,
    /// The time of the last comparison of targets, on [`clock`].
    compared: AtomicU64,
    /// TLS towards the targets at layer 4, once it is needed, or why there can be none.
    pub stream_tls: OnceLock<Result<Arc<rustls::ClientConfig>, String>>,
}

impl PoolMembers {
    /// Returns the members for that shape, with the targets of `before`.
    pub fn new(shape: PoolShape, before: Option<&Self>) -> Self {
        let members = Self {
            by_address: Mutex::default(),
            choice: ArcSwap::from_pointee(Choice::default()),
            gate: match before {
                Some(before) if before.shape.gate == shape.gate => Arc::clone(&before.gate),
                _ => Gate::new(shape.gate),
            },
            breaker: shape.breaker.map(|shape| match before.and_then(|before| before.breaker.as_ref()) {
                Some(known) => known.reshaped(shape),
                None => Arc::new(SharedBreaker::new(shape)),
            }),
            requests: per_worker(RecentCount::default),
            retries: RecentCount::default(),
            saved: Mutex::default(),
            compared: AtomicU64::new(clock::now()),
            stream_tls: OnceLock::new(),
            shape,
        };
        if let Some(before) = before {
            // Not probed until discovery confirms them: only their state is taken over.
            let known = before.by_address.lock();
            let kept = known.iter().map(|(address, k)| (*address, members.known(&k.target, k.spec.clone(), None)));
            *members.by_address.lock() = kept.collect();
        }
        members
    }

    fn known(&self, target: &Arc<Target>, spec: TargetSpec, watch: Option<Arc<Watch>>) -> KnownTarget {
        let peer = HttpPeer::new(target.address, false, String::new());
        let authority = http::HeaderValue::try_from(spec.authority());
        let member = Member {
            target: Arc::clone(target),
            authority: authority.unwrap_or_else(|_| http::HeaderValue::from_static("target")),
            peer: self.shape.transport.apply(peer, &spec.host),
            tag: self.shape.sessions.as_ref().map_or(0, |key| key.tag(&target.label)),
            breaker: self.shape.target_breaker.map(|shape| target.breaker(shape)),
            draining: spec.draining,
            zone: MemberZone::new(spec.zone.as_deref(), self.shape.zone.as_deref()),
            proxy: self.shape.transport.proxy,
            socket: self.shape.transport.socket,
            opener: OnceLock::new(),
        };
        KnownTarget { target: Arc::clone(target), spec, watch, member: Arc::new(member) }
    }

    /// Picks a target, if possible that of the session.
    pub fn pick(&self, request: &PickRequest<'_>) -> Result<Picked, NoPick> {
        let admission = ask_breaker(self.breaker.as_ref()).map_err(NoPick::Open)?;
        let choice = self.choice.load();
        let mut why = NoPick::NoTarget;
        let mut take = |member: &Arc<Member>| self.take(member, &mut why);
        let home = request.session.and_then(|tag| choice.sessions.get(&tag));
        let bound = home.filter(|m| !request.tried.contains(&m.target.address));
        let context = PickContext {
            key: request.key,
            random: fastrand::u64(..),
            tried: request.tried,
            active: self.gate.active(),
        };
        let picked = bound.and_then(&mut take).or_else(|| choice.pick(&context, take));
        match (picked, admission) {
            (Some(mut picked), admission) => {
                picked.passes[0] = admission;
                // The session stays with a target that is only busy now, or failed this once.
                picked.away = home.is_some_and(|home| home.tag != picked.member.tag);
                Ok(picked)
            }
            (None, Some((breaker, admission))) => {
                breaker.record(admission, None);
                Err(why)
            }
            (None, None) => Err(why),
        }
    }

    /// Picks the target at that address, if it is known, without regard to its limits and its breaker.
    pub fn pick_known(&self, address: SocketAddr) -> Option<Picked> {
        let member = self.by_address.lock().get(&address).map(|known| Arc::clone(&known.member))?;
        member.target.begin();
        Some(Picked { member, passes: [None, None], away: false, counted: true })
    }

    /// Takes a target, unless it is full or its breaker is open.
    fn take(&self, member: &Arc<Member>, why: &mut NoPick) -> Option<Picked> {
        let cap = self.shape.gate.per_target;
        if cap > 0 && member.target.active() >= cap {
            *why = NoPick::Full;
            return None;
        }
        let pass = match ask_breaker(member.breaker.as_ref()) {
            Ok(pass) => pass,
            Err(left) => {
                *why = match *why {
                    NoPick::Open(other) => NoPick::Open(left.min(other)),
                    _ => NoPick::Open(left),
                };
                return None;
            }
        };
        member.target.begin();
        Some(Picked { member: Arc::clone(member), passes: [None, pass], away: false, counted: true })
    }

    /// Counts a request, for the retry budget.
    pub fn count_request(&self, now: u64) {
        self.requests[slot()].0.add(now);
    }

    /// Counts a retry, if the budget allows one.
    pub fn begin_retry(&self, now: u64) -> bool {
        let requests = self.requests.iter().map(|own| own.0.count(now)).sum();
        let allowed = self.shape.budget.allows(requests, self.retries.count(now));
        if allowed {
            self.retries.add(now);
        }
        allowed
    }

    /// Records the outcome of a try.
    pub fn report(&self, picked: &mut Picked, outcome: TargetOutcome, seconds: Option<f64>) {
        let target = &picked.member.target;
        if target.count(outcome) {
            // Without active health checks nothing else says so at the start.
            let (name, label, why) = (&self.shape.name, &target.label, outcome.word());
            log::warn!("upstream {name}: the first request to target {label} has failed: {why}");
        }
        for (breaker, admission) in picked.passes.iter_mut().filter_map(Option::take) {
            if breaker.record(admission, Some(outcome.is_good())) {
                log::warn!(
                    "upstream {}: a breaker is {}, after target {}",
                    self.shape.name,
                    breaker.phase(),
                    target.label
                );
            }
        }
        if let Some(seconds) = seconds {
            target.latency().observe(seconds, clock::now());
            self.gate.observe(seconds);
        }
        if let Some(shape) = &self.shape.outlier
            && let Some(why) = target.observe(outcome, shape)
        {
            self.eject(target, shape, why);
        }
    }

    fn eject(&self, target: &Target, shape: &OutlierShape, why: &'static str) {
        if target.is_ejected() {
            return;
        }
        let known = self.by_address.lock();
        let ejected = known.values().filter(|k| k.target.is_ejected()).count();
        if target.is_ejected() || !may_eject(known.len(), ejected, shape.max_percent) {
            return;
        }
        target.eject(shape, why);
        drop(known);
        log::warn!("upstream {}: target {} is ejected: {why}", self.shape.name, target.label);
        METRICS.ejected(&self.shape.name, why);
        self.rebuild();
    }

    /// Processes the result of a probe, and whether it changed the target's health.
    pub(super) fn probed(&self, address: SocketAddr, good: bool, changed: bool, failure: Option<&str>) {
        let answered = !matches!(self.shape.probe.as_ref().map(|probe| &probe.kind), Some(ProbeKind::Tcp));
        let target = self.by_address.lock().get(&address).map(|k| (Arc::clone(&k.target), k.is_up()));
        let Some((target, is_up)) = target else { return };
        if !is_up {
            target.note_down();
        }
        let returned = good && target.end_ejection(answered);
        if !changed && !returned {
            return;
        }
        match failure {
            Some(why) => log::warn!("upstream {}: target {} is unhealthy: {why}", self.shape.name, target.label),
            None => log::info!("upstream {}: target {} is healthy", self.shape.name, target.label),
        }
        // The first probe of a target that was never down says nothing about a start.
        if good && (target.take_down() || returned) {
            target.start_slowly();
        }
        self.rebuild();
    }

    /// Replaces the membership: targets that stay keep their health and counters.
    pub fn replace(self: &Arc<Self>, backends: &BTreeSet<Backend>) {
        let mut known = self.by_address.lock();
        let at_start = known.is_empty();
        let mut next = HashMap::new();
        for backend in backends {
            let (Some(address), Some(spec)) = (backend.addr.as_inet(), backend.ext.get::<TargetSpec>()) else {
                continue;
            };
            let target = known.get(address).map_or_else(|| Arc::new(Target::new(*address)), |k| Arc::clone(&k.target));
            if !at_start && !known.contains_key(address) {
                target.start_slowly();
            }
            let left = self.saved.lock().remove(address);
            let watch = self.shape.probe.as_ref().map(|probe| {
                let shape = WatchShape {
                    address: *address,
                    authority: spec.authority(),
                    host: spec.host.clone(),
                    probe: probe.clone(),
                    transport: self.shape.transport.clone(),
                };
                Watch::of(shape, Arc::downgrade(self), left.as_ref().and_then(|left| left.healthy))
            });
            let fresh = self.known(&target, spec.clone(), watch);
            if let Some(left) = left {
                left.restore(&target, self, fresh.member.breaker.as_deref());
            }
            next.insert(*address, fresh);
        }
        *known = next;
        drop(known);
        self.rebuild();
    }

    /// Rearranges the eligible targets.
    pub fn rebuild(&self) {
        let known = self.by_address.lock();
        let mut choice = Choice::build(&self.shape, &known, clock::now());
        self.gate.set_targets(choice.eligible.max(choice.sessions.len()));
        let before = self.choice.load();
        choice.version = before.version + 1;
        if choice.panic && !before.panic && before.total > 0 {
            log::warn!("upstream {}: too few targets are healthy, health is ignored", self.shape.name);
        }
        self.choice.store(Arc::new(choice));
    }

    /// Returns whether what goes to a target already may go on to it: it is a target, and healthy, or health is
    /// ignored. One that takes no new sessions keeps what it has.
    pub fn keeps(&self, address: SocketAddr) -> bool {
        let known = self.by_address.lock();
        known.get(&address).is_some_and(|known| known.is_eligible() || self.choice.load().panic)
    }

    /// Returns whether the eligible targets change with time alone.
    pub fn is_moving(&self) -> bool {
        self.choice.load().starting || self.by_address.lock().values().any(|k| k.target.is_ejected())
    }

    /// Applies what changes with time: ejections end, slow starts proceed, targets are compared.
    pub fn tick(&self) {
        let now = clock::now();
        let mut changed = self.choice.load().starting;
        // When ejection is no longer configured, ejected targets return at once.
        let back = |target: &Target| {
            if self.shape.outlier.is_some() { target.expire_ejection(now) } else { target.end_ejection(true) }
        };
        for known in self.by_address.lock().values().filter(|k| back(&k.target)) {
            log::info!("upstream {}: target {} is back from its ejection", self.shape.name, known.target.label);
            known.target.start_slowly();
            changed = true;
        }
        if let Some(shape) = &self.shape.outlier
            && now.saturating_sub(self.compared.load(Ordering::Relaxed)) >= shape.interval
        {
            self.compared.store(now, Ordering::Relaxed);
            self.compare(shape);
        }
        if changed {
            self.rebuild();
        }
    }

    fn compare(&self, shape: &OutlierShape) {
        let targets: Vec<_> = self.by_address.lock().values().map(|k| Arc::clone(&k.target)).collect();
        let tallies: Vec<Tally> = targets.iter().map(|t| t.take_tally()).collect();
        targets.iter().for_each(|t| t.decay_ejections());
        for (index, why) in outliers(shape, &tallies) {
            self.eject(&targets[index], shape, why);
        }
    }
}
