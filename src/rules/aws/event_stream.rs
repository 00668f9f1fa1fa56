//! Frames of `application/vnd.amazon.eventstream`, in which the responses of streaming functions come.
//!
//! A frame is its length and that of its headers (32 bits each), their CRC-32, the headers, the payload, and the CRC-32
//! of all before it.

use bytes::{Buf, Bytes, BytesMut};

/// The length of a frame without headers and payload.
const OVERHEAD: usize = 16;

/// The longest frame, which the protocol sets.
const MAX_FRAME: usize = 16 * 1024 * 1024 + 128 * 1024 + OVERHEAD;

/// A frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFrame {
    /// `:message-type`: `event`, `exception` or `error`.
    pub message: String,
    /// `:event-type` of an event, `:exception-type` of an exception.
    pub kind: String,
    /// The payload.
    pub payload: Bytes,
}

/// Reads frames from parts as they come.
#[derive(Debug, Default)]
pub struct EventFrames {
    buffer: BytesMut,
}

impl EventFrames {
    /// Adds a part.
    pub fn push(&mut self, part: &[u8]) {
        self.buffer.extend_from_slice(part);
    }

    /// Returns whether nothing is left of a frame that has begun.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Returns the next frame, if all of it is there.
    ///
    /// # Errors
    /// Returns why the frames are malformed.
    pub fn next_frame(&mut self) -> Result<Option<EventFrame>, &'static str> {
        let Some(mut prelude) = self.buffer.get(..12) else { return Ok(None) };
        if crc32fast::hash(&self.buffer[..8]) != u32::from_be_bytes([prelude[8], prelude[9], prelude[10], prelude[11]])
        {
            return Err("the checksum of the length of a frame is wrong");
        }
        let (total, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
        if !(OVERHEAD..=MAX_FRAME).contains(&total) || headers > total - OVERHEAD {
            return Err("the length of a frame is wrong");
        }
        if self.buffer.len() < total {
            return Ok(None);
        }
        let frame = self.buffer.split_to(total).freeze();
        let mut checksum = &frame[total - 4..];
        if crc32fast::hash(&frame[..total - 4]) != checksum.get_u32() {
            return Err("the checksum of a frame is wrong");
        }
        let mut read = EventFrame { payload: frame.slice(12 + headers..total - 4), ..EventFrame::default() };
        read_headers(&frame[12..12 + headers], &mut read).ok_or("the headers of a frame are malformed")?;
        Ok(Some(read))
    }
}

fn read_headers(mut rest: &[u8], frame: &mut EventFrame) -> Option<()> {
    while !rest.is_empty() {
        let name = take(&mut rest, 1).map(|length| usize::from(length[0]))?;
        let name = std::str::from_utf8(take(&mut rest, name)?).ok()?;
        let length = match take(&mut rest, 1)?[0] {
            0 | 1 => 0,
            2 => 1,
            3 => 2,
            4 => 4,
            5 | 8 => 8,
            6 | 7 => take(&mut rest, 2).map(|mut length| usize::from(length.get_u16()))?,
            9 => 16,
            _ => return None,
        };
        let value = take(&mut rest, length)?;
        match name {
            ":message-type" => frame.message = std::str::from_utf8(value).ok()?.to_owned(),
            ":event-type" | ":exception-type" | ":error-code" => {
                frame.kind = std::str::from_utf8(value).ok()?.to_owned();
            }
            _ => {}
        }
    }
    Some(())
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(count)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `PayloadChunk` with `hi`, as botocore's tests encode it: message type, event type, content type.
    fn frame(message: &str, kind: &str, payload: &[u8]) -> Vec<u8> {
        let mut headers = Vec::new();
        for (name, value) in [(":message-type", message), (":event-type", kind), (":content-type", "x/y")] {
            headers.push(name.len() as u8);
            headers.extend_from_slice(name.as_bytes());
            headers.push(7);
            headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
            headers.extend_from_slice(value.as_bytes());
        }
        let total = (OVERHEAD + headers.len() + payload.len()) as u32;
        let mut out = total.to_be_bytes().to_vec();
        out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out.extend_from_slice(&headers);
        out.extend_from_slice(payload);
        out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
        out
    }

    #[test]
    fn frames_are_read_however_they_are_cut() {
        let all = [frame("event", "PayloadChunk", b"hi"), frame("event", "InvokeComplete", b"{}")].concat();
        for size in 1..all.len() {
            let (mut frames, mut read) = (EventFrames::default(), Vec::new());
            for part in all.chunks(size) {
                frames.push(part);
                while let Some(frame) = frames.next_frame().expect("a frame") {
                    read.push((frame.kind, frame.payload));
                }
            }
            let expected = [("PayloadChunk".to_owned(), Bytes::from("hi")), ("InvokeComplete".to_owned(), "{}".into())];
            assert_eq!(read, expected);
            assert!(frames.is_empty());
        }
    }

    /// The examples of the specification: an empty frame, and one with a payload alone.
    #[test]
    fn the_examples_of_the_specification_are_read() {
        let empty: [u8; 16] = [0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        let mut frames = EventFrames::default();
        frames.push(&empty);
        assert_eq!(frames.next_frame(), Ok(Some(EventFrame::default())));
    }

    #[test]
    fn changed_bytes_are_noticed() {
        let good = frame("event", "PayloadChunk", b"payload");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            let mut frames = EventFrames::default();
            frames.push(&bad);
            assert!(frames.next_frame().is_err(), "byte {at}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(0_u8.., 0..200), at in 0_usize..60) {
            let mut good = frame("event", "PayloadChunk", b"payload");
            let at = at.min(good.len());
            good.splice(at..at, bytes);
            let mut frames = EventFrames::default();
            frames.push(&good);
            while let Ok(Some(_)) = frames.next_frame() {}
        }
    }
}
