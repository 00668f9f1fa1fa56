//! A ring of hashes (Karger et al., 1997; ketama): a key belongs to the next point clockwise.
//!
//! A target's points depend on its own id and weight alone, so that whoever comes, goes or changes
//! its weight moves no key but its own.

use super::Seat;
use super::hash::{Table, mix};

/// Points of a target for each unit of weight; as many as ketama has.
const POINTS: u64 = 160;

/// The most points of a whole ring. Over it everyone has half as many, and half again: each halving
/// keeps a part of everyone's points, and the keys on them where they are.
const MAX_POINTS: u64 = 1 << 20;

/// The ring.
#[derive(Debug)]
pub struct Ring {
    /// Hashes in order, with the target at each.
    points: Box<[(u64, u32)]>,
}

impl Ring {
    /// For these targets.
    pub fn new(seats: &[Seat]) -> Self {
        let total: u64 = seats.iter().map(|s| u64::from(s.weight)).sum();
        let mut each = POINTS;
        while each > 1 && each * total > MAX_POINTS {
            each /= 2;
        }
        let mut points = Vec::new();
        for (index, seat) in seats.iter().enumerate() {
            let count = each * u64::from(seat.weight);
            points.extend((0..count).map(|n| (mix(seat.id ^ mix(n + 1)), index as u32)));
        }
        points.sort_unstable();
        points.dedup_by_key(|(hash, _)| *hash);
        Self { points: points.into() }
    }
}

impl Table for Ring {
    fn place(&self, key: u64) -> usize {
        let place = self.points.partition_point(|(hash, _)| *hash < key);
        if place == self.points.len() { 0 } else { place }
    }

    fn target(&self, place: usize) -> usize {
        self.points[place].1 as usize
    }

    fn len(&self) -> usize {
        self.points.len()
    }
}
