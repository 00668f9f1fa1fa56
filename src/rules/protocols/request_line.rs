//! Checks of the request line (RFC 9112, section 3) before Pingora's parser runs.
//!
//! Pingora repairs a target with a space, a control character or an octet outside of ASCII and forwards it, although
//! two parsers may disagree on where the target ends: the fault is recorded, and the request is rejected. `"`, `<`,
//! `>` and the backquote, which `http::Uri` does not accept and every other proxy forwards, are percent-encoded. A
//! minor version above 1 becomes HTTP/1.1 (RFC 9110, section 2.5).

/// The maximum length of a target that `http::Uri` can hold.
const MAX_TARGET: u32 = u16::MAX as u32 - 1;

/// The reason for which a request target is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFault {
    /// A raw space.
    Space,
    /// A raw octet outside of ASCII.
    Octet,
    /// A raw control character.
    Control,
    /// The target is longer than can be handled.
    TooLong,
}

impl TargetFault {
    /// Returns the text for the client.
    pub fn text(self) -> &'static str {
        match self {
            Self::Space => "the request target has a space",
            Self::Octet => "the request target has an octet outside of ASCII",
            Self::Control => "the request target has a control character",
            Self::TooLong => "the request target is over 64 KiB",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum LineState {
    #[default]
    Begin,
    Method,
    Target,
    /// The number of octets of the version so far.
    Version(u8),
    Done,
}

/// The findings in a part of a request line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineFindings {
    /// The fault of the target, if it has one.
    pub fault: Option<TargetFault>,
    /// Whether the part has octets that must be percent-encoded.
    pub encode: bool,
}

/// Tracks one request line over any number of parts.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLine {
    state: LineState,
    length: u32,
}

/// The octets of a target that need closer inspection.
const ODD: [bool; 256] = {
    let mut odd = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        odd[byte] = matches!(byte as u8, 0..=0x20 | 0x7f.. | b'"' | b'<' | b'>' | b'`');
        byte += 1;
    }
    odd
};

/// Returns whether a head begins with a whole line that needs no change, as nearly every one does.
fn is_usual(head: &[u8]) -> bool {
    const VERSION: &[u8] = b" HTTP/1.1\r";
    let Some(end) = memchr::memchr(b'\n', head) else { return false };
    let Some((line, version)) = head[..end].split_at_checked(end.saturating_sub(VERSION.len())) else { return false };
    let Some(space) = line.iter().position(|byte| *byte == b' ') else { return false };
    let odd = |odd, byte: &u8| odd | ODD[usize::from(*byte)];
    space > 0 && version == VERSION && line.len() < MAX_TARGET as usize && !line[space + 1..].iter().fold(false, odd)
}

const MINOR: &[u8] = b"HTTP/1.";

impl RequestLine {
    /// Processes a part of the head. A higher minor version is replaced with 1 in place.
    pub fn follow(&mut self, bytes: &mut [u8]) -> LineFindings {
        if self.state == LineState::Begin && is_usual(bytes) {
            self.state = LineState::Done;
            return LineFindings::default();
        }
        let (mut line, mut at) = (LineFindings::default(), 0);
        while at < bytes.len() && self.state != LineState::Done {
            if self.state == LineState::Target {
                let dull = bytes[at..].iter().take_while(|b| !ODD[usize::from(**b)]).count();
                at += dull;
                self.length = self.length.saturating_add(u32::try_from(dull).unwrap_or(u32::MAX));
            }
            let Some(byte) = bytes.get_mut(at) else { break };
            at += 1;
            self.next(byte, &mut line);
        }
        if self.length > MAX_TARGET {
            line.fault = line.fault.or(Some(TargetFault::TooLong));
        }
        line
    }

    fn next(&mut self, byte: &mut u8, line: &mut LineFindings) {
        self.state = match (self.state, *byte) {
            // Empty lines before a request are skipped (RFC 9112, section 2.2).
            (LineState::Begin, b'\r' | b'\n') => LineState::Begin,
            (_, b'\n') => LineState::Done,
            (LineState::Begin | LineState::Method, b' ') => LineState::Target,
            (LineState::Begin | LineState::Method, _) => LineState::Method,
            (LineState::Target, b' ') => LineState::Version(0),
            (LineState::Target, b'"' | b'<' | b'>' | b'`') => {
                line.encode = true;
                self.length = self.length.saturating_add(3);
                LineState::Target
            }
            (LineState::Target, b'\r') => LineState::Target,
            (LineState::Target, 0..=0x1f | 0x7f) => self.note(line, TargetFault::Control),
            (LineState::Target, 0x80..) => self.note(line, TargetFault::Octet),
            (LineState::Target, _) => LineState::Target,
            (LineState::Version(_), b' ') => {
                line.fault = line.fault.or(Some(TargetFault::Space));
                LineState::Version(u8::MAX)
            }
            (LineState::Version(at), seen) => match MINOR.get(usize::from(at)) {
                Some(wanted) if *wanted == seen => LineState::Version(at + 1),
                None if usize::from(at) == MINOR.len() => {
                    if matches!(seen, b'2'..=b'9') {
                        *byte = b'1';
                    }
                    LineState::Version(u8::MAX)
                }
                _ => LineState::Version(u8::MAX),
            },
            (LineState::Done, _) => LineState::Done,
        };
    }

    fn note(&mut self, line: &mut LineFindings, fault: TargetFault) -> LineState {
        line.fault = line.fault.or(Some(fault));
        self.state
    }

    /// Returns the part with the necessary percent-encoding; `self` is the state before [`Self::follow`].
    pub fn encode(mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 64);
        let mut unused = LineFindings::default();
        for (at, byte) in bytes.iter().enumerate() {
            if self.state == LineState::Done {
                out.extend_from_slice(&bytes[at..]);
                break;
            }
            match (self.state, *byte) {
                (LineState::Target, b'"') => out.extend_from_slice(b"%22"),
                (LineState::Target, b'<') => out.extend_from_slice(b"%3C"),
                (LineState::Target, b'>') => out.extend_from_slice(b"%3E"),
                (LineState::Target, b'`') => out.extend_from_slice(b"%60"),
                (_, byte) => out.push(byte),
            }
            self.next(&mut byte.clone(), &mut unused);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Processes a head in two parts, and returns the resulting head and the first fault.
    fn read(head: &[u8], cut: usize) -> (Vec<u8>, Option<TargetFault>) {
        let mut line = RequestLine::default();
        let (first, second) = head.split_at(cut.min(head.len()));
        let (mut out, mut fault) = (Vec::new(), None);
        for part in [first, second] {
            let (mut part, before) = (part.to_vec(), line);
            let seen = line.follow(&mut part);
            fault = fault.or(seen.fault);
            out.extend(if seen.encode { before.encode(&part) } else { part });
        }
        (out, fault)
    }

    #[test]
    fn what_is_repaired_and_what_is_noted() {
        for (came, becomes) in [
            ("GET /a HTTP/1.1\r\nA: \"<\r\n\r\n", "GET /a HTTP/1.1\r\nA: \"<\r\n\r\n"),
            ("GET /\"a\"?q=<b>`^{|} HTTP/1.1\r\n\"\r\n", "GET /%22a%22?q=%3Cb%3E%60^{|} HTTP/1.1\r\n\"\r\n"),
            ("\r\n\r\nGET /<\r\n", "\r\n\r\nGET /%3C\r\n"),
            ("G\"T / HTTP/1.1\r\n", "G\"T / HTTP/1.1\r\n"),
            ("GET / HTTP/1.7\r\nX: HTTP/1.7\r\n", "GET / HTTP/1.1\r\nX: HTTP/1.7\r\n"),
            ("GET / HTTP/2.0\r\n", "GET / HTTP/2.0\r\n"),
            ("GET / HTTP/1.0\r\n", "GET / HTTP/1.0\r\n"),
            ("GET / HTTP/1.\"\r\n", "GET / HTTP/1.\"\r\n"),
        ] {
            for cut in 0..came.len() {
                assert_eq!(read(came.as_bytes(), cut), (becomes.as_bytes().to_vec(), None), "{came} cut at {cut}");
            }
        }
        for (came, fault) in [
            (&b"GET /a b HTTP/1.1\r\n"[..], TargetFault::Space),
            (b"GET  / HTTP/1.1\r\n", TargetFault::Space),
            (b"GET /\xe9 HTTP/1.1\r\n", TargetFault::Octet),
            (b"GET /?\xc3\xa9 HTTP/1.1\r\n", TargetFault::Octet),
            (b"GET /?a\tb HTTP/1.1\r\n", TargetFault::Control),
            (b"GET /?\x7f HTTP/1.1\r\n", TargetFault::Control),
        ] {
            for cut in 0..came.len() {
                assert_eq!(read(came, cut).1, Some(fault), "cut at {cut}");
            }
        }
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(70_000));
        assert_eq!(read(long.as_bytes(), 30_000).1, Some(TargetFault::TooLong));
    }

    proptest! {
        #[test]
        fn is_the_same_in_one_part_and_in_two(
            head in "(GET|\"|<| |/|\r\n|HTTP/1\\.|[0-9]|\u{e9}|a){0,16}",
            cut in 0_usize..32,
        ) {
            prop_assert_eq!(read(head.as_bytes(), cut), read(head.as_bytes(), 0));
        }
    }
}
