//! Removes members from JSON while it streams by, without ever holding the document.
//!
//! The scanner follows strings, containers and names (RFC 8259) and copies every byte that is not
//! part of a removed member, white space and number formats included. It never judges validity: a
//! text that is not JSON comes out as it went in, and a sloppy target cannot smuggle a member past
//! by a slip of its syntax. What it holds back is one comma and one name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use super::Step;
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// It begins as UTF-16 or UTF-32 does, which some readers of JSON find out by themselves.
    NotUtf8,
    /// Its content coding cannot be taken off; why.
    Coding(String),
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooDeep => f.write_str("the document is nested too deep"),
            Self::NotUtf8 => f.write_str("the document is not UTF-8"),
            Self::Coding(why) => write!(f, "the content coding cannot be decoded: {why}"),
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

impl Level {
    /// Whether the next member that stays keeps its comma, if it has one.
    fn keeps_commas(&self) -> bool {
        self.passed || !self.cut
    }
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

impl<F: Deref<Target = Fields> + Send + Sync + fmt::Debug> Step for Stripper<F> {
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        Self::push(self, part, out)?;
        if end {
            self.finish(out);
        }
        Ok(())
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
                _ => place + 1 + plain(&data[place + 1..]),
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
        let end = match short_string_end(inside) {
            Some(end) => {
                self.look_up(run, &inside[..end], out);
                end
            }
            None => match self.long_name(run, inside, out)? {
                Some(end) => end,
                None => return Some(self.pass_string(run.data, place + 1, At::Unread, At::Colon)),
            },
        };
        self.at = At::Colon;
        let behind = place + 1 + end + 1;
        if self.dropping.is_some() {
            return Some(value_end(run.data, behind, MAX_DEPTH - self.levels.len()).unwrap_or(behind));
        }
        Some(self.pass_scalar(run.data, behind))
    }

    /// As [`Self::name`], for one that may have escapes: where it ends, or `Some(None)` if it is longer
    /// than any that is looked for.
    #[cold]
    fn long_name(&mut self, run: &mut Run<'_>, inside: &[u8], out: &mut Vec<u8>) -> Option<Option<usize>> {
        // Six bytes of escape for each of the name: longer than that cannot be a known name.
        let longest = self.fields.longest_name() * 6 + SLACK;
        match string_end(&inside[..inside.len().min(longest)]) {
            Ok(end) => {
                self.look_up(run, &unescaped(&inside[..end]), out);
                Some(Some(end))
            }
            Err(_) if inside.len() < longest => None,
            Err(_) => {
                // `*` and `**` take it all the same.
                self.known(run, &[0xff], out);
                Some(None)
            }
        }
    }

    /// Most names of a document are of no length that is looked for, and end here.
    #[inline]
    fn look_up(&mut self, run: &mut Run<'_>, name: &[u8], out: &mut Vec<u8>) {
        match self.levels.last_mut() {
            Some(level) if level.keeps_commas() && !self.fields.may_know(name.len()) => {
                level.passed = true;
                self.below = level.unknown;
            }
            _ => self.known(run, name, out),
        }
    }

    /// Passes over a colon and, if it follows at once, a string or what else is no container.
    #[inline]
    fn pass_scalar(&mut self, data: &[u8], colon: usize) -> usize {
        let value = colon + 1;
        match (data.get(colon), data.get(value)) {
            (Some(b':'), Some(b'"')) => self.pass_string(data, value + 1, At::Text, At::Value),
            (Some(b':'), Some(_)) => {
                self.at = At::Value;
                value + plain(&data[value..])
            }
            _ => colon,
        }
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
        let keeps = level.keeps_commas();
        level.passed = true;
        if !keeps && run.data.get(run.mark) == Some(&b',') {
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

/// How many bytes there are before the next of [`STRUCTURAL`].
#[inline]
fn plain(data: &[u8]) -> usize {
    data.iter().position(|byte| STRUCTURAL[usize::from(*byte)]).unwrap_or(data.len())
}

/// The comma or bracket behind the value that begins at `from`, if it is there and the value is no
/// deeper than `depth`. It finds what the levels would, for a value whose names do not matter.
fn value_end(data: &[u8], from: usize, depth: usize) -> Option<usize> {
    let mut open = 0;
    let mut place = from;
    loop {
        place += plain(data.get(place..)?);
        match data.get(place)? {
            b'"' => place += string_end(&data[place + 1..]).ok()? + 1,
            b'{' | b'[' if open == depth => return None,
            b'{' | b'[' => open += 1,
            b'}' | b']' | b',' if open == 0 => return Some(place),
            b'}' | b']' => open -= 1,
            _ => {}
        }
        place += 1;
    }
}

/// Where a string's closing quote is; if it is not there, whether the next byte is an escaped one.
#[inline]
fn string_end(inside: &[u8]) -> Result<usize, bool> {
    short_string_end(inside).map_or_else(|| long_string_end(inside), Ok)
}

/// Where the closing quote of a short string without escapes is. Most strings are, and looking at a few
/// words does for them what a search made for long texts does only after a start that costs more.
#[inline]
fn short_string_end(inside: &[u8]) -> Option<usize> {
    for (at, word) in inside.as_chunks::<8>().0.iter().take(SHORT).enumerate() {
        let word = u64::from_le_bytes(*word);
        let quotes = zero_bytes(word ^ (ONES * b'"' as u64));
        let hits = quotes | zero_bytes(word ^ (ONES * b'\\' as u64));
        if hits != 0 {
            let first = hits.trailing_zeros();
            return (quotes >> first & 1 == 1).then_some(at * 8 + first as usize / 8);
        }
    }
    None
}

#[inline(never)]
fn long_string_end(inside: &[u8]) -> Result<usize, bool> {
    let mut from = 0;
    loop {
        let rest = inside.get(from..).ok_or(true)?;
        let at = from + memchr::memchr2(b'"', b'\\', rest).ok_or(false)?;
        if inside[at] == b'"' {
            return Ok(at);
        }
        from = at + 2;
    }
}

/// What a short string is, in words of eight bytes.
const SHORT: usize = 2;

const ONES: u64 = u64::MAX / 255;

/// The highest bit of each byte that is zero, and perhaps of bytes above it ("Bit Twiddling Hacks",
/// zero in word): the lowest of them is right.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & (ONES << 7)
}

/// The name with its escapes resolved; an escape that is none stays as it is.
fn unescaped(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or(Cow::Borrowed(raw), |name| Cow::Owned(name.into_bytes()))
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
