//! Sockets that a service manager has already bound (sd_listen_fds(3)).

use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::sockopt::AcceptConn;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname, getsockopt};

use crate::edge::Bound;

/// The first file descriptor.
const FIRST_DESCRIPTOR: RawFd = 3;

/// Returns the sockets with their names (`FileDescriptorName=`), if there are any.
///
/// # Errors
/// When one of them is not a listening TCP socket; the error names it.
pub fn sockets() -> Result<Vec<Bound>, String> {
    let variable = |name: &str| std::env::var(name).ok();
    let ours = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count = variable("LISTEN_FDS").and_then(|n| n.parse::<RawFd>().ok()).filter(|_| ours).unwrap_or(0);
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    (FIRST_DESCRIPTOR..FIRST_DESCRIPTOR.saturating_add(count))
        .map(|fd| bound(fd, names.next().unwrap_or_default()))
        .collect()
}

fn bound(fd: RawFd, name: &str) -> Result<Bound, String> {
    let family = getsockname::<SockaddrStorage>(fd).ok().and_then(|a| a.family());
    if !matches!(family, Some(AddressFamily::Inet | AddressFamily::Inet6)) {
        return Err(format!("the socket \"{name}\" of the service manager is not a TCP socket"));
    }
    // SAFETY: the service manager has opened this descriptor for this process (LISTEN_PID is its id), this runs once
    // at the start, and `getsockname` has just shown that it is open.
    let socket = TcpListener::from(unsafe { OwnedFd::from_raw_fd(fd) });
    if !getsockopt(&socket, AcceptConn).unwrap_or(false) {
        return Err(format!(
            "the socket \"{name}\" of the service manager does not listen (ListenStream= and Accept=no)"
        ));
    }
    let address = socket.local_addr().map_err(|e| format!("the socket \"{name}\" of the service manager: {e}"))?;
    // Child processes must not inherit it.
    let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC);
    nix::fcntl::fcntl(&socket, flags).map_err(|e| format!("the socket \"{name}\" of the service manager: {e}"))?;
    Ok(Bound { name: name.to_owned(), configured: address, activated: true, socket: socket.into() })
}
