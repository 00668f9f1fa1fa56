//! Least connections, and weighted least connections.

use super::{Ask, Balance};

/// Picks the target with the highest weight / (active + 1); among equals a different one each
/// time, so that an idle pool does not send everything to its first target.
#[derive(Debug)]
pub struct LeastConnections {
    weights: Box<[u32]>,
}

impl LeastConnections {
    /// For targets of these weights.
    pub fn new(weights: &[u32]) -> Self {
        Self { weights: weights.into() }
    }
}

impl Balance for LeastConnections {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let count = self.weights.len();
        let start = (ask.random % count.max(1) as u64) as usize;
        let mut best: Option<(usize, u64, u64)> = None;
        for index in (start..count).chain(0..start) {
            if ask.was_tried(index) {
                continue;
            }
            let load = u64::from(ask.loads.active(index)) + 1;
            let weight = u64::from(self.weights[index]);
            // load / weight as a cross product: no rounding, so ties are real.
            if best.is_none_or(|(_, l, w)| load * w < l * weight) {
                best = Some((index, load, weight));
            }
        }
        best.map(|(index, ..)| index)
    }
}
