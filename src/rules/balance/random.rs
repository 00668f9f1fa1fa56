//! Random balancing, in proportion to the weights.

use super::round_robin::turn;
use super::{Ask, Balance, Seat};

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

impl Balance for Random {
    fn pick(&self, ask: &Ask<'_>) -> Option<usize> {
        let length = self.turn.len();
        let first = usize::try_from(ask.random).unwrap_or(usize::MAX).checked_rem(length)?;
        let mut places = (first..length).chain(0..first).map(|place| self.turn[place] as usize);
        places.find(|index| ask.tried.is_empty() || !ask.was_tried(*index))
    }
}
