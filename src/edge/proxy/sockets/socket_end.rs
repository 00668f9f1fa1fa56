//! One end of a WebSocket, which is the gateway's own.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::SocketHalves;
use crate::rules::websocket::{MessageReader, SocketFault, SocketMessage, write_close, write_message, write_pong};

const BUFFER: usize = 8 * 1024;

/// How long the peer may take to respond to a close frame (RFC 6455, section 5.5.1).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most bytes that wait to be written before nothing more is read.
const MAX_PENDING: usize = 64 * 1024;

/// Why no further message comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketEnded {
    /// The peer has closed the WebSocket.
    Closed,
    /// The stream has ended without that.
    Broken,
    /// The peer violates the protocol, or a limit.
    Fault(SocketFault),
}

/// One end of a WebSocket.
pub struct SocketEnd {
    halves: SocketHalves,
    reader: MessageReader,
    /// Whether the gateway is the client, whose frames are masked.
    is_client: bool,
    buffer: Box<[u8]>,
    /// What waits to be written.
    out: BytesMut,
    /// The bytes that have come, and were sent.
    pub counts: [u64; 2],
}

impl SocketEnd {
    /// Returns the end of a WebSocket behind its handshake.
    pub fn new(mut halves: SocketHalves, is_client: bool, max_message: usize) -> Self {
        let mut reader = MessageReader::new(!is_client, max_message);
        let early = halves.early.take();
        early.iter().for_each(|early| reader.push(early));
        let counts = [early.map_or(0, |early| early.len() as u64), 0];
        Self { halves, reader, is_client, buffer: vec![0; BUFFER].into(), out: BytesMut::new(), counts }
    }

    fn mask(&self) -> Option<[u8; 4]> {
        self.is_client.then(|| fastrand::u32(..).to_ne_bytes())
    }

    /// Returns the next message; pings are responded to. Nothing is lost where the future is dropped.
    ///
    /// # Errors
    /// Returns why none comes.
    pub async fn next(&mut self) -> Result<SocketMessage, SocketEnded> {
        loop {
            self.flush().await?;
            match self.reader.next() {
                Ok(Some(SocketMessage::Ping(payload))) => {
                    let mask = self.mask();
                    write_pong(&payload, mask, &mut self.out);
                    continue;
                }
                Ok(Some(SocketMessage::Pong)) => continue,
                Ok(Some(SocketMessage::Close(code))) => {
                    let mask = self.mask();
                    write_close(code.unwrap_or(1000), mask, &mut self.out);
                    let _ = self.flush().await;
                    return Err(SocketEnded::Closed);
                }
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(fault) => return Err(SocketEnded::Fault(fault)),
            }
            let count = self.halves.read.read(&mut self.buffer).await.map_err(|_| SocketEnded::Broken)?;
            if count == 0 {
                return Err(SocketEnded::Broken);
            }
            self.counts[0] += count as u64;
            self.reader.push(&self.buffer[..count]);
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Fails where the peer is gone.
    pub async fn send(&mut self, is_text: bool, payload: &[u8]) -> Result<(), SocketEnded> {
        let mask = self.mask();
        write_message(is_text, payload, mask, &mut self.out);
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), SocketEnded> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.counts[1] += self.out.len() as u64;
        let written = self.halves.write.write_all_buf(&mut self.out).await;
        self.counts[1] -= self.out.len() as u64;
        written.map_err(|_| SocketEnded::Broken)?;
        if self.out.capacity() > MAX_PENDING {
            self.out = BytesMut::new();
        }
        self.halves.write.flush().await.map_err(|_| SocketEnded::Broken)
    }

    /// Closes the WebSocket, and waits a moment for the peer to do so (RFC 6455, section 7.1.2).
    pub async fn close(&mut self, code: u16) {
        let mask = self.mask();
        write_close(code, mask, &mut self.out);
        let closing = async {
            self.flush().await?;
            while self.next().await.is_ok() {}
            Ok::<(), SocketEnded>(())
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.halves.write.shutdown()).await;
    }

    /// Ends the WebSocket as its peer has ended it.
    pub async fn end(&mut self, why: SocketEnded) {
        match why {
            SocketEnded::Fault(fault) => self.close(fault.code()).await,
            SocketEnded::Closed | SocketEnded::Broken => {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.halves.write.shutdown()).await;
            }
        }
    }
}
