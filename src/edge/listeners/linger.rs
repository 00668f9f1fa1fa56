//! Closing a connection whose client may still be sending (RFC 9112, section 9.6).
//!
//! A socket that is closed with unread data in it is reset, and the client may lose a response that it has not read.
//! So the writing half is closed first, and what comes is drained, for a bounded time and up to a bounded size.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::connection::Connection;

/// How long a client may go on sending.
const CLOSE_LINGER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the client may pause.
const CLOSE_PAUSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes that are drained.
const MAX_DRAINED: usize = 64 << 20;

const LINGER_BUFFER: usize = 32 * 1024;

/// Closes the writing half of a socket that is about to be closed, and returns a handle that keeps the rest open.
pub fn half_close(socket: RawFd) -> Option<OwnedFd> {
    // SAFETY: the caller holds the stream, and the stream holds the socket open.
    let kept = unsafe { BorrowedFd::borrow_raw(socket) }.try_clone_to_owned().ok()?;
    shutdown(socket, Shutdown::Write).ok()?;
    Some(kept)
}

/// Drains what comes until the client closes or a bound is reached.
pub async fn linger(socket: OwnedFd, connection: &Connection) {
    let Ok(mut stream) = TcpStream::from_std(socket.into()) else { return };
    let mut buffer = vec![0; LINGER_BUFFER];
    let read_away = async {
        let mut size = 0;
        while size < MAX_DRAINED && !connection.is_cut() {
            match tokio::time::timeout(CLOSE_PAUSE_TIMEOUT, stream.read(&mut buffer)).await {
                Ok(Ok(count)) if count > 0 => size += count,
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(CLOSE_LINGER_TIMEOUT, read_away).await;
}
