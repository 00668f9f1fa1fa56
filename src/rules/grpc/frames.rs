//! The frames of messages: an octet of flags, the length in four octets, the message ("Length-Prefixed-Message" of
//! gRPC over HTTP/2). gRPC-Web and the Connect protocol have the same frames with flags of their own.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The length of a frame's header.
pub const HEADER: usize = 5;

/// The flag of a compressed message.
pub const COMPRESSED: u8 = 0x01;

/// A message with its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The octet of flags.
    pub flags: u8,
    /// The message.
    pub message: Bytes,
}

/// Why bytes are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A message is longer than the maximum.
    TooLong {
        /// Its length.
        length: u32,
        /// The maximum.
        most: u32,
    },
    /// A message is compressed, which was not negotiated.
    Compressed,
    /// The flags have a bit that the protocol does not define.
    Flags(u8),
    /// The bytes end within a frame.
    Incomplete,
}

impl fmt::Display for FrameError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length, most } => write!(out, "a message has {length} bytes, and at most {most} are read"),
            Self::Compressed => out.write_str("a message is compressed, which was not negotiated"),
            Self::Flags(flags) => write!(out, "a frame has the unknown flags {flags:#04x}"),
            Self::Incomplete => out.write_str("the last frame is incomplete"),
        }
    }
}

/// Returns the header of a frame.
pub fn frame_header(flags: u8, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [flags, a, b, c, d]
}

/// Appends a frame to `out`. A message is at most 4 GiB long; its size is bounded before.
pub fn write_frame(flags: u8, message: &[u8], out: &mut BytesMut) {
    out.reserve(HEADER + message.len());
    out.extend_from_slice(&frame_header(flags, u32::try_from(message.len()).unwrap_or(u32::MAX)));
    out.extend_from_slice(message);
}

/// Returns the flags and the length in a header, if they are acceptable.
fn accepted(header: [u8; HEADER], (allowed, most): (u8, u32)) -> Result<(u8, u32), FrameError> {
    let [flags, a, b, c, d] = header;
    let length = u32::from_be_bytes([a, b, c, d]);
    if flags & COMPRESSED & !allowed != 0 {
        return Err(FrameError::Compressed);
    }
    if flags & !allowed != 0 {
        return Err(FrameError::Flags(flags));
    }
    if length > most {
        return Err(FrameError::TooLong { length, most });
    }
    Ok((flags, length))
}

/// Reads frames out of bytes that arrive in any parts. A frame that is within one part is not copied.
#[derive(Debug)]
pub struct FrameReader {
    allowed: u8,
    most: u32,
    /// The bytes of a frame that began in an earlier part.
    begun: BytesMut,
    /// The rest of the current part.
    part: Bytes,
}

impl FrameReader {
    /// Returns a reader of messages without flags of at most `most` bytes.
    pub fn new(most: u32) -> Self {
        Self::accepting(0, most)
    }

    /// Returns a reader of messages of at most `most` bytes whose flags are among `allowed`.
    pub fn accepting(allowed: u8, most: u32) -> Self {
        Self { allowed, most, begun: BytesMut::new(), part: Bytes::new() }
    }

    /// Takes the next part. [`Self::frame`] is called until it has no more.
    pub fn push(&mut self, part: &Bytes) {
        if self.part.is_empty() {
            self.part = part.clone();
        } else {
            self.begun.extend_from_slice(&self.part);
            self.part = part.clone();
        }
    }

    /// Returns the next frame, or `None` until more parts have arrived.
    ///
    /// # Errors
    /// Returns why the bytes are no acceptable frame; the reader cannot be used after that.
    pub fn frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let limits = (self.allowed, self.most);
        if self.begun.is_empty() {
            let Some(header) = self.part.first_chunk::<HEADER>() else {
                self.keep(self.part.len());
                return Ok(None);
            };
            let (flags, length) = accepted(*header, limits)?;
            let end = HEADER + length as usize;
            if self.part.len() < end {
                self.begun.reserve(end.min(MAX_RESERVED));
                self.keep(self.part.len());
                return Ok(None);
            }
            let mut frame = self.part.split_to(end);
            frame.advance(HEADER);
            return Ok(Some(Frame { flags, message: frame }));
        }
        self.keep(HEADER.saturating_sub(self.begun.len()));
        let Some(header) = self.begun.first_chunk::<HEADER>() else { return Ok(None) };
        let (flags, length) = accepted(*header, limits)?;
        let end = HEADER + length as usize;
        self.keep(end.saturating_sub(self.begun.len()));
        if self.begun.len() < end {
            return Ok(None);
        }
        let mut message = self.begun.split_to(end).freeze();
        message.advance(HEADER);
        Ok(Some(Frame { flags, message }))
    }

    /// Returns whether the bytes so far end with a whole frame.
    pub fn is_at_boundary(&self) -> bool {
        self.begun.is_empty() && self.part.is_empty()
    }

    /// Moves at most `count` bytes of the part into the frame that has begun.
    fn keep(&mut self, count: usize) {
        let count = count.min(self.part.len());
        if count > 0 {
            self.begun.extend_from_slice(&self.part.split_to(count));
        }
    }
}

/// The most that is reserved for a message by its header alone, which costs a sender five bytes.
const MAX_RESERVED: usize = 64 * 1024;

/// Follows where frames end in bytes that are passed on as they are, in constant memory.
#[derive(Clone, Copy, Debug)]
pub struct FrameBounds {
    allowed: u8,
    most: u32,
    header: [u8; HEADER],
    have: u8,
    /// The bytes of the message that have not arrived.
    left: u32,
}

impl FrameBounds {
    /// Returns the bounds of messages of at most `most` bytes whose flags are among `allowed`.
    pub fn accepting(allowed: u8, most: u32) -> Self {
        Self { allowed, most, header: [0; HEADER], have: 0, left: 0 }
    }

    /// Follows all of `bytes`.
    ///
    /// # Errors
    /// Returns why the bytes are no acceptable frames.
    pub fn follow(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let passed = (self.left as usize).min(bytes.len());
                bytes = &bytes[passed..];
                self.left -= u32::try_from(passed).unwrap_or(self.left);
                continue;
            }
            self.header[usize::from(self.have)] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if usize::from(self.have) == HEADER {
                (_, self.left) = accepted(self.header, (self.allowed, self.most))?;
                self.have = 0;
            }
        }
        Ok(())
    }

    /// Returns whether the bytes so far end with a whole frame.
    pub fn is_at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(reader: &mut FrameReader) -> Result<Vec<Frame>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_are_read_whatever_the_parts(
            messages in proptest::collection::vec((0_u8..4, proptest::collection::vec(any::<u8>(), 0..60)), 0..8),
            cuts in proptest::collection::vec(1_usize..40, 1..60),
            missing in 0_usize..8,
        ) {
            let mut bytes = BytesMut::new();
            messages.iter().for_each(|(flags, message)| write_frame(*flags, message, &mut bytes));
            let whole = missing == 0 || bytes.is_empty();
            let sent = bytes.len().saturating_sub(missing);
            let mut rest = bytes.freeze().split_to(sent);
            let (mut reader, mut bounds) = (FrameReader::accepting(3, 60), FrameBounds::accepting(3, 60));
            let mut read = Vec::new();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let part = rest.split_to((*cut).min(rest.len()));
                bounds.follow(&part).expect("frames");
                reader.push(&part);
                read.extend(all(&mut reader).expect("frames"));
                prop_assert_eq!(reader.is_at_boundary(), bounds.is_at_boundary());
            }
            let mut sent: Vec<Frame> =
                messages.iter().map(|(flags, m)| Frame { flags: *flags, message: m.clone().into() }).collect();
            if whole {
                prop_assert!(reader.is_at_boundary());
            } else {
                sent.truncate(read.len());
            }
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            cut in 1_usize..9,
        ) {
            let (mut reader, mut bounds) = (FrameReader::new(1 << 20), FrameBounds::accepting(0, 1 << 20));
            for part in bytes.chunks(cut) {
                reader.push(&Bytes::copy_from_slice(part));
                let read = all(&mut reader);
                prop_assert_eq!(bounds.follow(part).err(), read.clone().err());
                if read.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_rejected() {
        let read = |bytes: &'static [u8], most| {
            let mut reader = FrameReader::new(most);
            reader.push(&Bytes::from_static(bytes));
            all(&mut reader)
        };
        assert_eq!(read(&[1, 0, 0, 0, 0], 9), Err(FrameError::Compressed));
        assert_eq!(read(&[0x80, 0, 0, 0, 0], 9), Err(FrameError::Flags(0x80)));
        assert_eq!(read(&[0, 0, 0, 0, 10], 9), Err(FrameError::TooLong { length: 10, most: 9 }));
        assert_eq!(read(&[0, 255, 255, 255, 255], u32::MAX), Ok(Vec::new()));
    }

    #[test]
    fn a_message_in_one_part_is_not_copied() {
        let part = Bytes::from_static(&[0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 1, 9]);
        let mut reader = FrameReader::new(9);
        reader.push(&part);
        let frames = all(&mut reader).expect("frames");
        assert_eq!(frames[0].message.as_ptr(), part[5..].as_ptr());
        assert_eq!(frames[1].message.as_ptr(), part[12..].as_ptr());
    }
}
