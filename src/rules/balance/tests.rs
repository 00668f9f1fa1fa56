//! Distribution and disruption of each algorithm against naive models.

use super::*;
use proptest::prelude::*;
use std::cell::RefCell;

struct Counts(RefCell<Vec<u32>>);

impl Loads for Counts {
    fn active(&self, index: usize) -> u32 {
        self.0.borrow()[index]
    }

    fn latency(&self, _: usize) -> f64 {
        0.0
    }
}

fn run(algorithm: Algorithm, weights: &[u32], picks: usize, hold: bool) -> (Vec<usize>, Vec<u32>) {
    let balance = algorithm.build(weights);
    let loads = Counts(RefCell::new(vec![0; weights.len()]));
    let mut order = Vec::new();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..picks {
        let ask = Ask { key: None, random: random.u64(..), loads: &loads, tried: &[] };
        let index = balance.pick(&ask).expect("a target");
        order.push(index);
        if hold {
            loads.0.borrow_mut()[index] += 1;
        }
    }
    let mut counts = vec![0; weights.len()];
    order.iter().for_each(|i| counts[*i] += 1);
    (order, counts)
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
    fn a_tried_target_is_not_picked_again(
        weights in proptest::collection::vec(1_u32..5, 1..6), random: u64, least: bool,
    ) {
        let algorithm = if least { Algorithm::LeastConnections } else { Algorithm::RoundRobin };
        let balance = algorithm.build(&weights);
        let loads = Counts(RefCell::new(vec![0; weights.len()]));
        let mut tried = Vec::new();
        while let Some(index) = balance.pick(&Ask { key: None, random, loads: &loads, tried: &tried }) {
            prop_assert!(!tried.contains(&index));
            tried.push(index);
        }
        prop_assert_eq!(tried.len(), weights.len());
    }

    #[test]
    fn no_targets_no_pick(random: u64) {
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let loads = Counts(RefCell::new(vec![]));
            prop_assert_eq!(algorithm.build(&[]).pick(&Ask { key: None, random, loads: &loads, tried: &[] }), None);
        }
    }
}
