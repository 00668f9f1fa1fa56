//! Layer 4: connections and datagrams that go to upstreams as they are.

mod batch;
mod dial;
mod direction;
mod moving;
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

pub use batch::StreamBatch;
pub use moving::{Adopted, MovingSessions, batch_of, resolve, take_over};
pub use udp::MovingFlows;

/// The service for layer 4.
#[derive(Debug, Default)]
pub struct StreamGateway {
    /// The TCP sessions that another process goes on with.
    pub sessions: Arc<MovingSessions>,
    /// The flows of datagrams that another process goes on with.
    pub flows: MovingFlows,
}

impl StreamGateway {
    /// Returns the service.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }
}

impl ServeStreams for StreamGateway {
    fn serve(&self, connection: StreamConnection) -> StreamWork<'static> {
        Box::pin(session::serve(connection, Arc::clone(&self.sessions)))
    }

    fn serve_datagrams(&self, datagrams: Datagrams) -> StreamWork<'_> {
        Box::pin(udp::serve(datagrams, &self.flows))
    }
}
