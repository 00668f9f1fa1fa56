//! Connections of the operators' listener: those that have not said who they are make room for others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// One connection.
#[derive(Debug, Default)]
pub struct Guest {
    /// Whether an operator has asked on it.
    pub known: AtomicBool,
    /// Tells it to make room.
    pub leave: Notify,
}

/// Connections in the order in which they came.
#[derive(Debug, Default)]
pub struct Guests {
    present: VecDeque<Weak<Guest>>,
    /// How many there may be before it is looked who of them has left.
    most: usize,
}

impl Guests {
    /// Adds a connection.
    pub fn enter(&mut self) -> Arc<Guest> {
        if self.present.len() >= self.most {
            self.present.retain(|guest| guest.strong_count() > 0);
            self.most = 64 + 2 * self.present.len();
        }
        let guest = Arc::new(Guest::default());
        self.present.push_back(Arc::downgrade(&guest));
        guest
    }

    /// Ends the oldest on which no operator has asked: whoever only asks for the health is done by then.
    pub fn end_oldest(&mut self) {
        let unknown = |guest: &Weak<Guest>| guest.upgrade().is_some_and(|guest| !guest.known.load(Ordering::Relaxed));
        let oldest = self.present.iter().position(unknown).and_then(|place| self.present.remove(place));
        if let Some(guest) = oldest.and_then(|guest| guest.upgrade()) {
            guest.leave.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_is_not_known_leaves() {
        let mut guests = Guests::default();
        let (known, gone, old, new) = (guests.enter(), guests.enter(), guests.enter(), guests.enter());
        known.known.store(true, Ordering::Relaxed);
        drop(gone);
        guests.end_oldest();
        old.leave.notified().await;
        guests.end_oldest();
        new.leave.notified().await;
        guests.end_oldest();
        assert!(known.known.load(Ordering::Relaxed) && guests.present.len() == 2);
        for _ in 0..1000 {
            drop(guests.enter());
        }
        assert!(guests.present.len() < 200);
    }
}
