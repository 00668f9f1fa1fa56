//! One side of a joined pair of streams: a TCP connection, with TLS of ours or without.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How long the other end may acknowledge nothing of what was sent before a reset follows it, and how long it may take
/// in all.
const RESET_STALL_TIME: Duration = Duration::from_secs(5);
const MAX_RESET_TIME: Duration = Duration::from_secs(60);

/// The stream of one side.
#[derive(Debug)]
pub enum SideStream {
    /// TCP alone: its bytes can be spliced.
    Plain(TcpStream),
    /// TLS that the gateway terminates or originates.
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for SideStream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl<S: Into<TlsStream<TcpStream>>> From<Box<S>> for SideStream {
    fn from(stream: Box<S>) -> Self {
        Self::Tls(Box::new((*stream).into()))
    }
}

impl SideStream {
    /// Returns its TCP connection.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Returns the TCP connection if its bytes are those that are carried.
    pub fn plain(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Tls(_) => None,
        }
    }

    /// Reads into `buffer`, and returns how many bytes were read. The end of TLS without its alert is an end like any
    /// other: many clients close so.
    pub fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, &mut buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, &mut buffer),
        };
        match read {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
            read => read.map_ok(|()| buffer.filled().len()),
        }
    }

    /// Writes as many of `bytes` as the stream takes.
    pub fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        };
        match written {
            Poll::Ready(Ok(0)) if !bytes.is_empty() => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => written,
        }
    }

    /// Sends what TLS has buffered.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    /// Ends the direction towards this side alone.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    /// Returns whether the connection has failed, although nothing is read from it or written to it.
    pub fn has_failed(&self) -> bool {
        let mut polled = [PollFd::new(self.tcp().as_fd(), PollFlags::empty())];
        let failure = PollFlags::POLLERR | PollFlags::POLLHUP;
        poll(&mut polled, PollTimeout::ZERO).is_ok() && polled[0].revents().is_some_and(|seen| seen.intersects(failure))
    }

    /// Lets the close of the connection be a reset, once the other end has the bytes that were sent: the system drops
    /// those that have not been acknowledged.
    pub async fn reset(&self) {
        let (begun, mut pause) = (Instant::now(), Duration::from_millis(1));
        let (mut left, mut moved) = (unacknowledged(self.tcp()), begun);
        while left > 0 && !self.has_failed() {
            if moved.elapsed() >= RESET_STALL_TIME || begun.elapsed() >= MAX_RESET_TIME {
                break;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
            let now = unacknowledged(self.tcp());
            if now < left {
                moved = Instant::now();
            }
            left = now;
        }
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }
}

/// Returns the number of bytes in the send queue of a socket that the other end has not acknowledged.
fn unacknowledged(stream: &TcpStream) -> i32 {
    let mut count: libc::c_int = 0;
    // SAFETY: the descriptor is open, and SIOCOUTQ (TIOCOUTQ on Linux, tcp(7)) writes one int to the address.
    let outcome = unsafe { libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if outcome == 0 { count } else { 0 }
}
