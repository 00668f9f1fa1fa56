//! The guard that counts an open connection.

use tokio::sync::OwnedSemaphorePermit;

use super::drain::DrainGuard;
use super::evict::AddressPlace;
use crate::telemetry::metrics::METRICS;

/// Counts a connection for as long as it is open.
pub struct Admitted {
    _place: Option<OwnedSemaphorePermit>,
    address: Option<AddressPlace>,
    _under_way: DrainGuard,
}

impl Admitted {
    /// Counts a connection until the guard is dropped.
    pub fn new(place: Option<OwnedSemaphorePermit>, address: Option<AddressPlace>, under_way: DrainGuard) -> Self {
        METRICS.accepted.inc();
        METRICS.open_connections.inc();
        Self { _place: place, address, _under_way: under_way }
    }

    /// Counts the connection as one of that place too.
    pub fn count_address(&mut self, address: Option<AddressPlace>) {
        self.address = address;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        METRICS.open_connections.dec();
    }
}
