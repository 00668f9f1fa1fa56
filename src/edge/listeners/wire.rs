//! The state in which an HTTP/1 connection follows its requests: request line, end of head, chunks, and the bytes
//! that are read again.

use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::spare;
use crate::exchange::Reason;
use crate::rules::protocols::{ChunkError, Chunks, RequestLine, TargetFault};

const HEAD_END: &[u8] = b"\r\n\r\n";

static FIND_HEAD_END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(HEAD_END));

/// Finds the first end of a head through as many parts as it comes in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadEnd {
    /// The number of octets of it that have come.
    matched: u8,
    found: bool,
}

impl HeadEnd {
    /// Returns the place in `bytes` behind it, or their length once it has come; `None` as long as it has not.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.found {
            return Some(0);
        }
        let mut begun = 0;
        while self.matched > 0 && begun < bytes.len() {
            self.step(bytes[begun]);
            begun += 1;
            if self.found {
                return Some(begun);
            }
        }
        let rest = &bytes[begun..];
        let at = match end_with_head(rest) {
            true => Some(rest.len() - HEAD_END.len()),
            false => FIND_HEAD_END.find(rest),
        };
        self.found = at.is_some();
        if at.is_none() {
            rest[rest.len().saturating_sub(HEAD_END.len() - 1)..].iter().for_each(|byte| self.step(*byte));
        }
        at.map(|at| begun + at + HEAD_END.len())
    }

    fn step(&mut self, byte: u8) {
        self.matched = match byte {
            byte if byte == HEAD_END[usize::from(self.matched)] => self.matched + 1,
            b'\r' => 1,
            _ => 0,
        };
        if usize::from(self.matched) == HEAD_END.len() {
            (self.matched, self.found) = (0, true);
        }
    }
}

/// Returns whether octets end with the first end of a head in them. Sometimes false where they do.
fn end_with_head(bytes: &[u8]) -> bool {
    let Some(before) = bytes.strip_suffix(HEAD_END) else { return false };
    // Without a branch: the compiler takes sixteen octets at a time, where a search would stop at each line.
    let pairs = before.iter().zip(&bytes[2..]);
    !pairs.fold(false, |found, (one, other)| found | ((*one == b'\r') & (*other == b'\r')))
}

/// The framing of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body has this many octets; 0 where there is none.
    Length(usize),
    /// The body is in chunks.
    Chunked,
}

/// A fault in what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The fault is in the request target.
    Target(TargetFault),
    /// The fault is in the chunks of a body.
    Chunks,
}

impl Fault {
    /// Returns the reason of the rejection.
    pub fn reason(self) -> Reason {
        match self {
            Self::Target(TargetFault::TooLong) => Reason::UriTooLong,
            _ => Reason::BadRequest,
        }
    }

    /// Returns the text for the client.
    pub fn text(self) -> &'static str {
        match self {
            Self::Target(fault) => fault.text(),
            Self::Chunks => ChunkError.text(),
        }
    }
}

/// The part of a connection that only its own task uses.
#[derive(Debug, Default)]
pub struct Wire {
    pub(super) line: RequestLine,
    pub(super) end: HeadEnd,
    /// The state that most connections never need, and idle ones do not need at present.
    pub(super) more: Option<Box<RareState>>,
}

#[derive(Debug, Default)]
pub(super) struct RareState {
    pub(super) fault: Option<Fault>,
    /// How a request ended that no phase of the proxy has seen.
    pub(super) rejected: Option<Reason>,
    pub(super) chunks: Option<Chunks>,
    /// Whether another protocol than HTTP/1 is spoken by now.
    pub(super) tunnelled: bool,
    /// The rest of the socket of a client that may still be sending.
    pub(super) left: Option<OwnedFd>,
    /// Octets that may belong to a body or to a next request, and the place of the first of them.
    pub(super) kept: Vec<u8>,
    pub(super) kept_from: u64,
    /// Octets that are read again before new ones, and how many of them were.
    pub(super) replay: Vec<u8>,
    pub(super) replayed: usize,
}

impl Wire {
    pub(super) fn more(&mut self) -> &mut RareState {
        self.more.get_or_insert_default()
    }

    /// Follows the request line in `bytes`; returns what replaces them where that is longer.
    pub(super) fn follow_line(&mut self, bytes: &mut [u8]) -> Option<Vec<u8>> {
        let before = self.line;
        let seen = self.line.follow(bytes);
        if let Some(fault) = seen.fault {
            self.more().fault.get_or_insert(Fault::Target(fault));
        }
        seen.encode.then(|| before.encode(bytes))
    }
}

impl RareState {
    /// Keeps octets that begin at this place.
    pub(super) fn keep(&mut self, at: u64, bytes: &[u8]) {
        if self.kept_from + self.kept.len() as u64 != at {
            // What was kept before is over: something in between was not worth it.
            self.kept.clear();
        }
        if self.kept.is_empty() {
            self.kept_from = at;
            if self.kept.capacity() == 0 {
                self.kept = spare::take();
            }
        }
        self.kept.extend_from_slice(bytes);
    }

    pub(super) fn forget(&mut self) {
        self.kept.clear();
        spare::give(std::mem::take(&mut self.kept));
    }

    /// What came from this place on to that one, if it is kept.
    fn kept_behind(&self, from: u64, to: u64) -> Option<&[u8]> {
        if from == to {
            return Some(&[]);
        }
        let begun = usize::try_from(from.checked_sub(self.kept_from)?).ok()?;
        self.kept.get(begun..).filter(|behind| from + behind.len() as u64 == to)
    }

    /// Has what came from this place on to that one replayed, before what is to be replayed already. False if it is not
    /// kept.
    pub(super) fn take_back(&mut self, from: u64, to: u64) -> bool {
        let Some(behind) = self.kept_behind(from, to) else { return false };
        if !self.replay.is_empty() && self.replayed >= behind.len() {
            // It was replayed itself: many small requests in one read are not copied again and again.
            self.replayed -= behind.len();
        } else {
            (self.replay, self.replayed) = ([behind, &self.replay[self.replayed..]].concat(), 0);
        }
        true
    }

    /// Follows the chunks in what is kept, from this place on. The place where the body ends, if it does.
    pub(super) fn follow_kept(&mut self, from: u64, to: u64) -> Result<Option<u64>, Fault> {
        let mut chunks = self.chunks.take().unwrap_or_default();
        let behind = self.kept_behind(from, to).ok_or(Fault::Chunks)?;
        let taken = chunks.feed(behind).map_err(|ChunkError| Fault::Chunks)?;
        if chunks.is_done() {
            return Ok(Some(from + taken as u64));
        }
        self.chunks = Some(chunks);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head() {
        for whole in ["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nA: b\r\nC: d\r\n\r\n", "\r\n\r\n"] {
            assert!(end_with_head(whole.as_bytes()), "{whole:?}");
        }
        let ends: &[(&str, Option<usize>)] = &[
            ("a\r\n\r\nbody", Some(5)),
            ("\r\r\n\r\nb", Some(5)),
            ("\r\n\r\r\n\r\nb", Some(7)),
            ("a\r\nb\r\n\r\n", Some(8)),
            ("a\r\n\r\nb\r\n\r\n", Some(5)),
            ("a\r\n\rb\r\n", None),
            ("\n\n\r\n", None),
        ];
        for (head, end) in ends {
            for cut in 0..head.len() {
                for second in cut..head.len() {
                    let (mut finder, mut at, mut found) = (HeadEnd::default(), 0, None);
                    for part in [&head[..cut], &head[cut..second], &head[second..]] {
                        let seen = finder.follow(part.as_bytes());
                        found = found.or(seen.map(|place| at + place));
                        at += part.len();
                    }
                    assert_eq!(found, *end, "{head:?} cut at {cut} and {second}");
                }
            }
        }
        for other in
            ["", "\r\n", "GET / HTTP/1.1\r\n", "a\r\n\r\nb\r\n\r\n", "a\r\n\r\nb", "\r\n\r\n\r\n\r\n", "a\r\n\r\n\r\n"]
        {
            assert!(!end_with_head(other.as_bytes()), "{other:?}");
        }
    }
}
