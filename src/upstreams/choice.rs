//! The targets that are eligible at one time, in groups by priority and zone, with an algorithm over each group. It
//! is rebuilt, off the request path, when anything about it changes.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use pingora::connectors::L4Connect;
use pingora::upstreams::peer::HttpPeer;
use serde::Serialize;

use super::breaker::SharedBreaker;
use super::members::KnownTarget;
use super::proxy_header::ProxyHeaderShape;
use super::shape::PoolShape;
use super::socket::SocketOptions;
use super::target::Target;
use crate::rules::balance::{
    Algorithm, Balancer, Loads, PickInput, Seat, WHOLE_LOAD, WHOLE_WEIGHT, ZoneCapacity, together,
};
use crate::rules::resilience::{shares, slow_start};
use crate::telemetry::metrics::{UpstreamMetrics, ZoneTraffic};

/// The number of targets that may decline a request before the others are tried in any order.
const DECLINES: usize = 16;

/// The unit of shares of the whole load: a percentage for the priority times the share of a zone.
const WHOLE: u32 = 100 * WHOLE_LOAD;

/// An eligible target, and how to reach it.
#[derive(Debug)]
pub struct Member {
    /// The target.
    pub target: Arc<Target>,
    /// `Host` for the target, when the route wants the target's own.
    pub authority: http::HeaderValue,
    /// Its peer, which is cloned for a request.
    pub peer: HttpPeer,
    /// The tag of sessions that are bound to it.
    pub tag: u128,
    /// Its breaker, if the upstream's targets have any.
    pub breaker: Option<Arc<SharedBreaker>>,
    /// Whether it takes no new sessions.
    pub draining: bool,
    /// Its zone, if its traffic is counted by zones.
    pub zone: Option<MemberZone>,
    /// The header that it expects at the start of each connection.
    pub proxy: Option<ProxyHeaderShape>,
    /// The options of its sockets.
    pub socket: SocketOptions,
    /// The connector that opens its sockets, once it is known.
    pub opener: OnceLock<Arc<dyn L4Connect + Send + Sync>>,
}

/// The zone of a target, with the count of its traffic.
#[derive(Debug)]
pub struct MemberZone {
    name: String,
    is_own: bool,
    traffic: OnceLock<Arc<ZoneTraffic>>,
}

impl MemberZone {
    /// Returns the zone of a target, if it has one and the gateway's own is known.
    pub fn new(zone: Option<&str>, own: Option<&str>) -> Option<Self> {
        let (zone, own) = zone.zip(own)?;
        Some(Self { name: zone.to_owned(), is_own: zone == own, traffic: OnceLock::new() })
    }

    /// Returns the count of its traffic, which is created on first use.
    pub fn traffic(&self, metrics: &UpstreamMetrics) -> &ZoneTraffic {
        self.traffic.get_or_init(|| metrics.zone(&self.name, self.is_own))
    }
}

/// The share of the load that the targets of one priority in some zones receive.
#[derive(Clone, Debug, Serialize)]
pub struct LoadShare {
    /// The priority.
    pub priority: u32,
    /// The zones whose targets are balanced together.
    pub zones: Vec<String>,
    /// The share in percent.
    pub percent: f64,
    /// The number of eligible targets.
    pub eligible: usize,
    /// The number of targets.
    pub targets: usize,
}

/// Targets with an algorithm over them.
pub struct Group {
    members: Vec<Arc<Member>>,
    balance: Box<dyn Balancer>,
}

/// The targets that are eligible at one time.
#[derive(Default)]
pub struct Choice {
    /// Groups, each with the end of its share of [`WHOLE`].
    groups: Vec<(u32, Group)>,
    /// The shares of the load, in the order of the groups.
    pub shares: Vec<LoadShare>,
    /// Every target that keeps its sessions, by tag; empty without sessions.
    pub sessions: HashMap<u128, Arc<Member>>,
    /// The number of targets, eligible or not.
    pub total: usize,
    /// The number of eligible targets.
    pub eligible: usize,
    /// Whether health is ignored because too few targets are healthy.
    pub panic: bool,
    /// Whether a target is in its slow start.
    pub starting: bool,
    /// The number of the arrangement: what was checked with one need not be checked again with it.
    pub version: u64,
    timed: bool,
}

impl std::fmt::Debug for Choice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Choice").field("total", &self.total).field("eligible", &self.eligible).finish_non_exhaustive()
    }
}

/// The present loads of a group.
struct GroupLoads<'g> {
    members: &'g [Arc<Member>],
    now: u64,
    total: u32,
}

impl Loads for GroupLoads<'_> {
    fn active(&self, index: usize) -> u32 {
        self.members.get(index).map_or(u32::MAX, |m| m.target.active())
    }

    fn latency(&self, index: usize) -> f64 {
        self.members.get(index).map_or(f64::MAX, |m| m.target.latency().read(self.now))
    }

    fn total(&self) -> u32 {
        self.total
    }
}

/// The input of a pick among all groups.
pub struct PickContext<'d> {
    /// The hash key.
    pub key: Option<u64>,
    /// A fresh random number.
    pub random: u64,
    /// Targets that must not be picked.
    pub tried: &'d [SocketAddr],
    /// The number of requests in flight in the upstream.
    pub active: u32,
}

impl Choice {
    /// Picks a target that `take` accepts: it may decline a target that is full or whose breaker is open, and then
    /// the next best is tried.
    pub fn pick<T>(&self, context: &PickContext<'_>, mut take: impl FnMut(&Arc<Member>) -> Option<T>) -> Option<T> {
        let point = (context.key.unwrap_or(context.random) >> 17) as u32 % WHOLE;
        let first = self.groups.partition_point(|(end, _)| *end <= point).min(self.groups.len().saturating_sub(1));
        // If no target of a group accepts the request, the others are tried: those of the first priority first.
        let others = (0..self.groups.len()).filter(|index| *index != first);
        let mut order = self.groups.get(first).map(|_| first).into_iter().chain(others);
        order.find_map(|index| self.groups.get(index)?.1.pick(context, self.timed, &mut take))
    }

    /// Returns the eligible targets.
    pub fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.groups.iter().flat_map(|(_, group)| &group.members)
    }

    /// Arranges the known targets.
    pub fn build(shape: &PoolShape, known: &HashMap<SocketAddr, KnownTarget>, now: u64) -> Self {
        let mut all: Vec<&KnownTarget> = known.values().collect();
        all.sort_by_key(|k| k.target.address);
        let mut choice =
            Self { total: all.len(), timed: shape.algorithm == Algorithm::LeastResponseTime, ..Self::default() };
        if shape.sessions.is_some() {
            let keeps = all.iter().filter(|k| k.is_eligible());
            choice.sessions = keeps.map(|k| (k.member.tag, Arc::clone(&k.member))).collect();
        }
        all.retain(|k| !k.spec.draining);
        let mut levels: BTreeMap<u32, Vec<&KnownTarget>> = BTreeMap::new();
        all.into_iter().for_each(|k| levels.entry(k.spec.priority).or_default().push(k));
        // A panic is a matter of health alone; a slow start only shifts load to where it can be handled.
        let mut health: Vec<(u64, u64)> = levels.values().map(|level| capacity(level, |_| 1.0)).collect();
        choice.panic = in_panic(shape.panic_threshold, &mut health);
        if !choice.panic {
            health = levels.values().map(|level| capacity(level, |k| k.ramp(shape, now))).collect();
        }
        for ((priority, level), share) in levels.iter().zip(shares(&health)) {
            choice.add_level(shape, (*priority, share), level, now);
        }
        choice
    }

    /// Adds the groups of a priority, which receives `share` percent of the load.
    fn add_level(&mut self, shape: &PoolShape, (priority, share): (u32, u32), level: &[&KnownTarget], now: u64) {
        let mut by_zone: BTreeMap<Option<&str>, Vec<&KnownTarget>> = BTreeMap::new();
        level.iter().for_each(|k| by_zone.entry(k.spec.zone.as_deref()).or_default().push(k));
        let by_zone: Vec<(Option<&str>, Vec<&KnownTarget>)> = by_zone.into_iter().collect();
        let mut capacities = Vec::with_capacity(by_zone.len());
        for (zone, targets) in &by_zone {
            let (available, total) = capacity(targets, |k| k.ramp(shape, now));
            let available = if self.panic { total } else { available };
            capacities.push(ZoneCapacity { zone: *zone, available, total, targets: targets.len() });
        }
        // In a panic health is unknown, and with it the capacity of each zone.
        let divided = if self.panic {
            together(&capacities)
        } else {
            shape.zones.divide(shape.zone.as_deref(), priority, &capacities)
        };
        for part in divided {
            let zones = || part.zones.iter().filter_map(|index| by_zone.get(*index));
            let mut members: Vec<&KnownTarget> = zones().flat_map(|(_, targets)| targets).copied().collect();
            let targets = members.len();
            members.retain(|k| self.panic || k.is_eligible());
            members.sort_by_key(|k| k.target.address);
            self.eligible += members.len();
            self.starting |= members.iter().any(|k| k.is_starting(shape, now));
            let share = share * part.share;
            self.shares.push(LoadShare {
                priority,
                zones: zones().filter_map(|(zone, _)| zone.map(str::to_owned)).collect(),
                percent: f64::from(share) / f64::from(WHOLE / 100),
                eligible: members.len(),
                targets,
            });
            if !members.is_empty() {
                let end = self.groups.last().map_or(0, |(end, _)| *end) + share;
                self.groups.push((end, Group::new(shape, &members, now)));
            }
        }
    }
}

/// Returns the weight of the eligible targets, each by the fraction of its weight that it has now, and of all targets.
fn capacity(targets: &[&KnownTarget], fraction: impl Fn(&KnownTarget) -> f64) -> (u64, u64) {
    let whole = u64::from(WHOLE_WEIGHT);
    let available = |k: &&&KnownTarget| (fraction(k) * whole as f64) as u64 * u64::from(k.spec.weight);
    let total = targets.iter().map(|k| u64::from(k.spec.weight) * whole).sum();
    (targets.iter().filter(|k| k.is_eligible()).map(|k| available(&k)).sum(), total)
}

/// Returns whether too few targets are healthy. Then health is ignored in the priorities below the threshold (Envoy's
/// panic threshold), and `health` is changed accordingly.
fn in_panic(threshold: u32, health: &mut [(u64, u64)]) -> bool {
    let enough: u64 =
        health.iter().filter(|(_, total)| *total > 0).map(|(healthy, total)| (140 * healthy / total).min(100)).sum();
    if enough >= 100 {
        return false;
    }
    let mut panic = false;
    for (healthy, total) in health {
        if *healthy * 100 < u64::from(threshold) * *total {
            *healthy = *total;
            panic = true;
        }
    }
    panic
}

impl Group {
    fn new(shape: &PoolShape, members: &[&KnownTarget], now: u64) -> Self {
        let seat = |k: &&KnownTarget| Seat {
            id: k.target.id,
            weight: k.spec.weight,
            ramp: (k.ramp(shape, now) * f64::from(WHOLE_WEIGHT)) as u32,
        };
        let seats: Vec<Seat> = members.iter().map(seat).collect();
        Self {
            balance: shape.algorithm.build(&seats),
            members: members.iter().map(|k| Arc::clone(&k.member)).collect(),
        }
    }

    fn pick<T>(
        &self,
        context: &PickContext<'_>,
        timed: bool,
        take: &mut impl FnMut(&Arc<Member>) -> Option<T>,
    ) -> Option<T> {
        let now = if timed { crate::exchange::clock::now() } else { 0 };
        let loads = GroupLoads { members: &self.members, now, total: context.active };
        let mut tried: Vec<usize> = if context.tried.is_empty() {
            Vec::new()
        } else {
            let was = |m: &Arc<Member>| context.tried.contains(&m.target.address);
            self.members.iter().enumerate().filter(|(_, m)| was(m)).map(|(i, _)| i).collect()
        };
        for _ in 0..DECLINES {
            let input = PickInput { key: context.key, random: context.random, loads: &loads, tried: &tried };
            let index = self.balance.pick(&input)?;
            if let Some(taken) = take(self.members.get(index)?) {
                return Some(taken);
            }
            tried.push(index);
        }
        // So many are full or open that the order no longer matters.
        let count = self.members.len();
        let start = (context.random % count.max(1) as u64) as usize;
        let rest = (start..count).chain(0..start).filter(|index| !tried.contains(index));
        rest.filter_map(|index| self.members.get(index)).find_map(take)
    }
}

impl KnownTarget {
    fn is_starting(&self, shape: &PoolShape, now: u64) -> bool {
        let Some((window, _)) = shape.slow_start else { return false };
        self.target.started(now).is_some_and(|passed| passed < window)
    }

    fn ramp(&self, shape: &PoolShape, now: u64) -> f64 {
        let (Some((window, aggression)), Some(passed)) = (shape.slow_start, self.target.started(now)) else {
            return 1.0;
        };
        slow_start(passed, window, f64::from(aggression) / 1_000.0)
    }
}
