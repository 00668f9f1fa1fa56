//! Smooth weighted round robin, as nginx does it.
//!
//! The sequence of one whole turn is computed when the list of targets changes. A pick is then one atomic addition,
//! without a lock or state per target.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Balancer, PickInput, Seat};

/// The maximum length of a turn. Larger weights are scaled down to fit, with a precision of one in this many.
const MAX_TURN: u64 = 65_536;

/// One turn of the smooth sequence, and the present position in it.
#[derive(Debug)]
pub struct RoundRobin {
    turn: Box<[u32]>,
    next: AtomicUsize,
}

impl RoundRobin {
    /// Builds the algorithm for these targets.
    pub fn new(seats: &[Seat]) -> Self {
        // The position starts at random: a list that is rebuilt often would otherwise always begin with its first
        // target.
        Self { turn: turn(seats), next: AtomicUsize::new(fastrand::usize(..)) }
    }
}

/// Computes one turn: each target occurs in proportion to its weight, evenly spread.
pub(super) fn turn(seats: &[Seat]) -> Box<[u32]> {
    let weights = reduced(seats);
    let total: u64 = weights.iter().sum();
    let mut turn = Vec::with_capacity(usize::try_from(total).unwrap_or_default());
    if weights.iter().all(|w| *w == 1) {
        turn.extend((0..weights.len()).map(|i| i as u32));
    } else {
        smooth(&weights, total, &mut turn);
    }
    turn.into()
}

/// Returns the weights divided by their greatest common divisor, and scaled to fit [`MAX_TURN`].
fn reduced(seats: &[Seat]) -> Vec<u64> {
    fn gcd(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let common = seats.iter().fold(0, |g, s| gcd(g, s.effective_weight())).max(1);
    let mut weights: Vec<u64> = seats.iter().map(|s| (s.effective_weight() / common).max(1)).collect();
    let total: u64 = weights.iter().sum();
    let limit = MAX_TURN.max(weights.len() as u64);
    if total > limit {
        for weight in &mut weights {
            *weight = (*weight * limit / total).max(1);
        }
    }
    weights
}

/// Computes the smooth sequence. In each step every target gains its weight; the one with the most credit is picked
/// and pays the total (<https://github.com/nginx/nginx/commit/52327e0627f49dbda1e8db695e63a4b0af4448b1>). A heap of
/// next due times gives the same even spread in O(log n) per step.
fn smooth(weights: &[u64], total: u64, turn: &mut Vec<u32>) {
    if weights.len() <= 64 {
        let mut credit = vec![0_i64; weights.len()];
        for _ in 0..total {
            let mut best = 0;
            for (index, weight) in weights.iter().enumerate() {
                credit[index] += *weight as i64;
                if credit[index] > credit[best] {
                    best = index;
                }
            }
            credit[best] -= total as i64;
            turn.push(best as u32);
        }
        return;
    }
    let due = |count: u64, weight: u64| (2 * count + 1) * total / (2 * weight);
    let mut heap: std::collections::BinaryHeap<_> =
        weights.iter().enumerate().map(|(i, w)| std::cmp::Reverse((due(0, *w), i, 0_u64))).collect();
    for _ in 0..total {
        let Some(std::cmp::Reverse((_, index, count))) = heap.pop() else { return };
        turn.push(index as u32);
        heap.push(std::cmp::Reverse((due(count + 1, weights[index]), index, count + 1)));
    }
}

impl Balancer for RoundRobin {
    fn pick(&self, input: &PickInput<'_>) -> Option<usize> {
        let length = self.turn.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(length)?;
        // A retry continues from its own position, so that concurrent picks cannot make it revisit targets.
        let mut places = (first..length).chain(0..first).map(|place| self.turn[place] as usize);
        places.find(|index| input.tried.is_empty() || !input.was_tried(*index))
    }
}
