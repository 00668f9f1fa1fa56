//! The same key to the same target, with a bound on how much one target may get.

use super::{Ask, Balance, Seat};

/// A 64-bit hash that is the same in every process and version: FNV-1a with the finish of
/// MurmurHash3, which spreads the last bytes over all bits. Not for secrets: whoever chooses keys can
/// choose their target anyway.
pub fn hash_key(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mix(folded)
}

/// MurmurHash3's 64-bit finish.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// A table from keys to targets: a ring, or Maglev's.
pub trait Table: Send + Sync {
    /// The place of a key.
    fn place(&self, key: u64) -> usize;

    /// The target at a place; places go round.
    fn target(&self, place: usize) -> usize;

    /// How many places there are.
    fn len(&self) -> usize;

    /// How far the next place is where the target of one cannot take the key.
    fn stride(&self) -> usize;
}

/// Places that are looked at before a bound is given up.
const MAX_STEPS: usize = 4_096;

/// A table at work.
#[derive(Debug)]
pub struct Hashed<T> {
    table: T,
    /// What each target may have of the load, as a part of 1.
    shares: Box<[f64]>,
    factor: f64,
}

impl<T: Table> Hashed<T> {
    /// With a bound of `load_factor` percent of the average load for each target; 0 is none.
    pub fn new(table: T, seats: &[Seat], load_factor: u32) -> Self {
        let total: f64 = seats.iter().map(|s| s.parts() as f64).sum();
        let shares = seats.iter().map(|s| s.parts() as f64 / total).collect();
        Self { table, shares, factor: f64::from(load_factor) / 100.0 }
    }

    /// Consistent hashing with bounded loads (V. Mirrokni, M. Thorup, M. Zadimoghaddam, 2016), as in
    /// HAProxy's `hash-balance-factor`: this request included, nobody has more than its share times
    /// the factor, rounded up.
    fn is_full(&self, ask: &Ask<'_>, index: usize) -> bool {
        if self.factor == 0.0 {
            return false;
        }
        let bound = (self.factor * (f64::from(ask.loads.total()) + 1.0) * self.shares[index]).ceil();
        f64::from(ask.loads.active(index)) + 1.0 > bound
    }
}

impl<T: Table> Balance for Hashed<T> {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        if self.shares.is_empty() || ask.tried.len() >= self.shares.len() {
            return None;
        }
        let first = self.table.place(ask.key.unwrap_or(ask.random));
        let length = self.table.len();
        let mut fallback = None;
        // Some target is under its bound; a table of which so much says otherwise describes the past.
        for step in 0..length.min(MAX_STEPS.max(64 * self.shares.len())) {
            let index = self.table.target((first + step * self.table.stride()) % length);
            if !ask.tried.is_empty() && ask.was_tried(index) {
                continue;
            }
            if !self.is_full(ask, index) {
                return Some(index);
            }
            fallback = fallback.or(Some(index));
        }
        fallback
    }
}
