//! Binding of sockets, and the limit of open files.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::ReusePort;
use socket2::{Domain, Protocol, Socket, Type};

use crate::edge::Bound;
use crate::notation::{Mistakes, Place};
use crate::snapshot::{Listener, Snapshot, Transport};

/// The maximum number of connections in the kernel's queue; the kernel caps it at `somaxconn`.
const BACKLOG: i32 = 65_535;

/// A socket that a listener needs.
pub struct NeededSocket<'a> {
    /// The listener's index in the configuration.
    pub index: usize,
    /// The listener.
    pub listener: &'a Listener,
    /// The sockets in its way, which are about to be closed.
    pub going: Vec<BorrowedFd<'a>>,
}

/// Returns whether an inherited socket is a listener's: by its transport and its address, or, where the system chose
/// the port or a service manager the address, by its name.
fn is_for(bound: &Bound, listener: &Listener) -> bool {
    if !bound.transport().is_ok_and(|transport| transport == listener.transport()) {
        return false;
    }
    let same_address = bound.configured == listener.address;
    if listener.address.port() == 0 {
        bound.name == listener.name
    } else {
        same_address || bound.activated && bound.name == listener.name
    }
}

/// Returns whether an inherited socket keeps a listener from its address.
fn is_in_the_way(bound: &Bound, listener: &Listener) -> bool {
    bound.transport().is_ok_and(|transport| transport == listener.transport())
        && overlap(bound.configured, listener.address)
}

/// Returns a socket for every listener: inherited where the predecessor has one for that name and address.
///
/// # Errors
/// When a socket cannot be bound.
pub fn for_listeners(snapshot: &Snapshot, mut inherited: Vec<Bound>) -> Result<Vec<Bound>, Mistakes> {
    let (mut bound, mut wanted) = (Vec::new(), Vec::new());
    for (index, listener) in snapshot.listeners.iter().enumerate() {
        let place = inherited.iter().position(|b| is_for(b, listener));
        match place {
            // From now on it has the properties of the configuration.
            Some(place) => {
                let found = inherited.swap_remove(place);
                if found.activated && found.configured != listener.address {
                    let (name, here, there) = (&listener.name, found.configured, listener.address);
                    log::warn!(
                        "listener {name} is on {here}, where the service manager has its socket, and not on {there}"
                    );
                }
                bound.push(Bound { name: listener.name.clone(), configured: listener.address, ..found });
            }
            None => wanted.push(NeededSocket { index, listener, going: Vec::new() }),
        }
    }
    for unused in inherited.iter().filter(|socket| socket.activated) {
        log::warn!(
            "the service manager's socket \"{}\" on {} is for no listener: connections there are not accepted",
            unused.name,
            unused.configured
        );
    }
    let in_the_way =
        |wanted: &NeededSocket<'_>| inherited.iter().find(|b| is_in_the_way(b, wanted.listener)).map(|b| b.configured);
    let in_the_way = wanted.iter().find_map(in_the_way);
    bound.extend(bind_listeners(wanted).map_err(|mut mistakes| {
        if let Some(address) = in_the_way {
            mistakes.add(
                &Place::default(),
                format!(
                    "the gateway that runs has {address} itself, which is in the way: reload it first, then upgrade"
                ),
            );
        }
        mistakes
    })?);
    Ok(bound)
}

/// Binds all sockets or none. None listens before all are bound, so that a failure has taken nothing from a process
/// with a wider or a narrower address.
///
/// # Errors
/// When one cannot be bound; the error has its place in the configuration.
pub fn bind_listeners(mut wanted: Vec<NeededSocket<'_>>) -> Result<Vec<Bound>, Mistakes> {
    let mut mistakes = Mistakes::default();
    let mut add_error = |wanted: &NeededSocket<'_>, error: io::Error| {
        let place = Place::default().key("listeners").index(wanted.index).key("address");
        mistakes.add(&place, format!("cannot listen on {}: {error}", wanted.listener.address));
    };
    // Those for which another socket has to share its port come last, and are skipped after an error: once a port was
    // shared, the system allows sharing it for as long as any process has it.
    wanted.sort_by_key(|wanted| !wanted.going.is_empty());
    let mut bound = Vec::new();
    for (number, wanted) in wanted.iter().enumerate() {
        if bound.len() < number && !wanted.going.is_empty() {
            break;
        }
        match unlistened((wanted.listener.transport(), wanted.listener.address), &wanted.going) {
            Ok(socket) => bound.push((wanted, socket)),
            Err(error) => add_error(wanted, error),
        }
    }
    if bound.len() == wanted.len() {
        for (wanted, socket) in &bound {
            let _ = listen(socket, wanted.listener.transport()).map_err(|error| add_error(wanted, error));
        }
    }
    let named = bound.into_iter().map(|(wanted, socket)| named(&wanted.listener.name, wanted.listener.address, socket));
    if mistakes.is_empty() { Ok(named.collect()) } else { Err(mistakes) }
}

/// Returns whether two addresses cannot be listened on at the same time, as 0.0.0.0 and an address of this machine.
pub fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let (here, there) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (here == there || here.is_unspecified() || there.is_unspecified())
}

/// Binds a TCP socket of that name.
pub fn bind(name: &str, address: SocketAddr) -> io::Result<Bound> {
    let socket = unlistened((Transport::Tcp, address), &[])?;
    listen(&socket, Transport::Tcp)?;
    Ok(named(name, address, socket))
}

fn named(name: &str, address: SocketAddr, socket: Socket) -> Bound {
    Bound { name: name.to_owned(), configured: address, activated: false, socket: socket.into() }
}

/// Starts to listen, where the transport has connections.
fn listen(socket: &Socket, transport: Transport) -> io::Result<()> {
    match transport {
        Transport::Tcp => socket.listen(BACKLOG),
        Transport::Udp => Ok(()),
    }
}

/// Binds a socket.
fn unlistened((transport, address): (Transport, SocketAddr), going: &[BorrowedFd<'_>]) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // As the address says: [::] is IPv6 and, where the system allows it, IPv4 as well.
        socket.set_only_v6(false)?;
    }
    let share = |shared| going.iter().try_for_each(|fd| setsockopt(fd, ReusePort, &shared));
    if !going.is_empty() {
        // Only after a failure: from now on a process of the same user that asks for sharing can bind the port.
        setsockopt(&socket, ReusePort, &true)?;
        share(true)?;
    }
    if let Err(error) = socket.bind(&address.into()) {
        share(false)?;
        return Err(error);
    }
    Ok(socket)
}

/// Raises the limit of open files to the maximum that the system allows: the soft limit is often 1,024, for programs
/// that use select(2).
pub fn raise_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        log::info!("the limit of open files stays as it is: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::config::load_text;

    #[test]
    fn what_is_refused_leaves_nobody_sharing_a_port() {
        let ours = unlistened((Transport::Tcp, ([127, 0, 0, 1], 0).into()), &[]).expect("a socket");
        ours.listen(1).expect("it listens");
        let port = ours.local_addr().ok().and_then(|a| a.as_socket()).expect("an address").port();
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let other = taken.local_addr().expect("an address");
        let text = format!(
            "listeners: [{{name: a, address: \"0.0.0.0:{port}\"}}, {{name: b, address: \"{other}\"}}]\n\
             routes: [{{name: a, action: {{respond: {{}}}}}}]"
        );
        let loaded = load_text(&text, "c.yaml", std::path::Path::new("")).expect("a configuration");
        let snapshot = crate::compile::compile(&loaded, &crate::live::Live::default()).expect("a right one");
        let wanted = |index: usize, going| NeededSocket { index, listener: &snapshot.listeners[index], going };
        let both = |fails: bool| {
            let second = fails.then(|| wanted(1, Vec::new()));
            bind_listeners(std::iter::once(wanted(0, vec![ours.as_fd()])).chain(second).collect())
        };
        let anybody_else = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            setsockopt(&socket, ReusePort, &true)?;
            socket.bind(&ours.local_addr()?)
        };
        assert!(both(true).is_err());
        assert!(anybody_else().is_err());
        assert!(both(false).is_ok());
        assert!(anybody_else().is_ok());
    }
}
