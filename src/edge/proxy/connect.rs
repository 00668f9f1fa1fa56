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
use tokio::net::TcpSocket;

use crate::edge::descriptors::is_reserved;
use crate::edge::listeners::client_gone;
use crate::upstreams::{CLIENT_GONE, Member, Target};

/// Opens the sockets of a target.
#[derive(Debug)]
struct Opener(Arc<Target>);

/// Returns what opens the sockets of a target, for Pingora's peers.
pub(super) fn opener(member: &Member) -> Arc<dyn L4Connect + Send + Sync> {
    Arc::clone(member.opener.get_or_init(|| Arc::new(Opener(Arc::clone(&member.target)))))
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
        let _place = self.0.connecting.acquire().await.or_err(ErrorType::InternalError, "no place")?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.or_err(ErrorType::SocketError, "failed to create socket")?;
        if is_reserved(socket.as_raw_fd()) {
            return Error::e_explain(
                ErrorType::SocketError,
                "the last file descriptors are kept for clients and operators",
            );
        }
        match socket.connect(address).await {
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
