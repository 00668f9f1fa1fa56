//! Hashing picks the same target for the same key, with a bound on the load of one target.

use super::{Balancer, PickInput, Seat};

/// Returns a 64-bit hash that is the same in every process and version: FNV-1a with the finalizer of MurmurHash3,
/// which spreads the last bytes over all bits. It is not suited for secrets: a client that chooses its keys can
/// choose its target anyway.
pub fn hash_key(bytes: &[u8]) -> u64 {
    let folded = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    mix(folded)
}

/// Applies MurmurHash3's 64-bit finalizer.
pub(super) fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ hash >> 33
}

/// A table from keys to targets: a ring, or a Maglev table.
pub trait Table: Send + Sync {
    /// Returns the place of a key.
    fn place(&self, key: u64) -> usize;

    /// Returns the target at a place. Places wrap around.
    fn target(&self, place: usize) -> usize;

    /// Returns the number of places.
    fn len(&self) -> usize;

    /// Returns the distance to the next place, for a key whose target cannot take it.
    fn stride(&self) -> usize;
}

/// The number of places that are tried before the bound is ignored.
const MAX_TRIED_PLACES: usize = 4_096;

/// A balancing algorithm over a table.
#[derive(Debug)]
pub struct Hashed<T> {
    table: T,
    /// The share of the load that each target may have, as a fraction of 1.
    shares: Box<[f64]>,
    factor: f64,
}

impl<T: Table> Hashed<T> {
    /// Returns the algorithm with a bound of `load_factor` percent of each target's share of the load; 0 is no bound.
    pub fn new(table: T, seats: &[Seat], load_factor: u32) -> Self {
        let total: f64 = seats.iter().map(|s| s.effective_weight() as f64).sum();
        let shares = seats.iter().map(|s| s.effective_weight() as f64 / total).collect();
        Self { table, shares, factor: f64::from(load_factor) / 100.0 }
    }

    /// Returns whether the target is at its bound. This is consistent hashing with bounded loads (V. Mirrokni, M.
    /// Thorup, M. Zadimoghaddam, 2016), as in HAProxy's `hash-balance-factor`: including this request, no target has
    /// more than its share times the factor, rounded up.
    fn is_full(&self, input: &PickInput<'_>, index: usize) -> bool {
        if self.factor == 0.0 {
            return false;
        }
        let bound = (self.factor * (f64::from(input.loads.total()) + 1.0) * self.shares[index]).ceil();
        f64::from(input.loads.active(index)) + 1.0 > bound
    }
}

impl<T: Table> Balancer for Hashed<T> {
    fn pick(&self, input: &PickInput<'_>) -> Option<usize> {
        if self.shares.is_empty() || input.tried.len() >= self.shares.len() {
            return None;
        }
        let first = self.table.place(input.key.unwrap_or(input.random));
        let length = self.table.len();
        let mut fallback = None;
        // Some target is always under its bound. If none was found after many places, the counts have changed
        // meanwhile.
        for step in 0..length.min(MAX_TRIED_PLACES.max(64 * self.shares.len())) {
            let index = self.table.target((first + step * self.table.stride()) % length);
            if !input.tried.is_empty() && input.was_tried(index) {
                continue;
            }
            if !self.is_full(input, index) {
                return Some(index);
            }
            fallback = fallback.or(Some(index));
        }
        fallback
    }
}
