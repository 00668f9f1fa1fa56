//! What counts an open connection.

use tokio::sync::OwnedSemaphorePermit;

use super::drain::DrainGuard;
use super::evict::AddressPlace;
use crate::telemetry::metrics::METRICS;

/// Counts a connection for as long as it is open.
pub struct Admitted {
    _place: Option<OwnedSemaphorePermit>,
    _address: Option<AddressPlace>,
    _under_way: DrainGuard,
}

impl Admitted {
    /// Counts a connection from now on.
    pub fn new(place: Option<OwnedSemaphorePermit>, address: Option<AddressPlace>, under_way: DrainGuard) -> Self {
        METRICS.accepted.inc();
        METRICS.open_connections.inc();
        Self { _place: place, _address: address, _under_way: under_way }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        METRICS.open_connections.dec();
    }
}
