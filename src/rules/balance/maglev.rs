//! Maglev hashing (D. Eisenbud et al., NSDI 2016, section 3.4): a table that every target fills in
//! the order of its own permutation, so that shares are even to about 1 % and few keys move.

use super::Seat;
use super::hash::{Table, mix};

/// The number of places in the table: a prime, and about a hundred times the number of targets.
const SIZE: u64 = 65_537;

/// The lookup table of Maglev hashing.
#[derive(Debug)]
pub struct Maglev {
    table: Box<[u32]>,
}

impl Maglev {
    /// Builds the table for these targets.
    pub fn new(seats: &[Seat]) -> Self {
        if seats.is_empty() {
            return Self { table: Box::default() };
        }
        const EMPTY: u32 = u32::MAX;
        let mut table = vec![EMPTY; SIZE as usize];
        let heaviest = seats.iter().map(Seat::effective_weight).max().unwrap_or(1);
        // The position of each target in its permutation (offset + step · skip) mod size.
        let mut next: Vec<(u64, u64)> =
            seats.iter().map(|s| (mix(s.id) % SIZE, mix(s.id ^ 0x9e37_79b9) % (SIZE - 1) + 1)).collect();
        let mut credit = vec![0_u64; seats.len()];
        // The order of turns is that of the ids and not of the list, so that it is the same in every gateway.
        let mut order: Vec<usize> = (0..seats.len()).collect();
        order.sort_by_key(|i| seats[*i].id);
        let mut left = SIZE;
        loop {
            for &index in &order {
                // A target takes a place each time its accumulated weight reaches that of the heaviest one.
                credit[index] += seats[index].effective_weight();
                if credit[index] < heaviest {
                    continue;
                }
                credit[index] -= heaviest;
                let (place, skip) = &mut next[index];
                while table[*place as usize] != EMPTY {
                    *place = (*place + *skip) % SIZE;
                }
                table[*place as usize] = index as u32;
                left -= 1;
                if left == 0 {
                    return Self { table: table.into() };
                }
            }
        }
    }
}

impl Table for Maglev {
    fn place(&self, key: u64) -> usize {
        (key % SIZE) as usize
    }

    fn target(&self, place: usize) -> usize {
        self.table[place] as usize
    }

    fn len(&self) -> usize {
        self.table.len()
    }

    /// Returns the table's size divided by the golden ratio: adjacent places may belong to few targets where the
    /// steps of their permutations are small.
    fn stride(&self) -> usize {
        40_503
    }
}
