//! Inspection of the frames that an HTTP/2 client sends (RFC 9113, section 4), before the protocol's implementation
//! handles them: the number of fields of a request, and the number of frames that carry no work.

use super::field_block::FieldBlocks;

const PREFACE: u32 = 24;
const HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The budget for frames that carry no work (SETTINGS, PING, PRIORITY, those of unknown types): a fixed number, and
/// more per second, per request, and per number of bytes sent to the client. gRPC clients send a PING for received
/// data, to measure the bandwidth-delay product.
const FREE: u64 = 2_000;
const EACH_SECOND: u64 = 1_000;
const EACH_REQUEST: u64 = 10;
const BYTES_FOR_ONE: u64 = 512;

/// The reason for which a connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A request has too many fields.
    Fields,
    /// A trailer is a pseudo-header (RFC 9113, section 8.1).
    PseudoTrailer,
    /// There were too many frames that carry no work.
    Flood,
}

/// Tracks the frames of one connection.
#[derive(Debug)]
pub struct FrameScanner {
    most_fields: u32,
    head: [u8; HEAD],
    have: usize,
    /// The bytes of the preface, or of the current frame's payload, that have not arrived.
    left: u32,
    frame: Frame,
    blocks: FieldBlocks,
    /// The latest stream that the client has opened.
    latest: u32,
    idle_frames: u64,
    requests: u64,
}

/// The current frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    Other,
    /// A frame with a part of a field block: the bytes before it, the bytes of padding behind it, and whether the
    /// padding's length has not arrived.
    Block {
        before: u32,
        padding: u32,
        padded: bool,
        trailers: bool,
        ends: bool,
    },
}

impl FrameScanner {
    /// Returns a scanner for a connection whose requests may have so many fields.
    pub fn new(most_fields: u32) -> Self {
        Self {
            most_fields,
            head: [0; HEAD],
            have: 0,
            left: PREFACE,
            frame: Frame::Other,
            blocks: FieldBlocks::default(),
            latest: 0,
            idle_frames: 0,
            requests: 0,
        }
    }

    /// Inspects the bytes that have arrived. The connection is `age` milliseconds old, and the client was sent `sent`
    /// bytes.
    ///
    /// # Errors
    /// When the connection must be closed; none of these bytes may be processed further.
    pub fn scan(&mut self, mut bytes: &[u8], age: u64, sent: u64) -> Result<(), Violation> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = bytes.len().min(self.left as usize);
                let (part, rest) = bytes.split_at(taken);
                self.payload(part)?;
                self.left -= taken as u32;
                bytes = rest;
            } else {
                let taken = bytes.len().min(HEAD - self.have);
                let (part, rest) = bytes.split_at(taken);
                self.head[self.have..self.have + taken].copy_from_slice(part);
                self.have += taken;
                bytes = rest;
                if self.have == HEAD {
                    self.have = 0;
                    self.begin(age, sent)?;
                }
            }
            if self.left == 0 && self.have == 0 {
                self.end()?;
            }
        }
        Ok(())
    }

    /// Processes a complete frame header.
    fn begin(&mut self, age: u64, sent: u64) -> Result<(), Violation> {
        let [a, b, c, kind, flags, w, x, y, z] = self.head;
        self.left = u32::from_be_bytes([0, a, b, c]);
        let stream = u32::from_be_bytes([w & 0x7f, x, y, z]);
        self.frame = match kind {
            HEADERS => {
                let trailers = stream <= self.latest;
                self.latest = self.latest.max(stream);
                self.requests += u64::from(!trailers);
                let before = if flags & PRIORITY == 0 { 0 } else { 5 };
                Frame::Block {
                    before,
                    padding: 0,
                    padded: flags & PADDED != 0,
                    trailers,
                    ends: flags & END_HEADERS != 0,
                }
            }
            CONTINUATION => match self.frame {
                Frame::Block { trailers, .. } => {
                    Frame::Block { before: 0, padding: 0, padded: false, trailers, ends: flags & END_HEADERS != 0 }
                }
                Frame::Other => Frame::Other,
            },
            _ => Frame::Other,
        };
        let is_work =
            matches!(kind, DATA | HEADERS | WINDOW_UPDATE | RST_STREAM) || (kind == CONTINUATION && self.left > 0);
        if !is_work {
            self.idle_frames += 1;
            let paid = FREE + age * EACH_SECOND / 1_000 + self.requests * EACH_REQUEST + sent / BYTES_FOR_ONE;
            if self.idle_frames > paid {
                return Err(Violation::Flood);
            }
        }
        Ok(())
    }

    fn payload(&mut self, mut part: &[u8]) -> Result<(), Violation> {
        let Frame::Block { before, padding, padded, .. } = &mut self.frame else { return Ok(()) };
        let mut left = self.left;
        if *padded && let Some((&length, rest)) = part.split_first() {
            (*padding, *padded) = (u32::from(length), false);
            (part, left) = (rest, left - 1);
        }
        let skipped = part.len().min(*before as usize);
        *before -= skipped as u32;
        (part, left) = (&part[skipped..], left - skipped as u32);
        let block = part.len().min(left.saturating_sub(*padding) as usize);
        self.blocks.push(&part[..block]);
        if self.blocks.fields() > self.most_fields {
            return Err(Violation::Fields);
        }
        Ok(())
    }

    /// Processes the end of a frame.
    fn end(&mut self) -> Result<(), Violation> {
        if let Frame::Block { trailers, ends: true, .. } = self.frame {
            let pseudo = self.blocks.has_pseudo();
            self.blocks.end();
            self.frame = Frame::Other;
            if trailers && pseudo {
                return Err(Violation::PseudoTrailer);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        out.extend([kind, flags]);
        out.extend(stream.to_be_bytes());
        out.extend_from_slice(payload);
        out
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frames.iter().for_each(|frame| out.extend_from_slice(frame));
        out
    }

    /// Scans the bytes, cut in several ways, which must not change the outcome.
    fn scan(bytes: &[u8], most: u32) -> Result<(), Violation> {
        let outcomes: Vec<_> = [1, 2, 7, 64, bytes.len()]
            .iter()
            .map(|cut| {
                let mut scanner = FrameScanner::new(most);
                bytes.chunks(*cut).try_for_each(|part| scanner.scan(part, 0, 0))
            })
            .collect();
        assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]), "{outcomes:?}");
        outcomes[0]
    }

    #[test]
    fn fields_are_counted_over_continuations_and_without_padding() {
        let request = |fields: usize| vec![0x82; fields];
        let most = 8;
        let padded = |fields: usize| {
            let mut payload = vec![3, 0, 0, 0, 0, 0];
            payload.extend(request(fields));
            payload.extend([0x82; 3]);
            payload
        };
        for (fields, fine) in [(8, true), (9, false)] {
            let whole = frame(HEADERS, END_HEADERS, 1, &request(fields));
            let cut =
                [frame(HEADERS, 0, 1, &request(fields - 4)), frame(CONTINUATION, END_HEADERS, 1, &request(4))].concat();
            let padded = frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &padded(fields));
            for bytes in [whole, cut, padded] {
                let twice = connection(&[
                    bytes.clone(),
                    frame(DATA, 1, 1, b"body"),
                    frame(HEADERS, END_HEADERS, 3, &request(2)),
                ]);
                assert_eq!(scan(&twice, most).is_ok(), fine, "{fields}");
            }
        }
    }

    #[test]
    fn pseudo_headers_are_for_requests_and_not_for_trailers() {
        let request = frame(HEADERS, END_HEADERS, 1, &[0x82, 0x86, 0x84]);
        let fine = frame(HEADERS, END_HEADERS | 1, 1, b"\x00\x03abc\x01d");
        let bad = frame(HEADERS, END_HEADERS | 1, 1, b"\x00\x05:path\x01/");
        assert_eq!(scan(&connection(&[request.clone(), fine]), 100), Ok(()));
        assert_eq!(scan(&connection(&[request, bad]), 100), Err(Violation::PseudoTrailer));
    }

    #[test]
    fn frames_that_are_no_work_are_paid_for() {
        let ping = frame(6, 0, 0, &[0; 8]);
        let many = |count: usize| connection(&vec![ping.clone(); count]);
        assert_eq!(scan(&many(FREE as usize), 100), Ok(()));
        assert_eq!(scan(&many(FREE as usize + 1), 100), Err(Violation::Flood));
        let (mut older, mut sent) = (FrameScanner::new(100), FrameScanner::new(100));
        assert_eq!(older.scan(&many(FREE as usize + 500), 500, 0), Ok(()));
        assert_eq!(sent.scan(&many(FREE as usize + 500), 0, 500 * BYTES_FOR_ONE), Ok(()));
        assert_eq!(sent.scan(&ping, 0, 500 * BYTES_FOR_ONE), Err(Violation::Flood));
    }
}
