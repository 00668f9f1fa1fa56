//! Layer 4: connections and datagrams that go to upstreams as they are.

mod udp;

use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::listeners::{Datagrams, ServeStreams, StreamConnection, StreamWork};
use crate::rules::routing::StreamFacts;
use crate::upstreams::{Caller, Class, Visit};

/// The service for layer 4.
#[derive(Debug, Default)]
pub struct StreamGateway;

impl StreamGateway {
    /// Returns the service.
    pub fn new() -> Arc<Self> {
        Arc::new(Self)
    }

    /// Joins a connection to a target.
    async fn join(&self, connection: StreamConnection) -> Option<()> {
        let StreamConnection { mut stream, client, service, admitted: _admitted, .. } = connection;
        let facts = StreamFacts { client: client.ip(), server_name: None, alpn: &[] };
        let streams = service.streams();
        let upstream = streams.find(&facts)?.forward.as_ref()?.choose()?;
        let mut visit = Visit::new(Arc::clone(upstream), Class::Normal, None);
        let caller = Caller::default();
        visit.admit(&caller).await.ok()?;
        visit.next(&caller).await.ok()?;
        let mut target = TcpStream::connect(visit.address()?).await.ok()?;
        copy_bidirectional(&mut stream, &mut target).await.ok()?;
        Some(())
    }
}

impl ServeStreams for StreamGateway {
    fn serve(&self, connection: StreamConnection) -> StreamWork<'_> {
        Box::pin(async {
            let _ = self.join(connection).await;
        })
    }

    fn serve_datagrams(&self, datagrams: Datagrams) -> StreamWork<'_> {
        Box::pin(udp::serve(datagrams))
    }
}
