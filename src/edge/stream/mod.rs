//! Layer 4: connections and datagrams that go to upstreams as they are.

mod dial;
mod direction;
mod pipes;
mod prelude;
mod pump;
#[cfg(test)]
mod pump_tests;
mod record;
mod session;
mod side;
mod udp;

use std::sync::Arc;

use super::listeners::{Datagrams, ServeStreams, StreamConnection, StreamWork};

/// The service for layer 4.
#[derive(Debug, Default)]
pub struct StreamGateway;

impl StreamGateway {
    /// Returns the service.
    pub fn new() -> Arc<Self> {
        Arc::new(Self)
    }
}

impl ServeStreams for StreamGateway {
    fn serve(&self, connection: StreamConnection) -> StreamWork<'_> {
        Box::pin(session::serve(connection))
    }

    fn serve_datagrams(&self, datagrams: Datagrams) -> StreamWork<'_> {
        Box::pin(udp::serve(datagrams))
    }
}
