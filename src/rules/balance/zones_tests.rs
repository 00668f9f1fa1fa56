//! The rules of zones against naive models in floating point, and the properties that they exist for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// One unit of a share is rounding.
const ROUNDING: f64 = 1.5 / WHOLE_LOAD as f64;

fn zones(of: &[(u64, u64)]) -> Vec<ZoneCapacity<'static>> {
    let zone = |(name, (available, total)): (&&'static str, &(u64, u64))| ZoneCapacity {
        zone: Some(*name),
        available: *available,
        total: *total,
        targets: 3,
    };
    NAMES.iter().zip(of).map(zone).collect()
}

fn counts(of: &[u32]) -> BTreeMap<String, u32> {
    NAMES.iter().zip(of).map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

/// Returns the share of each zone; zones that are balanced together divide theirs by what is available.
fn by_zone(rule: &ZoneRule, own: Option<&str>, zones: &[ZoneCapacity<'_>]) -> Vec<f64> {
    let divided = rule.divide(own, 0, zones);
    let mut named: Vec<usize> = divided.iter().flat_map(|part| part.zones.clone()).collect();
    named.sort_unstable();
    assert_eq!(named, (0..zones.len()).collect::<Vec<_>>(), "each zone is in one share");
    let mut shares = vec![0.0; zones.len()];
    for part in divided {
        let available: u64 = part.zones.iter().map(|z| zones[*z].available).sum();
        assert!(part.share == 0 || available > 0, "load for nobody");
        for zone in part.zones {
            let fraction = zones[zone].available as f64 / available.max(1) as f64;
            shares[zone] = f64::from(part.share) / f64::from(WHOLE_LOAD) * fraction;
        }
    }
    shares
}

fn aware(gateways: &[u32]) -> ZoneRule {
    ZoneRule::Aware { gateways: counts(gateways), min_targets: 0 }
}

fn close(shares: &[f64], wanted: &[f64]) {
    assert!(shares.iter().zip(wanted).all(|(a, b)| (a - b).abs() < ROUNDING), "{shares:?}, wanted {wanted:?}");
}

#[test]
fn a_zone_that_has_enough_keeps_its_requests() {
    let even = zones(&[(2, 2), (2, 2)]);
    close(&by_zone(&aware(&[1, 1]), Some("a"), &even), &[1.0, 0.0]);
    // Half of the gateways and a quarter of the targets: half of the requests leave the zone.
    let small = zones(&[(1, 1), (3, 3)]);
    close(&by_zone(&aware(&[1, 1]), Some("a"), &small), &[0.5, 0.5]);
    close(&by_zone(&aware(&[1, 1]), Some("b"), &small), &[0.0, 1.0]);
    // The rest is divided by residual capacity: 40 % - 20 % and 50 % - 20 %.
    let three = zones(&[(1, 1), (4, 4), (5, 5)]);
    close(&by_zone(&aware(&[3, 1, 1]), Some("a"), &three), &[1.0 / 6.0, 1.0 / 3.0, 0.5]);
}

#[test]
fn zones_are_ignored_where_the_rule_cannot_apply() {
    let two = zones(&[(1, 1), (3, 3)]);
    let together = vec![ZoneShare { share: WHOLE_LOAD, zones: vec![0, 1] }];
    let few = ZoneRule::Aware { gateways: counts(&[1, 1]), min_targets: 7 };
    assert_eq!(few.divide(Some("a"), 0, &two), together);
    let enough = ZoneRule::Aware { gateways: counts(&[1, 1]), min_targets: 6 };
    assert_ne!(enough.divide(Some("a"), 0, &two), together);
    assert_eq!(enough.divide(None, 0, &two), together);
    assert_eq!(enough.divide(Some("z"), 0, &two), together);
    assert_eq!(enough.divide(Some("a"), 1, &two), together);
    assert_eq!(ZoneRule::Ignore.divide(Some("a"), 0, &two), together);
    assert!(aware(&[1, 1]).divide(Some("a"), 0, &zones(&[(0, 1), (0, 3)])).iter().all(|part| part.share == 0));
}

#[test]
fn load_spills_over_in_the_order_of_the_list() {
    let rule = ZoneRule::SpillOver(vec!["c".to_owned(), "b".to_owned()]);
    let whole = [(10, 10); 4];
    close(&by_zone(&rule, Some("a"), &zones(&whole)), &[1.0, 0.0, 0.0, 0.0]);
    // 1.4 × 5/10 of the load stays, and the next in the list takes the rest.
    let half = [(5, 10), (10, 10), (10, 10), (10, 10)];
    close(&by_zone(&rule, Some("a"), &zones(&half)), &[0.7, 0.0, 0.3, 0.0]);
    let without_c = [(5, 10), (10, 10), (0, 10), (10, 10)];
    close(&by_zone(&rule, Some("a"), &zones(&without_c)), &[0.7, 0.3, 0.0, 0.0]);
    // The own zone is not tried twice, and one without targets is passed over.
    let own = ZoneRule::SpillOver(vec!["a".to_owned(), "z".to_owned()]);
    close(&by_zone(&own, Some("a"), &zones(&[(0, 1), (1, 1), (3, 3)])), &[0.0, 0.25, 0.75]);
    let order: Vec<_> = rule.divide(Some("a"), 0, &zones(&whole)).into_iter().map(|part| part.zones).collect();
    assert_eq!(order, [vec![0], vec![2], vec![1], vec![3]]);
}

#[test]
fn weights_count_by_health_and_zero_is_the_last_resort() {
    let rule = ZoneRule::Weights(counts(&[3, 1, 0]));
    close(&by_zone(&rule, None, &zones(&[(9, 9), (1, 1), (5, 5)])), &[0.75, 0.25, 0.0]);
    // 3 × 1.4 / 3 = 1.4 of 2.4.
    close(&by_zone(&rule, None, &zones(&[(3, 9), (1, 1), (5, 5)])), &[1.4 / 2.4, 1.0 / 2.4, 0.0]);
    close(&by_zone(&rule, None, &zones(&[(0, 9), (0, 1), (5, 5), (15, 20)])), &[0.0, 0.0, 0.25, 0.75]);
}

/// Envoy's rule as its page states it.
fn naive(own: usize, gateways: &[u32], zones: &[ZoneCapacity<'_>]) -> Vec<f64> {
    let capacity: f64 = zones.iter().map(|z| z.available as f64).sum();
    let fleet: f64 = gateways.iter().map(|g| f64::from(*g)).sum();
    let upstream: Vec<f64> = zones.iter().map(|z| z.available as f64 / capacity).collect();
    let origin: Vec<f64> = gateways.iter().map(|g| f64::from(*g) / fleet).collect();
    let local = (upstream[own] / origin[own]).min(1.0);
    let residual: Vec<f64> =
        (0..zones.len()).map(|z| if z == own { 0.0 } else { (upstream[z] - origin[z]).max(0.0) }).collect();
    let sum: f64 = residual.iter().sum();
    let share = |z: usize| if z == own { local } else { residual[z] * (1.0 - local) / sum.max(1e-12) };
    (0..zones.len()).map(share).collect()
}

/// Zones with the number of gateways in each.
fn fleets() -> impl Strategy<Value = Vec<(u64, u64, u32)>> {
    let zone = (0_u64..30, 0_u64..30, 0_u32..6).prop_map(|(a, b, gateways)| (a.min(b), a.max(b), gateways));
    prop::collection::vec(zone, 1..=NAMES.len())
}

proptest! {
    #[test]
    fn the_zone_aware_rule_is_envoys(fleet in fleets()) {
        let capacities = zones(&fleet.iter().map(|(a, t, _)| (*a, *t)).collect::<Vec<_>>());
        let gateways: Vec<u32> = fleet.iter().map(|(.., g)| *g).collect();
        prop_assume!(capacities.iter().any(|z| z.available > 0));
        for own in (0..fleet.len()).filter(|own| gateways[*own] > 0) {
            let shares = by_zone(&aware(&gateways), Some(NAMES[own]), &capacities);
            let wanted = naive(own, &gateways, &capacities);
            prop_assert!(shares.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < ROUNDING), "{shares:?} {wanted:?}");
        }
    }

    /// What the rule is for: with the same number of requests at each gateway, the load of each zone is in proportion
    /// to its capacity, and the traffic between zones is the least with which that is possible.
    #[test]
    fn the_whole_fleet_is_even_with_the_least_traffic_between_zones(fleet in fleets()) {
        let capacities = zones(&fleet.iter().map(|(a, t, _)| (*a, *t)).collect::<Vec<_>>());
        let gateways: Vec<u32> = fleet.iter().map(|(.., g)| *g).collect();
        let capacity: f64 = capacities.iter().map(|z| z.available as f64).sum();
        let all: f64 = gateways.iter().map(|g| f64::from(*g)).sum();
        prop_assume!(capacity > 0.0 && all > 0.0);
        let (mut load, mut crossing) = (vec![0.0; fleet.len()], 0.0);
        for own in (0..fleet.len()).filter(|own| gateways[*own] > 0) {
            let origin = f64::from(gateways[own]) / all;
            for (zone, share) in by_zone(&aware(&gateways), Some(NAMES[own]), &capacities).into_iter().enumerate() {
                load[zone] += origin * share;
                crossing += if zone == own { 0.0 } else { origin * share };
            }
        }
        let parts: Vec<f64> = capacities.iter().map(|z| z.available as f64 / capacity).collect();
        let even = load.iter().zip(&parts).all(|(load, part)| (load - part).abs() < 2.0 * ROUNDING);
        prop_assert!(even, "{load:?} {parts:?}");
        let least: f64 = gateways.iter().zip(&parts).map(|(g, part)| (f64::from(*g) / all - part).max(0.0)).sum();
        prop_assert!((crossing - least).abs() < 2.0 * ROUNDING, "{crossing} {least}");
    }

    #[test]
    fn weights_follow_the_naive_model(fleet in fleets()) {
        let capacities = zones(&fleet.iter().map(|(a, t, _)| (*a, *t)).collect::<Vec<_>>());
        let weights: Vec<u32> = fleet.iter().map(|(.., w)| *w).collect();
        let health = |z: &ZoneCapacity<'_>| 1.4 * z.available as f64 / (z.total as f64).max(1.0);
        let parts: Vec<f64> =
            capacities.iter().zip(&weights).map(|(z, w)| f64::from(*w) * health(z).min(1.0)).collect();
        let sum: f64 = parts.iter().sum();
        prop_assume!(sum > 0.0);
        let shares = by_zone(&ZoneRule::Weights(counts(&weights)), None, &capacities);
        prop_assert!(shares.iter().zip(&parts).all(|(share, part)| (share - part / sum).abs() < 5e-4), "{shares:?}");
    }

    /// The shares are whole, only available zones have one, and a target that comes back never takes load from its
    /// own zone: a zone that recovers takes over steadily.
    #[test]
    fn recovery_is_steady(
        fleet in fleets(),
        own in 0..NAMES.len(),
        order in prop::collection::vec(0..NAMES.len(), 0..4),
    ) {
        let gateways: Vec<u32> = fleet.iter().map(|(.., g)| *g).collect();
        let order = order.into_iter().map(|i| NAMES[i].to_owned()).collect();
        let weighted = ZoneRule::Weights(counts(&gateways));
        let rules = [aware(&gateways), weighted, ZoneRule::SpillOver(order), ZoneRule::Ignore];
        let mut capacities = zones(&fleet.iter().map(|(a, t, _)| (*a, *t)).collect::<Vec<_>>());
        let own = own % fleet.len();
        for rule in rules {
            let mut before = 0.0;
            for available in 0..=capacities[own].total {
                capacities[own].available = available;
                let shares = by_zone(&rule, Some(NAMES[own]), &capacities);
                let sum: f64 = shares.iter().sum();
                let any = capacities.iter().any(|z| z.available > 0);
                prop_assert!((sum - f64::from(u8::from(any))).abs() < 1e-9, "{rule:?} {shares:?}");
                prop_assert!(capacities.iter().zip(&shares).all(|(z, share)| z.available > 0 || *share == 0.0));
                prop_assert!(shares[own] >= before - 0.011, "{rule:?}: {} after {before}", shares[own]);
                before = shares[own];
            }
        }
    }
}
