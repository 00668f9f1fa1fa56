//! A hash ring (Karger et al., 1997; ketama): a key belongs to the next point clockwise.
//!
//! A target's points depend on its own id and weight alone, so that a target that is added, removed or changes its
//! weight moves no other keys than its own.

use super::hash::{Table, mix};
use super::{Seat, WHOLE_WEIGHT};

/// The number of points of a target per unit of weight, as in ketama.
const POINTS: u64 = 160;

/// The maximum number of points of a ring. Above it the points per unit of weight are halved repeatedly: each halving
/// keeps a part of every target's points, and the keys on them stay in place.
const MAX_POINTS: u64 = 1 << 20;

/// The sorted points of a hash ring.
#[derive(Debug)]
pub struct Ring {
    /// Hashes in ascending order, each with its target.
    points: Box<[(u64, u32)]>,
    /// For each value of a hash's first bits, the first point that is not before them. Hashes are uniform, so that
    /// the point is a step or two from there.
    starts: Box<[u32]>,
    /// The number of bits by which a hash is shifted to get its first bits.
    shift: u32,
}

impl Ring {
    /// Builds the ring for these targets.
    pub fn new(seats: &[Seat]) -> Self {
        let total: u64 = seats.iter().map(|s| u64::from(s.weight)).sum();
        let mut each = POINTS;
        while each > 1 && each * total > MAX_POINTS {
            each /= 2;
        }
        let mut points = Vec::new();
        for (index, seat) in seats.iter().enumerate() {
            // Only a target's own slow start reduces its points; those of other targets do not move.
            let count = (each * seat.effective_weight() / u64::from(WHOLE_WEIGHT)).max(1);
            points.extend((0..count).map(|n| (mix(seat.id ^ mix(n + 1)), index as u32)));
        }
        points.sort_unstable();
        points.dedup_by_key(|(hash, _)| *hash);
        let bits = points.len().max(2).ilog2();
        let shift = 64 - bits;
        let mut starts = Vec::with_capacity(1 << bits);
        let mut at = 0;
        for first in 0..1_u64 << bits {
            while points.get(at).is_some_and(|(hash, _)| hash >> shift < first) {
                at += 1;
            }
            starts.push(at as u32);
        }
        Self { points: points.into(), starts: starts.into(), shift }
    }
}

impl Table for Ring {
    fn place(&self, key: u64) -> usize {
        let mut place = self.starts[(key >> self.shift) as usize] as usize;
        while self.points.get(place).is_some_and(|(hash, _)| *hash < key) {
            place += 1;
        }
        if place == self.points.len() { 0 } else { place }
    }

    fn target(&self, place: usize) -> usize {
        self.points[place].1 as usize
    }

    fn len(&self) -> usize {
        self.points.len()
    }

    fn stride(&self) -> usize {
        1
    }
}
