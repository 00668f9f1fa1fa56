//! Connections to HTTP/1 targets, as Pingora's proxy gets them: connected while the client is there, read at its
//! pace, and kept for reuse.
//!
//! Pingora calls a custom connector for a peer with a custom protocol, and speaks HTTP/1 on the stream that this
//! returns. It would keep that stream itself. To learn whether it may, it reads one byte; the stream is taken away
//! from it there.

use std::io::{self, IoSlice};
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::Result;
use pingora::connectors::TransportConnector;
use pingora::connectors::http::custom::{Connection, Connector};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{CustomALPN, SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora::proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{HttpPeer, Peer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Gateway;
use super::connect::while_client_present;
use super::idle_pool::IdlePool;
use crate::edge::listeners::{Pace, with_pace};
use crate::tls::connector_options;

/// The protocol by which Pingora knows that [`Targets`] is to be called; it is never sent to a target.
static PACED: LazyLock<ALPN> = LazyLock::new(|| ALPN::Custom(CustomALPN::new(b"paced".to_vec())));

/// Reads of at least this size are for a body: Pingora reads a head into a smaller buffer.
const BODY_READ: usize = 16 * 1024;

/// Makes Pingora call [`Targets`] for a connection to this peer, if it speaks HTTP/1 only.
pub(super) fn pace(peer: &mut HttpPeer) {
    if peer.options.alpn == ALPN::H1 {
        peer.options.alpn = PACED.clone();
    }
}

/// Connects to HTTP/1 targets.
pub struct Targets {
    transport: TransportConnector,
    idle_pool: Arc<IdlePool>,
}

impl Targets {
    /// Returns a connector that keeps at most `most` idle connections per worker.
    pub fn new(most: usize) -> Self {
        Self { transport: TransportConnector::new(connector_options()), idle_pool: IdlePool::new(most) }
    }

    /// Returns Pingora's proxy for the gateway, over this connector. Pingora makes one only within a `Service`, which
    /// is of no use here: the proxy is moved out of it.
    pub fn proxy(gateway: Gateway, conf: &Arc<ServerConf>) -> HttpProxy<Gateway, Self> {
        // This connector is for connections whose protocol Pingora is to find out; none comes to it.
        let unasked: ProcessCustomSession<Gateway, Self> = Arc::new(|_, _, _| Box::pin(std::future::ready(None)));
        let mut service = ManuallyDrop::new(
            ProxyServiceBuilder::new(conf, gateway)
                .custom(Self::new(conf.upstream_keepalive_pool_size), unasked)
                .build(),
        );
        let Some(proxy) = service.app_logic_mut() else {
            unreachable!("a service that was never started has what it serves")
        };
        // SAFETY: the service is never used again and never dropped, so what is moved out of it has one owner.
        unsafe { std::ptr::from_mut(proxy).read() }
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future of `None` that needs no allocation: Pingora polls it before it looks for an idle connection.
struct NoSession;

impl Future for NoSession {
    type Output = Option<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
        Poll::Ready(None)
    }
}

impl Connector for Targets {
    type Session = ();

    fn get_http_session<'s, 'p, 'f, P>(&'s self, peer: &'p P) -> Boxed<'f, Result<(Connection<()>, bool)>>
    where
        P: Peer + Send + Sync + 'static + 'f,
        's: 'f,
        'p: 'f,
    {
        let key = peer.reuse_hash();
        let idle = peer.idle_timeout().unwrap_or_default();
        let paced = move |stream| {
            let stream = Paced { stream: Some(stream), idle_pool: Arc::clone(&self.idle_pool), key, idle };
            Ok((Connection::Stream(Box::new(stream)), false))
        };
        if let Some(stream) = self.idle_pool.take(key) {
            with_pace(|pace| pace.set_reused(true));
            return Box::pin(std::future::ready(paced(stream)));
        }
        Box::pin(async move {
            let mut peer = peer.clone();
            if let Some(options) = peer.get_mut_peer_options() {
                options.alpn = ALPN::H1;
            }
            let connecting = self.transport.new_stream(&peer);
            // Without TLS only the socket is awaited, and its opener watches the client.
            paced(if peer.tls() { while_client_present(connecting).await? } else { connecting.await? })
        })
    }

    fn reused_http_session<'s, 'p, 'f, P>(&'s self, _: &'p P) -> Boxed<'f, Option<()>>
    where
        P: Peer + Send + Sync + 'static + 'f,
        's: 'f,
        'p: 'f,
    {
        Box::pin(NoSession)
    }

    fn release_http_session<'s, 'p, 'f, P>(&'s self, (): (), _: &'p P, _: Option<Duration>) -> Boxed<'f, ()>
    where
        P: Peer + Send + Sync + 'static + 'f,
        's: 'f,
        'p: 'f,
    {
        Box::pin(std::future::ready(()))
    }
}

/// A target's stream that is read no faster than the client takes the response.
struct Paced {
    /// The stream; `None` once it is idle.
    stream: Option<Stream>,
    idle_pool: Arc<IdlePool>,
    key: u64,
    idle: Duration,
}

impl std::fmt::Debug for Paced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paced").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl Paced {
    fn open(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<()>> {
        let mut part = buffer.take(most);
        let outcome = self.open()?.poll_read(context, &mut part);
        let count = part.filled().len();
        // SAFETY: the bytes that are filled are initialised, and they are the first that were not filled before.
        unsafe { buffer.assume_init(count) };
        buffer.advance(count);
        if count > 0 {
            with_pace(|pace| pace.read(count));
        }
        outcome
    }

    /// Returns whether this is the one-byte read by which Pingora learns whether it may keep the stream.
    fn is_given_back(buffer: &ReadBuf<'_>) -> bool {
        buffer.capacity() == 1 && with_pace(Pace::is_over) == Some(true)
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() >= BODY_READ {
            return match with_pace(|pace| pace.allowance(context)) {
                Some(0) => Poll::Pending,
                Some(most) => self.poll_body(context, buffer, most),
                None => self.open()?.poll_read(context, buffer),
            };
        }
        if Self::is_given_back(buffer) {
            if let Some(stream) = self.stream.take() {
                self.idle_pool.put(self.key, stream, self.idle);
            }
            // This is the end of the stream: Pingora drops what is left of it.
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let outcome = self.open()?.poll_read(context, buffer);
        if buffer.filled().len() > before
            && let Some(Err(late)) = with_pace(Pace::note_head)
        {
            return Poll::Ready(Err(late));
        }
        outcome
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.open()?.poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open()?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open()?.poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.open()?.poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[async_trait]
impl Shutdown for Paced {
    async fn shutdown(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.shutdown().await;
        }
    }
}

impl UniqueID for Paced {
    fn id(&self) -> UniqueIDType {
        self.stream.as_ref().map_or(-1, |stream| stream.id())
    }
}

impl Ssl for Paced {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.as_ref()?.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.as_ref()?.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.as_ref()?.selected_alpn_proto()
    }
}

impl GetTimingDigest for Paced {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.as_ref().map(|stream| stream.get_timing_digest()).unwrap_or_default()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.as_ref().map(|stream| stream.get_read_pending_time()).unwrap_or_default()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.as_ref().map(|stream| stream.get_write_pending_time()).unwrap_or_default()
    }
}

impl GetProxyDigest for Paced {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream.as_ref()?.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        if let Some(stream) = &mut self.stream {
            stream.set_proxy_digest(digest);
        }
    }
}

impl GetSocketDigest for Paced {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.as_ref()?.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        if let Some(stream) = &mut self.stream {
            stream.set_socket_digest(digest);
        }
    }
}

#[async_trait]
impl Peek for Paced {
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match &mut self.stream {
            Some(stream) => stream.try_peek(buffer).await,
            None => Ok(false),
        }
    }
}
