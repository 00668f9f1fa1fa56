//! Connections of the admin listener: unauthenticated ones are closed when new ones need their place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// A connection of the admin listener.
#[derive(Debug, Default)]
pub struct Guest {
    /// Whether an operator has sent a request on it.
    pub known: AtomicBool,
    /// Notified when it has to close.
    pub leave: Notify,
}

/// Connections in the order of their arrival.
#[derive(Debug, Default)]
pub struct Guests {
    present: VecDeque<Weak<Guest>>,
    /// The length of the list at which closed connections are removed from it.
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

    /// Closes the oldest connection without an operator's request: a health check is done by then.
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
