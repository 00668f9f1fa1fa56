//! A connection to a target at layer 4.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::prelude::{Prelude, PreludeError};
use super::side::SideStream;
use crate::edge::descriptors::is_reserved;
use crate::exchange::Reason;
use crate::upstreams::{Member, SocketOptions, Upstream};

/// How long a connection is silent before its peer is probed. A session may be silent for long, but not without a peer.
const KEEPALIVE_TIME: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Debug)]
pub struct DialError {
    /// The reason.
    pub reason: Reason,
    /// The text of the error.
    pub detail: String,
    /// Whether the gateway itself lacks something, or the client is the cause, which is no failure of the target.
    pub is_own: bool,
}

impl DialError {
    fn own(detail: impl Into<String>) -> Self {
        Self { reason: Reason::Exhausted, detail: detail.into(), is_own: true }
    }
}

/// Connects to a target, with what it gets before the client's bytes, and with TLS if the upstream has it, within the
/// upstream's time for that.
///
/// # Errors
/// When the target cannot be reached, or TLS with it fails.
pub async fn dial(member: &Member, upstream: &Upstream, prelude: &Prelude) -> Result<SideStream, DialError> {
    let limit = upstream.pool.shape().transport.connect;
    let work = async {
        let mut stream = connect(member).await?;
        prepare(&stream, member.socket);
        match prelude.send(&mut stream, upstream.pool.stream_tls().is_some()).await {
            Ok(()) => {}
            Err(PreludeError::Broken(error)) => {
                let detail = format!("before the first byte of the client: {error}");
                return Err(DialError { reason: Reason::ConnectRefused, detail, is_own: false });
            }
            Err(PreludeError::NoTls) => {
                let detail = "the target does not offer TLS as PostgreSQL does, which the client requested".to_owned();
                return Err(DialError { reason: Reason::TargetTls, detail, is_own: true });
            }
        }
        match upstream.pool.stream_tls() {
            None => Ok(SideStream::Plain(stream)),
            Some(Ok(config)) => encrypt(stream, member, Arc::clone(config)).await,
            Some(Err(why)) => Err(DialError { reason: Reason::TargetTls, detail: why.clone(), is_own: true }),
        }
    };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let detail = format!("not connected within {limit:?}");
        Err(DialError { reason: Reason::ConnectTimeout, detail, is_own: false })
    })
}

/// Sets what every connection to a target has: no delay of small segments, and probes of a silent peer.
fn prepare(stream: &TcpStream, options: SocketOptions) {
    let _ = stream.set_nodelay(true);
    options.keep_alive(stream, Some(KEEPALIVE_TIME));
}

async fn connect(member: &Member) -> Result<TcpStream, DialError> {
    let target = &member.target;
    let Ok(_place) = target.connecting.acquire().await else { return Err(DialError::own("no place to connect")) };
    let socket = member.socket.open(target.address).map_err(|error| DialError::own(error.to_string()))?;
    if is_reserved(socket.as_raw_fd()) {
        return Err(DialError::own("the last file descriptors are kept for clients and operators"));
    }
    socket.connect(target.address).await.map_err(|error| {
        let is_own = matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::PermissionDenied);
        let reason = match error.kind() {
            _ if is_own => Reason::Exhausted,
            io::ErrorKind::TimedOut => Reason::ConnectTimeout,
            _ => Reason::ConnectRefused,
        };
        DialError { reason, detail: error.to_string(), is_own }
    })
}

async fn encrypt(
    stream: TcpStream,
    member: &Member,
    config: Arc<rustls::ClientConfig>,
) -> Result<SideStream, DialError> {
    let failed =
        |detail: String| DialError { reason: Reason::TargetTls, detail: format!("TLS: {detail}"), is_own: false };
    let name = ServerName::try_from(member.peer.sni.clone()).map_err(|e| failed(e.to_string()))?;
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|e| failed(e.to_string()))?;
    Ok(SideStream::from(Box::new(stream)))
}
