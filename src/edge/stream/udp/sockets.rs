//! The sockets to targets: each flow has a connected one of its own, so that a target's refusal (ICMP) reaches the
//! flow, and all of a listener are watched together.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::sockopt::UdpGroSegment;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::rules::datagrams::FlowId;

/// The share of the file descriptors, in percent, that sockets of flows may have.
const DESCRIPTOR_SHARE: u64 = 70;

/// The number of sockets of flows that the process may have.
static MAX_SOCKETS: LazyLock<usize> = LazyLock::new(|| {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(soft, _)| soft);
    usize::try_from(limit.saturating_mul(DESCRIPTOR_SHARE) / 100).unwrap_or(usize::MAX)
});

static SOCKETS: AtomicUsize = AtomicUsize::new(0);

/// The space for the control message of a datagram, with its head.
#[repr(align(8))]
struct Control([u8; 32]);

/// A socket to a target, which is counted among those of the process.
#[derive(Debug)]
pub struct TargetSocket(UdpSocket);

impl TargetSocket {
    /// Opens a socket to a target, from that address of this host.
    ///
    /// # Errors
    /// Fails with `None` when no file descriptor or port is left, which says nothing about the target.
    pub fn connect(target: SocketAddr, bind: Option<IpAddr>) -> Result<Self, Option<io::Error>> {
        let count = SOCKETS.fetch_add(1, Ordering::Relaxed);
        let opened = if count < *MAX_SOCKETS { open(target, bind).map_err(not_exhausted) } else { Err(None) };
        if opened.is_err() {
            SOCKETS.fetch_sub(1, Ordering::Relaxed);
        }
        opened.map(Self)
    }

    /// Returns the socket of a flow that was taken over. It is counted, whatever the limit.
    pub fn adopt(socket: OwnedFd) -> Self {
        SOCKETS.fetch_add(1, Ordering::Relaxed);
        Self(socket.into())
    }

    /// Duplicates the socket for another process.
    ///
    /// # Errors
    /// Fails when no file descriptor is left.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.0.as_fd().try_clone_to_owned()
    }

    /// Sends a datagram of a header and a payload.
    pub fn send(&self, header: &[u8], bytes: &[u8]) -> io::Result<()> {
        if header.is_empty() {
            return self.0.send(bytes).map(|_| ());
        }
        SockRef::from(&self.0).send_vectored(&[IoSlice::new(header), IoSlice::new(bytes)]).map(|_| ())
    }

    /// Sends several datagrams of that length, the last of which may be shorter.
    ///
    /// # Errors
    /// Fails where the system cannot take them at a time; none is sent then.
    pub fn send_segments(&self, bytes: &[u8], segment: u16) -> io::Result<()> {
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::empty(), None)?;
        Ok(())
    }

    /// Reads a datagram, or several that the system has put together. Returns their length, and that of each.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, usize)> {
        let mut control = Control([0; 32]);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control.0), MsgFlags::empty())?;
        let segment = message.cmsgs()?.find_map(|part| match part {
            ControlMessageOwned::UdpGroSegments(length) => usize::try_from(length).ok(),
            _ => None,
        });
        Ok((message.bytes, segment.unwrap_or(message.bytes)))
    }
}

/// How long a socket is kept behind the end of its flow, in nanoseconds: what the target still sends must not reach the
/// flow that gets the port next.
const RETIRED_TIME: u64 = 5_000_000_000;

/// The most sockets that are kept so.
const MAX_RETIRED: usize = 2_048;

/// The sockets of flows that have ended, oldest first, each with the time at which it is closed.
#[derive(Debug, Default)]
pub struct RetiredSockets(VecDeque<(u64, TargetSocket)>);

impl RetiredSockets {
    /// Keeps a socket for a while, unless sockets are scarce.
    pub fn add(&mut self, socket: TargetSocket, now: u64) {
        if SOCKETS.load(Ordering::Relaxed) > *MAX_SOCKETS / 2 {
            self.0.clear();
            return;
        }
        if self.0.len() >= MAX_RETIRED {
            self.0.pop_front();
        }
        self.0.push_back((now.saturating_add(RETIRED_TIME), socket));
    }

    /// Closes those whose time is over.
    pub fn close_over(&mut self, now: u64) {
        while self.0.front().is_some_and(|(until, _)| *until <= now) {
            self.0.pop_front();
        }
    }
}

impl Drop for TargetSocket {
    fn drop(&mut self) {
        SOCKETS.fetch_sub(1, Ordering::Relaxed);
    }
}

fn open(target: SocketAddr, bind: Option<IpAddr>) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(target), Type::DGRAM.nonblocking().cloexec(), None)?;
    let _ = setsockopt(&socket, UdpGroSegment, &true);
    if let Some(bind) = bind {
        socket.bind(&SocketAddr::new(bind, 0).into())?;
    }
    socket.connect(&target.into())?;
    Ok(socket.into())
}

/// Returns the error, unless it is one of the gateway's own resources.
fn not_exhausted(error: io::Error) -> Option<io::Error> {
    let exhausted = [nix::libc::EMFILE, nix::libc::ENFILE, nix::libc::ENOBUFS, nix::libc::EAGAIN, nix::libc::ENOMEM];
    let is_own = error.raw_os_error().is_some_and(|code| exhausted.contains(&code));
    (!is_own).then_some(error)
}

/// The descriptor of an epoll set.
struct EpollSet(Epoll);

impl AsRawFd for EpollSet {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// The sockets to targets of one listener. They are watched level-triggered in a set of their own: a socket need not be
/// read until it is empty, and the runtime holds nothing for each of them.
pub struct WatchedSockets(AsyncFd<EpollSet>);

/// The most sockets that are reported at a time.
pub const MAX_READY: usize = 64;

impl WatchedSockets {
    /// Returns an empty set.
    ///
    /// # Errors
    /// Fails when no file descriptor is left.
    pub fn new() -> io::Result<Self> {
        let set = EpollSet(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        // SAFETY: the set is owned by the value that is registered, which keeps its descriptor open.
        Ok(Self(unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }?))
    }

    /// Watches the socket of a flow.
    pub fn add(&self, socket: &TargetSocket, flow: FlowId) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, flow.bits());
        Ok(self.0.get_ref().0.add(socket.0.as_fd(), event)?)
    }

    /// Watches a socket no more. Another process may have it too, so that closing it is not enough.
    pub fn remove(&self, socket: &TargetSocket) {
        let _ = self.0.get_ref().0.delete(socket.0.as_fd());
    }

    /// Appends the flows of which a socket can be read; none if there are none.
    pub fn poll_ready(&self, context: &mut Context<'_>, flows: &mut Vec<FlowId>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let mut events = [EpollEvent::empty(); MAX_READY];
            let count = self.0.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
            if count > 0 {
                flows.extend(events[..count].iter().map(|event| FlowId::from_bits(event.data())));
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }
}
