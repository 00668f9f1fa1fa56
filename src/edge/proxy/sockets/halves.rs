//! The two directions of a stream that another protocol goes on with.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use pingora::Result;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::edge::listeners::{SocketReader, SocketWriter};
use crate::edge::proxy::Context;
use crate::upstreams::Response;

/// The two directions of a stream, behind the handshake.
pub struct SocketHalves {
    /// The bytes that came with the handshake.
    pub early: Option<Bytes>,
    /// What the peer sends.
    pub read: Box<dyn AsyncRead + Send + Unpin>,
    /// What the peer is sent.
    pub write: Box<dyn AsyncWrite + Send + Unpin>,
}

impl SocketHalves {
    /// Takes the stream of a client whose handshake was responded to.
    pub fn of_client(session: &mut Session, ctx: &mut Context) -> Option<Self> {
        ctx.ending.head = Some(Box::new(session.req_header().clone()));
        if let Some(connection) = &ctx.downstream.connection {
            connection.stop_following();
        }
        if let ServerSession::Custom(stream) = &mut *session.downstream_session {
            let parts = stream.take_custom_message_reader()?;
            let progress = Arc::clone(ctx.downstream.progress.as_ref()?);
            let (read, write) = (SocketReader::new(parts), SocketWriter(progress));
            return Some(Self { early: None, read: Box::new(read), write: Box::new(write) });
        }
        let early = session.read_request_body().now_or_never().and_then(Result::ok).flatten();
        let (placeholder, _) = tokio::io::duplex(1);
        let placeholder = ServerSession::new_http1(Box::new(placeholder));
        let ServerSession::H1(client) = std::mem::replace(&mut *session.downstream_session, placeholder) else {
            return None;
        };
        let (read, write) = tokio::io::split(client.into_inner());
        Some(Self { early, read: Box::new(read), write: Box::new(write) })
    }

    /// Takes the stream of a target that has switched to another protocol.
    pub fn of_target(response: Response) -> Option<Self> {
        let mut target = response.into_http1()?;
        let early = target.read_body_bytes().now_or_never().and_then(Result::ok).flatten();
        let (read, write) = tokio::io::split(target.into_inner());
        Some(Self { early, read: Box::new(read), write: Box::new(write) })
    }
}
