//! A bound socket, whatever protocol is spoken on it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{SockRef, Type};

use crate::snapshot::Transport;

/// The transport and the actual address of a socket.
pub type SocketPlace = (Transport, SocketAddr);

/// A bound socket that is not served yet. A TCP socket listens.
#[derive(Debug)]
pub struct Bound {
    /// The listener's name.
    pub name: String,
    /// The address that was configured; its port may be 0.
    pub configured: SocketAddr,
    /// Whether a service manager has bound it, so that its name counts more than its address.
    pub activated: bool,
    /// The socket.
    pub socket: OwnedFd,
}

impl Bound {
    /// Returns the transport, which is read from the socket: a predecessor of any version hands over the right one.
    pub fn transport(&self) -> io::Result<Transport> {
        match SockRef::from(&self.socket).r#type()? {
            Type::STREAM => Ok(Transport::Tcp),
            Type::DGRAM => Ok(Transport::Udp),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Returns the actual address.
    pub fn address(&self) -> io::Result<SocketAddr> {
        SockRef::from(&self.socket).local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Returns the transport and the actual address, if they can be read.
    pub fn place(&self) -> Option<SocketPlace> {
        Some((self.transport().ok()?, self.address().ok()?))
    }

    /// Duplicates the socket for a successor.
    ///
    /// # Errors
    /// Fails when no file descriptor is left.
    pub fn share(&self) -> io::Result<Self> {
        let socket = self.socket.try_clone()?;
        Ok(Self { name: self.name.clone(), configured: self.configured, activated: false, socket })
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
