//! One server of an upstream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use super::health::{HealthState, HealthView, Thresholds};

/// A target as it was configured; a name may stand for several addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetSpec {
    /// A host name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Its share; at least 1.
    pub weight: u32,
}

impl TargetSpec {
    /// What `Host` is for this target.
    pub fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }
}

/// One server: an address, its health and its load. Kept over reloads.
#[derive(Debug)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// Its address as text, for logs and metrics.
    pub label: String,
    active: AtomicU32,
    health: Mutex<HealthState>,
}

impl Target {
    /// A target of which nothing is known yet; without probes it is healthy from the start.
    pub fn new(address: SocketAddr, probed: bool) -> Self {
        Self { address, label: address.to_string(), active: AtomicU32::new(0), health: Mutex::new(HealthState::new(probed)) }
    }

    /// Requests that it is working on.
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether it may be picked.
    pub fn is_healthy(&self) -> bool {
        self.health.lock().is_healthy()
    }

    /// Its health, for people.
    pub fn health(&self) -> HealthView {
        self.health.lock().view()
    }

    /// Notes the result of a probe. Whether its health changed by it.
    pub fn probed(&self, result: Result<(), String>, thresholds: Thresholds) -> bool {
        self.health.lock().observe(result, thresholds)
    }

    /// From now on it is probed (`true`) or taken to be healthy (`false`).
    pub fn set_probed(&self, probed: bool) {
        self.health.lock().set_probed(probed);
    }

    /// Counts a request on it, for as long as the guard lives.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.active.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }
}

/// A request on a target; dropped on whichever way out the request takes.
#[derive(Debug)]
pub struct InFlight(Arc<Target>);

impl InFlight {
    /// The target.
    pub fn target(&self) -> &Arc<Target> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}
