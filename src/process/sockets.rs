//! Binding, and how many sockets there may be.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReusePort;
use socket2::{Domain, Protocol, Socket, Type};

use crate::edge::Bound;
use crate::notation::{Mistakes, Place};
use crate::snapshot::Listener;

/// Connections that the kernel queues while the gateway is busy; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 65_535;

/// Binds the socket of a listener, which is that one of the configuration; why it cannot is a mistake there. Sockets
/// that are about to go are not in the way.
pub fn bind_listener(index: usize, listener: &Listener, going: &[BorrowedFd<'_>], mistakes: &mut Mistakes) -> Option<Bound> {
    let tell = |error: io::Error| {
        let place = Place::default().key("listeners").index(index).key("address");
        mistakes.add(&place, format!("cannot listen on {}: {error}", listener.address));
    };
    bind(&listener.name, listener.address, going).map_err(tell).ok()
}

/// Whether two addresses cannot be listened on at a time, as 0.0.0.0 and one of this machine cannot.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (here, there) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (here == there || here.is_unspecified() || there.is_unspecified())
}

/// Binds a socket of that name.
pub fn bind(name: &str, address: SocketAddr, going: &[BorrowedFd<'_>]) -> io::Result<Bound> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // As the address says: [::] is IPv6 and, where the system allows it, IPv4 as well.
        socket.set_only_v6(false)?;
    }
    if !going.is_empty() {
        // Only then: whoever runs as the same user and asks for it as well can have the port from now on.
        going.iter().chain([&socket.as_fd()]).try_for_each(|fd| setsockopt(fd, ReusePort, &true))?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(Bound { name: name.to_owned(), configured: address, activated: false, socket: socket.into() })
}

/// As many file descriptors as the system allows: the soft limit is often 1,024, for the sake of
/// programs that use select(2).
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        log::info!("the limit of open files stays as it is: {error}");
    }
}
