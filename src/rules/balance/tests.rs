//! Distribution and disruption of each algorithm against naive models and published bounds.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;

struct TestLoads(RefCell<Vec<u32>>, f64);

impl Loads for TestLoads {
    fn active(&self, index: usize) -> u32 {
        self.0.borrow()[index]
    }

    fn latency(&self, index: usize) -> f64 {
        if index == 0 { self.1 } else { 0.1 }
    }

    fn total(&self) -> u32 {
        self.0.borrow().iter().sum()
    }
}

const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RoundRobin,
    Algorithm::LeastConnections,
    Algorithm::LeastResponseTime,
    Algorithm::Random,
    Algorithm::PowerOfTwo,
    Algorithm::Ring { load_factor: 0 },
    Algorithm::Ring { load_factor: 150 },
    Algorithm::Maglev { load_factor: 0 },
    Algorithm::Maglev { load_factor: 150 },
];

fn seats(weights: &[u32]) -> Vec<Seat> {
    weights.iter().enumerate().map(|(i, w)| Seat::new(hash_key(format!("10.0.0.{i}:80").as_bytes()), *w)).collect()
}

fn run(algorithm: Algorithm, weights: &[u32], picks: usize, hold: bool) -> (Vec<usize>, Vec<u32>) {
    let balance = algorithm.build(&seats(weights));
    let loads = TestLoads(RefCell::new(vec![0; weights.len()]), 0.1);
    let mut order = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..picks {
        let input = PickInput { key: None, random: random.u64(..), loads: &loads, tried: &[] };
        let index = balance.pick(&input).expect("a target");
        order.push(index);
        if hold {
            loads.0.borrow_mut()[index] += 1;
        }
    }
    let mut counts = vec![0; weights.len()];
    order.iter().for_each(|i| counts[*i] += 1);
    (order, counts)
}

/// Returns the id of each key's target.
fn map(algorithm: Algorithm, seats: &[Seat], keys: u64) -> Vec<u64> {
    let balance = algorithm.build(seats);
    let loads = TestLoads(RefCell::new(vec![0; seats.len()]), 0.1);
    let pick = |key: u64| {
        balance.pick(&PickInput { key: Some(hash_key(&key.to_le_bytes())), random: 0, loads: &loads, tried: &[] })
    };
    (0..keys).map(|key| seats[pick(key).expect("a target")].id).collect()
}

#[test]
fn smooth_round_robin_is_exact_and_never_bursts() {
    let (order, counts) = run(Algorithm::RoundRobin, &[5, 1, 1], 700, false);
    assert_eq!(counts, [500, 100, 100]);
    assert!(order.chunk_by(|a, b| a == b).all(|run| run.len() <= 5));
    assert_eq!(run(Algorithm::RoundRobin, &[1, 1, 1], 300, false).1, [100, 100, 100]);
}

#[test]
fn least_connections_fills_the_emptiest() {
    let (_, counts) = run(Algorithm::LeastConnections, &[2, 1], 30, true);
    assert_eq!(counts, [20, 10]);
    let (_, counts) = run(Algorithm::LeastConnections, &[1, 1, 1], 30, true);
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn of_many_targets_a_few_are_compared_and_none_is_overloaded() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::PowerOfTwo] {
        let (_, counts) = run(algorithm, &[1; 200], 20_000, true);
        // Power of two choices: the fullest is over the average by log log n / log 2 + O(1).
        assert!(counts.iter().all(|c| (90..=106).contains(c)), "{algorithm:?}: {counts:?}");
    }
}

#[test]
fn the_faster_target_gets_most() {
    let balance = Algorithm::LeastResponseTime.build(&seats(&[1, 1]));
    let loads = TestLoads(RefCell::new(vec![0, 0]), 0.005);
    let input = |random| PickInput { key: None, random, loads: &loads, tried: &[] };
    assert!((0..100).all(|random| balance.pick(&input(random)) == Some(0)));
    // Until the fast one has so many requests that the slow one would respond sooner.
    loads.0.borrow_mut()[0] = 20;
    assert_eq!(balance.pick(&input(1)), Some(1));
}

#[test]
fn chance_follows_the_weights() {
    let (_, counts) = run(Algorithm::Random, &[3, 1], 40_000, false);
    assert!(counts[0].abs_diff(30_000) < 600, "{counts:?}");
}

#[test]
fn tables_give_each_its_share() {
    let equal = seats(&[1; 10]);
    let weighted = seats(&[4, 1, 1, 1, 1]);
    for (algorithm, error) in [(Algorithm::Ring { load_factor: 0 }, 0.30), (Algorithm::Maglev { load_factor: 0 }, 0.04)]
    {
        let targets = map(algorithm, &equal, 100_000);
        for seat in &equal {
            let share = targets.iter().filter(|t| **t == seat.id).count() as f64 / 10_000.0;
            assert!((share - 1.0).abs() < error, "{algorithm:?}: {share}");
        }
        let heavy = map(algorithm, &weighted, 100_000).iter().filter(|t| **t == weighted[0].id).count() as f64;
        assert!((heavy / 50_000.0 - 1.0).abs() < error, "{algorithm:?}: {heavy}");
    }
}

#[test]
fn a_target_that_goes_takes_only_its_keys() {
    let all = seats(&[1, 1, 1, 1]);
    let three = [all[0], all[1], all[3]];
    let moved = |algorithm| {
        let (before, after) = (map(algorithm, &all, 20_000), map(algorithm, &three, 20_000));
        before.iter().zip(&after).filter(|(b, a)| **b != all[2].id && b != a).count()
    };
    assert_eq!(moved(Algorithm::Ring { load_factor: 0 }), 0);
    // Maglev trades a few keys for evenness (section 5.3 of the paper).
    let few = moved(Algorithm::Maglev { load_factor: 0 });
    assert!(few < 20_000 * 4 / 100, "{few}");
}

#[test]
fn a_slow_start_moves_only_its_own_keys() {
    let all = seats(&[1, 2, 1, 1]);
    let mut starting = all.clone();
    starting[2].ramp = 100;
    let ring = Algorithm::Ring { load_factor: 0 };
    let (before, after) = (map(ring, &all, 20_000), map(ring, &starting, 20_000));
    assert!(before.iter().zip(&after).all(|(b, a)| b == a || *b == all[2].id));
    for algorithm in [ring, Algorithm::Maglev { load_factor: 0 }, Algorithm::Random] {
        let balance = algorithm.build(&starting);
        let loads = TestLoads(RefCell::new(vec![0; 4]), 0.1);
        let mut random = fastrand::Rng::with_seed(3);
        let input = |random: u64| balance.pick(&PickInput { key: Some(random), random, loads: &loads, tried: &[] });
        let share = (0..20_000).filter(|_| input(random.u64(..)) == Some(2)).count();
        // 0.1 of 4.1.
        assert!((250..=750).contains(&share), "{algorithm:?}: {share}");
    }
}

#[test]
fn the_order_of_the_list_moves_nothing() {
    let one = seats(&[1, 2, 3]);
    let other = [one[2], one[0], one[1]];
    for algorithm in [Algorithm::Ring { load_factor: 0 }, Algorithm::Maglev { load_factor: 0 }] {
        assert_eq!(map(algorithm, &one, 2_000), map(algorithm, &other, 2_000), "{algorithm:?}");
    }
}

#[test]
fn ten_thousand_targets_fit_a_table() {
    let many = seats(&vec![1; 10_000]);
    for algorithm in [Algorithm::Ring { load_factor: 0 }, Algorithm::Maglev { load_factor: 0 }] {
        let mut seen = map(algorithm, &many, 200_000);
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 9_500, "{algorithm:?}: {}", seen.len());
    }
}

proptest! {
    #[test]
    fn round_robin_gives_each_its_share(weights in proptest::collection::vec(1_u32..20, 1..90)) {
        let total: u32 = weights.iter().sum();
        let (_, counts) = run(Algorithm::RoundRobin, &weights, total as usize, false);
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!(count.abs_diff(*weight) <= 1, "{:?} for {:?}", counts, weights);
        }
    }

    #[test]
    fn weighted_least_connections_keeps_the_ratio(weights in proptest::collection::vec(1_u32..9, 1..8)) {
        let total: u32 = weights.iter().sum();
        let (_, counts) = run(Algorithm::LeastConnections, &weights, (total * 10) as usize, true);
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!(count.abs_diff(weight * 10) <= 1, "{:?} for {:?}", counts, weights);
        }
    }

    #[test]
    fn no_target_is_over_its_bound(weights in proptest::collection::vec(1_u32..6, 2..8), factor in
    105_u32..200, ring: bool) {
        let algorithm = if ring { Algorithm::Ring { load_factor: factor } } else { Algorithm::Maglev {
        load_factor: factor } };
        let balance = algorithm.build(&seats(&weights));
        let loads = TestLoads(RefCell::new(vec![0; weights.len()]), 0.1);
        let total: u32 = weights.iter().sum();
        for held in 1..300_u32 {
            // All requests have one key: without a bound one target would get all of them.
            let input = PickInput { key: Some(7), random: 0, loads: &loads, tried: &[] };
            let index = balance.pick(&input).expect("a target");
            loads.0.borrow_mut()[index] += 1;
            let bound = (f64::from(factor * held * weights[index]) / f64::from(100 * total) + 1e-9).ceil();
            prop_assert!(f64::from(loads.active(index)) <= bound, "{} of {held}, bound {bound}", loads.active(index));
        }
    }

    #[test]
    fn a_ring_moves_only_the_keys_of_what_changes(
        weights in proptest::collection::vec(1_u32..5, 2..8),
        changed: prop::sample::Index,
        now in 1_u32..5,
    ) {
        let before = seats(&weights);
        let mut after = before.clone();
        let changed = changed.index(after.len());
        after[changed].weight = now;
        let ring = Algorithm::Ring { load_factor: 0 };
        for (b, a) in map(ring, &before, 500).iter().zip(&map(ring, &after, 500)) {
            prop_assert!(a == b || *a == before[changed].id || *b == before[changed].id);
        }
    }

    #[test]
    fn a_tried_target_is_not_picked_again(
        weights in proptest::collection::vec(1_u32..5, 1..40), random: u64, which: prop::sample::Index,
    ) {
        let balance = which.get(&ALGORITHMS).build(&seats(&weights));
        let loads = TestLoads(RefCell::new(vec![0; weights.len()]), 0.1);
        let mut tried = Vec::new();
        while let Some(index) = balance.pick(&PickInput { key: None, random, loads: &loads, tried: &tried }) {
            prop_assert!(!tried.contains(&index));
            tried.push(index);
        }
        prop_assert_eq!(tried.len(), weights.len());
    }

    #[test]
    fn no_targets_no_pick(random: u64) {
        for algorithm in ALGORITHMS {
            let loads = TestLoads(RefCell::new(vec![]), 0.1);
            prop_assert_eq!(algorithm.build(&[]).pick(&PickInput { key: None, random, loads: &loads, tried: &[]
            }), None);
        }
    }
}
