//! The boundaries of WebSocket frames (RFC 6455, section 5.2); payloads are not inspected.

/// Close codes of RFC 6455 and its registry.
pub mod close_code {
    /// "Service Restart": the client should reconnect.
    pub const SERVICE_RESTART: u16 = 1012;
    /// "Going Away".
    pub const GOING_AWAY: u16 = 1001;
}

const CLOSE: u8 = 8;

/// The maximum length of a frame header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// Tracks the frames of one direction.
#[derive(Debug, Default)]
pub struct WebSocketFrames {
    head: [u8; MAX_HEADER],
    have: usize,
    /// The bytes of the current frame that have not arrived.
    left: u64,
    closed: bool,
}

impl WebSocketFrames {
    /// Returns whether the bytes so far end with a whole frame.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Returns whether a close frame has arrived.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Processes all of `bytes`.
    pub fn follow(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = self.step(rest);
            rest = &rest[taken..];
        }
    }

    /// Processes `bytes` up to the end of the current frame and returns how many were processed: none between two
    /// frames.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !self.at_boundary() {
            taken += self.step(&bytes[taken..]);
        }
        taken
    }

    /// Processes one byte of a header, or as much of a payload as there is.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.left > 0 {
            let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= taken as u64;
            return taken;
        }
        self.head[self.have] = bytes[0];
        self.have += 1;
        if self.have >= 2 {
            let (length, extended) = match self.head[1] & 0x7f {
                126 => (u64::from(u16::from_be_bytes([self.head[2], self.head[3]])), 2),
                127 => (self.head[2..10].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)), 8),
                short => (u64::from(short), 0),
            };
            let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
            if self.have == 2 + extended + mask {
                self.closed |= self.head[0] & 0x0f == CLOSE;
                (self.have, self.left) = (0, length);
            }
        }
        1
    }
}

/// Returns a close frame. A client's is masked (section 5.3), here with zeros.
pub fn close_frame(code: u16, masked: bool) -> Vec<u8> {
    let code = code.to_be_bytes();
    let mut frame = vec![0x80 | CLOSE, if masked { 0x82 } else { 2 }];
    frame.extend_from_slice(if masked { &[0; 4] } else { &[] });
    frame.extend_from_slice(&code);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match length {
            0..126 => frame.push(mask | length as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(if masked { &[1, 2, 3, 4] } else { &[] });
        frame.extend(std::iter::repeat_n(0x88, length));
        frame
    }

    proptest! {
        #[test]
        fn boundaries_are_where_frames_were_joined(
            lengths in proptest::collection::vec((0_usize..300, any::<bool>(), any::<bool>()), 1..12),
            cuts in proptest::collection::vec(1_usize..50, 1..200),
        ) {
            let frames: Vec<Vec<u8>> = lengths.iter().map(|(n, big, masked)| {
                let length = if *big { n * 400 } else { *n };
                frame(2, length, *masked)
            }).collect();
            let bytes = frames.concat();
            let mut ends = vec![0];
            frames.iter().for_each(|f| ends.push(ends[ends.len() - 1] + f.len()));
            let (mut followed, mut at) = (WebSocketFrames::default(), 0);
            for cut in cuts.iter().cycle() {
                if at == bytes.len() {
                    break;
                }
                let next = (at + cut * 37).min(bytes.len());
                followed.follow(&bytes[at..next]);
                at = next;
                prop_assert_eq!(followed.at_boundary(), ends.contains(&at));
                let mut other = WebSocketFrames { head: followed.head, ..followed };
                let end = ends.iter().copied().find(|end| *end >= at).unwrap_or(at);
                prop_assert_eq!(other.finish(&bytes[at..]), end - at);
                prop_assert!(other.at_boundary() && !other.is_closed());
            }
        }
    }

    #[test]
    fn close_frames_are_seen_and_made() {
        for masked in [false, true] {
            let mut frames = WebSocketFrames::default();
            let mut bytes = frame(1, 5, masked);
            bytes.extend(close_frame(close_code::SERVICE_RESTART, masked));
            frames.follow(&bytes);
            assert!(frames.at_boundary() && frames.is_closed());
        }
        assert_eq!(close_frame(1012, false), [0x88, 2, 0x03, 0xf4]);
    }
}
