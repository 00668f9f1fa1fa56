//! Connecting to targets while the client is there.
//!
//! Pingora awaits a connection without watching the client, opens any number of sockets to a target that does not
//! respond, and uses the last file descriptor of the process for it.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::AsyncWriteExt;

use crate::edge::descriptors::is_reserved;
use crate::edge::listeners::client_gone;
use crate::rules::protocols::HeaderTransport;
use crate::upstreams::{CLIENT_GONE, Member, ProxiedClient, SocketOptions, Target};

/// Opens the sockets of a target.
#[derive(Debug)]
struct Opener {
    target: Arc<Target>,
    socket: SocketOptions,
    /// The PROXY header for a connection of one client; empty where the target expects none.
    header: Vec<u8>,
}

/// Returns what opens the sockets of a target, for Pingora's peers. Where the target expects a PROXY header, it is one
/// for that client alone.
pub(super) fn opener(member: &Member, client: Option<&ProxiedClient<'_>>) -> Arc<dyn L4Connect + Send + Sync> {
    let open = |header| Arc::new(Opener { target: Arc::clone(&member.target), socket: member.socket, header });
    match &member.proxy {
        Some(shape) => open(shape.header(client, HeaderTransport::Stream)),
        None => Arc::clone(member.opener.get_or_init(|| open(Vec::new()))),
    }
}

/// Runs `work` until the client of the running task goes.
pub(super) async fn while_client_present<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = client_gone() => Error::e_explain(CLIENT_GONE, "the client has gone while the target was connected to"),
    }
}

#[async_trait]
impl L4Connect for Opener {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let SocketAddr::Inet(address) = address else {
            return Error::e_explain(ErrorType::SocketError, "no address of a network");
        };
        while_client_present(self.open(*address)).await
    }
}

impl Opener {
    /// Waits for a place among the sockets that are being connected; Pingora's timeout for the whole connect ends the
    /// wait.
    async fn open(&self, address: std::net::SocketAddr) -> Result<Stream> {
        let _place = self.target.connecting.acquire().await.or_err(ErrorType::InternalError, "no place")?;
        let socket = self.socket.open(address).or_err(ErrorType::SocketError, "failed to create socket")?;
        if is_reserved(socket.as_raw_fd()) {
            return Error::e_explain(
                ErrorType::SocketError,
                "the last file descriptors are kept for clients and operators",
            );
        }
        let connected = socket.connect(address).await.inspect(|stream| self.socket.keep_alive(stream, None));
        match connected {
            Ok(mut stream) if !self.header.is_empty() => {
                // It is the first that is sent, also before TLS, and fits into the buffer of a new socket.
                let sent = stream.write_all(&self.header).await;
                sent.or_err(ErrorType::ConnectError, "failed to send the PROXY header")?;
                Ok(stream.into())
            }
            Ok(stream) => Ok(stream.into()),
            Err(error) => Error::e_because(error_type(&error), format!("Fail to connect to {address}"), error),
        }
    }
}

/// Returns the type of error that Pingora uses for the same failure of its own connects (`l4/ext.rs`).
fn error_type(error: &std::io::Error) -> ErrorType {
    use nix::libc::{EHOSTUNREACH, ENETUNREACH};
    use std::io::ErrorKind as K;
    match (error.kind(), error.raw_os_error()) {
        (K::ConnectionRefused, _) => ErrorType::ConnectRefused,
        (K::TimedOut, _) => ErrorType::ConnectTimedout,
        (K::AddrNotAvailable, _) => ErrorType::BindError,
        (K::PermissionDenied | K::AddrInUse, _) => ErrorType::InternalError,
        (_, Some(ENETUNREACH | EHOSTUNREACH)) => ErrorType::ConnectNoRoute,
        _ => ErrorType::ConnectError,
    }
}
