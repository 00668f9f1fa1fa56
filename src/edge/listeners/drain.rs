//! The count of all that is active in a process: connections, streams and steps of an upgrade.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts what is active, so that draining ends with the last of it.
#[derive(Debug, Default)]
pub struct Drain {
    count: AtomicUsize,
    empty: Notify,
    is_over: AtomicBool,
    over: Notify,
}

/// A guard of one active connection, stream or step.
#[derive(Debug)]
pub struct DrainGuard(Arc<Drain>);

impl Drain {
    /// Counts one until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> DrainGuard {
        self.count.fetch_add(1, Ordering::AcqRel);
        DrainGuard(Arc::clone(self))
    }

    /// Returns how many are active.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Cuts every connection within a [`TICK`](super::clock::TICK).
    pub fn cut(&self) {
        self.is_over.store(true, Ordering::Release);
        self.over.notify_waiters();
    }

    /// Resolves when every connection is to end now.
    pub async fn over(&self) {
        loop {
            let notified = self.over.notified();
            if self.is_over() {
                return;
            }
            notified.await;
        }
    }

    /// Returns whether every connection is to end now.
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Resolves when nothing is active.
    pub async fn empty(&self) {
        loop {
            let notified = self.empty.notified();
            if self.count() == 0 {
                return;
            }
            notified.await;
        }
    }
}

impl Drop for DrainGuard {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.empty.notify_waiters();
        }
    }
}
