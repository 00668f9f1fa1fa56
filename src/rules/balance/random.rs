//! By chance, in proportion to weight.

use super::round_robin::turn;
use super::{Ask, Balance, Seat};

/// A turn of weighted round robin, of which any place is drawn.
#[derive(Debug)]
pub struct Random {
    turn: Box<[u32]>,
}

impl Random {
    /// For these targets.
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
