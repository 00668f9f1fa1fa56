//! A connection is admitted: counted, and given to the service of its listener.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::drain::{Drain, DrainGuard};
use super::evict::AddressPlace;
use super::greet;
use super::service::Service;
use super::settings::{Settings, TooMany};
use crate::telemetry::metrics::METRICS;

/// Counts a connection for as long as it is open.
pub struct Admitted {
    _place: Option<OwnedSemaphorePermit>,
    _address: Option<AddressPlace>,
    _under_way: DrainGuard,
}

impl Admitted {
    fn new(place: Option<OwnedSemaphorePermit>, address: Option<AddressPlace>, under_way: DrainGuard) -> Self {
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

/// Serves a connection in a task of its own. It is counted before that runs: a drain must not end in between.
pub fn admit(stream: TcpStream, peer: SocketAddr, place: Option<OwnedSemaphorePermit>, settings: &Settings, drain: &Arc<Drain>) {
    let address = match settings.enter(peer.ip()) {
        Ok(address) => address,
        Err(TooMany) => return METRICS.refused.with_label_values(&["address"]).inc(),
    };
    let _ = stream.set_nodelay(true);
    let admitted = Admitted::new(place, address, drain.begin());
    match &settings.service {
        Service::Http(service) => greet::begin(stream, peer, &settings.home, service, admitted),
    }
}
