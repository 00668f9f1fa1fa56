//! Removes members from JSON while it streams by, without ever holding the document.
//!
//! The scanner follows strings, containers and names (RFC 8259) and copies every byte that is not
//! part of a removed member, white space and number formats included. It never judges validity: a
//! text that is not JSON comes out as it went in, and a sloppy target cannot smuggle a member past
//! by a slip of its syntax. What it holds back is one comma and one name.

use std::ops::Deref;

use super::fields::{Fields, State};

/// Containers nested deeper than this are refused, so that memory stays bounded.
pub const MAX_DEPTH: usize = 2_048;

/// The first bytes of a document that tell its encoding.
const FIRST: usize = 4;

/// White space between members that is kept, in bytes.
const MAX_SPACE: usize = 4_096;

/// A name over this many bytes is passed on without being compared.
const SLACK: usize = 16;

/// Why a document cannot be looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// It begins as UTF-16 or UTF-32 does, which some readers of JSON find out by themselves.
    NotUtf8,
}

impl Opaque {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooDeep => "the document is nested too deep",
            Self::NotUtf8 => "the document is no UTF-8",
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Level {
    object: bool,
    /// Whether a member was let through.
    passed: bool,
    /// Whether a member was removed, so that the first that stays loses its comma.
    cut: bool,
    state: State,
    /// The state below a name that no path knows.
    unknown: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before or between values, where the next string is a value.
    Value,
    /// In an object where the next string is a name.
    Name,
    /// Behind a name, before its colon and value.
    Colon,
    /// Within a string that is a value; whether the last byte was a backslash.
    Text(bool),
    /// Within a name that does not matter: too long to be known, or of a member that is dropped.
    Unread(bool),
}

/// The state of one document.
#[derive(Debug)]
pub struct Stripper<F> {
    fields: F,
    levels: Vec<Level>,
    at: At,
    /// A comma, white space and the beginning of a name, whose fate the next part decides.
    held: Vec<u8>,
    /// The state below the name that was read last.
    below: State,
    /// Some while a member is being dropped: the depth of its object.
    dropping: Option<usize>,
    removed: u64,
    /// How many of the first bytes have been seen.
    seen: usize,
}

/// Where a scan stands in its part: bytes are copied in runs, and only where something is cut out.
struct Run<'d> {
    data: &'d [u8],
    /// The first byte that has been neither copied nor dropped.
    keep: usize,
    /// In [`At::Name`]: where what goes with the next name begins, its comma first.
    mark: usize,
}

impl Run<'_> {
    fn copy_to(&mut self, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data[self.keep..end]);
        self.keep = end;
    }
}

impl<F: Deref<Target = Fields>> Stripper<F> {
    /// Starts a document.
    pub fn new(fields: F) -> Self {
        let below = fields.start();
        Self { fields, levels: Vec::new(), at: At::Value, held: Vec::new(), below, dropping: None, removed: 0, seen: 0 }
    }

    /// How many members were removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Takes the next part of the document and appends to `out` what stays of it.
    ///
    /// # Errors
    /// [`Opaque`]; the document is not to be continued then.
    pub fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Opaque> {
        if self.seen < FIRST {
            self.look(part)?;
        }
        if self.held.is_empty() {
            return self.scan(part, out);
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(part);
        self.scan(&data, out)
    }

    /// Looks at the first bytes: JSON in UTF-16 or UTF-32 has a NUL, or a byte order mark, among them.
    fn look(&mut self, part: &[u8]) -> Result<(), Opaque> {
        let first = &part[..part.len().min(FIRST - self.seen)];
        self.seen += first.len();
        if first.iter().any(|byte| matches!(byte, 0 | 0xfe | 0xff)) { Err(Opaque::NotUtf8) } else { Ok(()) }
    }

    /// Ends the document: whatever was held back comes out.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn scan(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Opaque> {
        let mut run = Run { data, keep: 0, mark: 0 };
        let mut place = self.resume(data);
        while let Some(&byte) = data.get(place) {
            place = match byte {
                b'"' if self.at == At::Name => match self.name(&mut run, place, out) {
                    Some(next) => next,
                    None => break,
                },
                b'"' => self.pass_string(data, place + 1, At::Text, At::Value),
                b'{' | b'[' => self.open(&mut run, place, byte == b'{')?,
                b'}' | b']' | b',' => self.separate(&mut run, place, byte == b','),
                b':' if self.at == At::Colon => {
                    self.at = At::Value;
                    place + 1
                }
                _ if self.at == At::Name => {
                    if !byte.is_ascii_whitespace() {
                        // A slip of the target's: what stands before it is as it came.
                        run.mark = place + 1;
                    }
                    place + 1
                }
                _ => {
                    let rest = &data[place + 1..];
                    place + 1 + rest.iter().position(|b| STRUCTURAL[usize::from(*b)]).unwrap_or(rest.len())
                }
            };
        }
        self.leave(&mut run, out);
        Ok(())
    }

    /// Goes on with the string that the last part broke off in.
    fn resume(&mut self, data: &[u8]) -> usize {
        let (escaped, open, behind): (_, fn(bool) -> At, _) = match self.at {
            At::Text(escaped) => (escaped, At::Text, At::Value),
            At::Unread(escaped) => (escaped, At::Unread, At::Colon),
            _ => return 0,
        };
        if escaped && !data.is_empty() {
            self.at = open(false);
            return self.pass_string(data, 1, open, behind);
        }
        self.pass_string(data, 0, open, behind)
    }

    /// Passes over the rest of a string, of which `from` is inside: to behind its quote, or the end.
    fn pass_string(&mut self, data: &[u8], from: usize, open: fn(bool) -> At, behind: At) -> usize {
        match string_end(&data[from..]) {
            Ok(end) => {
                self.at = behind;
                from + end + 1
            }
            Err(escaped) => {
                // Nothing came of an empty part: it stays as it was.
                if from < data.len() || !matches!(self.at, At::Text(_) | At::Unread(_)) {
                    self.at = open(escaped);
                }
                data.len()
            }
        }
    }

    /// Copies what is decided, and holds back what is not.
    fn leave(&mut self, run: &mut Run<'_>, out: &mut Vec<u8>) {
        if self.dropping.is_some() {
            return;
        }
        if self.at != At::Name {
            return run.copy_to(run.data.len(), out);
        }
        let mark = run.mark.max(run.keep);
        run.copy_to(mark, out);
        self.held.extend_from_slice(&run.data[mark..]);
        if !self.held.contains(&b'"') {
            // More white space than anyone writes is left out.
            self.held.truncate(MAX_SPACE);
        }
    }

    /// Reads the name that begins at `place`; `None` when its end is not there yet.
    #[inline]
    fn name(&mut self, run: &mut Run<'_>, place: usize, out: &mut Vec<u8>) -> Option<usize> {
        let inside = &run.data[place + 1..];
        if self.dropping.is_some() {
            return Some(self.pass_string(run.data, place + 1, At::Unread, At::Colon));
        }
        // Six bytes of escape for each of the name: longer than that cannot be a known name.
        let longest = self.fields.longest_name() * 6 + SLACK;
        let Ok(end) = string_end(&inside[..inside.len().min(longest)]) else {
            if inside.len() < longest {
                return None;
            }
            // `*` and `**` take it all the same.
            self.known(run, &[0xff], out);
            return Some(self.pass_string(run.data, place + 1, At::Unread, At::Colon));
        };
        self.at = At::Colon;
        let raw = &inside[..end];
        match self.levels.last() {
            // Most names of a document are of no length that is looked for, and end here. One with an
            // escape is not, since it is longer than it says.
            Some(level) if level.passed && !self.fields.may_know(raw.len()) && !raw.contains(&b'\\') => self.below = level.unknown,
            _ if raw.contains(&b'\\') => self.known(run, &unescaped(raw), out),
            _ => self.known(run, raw, out),
        }
        Some(place + 1 + end + 1)
    }

    fn known(&mut self, run: &mut Run<'_>, name: &[u8], out: &mut Vec<u8>) {
        let (below, meant) = self.fields.enter(self.levels.last().map_or(0, |l| l.state), name);
        self.decide(run, meant, out);
        self.below = below;
    }

    /// Drops the member or lets it through, with its comma unless nothing stayed before it.
    fn decide(&mut self, run: &mut Run<'_>, meant: bool, out: &mut Vec<u8>) {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return };
        if meant {
            level.cut = true;
            self.removed += 1;
            self.dropping = Some(depth);
            return run.copy_to(run.mark.max(run.keep), out);
        }
        let first = !std::mem::replace(&mut level.passed, true);
        if first && level.cut && run.data.get(run.mark) == Some(&b',') {
            run.copy_to(run.mark.max(run.keep), out);
            run.keep = run.mark + 1;
        }
    }

    fn open(&mut self, run: &mut Run<'_>, place: usize, object: bool) -> Result<usize, Opaque> {
        if self.levels.len() == MAX_DEPTH {
            return Err(Opaque::TooDeep);
        }
        // Arrays are passed through: their elements stand where they stand, or are what a `*` takes.
        let state = if object { self.below } else { self.fields.element(self.below) };
        self.below = state;
        self.levels.push(Level { object, passed: false, cut: false, state, unknown: self.fields.unknown(state) });
        self.at = if object { At::Name } else { At::Value };
        run.mark = place + 1;
        Ok(place + 1)
    }

    /// A comma, or the end of a container.
    fn separate(&mut self, run: &mut Run<'_>, place: usize, comma: bool) -> usize {
        if self.dropping == Some(self.levels.len()) {
            self.dropping = None;
            run.keep = place;
        }
        if !comma {
            self.levels.pop();
        }
        let level = self.levels.last();
        self.below = level.map_or_else(|| self.fields.start(), |l| l.state);
        self.at = if comma && level.is_some_and(|l| l.object) { At::Name } else { At::Value };
        run.mark = place;
        place + 1
    }
}

/// The bytes at which something may change outside of strings.
const STRUCTURAL: [bool; 256] = {
    let mut table = [false; 256];
    let bytes = b"\"{}[],:";
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
};

/// Where a string's closing quote is; if it is not there, whether the next byte is an escaped one.
#[inline]
fn string_end(inside: &[u8]) -> Result<usize, bool> {
    let mut from = 0;
    loop {
        let rest = inside.get(from..).ok_or(true)?;
        let at = from + quote_or_backslash(rest).ok_or(false)?;
        if inside[at] == b'"' {
            return Ok(at);
        }
        from = at + 2;
    }
}

/// The first of the two. Most strings are short, and eight bytes at a time do for them what a search
/// made for long texts does only after a start that costs more.
#[inline]
fn quote_or_backslash(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 255;
    // The lowest bit that is set belongs to the first zero byte ("Bit Twiddling Hacks", zero in word).
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut rest = text;
    while let Some((word, behind)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let hit = zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64));
        if hit != 0 {
            return Some(text.len() - rest.len() + hit.trailing_zeros() as usize / 8);
        }
        rest = behind;
        if text.len() - rest.len() == 32 {
            return memchr::memchr2(b'"', b'\\', rest).map(|at| at + 32);
        }
    }
    rest.iter().position(|b| matches!(b, b'"' | b'\\')).map(|at| at + text.len() - rest.len())
}

/// The name with its escapes resolved; an escape that is none stays as it is.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| raw.to_vec(), String::into_bytes)
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
