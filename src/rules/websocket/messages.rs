//! The messages of one direction of a WebSocket (RFC 6455, section 5). No extension is known.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Buf, Bytes, BytesMut};

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The longest payload of a control frame (section 5.5).
const MAX_CONTROL: usize = 125;

/// What is behind a key in the response to a handshake (section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Returns the `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat()))
}

/// What one side of a WebSocket has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketMessage {
    /// A text.
    Text(Bytes),
    /// Bytes.
    Binary(Bytes),
    /// A ping, which wants a pong with the same bytes.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The end, with its code if it has one.
    Close(Option<u16>),
}

/// Why a direction cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketFault {
    /// The frames violate the protocol.
    Protocol,
    /// A text is not UTF-8.
    NotText,
    /// A message is longer than the limit.
    TooLarge,
}

impl SocketFault {
    /// Returns the code of the close frame (section 7.4.1).
    pub fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotText => 1007,
            Self::TooLarge => 1009,
        }
    }
}

/// Reads the messages of one direction.
#[derive(Debug)]
pub struct MessageReader {
    is_masked: bool,
    max: usize,
    input: BytesMut,
    /// The fragments so far, and whether they are text.
    message: Option<(bool, BytesMut)>,
}

/// The head of a frame.
struct FrameHead {
    first: u8,
    length: usize,
    mask: Option<[u8; 4]>,
    size: usize,
}

impl MessageReader {
    /// Returns a reader of the messages of a client, whose frames are masked, or of a server; none is longer than `max`
    /// bytes.
    pub fn new(is_masked: bool, max: usize) -> Self {
        Self { is_masked, max, input: BytesMut::new(), message: None }
    }

    /// Adds bytes that have arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Returns the next message, if it has arrived.
    ///
    /// # Errors
    /// Returns the fault with which the connection has to be closed.
    pub fn next(&mut self) -> Result<Option<SocketMessage>, SocketFault> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            if self.input.len() < head.size + head.length {
                return Ok(None);
            }
            self.input.advance(head.size);
            let mut payload = self.input.split_to(head.length);
            if let Some(mask) = head.mask {
                payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
            }
            if let Some(message) = self.take(head.first, payload)? {
                return Ok(Some(message));
            }
        }
    }

    /// Returns the head of the next frame, if it has arrived. What is too long is known before the payload comes.
    fn head(&self) -> Result<Option<FrameHead>, SocketFault> {
        let [first, second, ..] = self.input[..] else { return Ok(None) };
        let is_control = first & 0x08 != 0;
        if first & RESERVED != 0 || (second & MASKED != 0) != self.is_masked {
            return Err(SocketFault::Protocol);
        }
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if is_control && (extended > 0 || first & FINAL == 0) {
            return Err(SocketFault::Protocol);
        }
        let size = 2 + extended + if self.is_masked { 4 } else { 0 };
        if self.input.len() < size {
            return Ok(None);
        }
        let length = match extended {
            0 => u64::from(second & !MASKED),
            _ => self.input[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let before = self.message.as_ref().map_or(0, |(_, message)| message.len());
        let length = usize::try_from(length).map_err(|_| SocketFault::TooLarge)?;
        if !is_control && length > self.max.saturating_sub(before) {
            return Err(SocketFault::TooLarge);
        }
        let mask = self.is_masked.then(|| [0, 1, 2, 3].map(|i| self.input[size - 4 + i]));
        Ok(Some(FrameHead { first, length, mask, size }))
    }

    fn take(&mut self, first: u8, payload: BytesMut) -> Result<Option<SocketMessage>, SocketFault> {
        match (first & 0x0f, &mut self.message) {
            (PING, _) => return Ok(Some(SocketMessage::Ping(payload.freeze()))),
            (PONG, _) => return Ok(Some(SocketMessage::Pong)),
            (CLOSE, _) => return close(&payload).map(Some),
            (TEXT | BINARY, message @ None) => *message = Some((first & 0x0f == TEXT, payload)),
            (CONTINUATION, Some((_, message))) => message.extend_from_slice(&payload),
            _ => return Err(SocketFault::Protocol),
        }
        if first & FINAL == 0 {
            return Ok(None);
        }
        let Some((is_text, message)) = self.message.take() else { return Ok(None) };
        if is_text && std::str::from_utf8(&message).is_err() {
            return Err(SocketFault::NotText);
        }
        let message = message.freeze();
        Ok(Some(if is_text { SocketMessage::Text(message) } else { SocketMessage::Binary(message) }))
    }
}

/// Returns the end that a close frame says (section 5.5.1).
fn close(payload: &[u8]) -> Result<SocketMessage, SocketFault> {
    let code = match payload {
        [] => None,
        [high, low, text @ ..] => {
            if std::str::from_utf8(text).is_err() {
                return Err(SocketFault::NotText);
            }
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(SocketFault::Protocol);
            }
            Some(code)
        }
        _ => return Err(SocketFault::Protocol),
    };
    Ok(SocketMessage::Close(code))
}

/// Appends a message in one frame. A client's is masked (section 5.3).
pub fn write_message(is_text: bool, payload: &[u8], mask: Option<[u8; 4]>, out: &mut BytesMut) {
    write_frame(if is_text { TEXT } else { BINARY }, payload, mask, out);
}

/// Appends the pong to a ping.
pub fn write_pong(payload: &[u8], mask: Option<[u8; 4]>, out: &mut BytesMut) {
    write_frame(PONG, &payload[..payload.len().min(MAX_CONTROL)], mask, out);
}

/// Appends a close frame.
pub fn write_close(code: u16, mask: Option<[u8; 4]>, out: &mut BytesMut) {
    write_frame(CLOSE, &code.to_be_bytes(), mask, out);
}

fn write_frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>, out: &mut BytesMut) {
    let is_masked = if mask.is_some() { MASKED } else { 0 };
    out.reserve(payload.len() + 14);
    out.extend_from_slice(&[FINAL | opcode]);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => out.extend_from_slice(&[is_masked | short]),
        (_, Ok(length)) => {
            out.extend_from_slice(&[is_masked | 126]);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[is_masked | 127]);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    match mask {
        Some(mask) => {
            out.extend_from_slice(&mask);
            out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        None => out.extend_from_slice(payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(reader: &mut MessageReader) -> Result<Vec<SocketMessage>, SocketFault> {
        let mut found = Vec::new();
        while let Some(message) = reader.next()? {
            found.push(message);
        }
        Ok(found)
    }

    fn read(bytes: &[u8], is_masked: bool) -> Result<Vec<SocketMessage>, SocketFault> {
        let mut reader = MessageReader::new(is_masked, 1000);
        reader.push(bytes);
        all(&mut reader)
    }

    #[test]
    fn the_key_of_the_standard_is_accepted() {
        assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn the_examples_of_the_standard() {
        let hello = vec![SocketMessage::Text("Hello".into())];
        assert_eq!(read(&[0x81, 5, 0x48, 0x65, 0x6c, 0x6c, 0x6f], false), Ok(hello.clone()));
        let masked = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read(&masked, true), Ok(hello.clone()));
        assert_eq!(
            read(&[1, 3, 0x48, 0x65, 0x6c, 0x89, 1, b'x', 0x80, 2, 0x6c, 0x6f], false),
            Ok(vec![SocketMessage::Ping("x".into()), hello[0].clone()])
        );
    }

    #[test]
    fn what_violates_the_protocol_is_rejected() {
        let cases: [(&[u8], SocketFault); 14] = [
            (&[0x81, 0x80, 0, 0, 0, 0], SocketFault::Protocol),
            (&[0xc1, 0], SocketFault::Protocol),
            (&[0x80, 0], SocketFault::Protocol),
            (&[0x01, 1, b'a', 0x81, 1, b'b'], SocketFault::Protocol),
            (&[0x83, 0], SocketFault::Protocol),
            (&[0x8b, 0], SocketFault::Protocol),
            (&[0x09, 0], SocketFault::Protocol),
            (&[0x89, 126, 0, 126], SocketFault::Protocol),
            (&[0x88, 1, 3], SocketFault::Protocol),
            (&[0x88, 2, 0x03, 0xed], SocketFault::Protocol),
            (&[0x88, 2, 0, 0], SocketFault::Protocol),
            (&[0x81, 1, 0xff], SocketFault::NotText),
            (&[0x82, 126, 0x03, 0xe9], SocketFault::TooLarge),
            (&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], SocketFault::TooLarge),
        ];
        for (bytes, fault) in cases {
            assert_eq!(read(bytes, false), Err(fault), "{bytes:x?}");
        }
        assert_eq!(read(&[0x81, 0], true), Err(SocketFault::Protocol));
        // Fragments count together.
        let fragments = [&[2_u8, 126, 3, 0xe8][..], &[7; 1000], &[0x80, 1, 7]].concat();
        assert_eq!(read(&fragments, false), Err(SocketFault::TooLarge));
    }

    proptest! {
        #[test]
        fn messages_come_back_whatever_the_parts(
            messages in proptest::collection::vec((any::<bool>(), "[a-zé]{0,300}", any::<[u8; 4]>()), 0..8),
            is_masked in any::<bool>(),
            cuts in proptest::collection::vec(1_usize..90, 1..20),
        ) {
            let mut out = BytesMut::new();
            for (is_text, text, mask) in &messages {
                write_message(*is_text, text.as_bytes(), is_masked.then_some(*mask), &mut out);
                write_pong(b"p", is_masked.then_some(*mask), &mut out);
            }
            write_close(1000, is_masked.then_some([9; 4]), &mut out);
            let (mut reader, mut found, mut at) = (MessageReader::new(is_masked, 1000), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                if at == out.len() {
                    break;
                }
                let next = (at + cut).min(out.len());
                reader.push(&out[at..next]);
                found.extend(all(&mut reader).expect("messages"));
                at = next;
            }
            let mut wanted = Vec::new();
            for (is_text, text, _) in messages {
                let text = Bytes::from(text);
                wanted.push(if is_text { SocketMessage::Text(text) } else { SocketMessage::Binary(text) });
                wanted.push(SocketMessage::Pong);
            }
            wanted.push(SocketMessage::Close(Some(1000)));
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_masked in any::<bool>()) {
            let _ = read(&bytes, is_masked);
        }
    }
}
