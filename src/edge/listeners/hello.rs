//! Looking at what a client at layer 4 sends first: the hello of TLS, or PostgreSQL's request for it.
//!
//! The bytes stay in the socket, so that a connection that is passed on needs nothing to be sent again. A waiting
//! connection has no buffer of its own: one of each worker is used for the moment of a look.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::peek::peek_with;
use crate::rules::protocols::{ClientHelloFacts, MAX_HELLO, Opening, read_opening};

thread_local! {
    static LOOKED_AT: RefCell<Box<[u8]>> = RefCell::new(vec![0; MAX_HELLO].into());
}

/// Where a description of an alert has its place in the record (RFC 8446, section 6).
const ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 0];

/// Alerts: no configuration for the requested name (RFC 6066, section 3), and a message that cannot be decoded.
pub const UNRECOGNIZED_NAME: u8 = 112;
pub const DECODE_ERROR: u8 = 50;

/// How long a client may take to close a connection after an alert.
const ALERT_LINGER: Duration = Duration::from_secs(1);

/// What is known of a client before the first byte for a target.
#[derive(Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// It begins TLS.
    Hello(ClientHelloFacts),
    /// It has sent something else, or nothing within the time for a hello.
    NoHello,
    /// It has sent what cannot be read: why.
    Malformed(&'static str),
    /// It has closed the connection.
    Closed,
}

/// Waits for the first bytes of a client, and responds to PostgreSQL's requests for encryption, which are taken from
/// the socket. Returns what follows, and whether PostgreSQL's request for TLS came before it. Where it is `patient`, a
/// client that sends nothing within `hello_time` has no hello.
///
/// # Errors
/// Fails when the connection is broken.
pub async fn first_bytes(stream: &mut TcpStream, patient: Option<Duration>) -> io::Result<(FirstBytes, bool)> {
    // At most one request of each kind (libpq asks for GSSAPI first).
    let (mut gss, mut ssl) = (false, false);
    loop {
        let opening = match patient.filter(|_| !gss && !ssl) {
            Some(time) => peek_until_silent(stream, time).await?,
            None => peek_opening(stream, &AtomicBool::new(false)).await?,
        };
        let (first, response) = match opening {
            Some(Opening::PostgresSsl) if !ssl => (&mut ssl, b"S"),
            Some(Opening::PostgresGss) if !gss && !ssl => (&mut gss, b"N"),
            Some(Opening::Hello(facts)) => return Ok((FirstBytes::Hello(facts), ssl)),
            Some(Opening::Malformed(why)) => return Ok((FirstBytes::Malformed(why), ssl)),
            Some(_) if ssl => return Ok((FirstBytes::Malformed("no hello follows a request for TLS"), ssl)),
            Some(_) => return Ok((FirstBytes::NoHello, ssl)),
            None => return Ok((FirstBytes::Closed, ssl)),
        };
        *first = true;
        let mut request = [0; 8];
        stream.read_exact(&mut request).await?;
        stream.write_all(response).await?;
    }
}

/// Does what [`peek_opening`] does, and returns [`Opening::Other`] for a client that has sent nothing within that time.
async fn peek_until_silent(stream: &TcpStream, time: Duration) -> io::Result<Option<Opening>> {
    let has_begun = AtomicBool::new(false);
    let mut peeking = pin!(peek_opening(stream, &has_begun));
    tokio::select! {
        opening = &mut peeking => return opening,
        () = sleep(time) => {}
    }
    if has_begun.load(Ordering::Relaxed) { peeking.await } else { Ok(Some(Opening::Other)) }
}

/// Waits until it is known what the connection begins with; returns `None` when the client has closed its side before
/// that. `has_begun` is set with the first byte.
async fn peek_opening(stream: &TcpStream, has_begun: &AtomicBool) -> io::Result<Option<Opening>> {
    peek_with(stream, || {
        LOOKED_AT.with_borrow_mut(|buffer| {
            let count = recv(stream.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?;
            has_begun.fetch_or(count > 0, Ordering::Relaxed);
            Ok((count, read_opening(&buffer[..count])))
        })
    })
    .await
}

/// Sends an alert in plain text, which a client understands before its handshake is over, and waits for it to close
/// the connection: the alert would be lost with a connection that is closed while bytes of it are unread.
pub async fn alert(mut stream: TcpStream, description: u8) {
    let mut record = ALERT;
    record[6] = description;
    let closing = async {
        stream.write_all(&record).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        let mut most = 2 * MAX_HELLO;
        while most > 0 {
            let count = stream.read(&mut unread).await?;
            most = if count == 0 { 0 } else { most.saturating_sub(count) };
        }
        io::Result::Ok(())
    };
    let _ = timeout(ALERT_LINGER, closing).await;
}
