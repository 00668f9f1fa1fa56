//! Connections of the admin listener: unauthenticated ones are closed when new ones need their place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::Notify;

/// A connection of the admin listener.
#[derive(Debug, Default)]
pub struct AdminConnection {
    /// Whether an operator has sent a request on it.
    pub known: AtomicBool,
    /// Notified when it has to close.
    pub close: Notify,
}

/// Connections in the order of their arrival.
#[derive(Debug, Default)]
pub struct AdminConnections {
    present: VecDeque<Weak<AdminConnection>>,
    /// The length of the list at which closed connections are removed from it.
    most: usize,
}

impl AdminConnections {
    /// Adds a connection.
    pub fn add(&mut self) -> Arc<AdminConnection> {
        if self.present.len() >= self.most {
            self.present.retain(|connection| connection.strong_count() > 0);
            self.most = 64 + 2 * self.present.len();
        }
        let connection = Arc::new(AdminConnection::default());
        self.present.push_back(Arc::downgrade(&connection));
        connection
    }

    /// Closes the oldest connection without an operator's request: a health check is done by then.
    pub fn end_oldest(&mut self) {
        let unknown = |connection: &Weak<AdminConnection>| {
            connection.upgrade().is_some_and(|connection| !connection.known.load(Ordering::Relaxed))
        };
        let oldest = self.present.iter().position(unknown).and_then(|place| self.present.remove(place));
        if let Some(connection) = oldest.and_then(|connection| connection.upgrade()) {
            connection.close.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_that_is_not_known_leaves() {
        let mut connections = AdminConnections::default();
        let (known, gone, old, new) = (connections.add(), connections.add(), connections.add(), connections.add());
        known.known.store(true, Ordering::Relaxed);
        drop(gone);
        connections.end_oldest();
        old.close.notified().await;
        connections.end_oldest();
        new.close.notified().await;
        connections.end_oldest();
        assert!(known.known.load(Ordering::Relaxed) && connections.present.len() == 2);
        for _ in 0..1000 {
            drop(connections.add());
        }
        assert!(connections.present.len() < 200);
    }
}
