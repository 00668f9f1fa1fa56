//! A simulation of gateways and targets in several zones on a virtual clock: how load is shared, where it goes when
//! targets fail, and how it comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use pingora::lb::{Backend, Extensions};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;

use super::members::{PickRequest, Picked, PoolMembers};
use super::shape::PoolShape;
use super::simulation::shape;
use super::target::{TargetOutcome, TargetSpec};
use crate::exchange::clock::{VirtualClock, nanos};
use crate::rules::balance::{Algorithm, ZoneRule};
use crate::rules::resilience::OutlierShape;

const ZONES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// The step of the clock, as that of a pool whose targets change.
const STEP: Duration = Duration::from_millis(100);

const SLOW_START: Duration = Duration::from_secs(30);

/// The ejection of a target after five failures in a row, from which a probe brings it back.
const OUTLIER: OutlierShape = OutlierShape {
    failures: 5,
    gateway_failures: 0,
    interval: 3_600_000_000_000,
    base: 10_000_000_000,
    max: 10_000_000_000,
    max_percent: 100,
    failure_share: None,
    deviation: None,
};

/// Returns the shape of an upstream without limits, as a gateway in `zone` has it.
fn zone_shape(zone: &str, zones: ZoneRule) -> PoolShape {
    let mut plain = shape(&mut Rng::with_seed(1));
    plain.gate.per_target = 0;
    PoolShape {
        algorithm: Algorithm::RoundRobin,
        outlier: Some(OUTLIER),
        panic_threshold: 0,
        slow_start: None,
        breaker: None,
        target_breaker: None,
        zone: Some(zone.to_owned()),
        zones,
        ..plain
    }
}

/// Returns the address of a target: 127.0.zone.number:80.
fn address(zone: usize, number: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, zone as u8, number as u8], 80))
}

fn zone_of(picked: &Picked) -> usize {
    match picked.member.target.address {
        SocketAddr::V4(address) => usize::from(address.ip().octets()[2]),
        SocketAddr::V6(_) => usize::MAX,
    }
}

/// Returns the targets of zones, by the weights of those of each.
fn targets(zones: &[Vec<u32>], priority: fn(usize) -> u32) -> BTreeSet<Backend> {
    let mut all = BTreeSet::new();
    for (zone, weights) in zones.iter().enumerate() {
        for (number, weight) in weights.iter().enumerate() {
            let address = address(zone, number);
            let spec = TargetSpec {
                weight: *weight,
                priority: priority(zone),
                zone: Some(ZONES[zone].to_owned()),
                ..TargetSpec::new(address.ip().to_string(), 80)
            };
            let mut ext = Extensions::new();
            ext.insert(spec);
            all.insert(Backend { addr: PingoraAddr::Inet(address), weight: 1, ext });
        }
    }
    all
}

fn eject(members: &PoolMembers, address: SocketAddr) {
    let target = Arc::clone(&members.by_address.lock()[&address].target);
    target.eject(&OutlierShape { base: u64::MAX / 4, max: u64::MAX / 4, ..OUTLIER }, "simulated");
    members.rebuild();
}

fn bring_back(members: &PoolMembers, address: SocketAddr) {
    members.probed(address, true, true, None);
}

/// Returns the percentage of the load that each zone receives.
fn shares(members: &PoolMembers) -> Vec<f64> {
    let mut shares = vec![0.0; ZONES.len()];
    for share in &members.choice.load().shares {
        let [zone] = share.zones.as_slice() else { panic!("several zones: {share:?}") };
        shares[ZONES.iter().position(|name| name == zone).expect("a zone")] += share.percent;
    }
    shares
}

#[test]
fn the_fleet_loads_every_target_alike_through_any_failures() {
    for seed in 0..300 {
        let mut random = Rng::with_seed(seed);
        let count = random.usize(2..=ZONES.len());
        let weights: Vec<Vec<u32>> =
            (0..count).map(|_| (0..random.usize(1..6)).map(|_| random.u32(1..4)).collect()).collect();
        let gateways: Vec<u32> = (0..count).map(|_| random.u32(1..6)).collect();
        let fleet: u32 = gateways.iter().sum();
        let of_zones: BTreeMap<String, u32> =
            ZONES.iter().zip(&gateways).map(|(zone, count)| ((*zone).to_owned(), *count)).collect();
        let rule = ZoneRule::Aware { gateways: of_zones, min_targets: 0 };
        let all: Vec<Arc<PoolMembers>> = (0..count)
            .map(|zone| Arc::new(PoolMembers::new(zone_shape(ZONES[zone], rule.clone()), None)))
            .inspect(|members| members.replace(&targets(&weights, |_| 0)))
            .collect();
        let mut up: Vec<Vec<bool>> = weights.iter().map(|zone| vec![true; zone.len()]).collect();
        for _ in 0..30 {
            let zone = random.usize(..count);
            let number = random.usize(..weights[zone].len());
            up[zone][number] = !up[zone][number];
            for members in &all {
                match up[zone][number] {
                    true => bring_back(members, address(zone, number)),
                    false => eject(members, address(zone, number)),
                }
            }
            let capacity: Vec<f64> = (0..count)
                .map(|zone| {
                    weights[zone].iter().zip(&up[zone]).map(|(w, up)| if *up { f64::from(*w) } else { 0.0 }).sum()
                })
                .collect();
            let whole: f64 = capacity.iter().sum();
            if whole == 0.0 {
                continue;
            }
            let of_gateways: Vec<Vec<f64>> = all.iter().map(|members| shares(members)).collect();
            for zone in 0..count {
                let load: f64 =
                    (0..count).map(|own| f64::from(gateways[own]) / f64::from(fleet) * of_gateways[own][zone]).sum();
                let wanted = 100.0 * capacity[zone] / whole;
                assert!((load - wanted).abs() < 0.05, "seed {seed}, zone {zone}: {load} of {wanted} %, {up:?}");
            }
        }
    }
}

#[test]
fn requests_follow_the_shares() {
    let rule = ZoneRule::Weights([("a".to_owned(), 3), ("b".to_owned(), 2), ("c".to_owned(), 1)].into());
    let members = Arc::new(PoolMembers::new(zone_shape("a", rule), None));
    members.replace(&targets(&[vec![1, 1], vec![1, 1], vec![2, 1]], |_| 0));
    let counts = |members: &PoolMembers| {
        let mut counts = [0_u32; 3];
        for _ in 0..30_000 {
            counts[zone_of(&members.pick(&PickRequest::default()).expect("a target"))] += 1;
        }
        counts
    };
    let near = |counts: [u32; 3], wanted: [u32; 3]| {
        assert!(counts.iter().zip(wanted).all(|(count, wanted)| count.abs_diff(wanted) < 700), "{counts:?} {wanted:?}");
    };
    near(counts(&members), [15_000, 10_000, 5_000]);
    // Half of a zone counts 1.4 × 1/2 of its weight: 2.1, 2 and 1 of 5.1.
    eject(&members, address(0, 0));
    near(counts(&members), [12_353, 11_765, 5_882]);
    eject(&members, address(0, 1));
    near(counts(&members), [0, 20_000, 10_000]);
}

/// A zone whose targets have lost their caches: each can handle few requests at first.
struct ColdZone {
    members: Arc<PoolMembers>,
    returned: u64,
    failed: u32,
    /// The share of the first zone after each step.
    shares: Vec<f64>,
}

/// The requests of one step, and what a target can handle of them, cold and warm.
const REQUESTS: u32 = 400;
const COLD: f64 = 30.0;
const WARM: f64 = 160.0;

impl ColdZone {
    fn new(shape: PoolShape, priority: fn(usize) -> u32) -> Self {
        let members = Arc::new(PoolMembers::new(shape, None));
        members.replace(&targets(&[vec![1; 4], vec![1; 4]], priority));
        Self { members, returned: 0, failed: 0, shares: Vec::new() }
    }

    /// Sends the requests of one step; those above what a target can handle fail.
    fn step(&mut self, now: u64) {
        let warmth = (now - self.returned) as f64 / nanos(SLOW_START) as f64;
        let limit = |zone: usize| if zone == 0 { COLD + (WARM - COLD) * warmth.min(1.0) } else { WARM };
        let (mut handled, mut of_zone) = (BTreeMap::new(), 0);
        for _ in 0..REQUESTS {
            let mut picked = self.members.pick(&PickRequest::default()).expect("a target");
            let zone = zone_of(&picked);
            of_zone += u32::from(zone == 0);
            let count: &mut f64 = handled.entry(picked.member.target.address).or_default();
            *count += 1.0;
            let fails = *count > limit(zone);
            self.failed += u32::from(fails);
            let outcome = if fails { TargetOutcome::GatewayFailed } else { TargetOutcome::Good };
            self.members.report(&mut picked, outcome, None);
        }
        self.shares.push(f64::from(of_zone) / f64::from(REQUESTS));
        self.members.tick();
    }

    /// Loses the whole zone, gets it back, and goes on for two minutes.
    fn run(mut self) -> Self {
        let clock = VirtualClock::start();
        let mut now = nanos(Duration::from_secs(1_000));
        clock.set(now);
        (0..4).for_each(|number| eject(&self.members, address(0, number)));
        self.step(now);
        assert!(self.shares.pop().is_some_and(|share| share == 0.0), "a zone without targets receives requests");
        self.returned = now;
        (0..4).for_each(|number| bring_back(&self.members, address(0, number)));
        for _ in 0..1_200 {
            self.step(now);
            now += nanos(STEP);
            clock.set(now);
        }
        self
    }
}

/// Checks that a zone or a priority takes its load back little by little and once.
fn comes_back_steadily(shape: PoolShape, priority: fn(usize) -> u32) {
    let ramped = PoolShape { slow_start: Some((nanos(SLOW_START), 1_000)), ..shape.clone() };
    let steady = ColdZone::new(ramped, priority).run();
    assert_eq!(steady.failed, 0, "a cold target received more than it can handle");
    assert!((steady.shares[0] - 0.14).abs() < 0.08, "1.4 × a tenth at first: {}", steady.shares[0]);
    // By chance a step has some more or fewer of its requests.
    let mean: Vec<f64> = steady.shares.chunks(20).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    assert!(mean.is_sorted_by(|before, after| before - 0.02 <= *after), "{mean:?}");
    assert!(steady.shares[300..].iter().all(|share| *share == 1.0), "all of its load is back");
    // The same targets without a slow start fail at once: the simulation shows what it is there for.
    assert!(ColdZone::new(shape, priority).run().failed > 0);
}

#[test]
fn a_zone_comes_back_steadily() {
    comes_back_steadily(zone_shape("a", ZoneRule::default()), |_| 0);
    let gateways = [("a".to_owned(), 2)].into();
    comes_back_steadily_aware(zone_shape("a", ZoneRule::Aware { gateways, min_targets: 0 }));
}

/// The zone-aware rule keeps what the zone has capacity for, without overprovisioning.
fn comes_back_steadily_aware(shape: PoolShape) {
    let ramped = PoolShape { slow_start: Some((nanos(SLOW_START), 1_000)), ..shape };
    let steady = ColdZone::new(ramped, |_| 0).run();
    assert_eq!(steady.failed, 0);
    let mean: Vec<f64> = steady.shares.chunks(20).map(|part| part.iter().sum::<f64>() / part.len() as f64).collect();
    assert!(mean.is_sorted_by(|before, after| before - 0.05 <= *after), "{mean:?}");
    // All gateways are in this zone and half of the capacity: half of the load stays.
    assert!((mean[mean.len() - 1] - 0.5).abs() < 0.03, "{mean:?}");
}

#[test]
fn a_priority_comes_back_steadily() {
    comes_back_steadily(zone_shape("z", ZoneRule::Ignore), |zone| zone as u32);
}

#[test]
fn zones_are_ignored_in_a_panic() {
    let shape = PoolShape { panic_threshold: 50, ..zone_shape("a", ZoneRule::default()) };
    let members = Arc::new(PoolMembers::new(shape, None));
    members.replace(&targets(&[vec![1; 3], vec![1; 3]], |_| 0));
    for (zone, number) in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)] {
        eject(&members, address(zone, number));
    }
    let choice = members.choice.load();
    assert!(choice.panic);
    let shares: Vec<_> = choice.shares.iter().map(|share| (share.zones.len(), share.percent, share.eligible)).collect();
    assert_eq!(shares, [(2, 100.0, 6)]);
    let mut picked = BTreeSet::new();
    (0..600).for_each(|_| _ = picked.insert(members.pick(&PickRequest::default()).expect("one").member.target.address));
    assert_eq!(picked.len(), 6);
}

#[test]
fn a_request_that_its_zone_declines_goes_to_the_next() {
    let rule = ZoneRule::SpillOver(vec!["c".to_owned()]);
    let mut shape = zone_shape("a", rule);
    shape.gate.per_target = 1;
    let members = Arc::new(PoolMembers::new(shape, None));
    members.replace(&targets(&[vec![1; 2], vec![1; 2], vec![1; 2]], |_| 0));
    let picked: Vec<Picked> = (0..6).map(|_| members.pick(&PickRequest::default()).expect("a target")).collect();
    assert_eq!(picked.iter().map(zone_of).collect::<Vec<_>>(), [0, 0, 2, 2, 1, 1]);
}
