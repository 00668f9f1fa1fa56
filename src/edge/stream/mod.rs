//! Layer 4: connections and datagrams that go to upstreams as they are.

mod prelude;

use std::sync::Arc;

use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use self::prelude::{SessionClient, proxy_header, request_postgres_tls};
use super::listeners::{ClientStream, Datagrams, Opening, ServeStreams, StreamConnection, StreamWork, open_stream};
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
        let StreamConnection { stream, client, proxy, listener_state, service, admitted: _admitted } = connection;
        let opening = Opening { client, proxy: proxy.as_ref(), listener_state: &listener_state, service: &service };
        let opened = open_stream(stream, &opening).await?;
        let upstream = opened.rule.forward.as_ref()?.choose()?;
        let mut visit = Visit::new(Arc::clone(upstream), Class::Normal, None);
        let caller = Caller::default();
        visit.admit(&caller).await.ok()?;
        visit.next(&caller).await.ok()?;
        let member = visit.member()?;
        let mut target = TcpStream::connect(member.target.address).await.ok()?;
        let named = SessionClient { address: client, proxy: proxy.as_ref(), id: None };
        target.write_all(&proxy_header(member, &opened, named)).await.ok()?;
        if opened.postgres && matches!(opened.stream, ClientStream::Plain(_)) {
            request_postgres_tls(&mut target).await.ok()?;
        }
        match opened.stream {
            ClientStream::Plain(mut stream) => copy_bidirectional(&mut stream, &mut target).await.ok()?,
            ClientStream::Tls(mut stream, _) => copy_bidirectional(&mut stream, &mut target).await.ok()?,
        };
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
        drop(datagrams);
        Box::pin(async {})
    }
}
