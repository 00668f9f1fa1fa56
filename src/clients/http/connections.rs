//! The connections of a client: their making, their reuse.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Uri;
use http::uri::{Authority, Scheme};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::error::{CallError, chain};

/// The body of a request.
pub type RequestBody = UnsyncBoxBody<Bytes, std::io::Error>;

/// The time for which an unused connection is kept. Many servers close theirs after 5 seconds (Node) or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The number of unused connections that are kept.
const MAX_IDLE: usize = 64;

/// The maximum size of the head of a response.
const MAX_HEAD: usize = 64 * 1024;

/// The time within which a connection has to be ready for its next request. It is ready when its task runs.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// The scheme, the host and the port of a URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    is_secure: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Returns the origin of an absolute URL.
    pub fn of(url: &Uri) -> Result<Self, CallError> {
        let wrong = || CallError::Request("the URL is not one of http or https with a host".to_owned());
        let is_secure = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(wrong()),
        };
        let host = url.host().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let port = url.authority().and_then(Authority::port_u16).unwrap_or(if is_secure { 443 } else { 80 });
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Self { is_secure, host: host.to_owned(), port })
    }
}

/// A connection that is ready for a request.
pub struct Connection {
    /// Sends requests.
    pub sender: SendRequest<RequestBody>,
    /// Whether an earlier call used it: the server may have closed it meanwhile.
    pub is_reused: bool,
    origin: Origin,
}

impl Connection {
    /// Returns whether it may be used again.
    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

/// The connections of a client.
pub struct Connections {
    tls: TlsConnector,
    connect_timeout: Duration,
    idle: Mutex<HashMap<Origin, Vec<(Instant, SendRequest<RequestBody>)>>>,
}

impl Connections {
    /// Returns a pool without connections.
    pub fn new(mut tls: ClientConfig, connect_timeout: Duration) -> Self {
        // HTTP/2 brings nothing to calls that are bounded anyway, and one dead connection would carry all of them.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { tls: TlsConnector::from(Arc::new(tls)), connect_timeout, idle: Mutex::default() }
    }

    /// Returns a connection to the origin: one that was used before, unless it has to be `fresh`, or a new one.
    pub async fn get(&self, origin: &Origin, fresh: bool) -> Result<Connection, CallError> {
        while let Some(mut sender) = if fresh { None } else { self.take(origin) } {
            let is_ready = tokio::time::timeout(READY_TIMEOUT, sender.ready()).await;
            if matches!(is_ready, Ok(Ok(()))) {
                return Ok(Connection { sender, is_reused: true, origin: origin.clone() });
            }
        }
        let connecting = self.connect(origin);
        let connected = tokio::time::timeout(self.connect_timeout, connecting).await;
        let sender = connected
            .map_err(|_| CallError::Connect(format!("connecting took longer than {:?}", self.connect_timeout)))?;
        Ok(Connection { sender: sender?, is_reused: false, origin: origin.clone() })
    }

    /// Keeps a connection whose last response was read to its end.
    pub fn put(&self, connection: Connection) {
        if !connection.is_open() {
            return;
        }
        let mut idle = self.idle.lock();
        let count: usize = idle.values().map(Vec::len).sum();
        if count >= MAX_IDLE {
            return;
        }
        idle.entry(connection.origin).or_default().push((Instant::now(), connection.sender));
    }

    /// Returns the connection that was used last, and drops those that are old.
    fn take(&self, origin: &Origin) -> Option<SendRequest<RequestBody>> {
        let mut idle = self.idle.lock();
        idle.retain(|_, kept| {
            kept.retain(|(since, sender)| since.elapsed() < IDLE_TIMEOUT && !sender.is_closed());
            !kept.is_empty()
        });
        idle.get_mut(origin)?.pop().map(|(_, sender)| sender)
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<RequestBody>, CallError> {
        let wrong = |error: &dyn std::error::Error| CallError::Connect(chain(error));
        // A name is resolved by the system's resolver, on a thread for blocking calls.
        let found = tokio::net::lookup_host((origin.host.as_str(), origin.port)).await;
        let addresses: Vec<SocketAddr> = found.map_err(|e| wrong(&e))?.collect();
        let stream = self.connect_any(&addresses).await?;
        let _ = stream.set_nodelay(true);
        if !origin.is_secure {
            return handshake(stream).await;
        }
        let name = ServerName::try_from(origin.host.clone()).map_err(|e| wrong(&e))?;
        handshake(self.tls.connect(name, stream).await.map_err(|e| wrong(&e))?).await
    }

    /// Connects to the first address that accepts; each has an equal share of the time.
    async fn connect_any(&self, addresses: &[SocketAddr]) -> Result<TcpStream, CallError> {
        let share = self.connect_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = CallError::Connect("its name has no address".to_owned());
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = CallError::Connect(error.to_string()),
                Err(_) => last = CallError::Connect(format!("{address} did not accept within {share:?}")),
            }
        }
        Err(last)
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<RequestBody>, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
    let (sender, connection) = made.map_err(|e| CallError::Connect(chain(&e)))?;
    // It ends with the last of its sender and the body of a response.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").finish_non_exhaustive()
    }
}
