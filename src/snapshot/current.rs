//! The current configuration, with one pointer per worker.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::Serving;
use crate::telemetry::cells::{PerWorker, per_worker, slot};

/// The configuration as one worker holds it. Requests hold this, so that they are counted where no other worker
/// counts: a shared counter would move from processor to processor with every request.
#[derive(Debug)]
pub struct WorkerServing(Arc<Serving>);

impl WorkerServing {
    /// Returns the configuration for one worker.
    pub fn new(serving: Arc<Serving>) -> Arc<Self> {
        Arc::new(Self(serving))
    }
}

impl Deref for WorkerServing {
    type Target = Serving;

    fn deref(&self) -> &Serving {
        &self.0
    }
}

/// The current configuration, which a reload replaces.
#[derive(Debug)]
pub struct Current(Box<[PerWorker<ArcSwap<WorkerServing>>]>);

impl Current {
    /// Begins with that configuration.
    pub fn new(serving: &Arc<Serving>) -> Self {
        Self(per_worker(|| ArcSwap::new(WorkerServing::new(Arc::clone(serving)))))
    }

    /// Returns the configuration as the running worker holds it.
    pub fn for_worker(&self) -> Arc<WorkerServing> {
        self.0[slot()].0.load_full()
    }

    /// Returns the configuration, for code that is not part of a request.
    pub fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.for_worker().0)
    }

    /// Replaces the configuration of every worker, and returns the one before. A request has the one or the other;
    /// once this returns, each next one has the new one.
    pub fn replace(&self, serving: &Arc<Serving>) -> Arc<Serving> {
        let before = self.serving();
        self.0.iter().for_each(|own| own.0.store(WorkerServing::new(Arc::clone(serving))));
        before
    }
}
