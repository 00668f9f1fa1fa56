//! A simulation of thousands of random schedules on a virtual clock: targets fail and recover, requests end in any
//! order or not at all, and the invariants are checked after each step. A failure prints its seed.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pingora::lb::{Backend, Extensions};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;

use super::gate::GateShape;
use super::members::{NoPick, PickRequest, Picked, PoolMembers};
use super::shape::{PoolShape, TargetTransport};
use super::socket::SocketOptions;
use super::target::{TargetOutcome, TargetSpec};
use crate::exchange::clock::{VirtualClock, nanos};
use crate::rules::balance::{Algorithm, ZoneRule};
use crate::rules::resilience::{BreakerShape, FailureShare, OutlierShape, RetryBudget};

/// The algorithms without hash tables, which are slow to build and have tests of their own.
const ALGORITHMS: [Algorithm; 5] = [
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::LeastResponseTime,
    Algorithm::Random,
    Algorithm::PowerOfTwo,
];

fn breaker(random: &mut Rng) -> Option<BreakerShape> {
    random.bool().then(|| BreakerShape {
        failures: random.u32(0..6),
        ratio: random.u32(30..90),
        min_requests: random.u32(1..20),
        window: nanos(Duration::from_secs(random.u64(1..20))),
        cool_down: nanos(Duration::from_secs(random.u64(1..10))),
        probes: random.u32(1..4),
    })
}

pub(super) fn shape(random: &mut Rng) -> PoolShape {
    let seconds = |random: &mut Rng, range| nanos(Duration::from_secs(random.u64(range)));
    PoolShape {
        name: "simulated".to_owned(),
        algorithm: ALGORITHMS[random.usize(..ALGORITHMS.len())],
        targets: Vec::new(),
        transport: TargetTransport {
            proxy: None,
            versions: (1, 1),
            tls: None,
            socket: SocketOptions::default(),
            connect: Duration::from_secs(1),
            read: Duration::from_secs(1),
            write: Duration::from_secs(1),
            idle: Duration::from_secs(1),
        },
        probe: None,
        outlier: Some(OutlierShape {
            failures: random.u32(0..6),
            gateway_failures: random.u32(0..6),
            interval: seconds(random, 1..10),
            base: seconds(random, 1..30),
            max: seconds(random, 1..60),
            max_percent: random.u32(0..=100),
            failure_share: random.bool().then_some(FailureShare { percent: 50, min_targets: 2, min_requests: 5 }),
            deviation: None,
        }),
        panic_threshold: if random.bool() { random.u32(0..=100) } else { 0 },
        slow_start: random.bool().then(|| (seconds(random, 1..20), 1_000)),
        breaker: breaker(random),
        target_breaker: breaker(random),
        gate: GateShape {
            requests: 100,
            per_target: random.u32(0..4),
            pending: 0,
            pending_time: Duration::ZERO,
            adaptive: None,
        },
        budget: RetryBudget { percent: random.u32(0..50), min: random.u32(0..3) },
        sessions: None,
        discovery: None,
        resolver: None,
        zone: None,
        zones: ZoneRule::default(),
        resolve_interval: Duration::from_secs(1),
    }
}

/// Returns targets on those ports, of several priorities and weights.
pub(super) fn backends(ports: RangeInclusive<usize>) -> BTreeSet<Backend> {
    let backend = |port: usize| {
        let mut ext = Extensions::new();
        let priority = u32::from(port.is_multiple_of(3));
        ext.insert(TargetSpec { priority, weight: 1 + port as u32 % 4, ..TargetSpec::new("127.0.0.1", port as u16) });
        Backend { addr: PingoraAddr::Inet(SocketAddr::from(([127, 0, 0, 1], port as u16))), weight: 1, ext }
    };
    ports.map(backend).collect()
}

struct World {
    members: Arc<PoolMembers>,
    failing: Vec<bool>,
    running: Vec<Picked>,
    requests: Vec<u64>,
    retries: Vec<u64>,
    now: u64,
}

impl World {
    fn new(random: &mut Rng) -> Self {
        let members = Arc::new(PoolMembers::new(shape(random), None));
        let count = random.usize(1..8);
        members.replace(&backends(1..=count));
        Self {
            members,
            failing: vec![false; count + 1],
            running: Vec::new(),
            requests: Vec::new(),
            retries: Vec::new(),
            now: nanos(Duration::from_secs(100_000)),
        }
    }

    fn pick(&mut self, random: &mut Rng) {
        self.members.count_request(self.now);
        self.requests.push(self.now);
        let wish = PickRequest { key: random.bool().then(|| random.u64(..)), ..PickRequest::default() };
        let Ok(picked) = self.members.pick(&wish) else { return };
        let panic = self.members.choice.load().panic;
        assert!(panic || !picked.member.target.is_ejected(), "an ejected target was picked outside of a panic");
        let cap = self.members.shape.gate.per_target;
        assert!(cap == 0 || picked.member.target.active() <= cap, "over the cap of a target");
        self.running.push(picked);
    }

    fn end(&mut self, random: &mut Rng) {
        if self.running.is_empty() {
            return;
        }
        let mut picked = self.running.swap_remove(random.usize(..self.running.len()));
        if random.u8(..10) == 0 {
            return; // The client went away: nothing is known.
        }
        let failing = self.failing[usize::from(picked.member.target.address.port())];
        let outcome = match (failing, random.u8(..4)) {
            (true, 0) => TargetOutcome::Failed,
            (true, _) => TargetOutcome::GatewayFailed,
            (false, _) => TargetOutcome::Good,
        };
        self.members.report(&mut picked, outcome, Some(random.f64()));
        if failing {
            self.retry();
        }
    }

    /// Compares the budget with a model that remembers every moment.
    fn retry(&mut self) {
        let allowed = self.members.begin_retry(self.now);
        let second = self.now / 1_000_000_000;
        let recent = |times: &[u64]| times.iter().filter(|t| second - **t / 1_000_000_000 < 10).count() as u64;
        let shape = &self.members.shape.budget;
        let budget = recent(&self.requests) * u64::from(shape.percent) / 100 + u64::from(shape.min) * 10;
        assert_eq!(allowed, recent(&self.retries) < budget, "the budget and its model differ");
        if allowed {
            self.retries.push(self.now);
        }
    }

    fn step(&mut self, random: &mut Rng, clock: &VirtualClock) {
        match random.u8(..20) {
            0..=7 => self.pick(random),
            8..=15 => self.end(random),
            16 => {
                let target = random.usize(1..self.failing.len());
                self.failing[target] = !self.failing[target];
            }
            17 => self.members.probed(SocketAddr::from(([127, 0, 0, 1], random.u16(1..8))), true, false, None),
            _ => {
                self.now += random.u64(..nanos(Duration::from_secs(3)));
                clock.set(self.now);
                self.members.tick();
            }
        }
        let ejected = self.members.by_address.lock().values().filter(|k| k.target.is_ejected()).count();
        let percent = self.members.shape.outlier.map_or(0, |o| o.max_percent) as usize;
        let most = ((self.failing.len() - 1) * percent / 100).max(1);
        assert!(ejected <= most, "{ejected} are ejected, of at most {most}");
    }

    /// Lets all targets recover and everything end, and checks that everything becomes as it was.
    fn recover(&mut self, clock: &VirtualClock) {
        self.failing.fill(false);
        self.running.clear();
        for known in self.members.by_address.lock().values() {
            assert_eq!(known.target.active(), 0, "a request is still counted");
        }
        for _ in 0..150 {
            self.now += nanos(Duration::from_secs(1));
            clock.set(self.now);
            self.members.tick();
            for _ in 0..8 {
                match self
                    .members
                    .pick(&PickRequest { key: Some(self.now ^ fastrand::u64(..)), ..PickRequest::default() })
                {
                    Ok(mut picked) => self.members.report(&mut picked, TargetOutcome::Good, Some(0.01)),
                    Err(why) => assert_ne!(why, NoPick::Full, "nothing is under way"),
                }
            }
        }
        assert!(self.members.breaker.as_ref().is_none_or(|b| b.phase() == "closed"), "the breaker did not close");
        let known = self.members.by_address.lock();
        assert!(known.values().all(|k| !k.target.is_ejected()), "a target is still ejected");
        drop(known);
        assert!(!self.members.choice.load().panic);
        assert!(self.members.pick(&PickRequest::default()).is_ok(), "nothing is picked");
    }
}

const SCHEDULES: u64 = 3_000;

#[test]
fn what_must_hold_holds_on_every_schedule() {
    for seed in 0..SCHEDULES {
        let run = std::panic::catch_unwind(|| {
            let mut random = Rng::with_seed(seed);
            let clock = VirtualClock::start();
            let mut world = World::new(&mut random);
            clock.set(world.now);
            for _ in 0..400 {
                world.step(&mut random, &clock);
            }
            world.recover(&clock);
        });
        assert!(run.is_ok(), "seed {seed} (see above)");
    }
}
