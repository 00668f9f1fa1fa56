//! Limits of the messages that pass through a tunnel, by the heads of their frames alone: no payload is kept.

use super::SocketFault;

/// The maximum length of a frame's head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// What the messages of one direction may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FrameLimits {
    /// The longest message in bytes.
    pub message: Option<u64>,
    /// The most frames a second, on average, and at once.
    pub frames: Option<(f64, f64)>,
}

/// Why a direction is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameFault {
    /// A message is too long, or has no valid length.
    Fault(SocketFault),
    /// Too many frames have come.
    TooMany,
}

impl FrameFault {
    /// Returns the code of the close frame (RFC 6455, section 7.4.1): "Policy Violation" for too many.
    pub fn code(self) -> u16 {
        match self {
            Self::Fault(fault) => fault.code(),
            Self::TooMany => 1008,
        }
    }
}

/// Counts the messages of one direction. Only whole heads are passed on, so that a direction is ended between two
/// frames.
#[derive(Debug)]
pub struct FrameLimiter {
    limits: FrameLimits,
    head: Vec<u8>,
    /// The bytes of the current payload that have not arrived.
    left: u64,
    /// The length of the current message so far.
    message: u64,
    tokens: f64,
    last: f64,
}

impl FrameLimiter {
    /// Returns a limiter at a time in seconds.
    pub fn new(limits: FrameLimits, now: f64) -> Self {
        let tokens = limits.frames.map_or(0.0, |(_, burst)| burst);
        Self { limits, head: Vec::with_capacity(MAX_HEAD), left: 0, message: 0, tokens, last: now }
    }

    /// Appends to `out` what may be passed on of `bytes`, which have arrived at that time.
    ///
    /// # Errors
    /// Returns why the direction has to be ended; what is in `out` ends with a whole frame then.
    pub fn pass(&mut self, mut bytes: &[u8], now: f64, out: &mut Vec<u8>) -> Result<(), FrameFault> {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                out.extend_from_slice(&bytes[..taken]);
                self.left -= taken as u64;
                bytes = &bytes[taken..];
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            if let Some(length) = length_of(&self.head) {
                self.begin_frame(length, now)?;
                out.append(&mut self.head);
                self.left = length;
            }
        }
        Ok(())
    }

    fn begin_frame(&mut self, length: u64, now: f64) -> Result<(), FrameFault> {
        if let Some((rate, burst)) = self.limits.frames {
            self.tokens = (self.tokens + (now - self.last).max(0.0) * rate).min(burst);
            self.last = now;
            if self.tokens < 1.0 {
                return Err(FrameFault::TooMany);
            }
            self.tokens -= 1.0;
        }
        let (opcode, is_final) = (self.head[0] & 0x0f, self.head[0] & 0x80 != 0);
        if opcode >= 8 {
            return Ok(());
        }
        self.message = self.message.saturating_add(length);
        if self.limits.message.is_some_and(|most| self.message > most) {
            return Err(FrameFault::Fault(SocketFault::TooLarge));
        }
        if is_final {
            self.message = 0;
        }
        Ok(())
    }
}

/// Returns the length of the payload behind a whole head.
fn length_of(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let is_whole = head.len() == 2 + extended + mask;
    is_whole.then(|| match extended {
        0 => u64::from(second & 0x7f),
        _ => head[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    })
}

#[cfg(test)]
mod tests {
    use super::super::write_message;
    use super::*;
    use bytes::BytesMut;
    use proptest::prelude::*;

    fn frames(lengths: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut ends) = (BytesMut::new(), vec![0]);
        for length in lengths {
            write_message(false, &vec![7; *length], Some([1, 2, 3, 4]), &mut out);
            ends.push(out.len());
        }
        (out.to_vec(), ends)
    }

    proptest! {
        #[test]
        fn what_passes_is_what_came_up_to_the_first_that_is_too_long(
            lengths in proptest::collection::vec(0_usize..400, 1..10),
            cut in 1_usize..70,
        ) {
            let (bytes, ends) = frames(&lengths);
            let limits = FrameLimits { message: Some(300), frames: None };
            let (mut limiter, mut out) = (FrameLimiter::new(limits, 0.0), Vec::new());
            let passed = bytes.chunks(cut).try_for_each(|part| limiter.pass(part, 0.0, &mut out));
            match lengths.iter().position(|length| *length > 300) {
                Some(first) => {
                    prop_assert_eq!(passed, Err(FrameFault::Fault(SocketFault::TooLarge)));
                    prop_assert_eq!(&out, &bytes[..ends[first]]);
                }
                None => {
                    prop_assert_eq!(passed, Ok(()));
                    prop_assert_eq!(&out, &bytes);
                }
            }
        }
    }

    #[test]
    fn frames_have_a_rate() {
        let limits = FrameLimits { message: None, frames: Some((10.0, 2.0)) };
        let (one, _) = frames(&[1]);
        let (mut limiter, mut out) = (FrameLimiter::new(limits, 0.0), Vec::new());
        assert_eq!(limiter.pass(&one, 0.0, &mut out), Ok(()));
        assert_eq!(limiter.pass(&one, 0.0, &mut out), Ok(()));
        assert_eq!(limiter.pass(&one, 0.05, &mut out), Err(FrameFault::TooMany));
        let mut limiter = FrameLimiter::new(limits, 0.0);
        for tenth in 0..50 {
            assert_eq!(limiter.pass(&one, f64::from(tenth) / 10.0, &mut out), Ok(()));
        }
    }

    #[test]
    fn fragments_count_as_one_message() {
        let limits = FrameLimits { message: Some(10), frames: None };
        let (mut limiter, mut out) = (FrameLimiter::new(limits, 0.0), Vec::new());
        // A ping between two fragments does not count.
        let fragments = [2, 6, 1, 2, 3, 4, 5, 6, 0x89, 1, 0, 0x80, 4, 1, 2, 3, 4, 0x82, 10];
        assert_eq!(limiter.pass(&fragments, 0.0, &mut out), Ok(()));
        let mut limiter = FrameLimiter::new(limits, 0.0);
        let too_long = [2, 6, 1, 2, 3, 4, 5, 6, 0x80, 5];
        assert_eq!(limiter.pass(&too_long, 0.0, &mut out), Err(FrameFault::Fault(SocketFault::TooLarge)));
    }
}
