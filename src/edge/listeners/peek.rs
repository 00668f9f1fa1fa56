//! Looking at what a client sends first, without taking it from the socket.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Looks at the first bytes of a connection until `decide` returns a value for what has come, which it must do for as
/// many bytes as the buffer has. Returns `None` when the client has closed its side before that.
///
/// The bytes stay in the socket. The task is woken when more of them come, and not while there is nothing new.
///
/// # Errors
/// Fails when the connection is broken.
pub async fn peek_until<T>(
    stream: &TcpStream,
    buffer: &mut [u8],
    decide: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let most = buffer.len();
    peek_with(stream, || {
        let count = recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?;
        Ok((if count == most { 0 } else { count }, decide(&buffer[..count])))
    })
    .await
}

/// Calls `look` for what has come, and again when more has, until it returns a value. It returns the number of bytes
/// that it saw as well: 0 ends the wait without a value, and the close of the client does.
///
/// # Errors
/// Fails when the connection is broken.
pub async fn peek_with<T>(
    stream: &TcpStream,
    mut look: impl FnMut() -> io::Result<(usize, Option<T>)>,
) -> io::Result<Option<T>> {
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // A result of "would block" clears the readiness, so that the next round waits for more.
        let seen = stream.try_io(Interest::READABLE, || match look()? {
            (_, Some(decided)) => Ok(Some(decided)),
            (0, None) => Ok(None),
            _ if ready.is_read_closed() => Ok(None),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        });
        match seen {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
