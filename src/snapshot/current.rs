//! The configuration at work, in the hand of every worker.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Serving;
use crate::telemetry::cells::{PerWorker, per_worker, slot};

/// The configuration in one worker's hand. Requests hold this, so that they are counted where no other worker
/// counts: a counter of all of them would go from processor to processor with every request.
#[derive(Debug)]
pub struct Held(Arc<Serving>);

impl Held {
    /// In a hand of its own.
    pub fn new(serving: Arc<Serving>) -> Arc<Self> {
        Arc::new(Self(serving))
    }
}

impl Deref for Held {
    type Target = Serving;

    fn deref(&self) -> &Serving {
        &self.0
    }
}

/// The configuration at work, which a reload exchanges.
#[derive(Debug)]
pub struct Current(Box<[PerWorker<ArcSwap<Held>>]>);

impl Current {
    /// Begins with that one.
    pub fn new(serving: &Arc<Serving>) -> Self {
        Self(per_worker(|| ArcSwap::new(Held::new(Arc::clone(serving)))))
    }

    /// It in the running worker's hand.
    pub fn held(&self) -> Arc<Held> {
        self.0[slot()].0.load_full()
    }

    /// It, for whoever is no request.
    pub fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.held().0)
    }

    /// Puts another into every hand, and gives the one before. A request has the one or the other; when this
    /// returns each next one has the other.
    pub fn replace(&self, serving: &Arc<Serving>) -> Arc<Serving> {
        let before = self.serving();
        self.0.iter().for_each(|own| own.0.store(Held::new(Arc::clone(serving))));
        before
    }
}
