//! Binding.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::edge::Bound;

/// Connections that the kernel queues while the gateway is busy; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 65_535;

/// Binds a listener's socket.
pub fn bind(name: &str, address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // As the address says: [::] is IPv6 and, where the system allows it, IPv4 as well.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound { name: name.to_owned(), configured: address, socket: socket.into() })
}
