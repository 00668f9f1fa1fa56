//! The socket of a listener for datagrams: each is read with the local address that it was sent to, and what is sent
//! leaves from such an address. On a wildcard address the system would choose another one (RFC 1122, section 4.1.3.5).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};

use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RxqOvfl, UdpGroSegment};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, recvmsg,
    sendmsg, setsockopt,
};
use smallvec::SmallVec;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// The size of the receive buffer that is requested; the system grants as much as `net.core.rmem_max` allows. The usual
/// one holds twelve datagrams of 9,000 bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The size of a buffer that holds any datagram.
pub const MAX_DATAGRAM: usize = 65_535;

/// The space for all control messages of a datagram: two of packet information and a count, each with its head.
#[repr(align(8))]
struct Control([u8; 128]);

/// A datagram that was read.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDatagram {
    /// Its length, or that of several of one client, which the system has put together.
    pub length: usize,
    /// The length of each of several; the last one may be shorter. That of a single one is its length.
    pub segment: usize,
    /// The address that it came from.
    pub peer: SocketAddr,
    /// The local address that it was sent to.
    pub local: IpAddr,
    /// The number of datagrams that the system has dropped since the one before, because the buffer was full.
    pub dropped: u32,
}

/// The socket.
#[derive(Debug)]
pub struct DatagramSocket {
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    /// The count of dropped datagrams at the last one that was read.
    dropped: AtomicU32,
}

impl DatagramSocket {
    /// Prepares the socket of a listener.
    ///
    /// # Errors
    /// Fails when the system does not support what is needed.
    pub fn new(socket: Arc<UdpSocket>) -> io::Result<Self> {
        let local = socket.local_addr()?;
        // As much as is allowed: less is no error.
        let _ = SockRef::from(&*socket).set_recv_buffer_size(RECEIVE_BUFFER);
        let _ = setsockopt(&*socket, RxqOvfl, &1);
        // Datagrams of a sender that sends many at a time are read at a time.
        let _ = setsockopt(&*socket, UdpGroSegment, &true);
        if local.ip().is_unspecified() {
            match local {
                SocketAddr::V4(_) => setsockopt(&*socket, Ipv4PacketInfo, &true)?,
                SocketAddr::V6(_) => setsockopt(&*socket, Ipv6RecvPacketInfo, &true)?,
            }
        }
        Ok(Self { socket, local, dropped: AtomicU32::new(0) })
    }

    /// Resolves when there may be a datagram to read.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_recv_ready(context)
    }

    /// Reads a datagram, if there is one.
    ///
    /// # Errors
    /// Fails with `WouldBlock` when there is none.
    pub fn try_receive(&self, buffer: &mut [u8]) -> io::Result<ReceivedDatagram> {
        self.socket.try_io(Interest::READABLE, || self.receive(buffer))
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<ReceivedDatagram> {
        let mut control = Control([0; 128]);
        let mut parts = [IoSliceMut::new(buffer)];
        let message =
            recvmsg::<SockaddrStorage>(self.socket.as_raw_fd(), &mut parts, Some(&mut control.0), MsgFlags::empty())?;
        let peer = message.address.as_ref().and_then(socket_address).ok_or(io::ErrorKind::InvalidData)?;
        let (mut local, mut dropped, mut segment) = (self.local.ip(), 0, message.bytes);
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local = IpAddr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => local = IpAddr::from(info.ipi6_addr.s6_addr),
                ControlMessageOwned::RxqOvfl(count) => {
                    dropped = count.wrapping_sub(self.dropped.swap(count, Ordering::Relaxed));
                }
                ControlMessageOwned::UdpGroSegments(length) => segment = usize::try_from(length).unwrap_or(segment),
                _ => {}
            }
        }
        Ok(ReceivedDatagram { length: message.bytes, segment, peer, local, dropped })
    }

    /// Sends a datagram from a local address.
    ///
    /// # Errors
    /// Fails with `WouldBlock` when the system's buffer is full.
    pub fn try_send(&self, bytes: &[u8], peer: SocketAddr, local: IpAddr) -> io::Result<()> {
        if !self.local.ip().is_unspecified() {
            return self.socket.try_send_to(bytes, peer).map(|_| ());
        }
        self.socket.try_io(Interest::WRITABLE, || self.send_from(bytes, None, peer, local))
    }

    /// Sends several datagrams of that length, the last of which may be shorter, from a local address.
    ///
    /// # Errors
    /// Fails where the system cannot take them at a time; none is sent then.
    pub fn try_send_segments(&self, bytes: &[u8], segment: u16, peer: SocketAddr, local: IpAddr) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || self.send_from(bytes, Some(segment), peer, local))
    }

    fn send_from(&self, bytes: &[u8], segment: Option<u16>, peer: SocketAddr, local: IpAddr) -> io::Result<()> {
        let is_wildcard = self.local.ip().is_unspecified();
        let segment = segment.as_ref().map(ControlMessage::UdpGsoSegments);
        match (peer, local) {
            (SocketAddr::V4(peer), IpAddr::V4(local)) => {
                let source = in_addr { s_addr: u32::from_ne_bytes(local.octets()) };
                let info = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: in_addr { s_addr: 0 } };
                let source = is_wildcard.then_some(ControlMessage::Ipv4PacketInfo(&info));
                self.send_with(bytes, [source, segment], &SockaddrIn::from(peer))
            }
            (SocketAddr::V6(peer), IpAddr::V6(local)) => {
                let info = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
                let source = is_wildcard.then_some(ControlMessage::Ipv6PacketInfo(&info));
                self.send_with(bytes, [source, segment], &SockaddrIn6::from(peer))
            }
            // Both are of the socket's family.
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    fn send_with(
        &self,
        bytes: &[u8],
        control: [Option<ControlMessage<'_>>; 2],
        peer: &impl SockaddrLike,
    ) -> io::Result<()> {
        let control: SmallVec<[ControlMessage<'_>; 2]> = control.into_iter().flatten().collect();
        sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, MsgFlags::empty(), Some(peer))?;
        Ok(())
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddrV4::from(*v4).into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddrV6::from(*v6).into()))
}
