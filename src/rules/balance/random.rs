//! Random balancing, in proportion to the weights.

use super::round_robin::turn;
use super::{Balancer, PickInput, Seat};

/// Picks a random place of one turn of weighted round robin.
#[derive(Debug)]
pub struct Random {
    turn: Box<[u32]>,
}

impl Random {
    /// Builds the algorithm for these targets.
    pub fn new(seats: &[Seat]) -> Self {
        Self { turn: turn(seats) }
    }
}

impl Balancer for Random {
    fn pick(&self, input: &PickInput<'_>) -> Option<usize> {
        let length = self.turn.len();
        let first = usize::try_from(input.random).unwrap_or(usize::MAX).checked_rem(length)?;
        let mut places = (first..length).chain(0..first).map(|place| self.turn[place] as usize);
        places.find(|index| input.tried.is_empty() || !input.was_tried(*index))
    }
}
