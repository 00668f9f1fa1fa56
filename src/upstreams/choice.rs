//! The targets that are eligible at one time, in groups by priority and zone, with an algorithm over each group. It
//! is rebuilt, off the request path, when anything about it changes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use pingora::connectors::L4Connect;
use pingora::upstreams::peer::HttpPeer;

use super::breaker::SharedBreaker;
use super::members::KnownTarget;
use super::proxy_header::ProxyHeaderShape;
use super::shape::PoolShape;
use super::socket::SocketOptions;
use super::target::Target;
use crate::rules::balance::{Algorithm, Balancer, Loads, PickInput, Seat, WHOLE_WEIGHT};
use crate::rules::resilience::{shares, slow_start};

/// The number of targets that may decline a request before the others are tried in any order.
const DECLINES: usize = 16;

/// The precision of shares of the load.
const WHOLE: u32 = 10_000;

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
    /// The header that it expects at the start of each connection.
    pub proxy: Option<ProxyHeaderShape>,
    /// The options of its sockets.
    pub socket: SocketOptions,
    /// The connector that opens its sockets, once it is known.
    pub opener: OnceLock<Arc<dyn L4Connect + Send + Sync>>,
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
        let first = self.groups.iter().position(|(end, _)| point < *end).unwrap_or(0);
        let count = self.groups.len();
        // If no target of a group accepts the request, the next group is tried.
        (0..count).find_map(|step| self.groups[(first + step) % count].1.pick(context, self.timed, &mut take))
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
        let mut levels: Vec<u32> = all.iter().map(|k| k.spec.priority).collect();
        levels.sort_unstable();
        levels.dedup();
        let of = |level: u32| all.iter().copied().filter(move |k| k.spec.priority == level);
        let weigh = |list: &mut dyn Iterator<Item = &KnownTarget>| list.map(|k| u64::from(k.spec.weight)).sum::<u64>();
        let mut health: Vec<(u64, u64)> = levels
            .iter()
            .map(|level| (weigh(&mut of(*level).filter(|k| k.is_eligible())), weigh(&mut of(*level))))
            .collect();
        let calm = !in_panic(shape.panic_threshold, &mut health);
        choice.panic = !calm;
        let mut end = 0;
        for (level, share) in levels.iter().zip(shares(&health)) {
            let members: Vec<&KnownTarget> = of(*level).filter(|k| k.is_eligible() || !calm).collect();
            choice.eligible += members.len();
            for (part, members) in by_zone(shape, members, weigh(&mut of(*level).filter(|k| k.is_near(shape)))) {
                end += share * part;
                let group = Group::new(shape, &members, now);
                choice.starting |= members.iter().any(|k| k.is_starting(shape, now));
                choice.groups.push((end, group));
            }
        }
        choice
    }
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

/// Divides the members of a priority into groups with a percentage of its load: those of the gateway's own zone get
/// as much as they can handle by the rule of priorities, and the others the rest.
fn by_zone<'k>(shape: &PoolShape, members: Vec<&'k KnownTarget>, near_total: u64) -> Vec<(u32, Vec<&'k KnownTarget>)> {
    if near_total == 0 || shape.zone.is_none() {
        return vec![(100, members)];
    }
    let (near, far): (Vec<_>, Vec<_>) = members.into_iter().partition(|k| k.is_near(shape));
    let weight = |list: &[&KnownTarget]| list.iter().map(|k| u64::from(k.spec.weight)).sum::<u64>();
    let parts = shares(&[(weight(&near), near_total), (weight(&far), weight(&far))]);
    vec![(parts[0], near), (parts[1], far)]
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
    fn is_near(&self, shape: &PoolShape) -> bool {
        shape.zone.is_some() && self.spec.zone == shape.zone
    }

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
