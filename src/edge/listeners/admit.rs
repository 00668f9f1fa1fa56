//! Admission of a connection: it is counted, and handed to the service of its listener.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::admitted::Admitted;
use super::drain::Drain;
use super::layer4::StreamConnection;
use super::service::Service;
use super::settings::{Beginning, Settings};
use super::{greet, layer4, proxied};
use crate::telemetry::metrics::METRICS;

/// Serves a connection in a task of its own. It is counted before the task runs: a drain must not end in between.
pub fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    place: Option<OwnedSemaphorePermit>,
    settings: &Arc<Settings>,
    drain: &Arc<Drain>,
) {
    match settings.beginning(peer.ip()) {
        Beginning::Client => {}
        Beginning::Rejected => return METRICS.refused.with_label_values(&["proxy_header"]).inc(),
        Beginning::ProxyHeader => {
            return proxied::begin(stream, peer, Arc::clone(settings), Admitted::new(place, None, drain.begin()));
        }
    }
    let address = match settings.count_address(peer.ip()) {
        Ok(address) => address,
        Err(why) => return METRICS.refused.with_label_values(&[why.word()]).inc(),
    };
    let admitted = Admitted::new(place, address, drain.begin());
    match &settings.service {
        Service::Http(service) => greet::begin(stream, peer, None, &settings.listener_state, service, admitted),
        Service::Tcp(service) => layer4::begin(StreamConnection {
            stream,
            client: peer,
            proxy: None,
            listener_state: Arc::clone(&settings.listener_state),
            service: Arc::clone(service),
            admitted,
        }),
        // It has no connections.
        Service::Udp(_) => {}
    }
}
