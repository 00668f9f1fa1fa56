//! The options of sockets towards targets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpSocket;

/// How often a silent peer is probed before the connection fails: a quarter of the time after which the first probe is
/// sent, and not more often than each second.
const PROBES: u32 = 4;

/// The options of the sockets of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketOptions {
    /// The address that connections come from; `None` leaves it to the system.
    pub bind: Option<IpAddr>,
    /// How long a connection is silent before the system probes its peer (RFC 9293, section 3.8.4); zero is never, and
    /// `None` the usual time.
    pub keepalive: Option<Duration>,
}

impl SocketOptions {
    /// Returns a socket for a connection to that address, which is yet to be made.
    ///
    /// # Errors
    /// Fails when no file descriptor is left, or the address is not one of this host.
    pub fn open(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if let Some(bind) = self.bind {
            // The port is chosen with the connection, so that one port serves connections to several targets.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(SocketAddr::new(bind, 0))?;
        }
        Ok(socket)
    }

    /// Lets the system probe a silent peer; `usual` is the time where the upstream has none.
    pub fn keep_alive<'s>(&self, stream: impl Into<SockRef<'s>>, usual: Option<Duration>) {
        let Some(time) = self.keepalive.or(usual).filter(|time| !time.is_zero()) else { return };
        let interval = (time / PROBES).max(Duration::from_secs(1));
        // A connection works without it.
        let _ = stream.into().set_tcp_keepalive(&TcpKeepalive::new().with_time(time).with_interval(interval));
    }
}
