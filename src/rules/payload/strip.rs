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

/// White space between members that is kept, in bytes.
const MAX_SPACE: usize = 4_096;

/// A name over this many bytes is passed on without being compared.
const SLACK: usize = 16;

/// The document is nested deeper than [`MAX_DEPTH`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooDeep;

#[derive(Clone, Copy, Debug)]
struct Level {
    object: bool,
    /// Whether a member was let through.
    passed: bool,
    /// Whether a member was removed, so that the first that stays loses its comma.
    cut: bool,
    state: State,
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
        Self { fields, levels: Vec::new(), at: At::Value, held: Vec::new(), below, dropping: None, removed: 0 }
    }

    /// How many members were removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Takes the next part of the document and appends to `out` what stays of it.
    ///
    /// # Errors
    /// [`TooDeep`]; the document is not to be continued then.
    pub fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), TooDeep> {
        if self.held.is_empty() {
            return self.scan(part, out);
        }
        let mut data = std::mem::take(&mut self.held);
        data.extend_from_slice(part);
        self.scan(&data, out)
    }

    /// Ends the document: whatever was held back comes out.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    fn scan(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), TooDeep> {
        let mut run = Run { data, keep: 0, mark: 0 };
        let mut place = 0;
        while let Some(&byte) = data.get(place) {
            place = match (self.at, byte) {
                (At::Text(escaped) | At::Unread(escaped), _) => self.within_string(data, place, escaped),
                (At::Name, b'"') => match self.name(&mut run, place, out) {
                    Some(next) => next,
                    None => break,
                },
                (_, b'"') => {
                    self.at = At::Text(false);
                    place + 1
                }
                (_, b'{' | b'[') => self.open(&mut run, place, byte == b'{')?,
                (_, b'}' | b']' | b',') => self.separate(&mut run, place, byte == b','),
                (At::Colon, b':') => {
                    self.at = At::Value;
                    place + 1
                }
                (At::Name, byte) => {
                    if !byte.is_ascii_whitespace() {
                        // A slip of the target's: what stands before it is as it came.
                        run.mark = place + 1;
                    }
                    place + 1
                }
                (_, _) => {
                    let rest = &data[place + 1..];
                    place + 1 + rest.iter().position(|b| STRUCTURAL[usize::from(*b)]).unwrap_or(rest.len())
                }
            };
        }
        self.leave(&mut run, out);
        Ok(())
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

    /// Passes over the inside of a string, up to its closing quote or a backslash.
    fn within_string(&mut self, data: &[u8], place: usize, escaped: bool) -> usize {
        let unread = matches!(self.at, At::Unread(_));
        let state = |escaped| if unread { At::Unread(escaped) } else { At::Text(escaped) };
        if escaped {
            self.at = state(false);
            return place + 1;
        }
        match memchr::memchr2(b'"', b'\\', &data[place..]) {
            None => data.len(),
            Some(at) if data[place + at] == b'\\' => {
                self.at = state(true);
                place + at + 1
            }
            Some(at) => {
                self.at = if unread { At::Colon } else { At::Value };
                place + at + 1
            }
        }
    }

    /// Reads the name that begins at `place`; `None` when its end is not there yet.
    fn name(&mut self, run: &mut Run<'_>, place: usize, out: &mut Vec<u8>) -> Option<usize> {
        let inside = &run.data[place + 1..];
        // Six bytes of escape for each of the name: longer than that cannot be a known name.
        let longest = self.fields.longest_name() * 6 + SLACK;
        let end = if self.dropping.is_some() { None } else { string_end(&inside[..inside.len().min(longest)]) };
        let state = self.levels.last().map_or(0, |l| l.state);
        let Some(end) = end else {
            if self.dropping.is_none() && inside.len() < longest {
                return None;
            }
            self.at = At::Unread(false);
            if self.dropping.is_none() {
                // `*` and `**` take it all the same.
                let (below, meant) = self.fields.enter(state, &[0xff]);
                self.decide(run, meant, out);
                self.below = below;
            }
            return Some(place + 1);
        };
        let raw = &inside[..end];
        let (below, meant) = if raw.contains(&b'\\') { self.fields.enter(state, &unescaped(raw)) } else { self.fields.enter(state, raw) };
        self.at = At::Colon;
        self.decide(run, meant, out);
        self.below = below;
        Some(place + 1 + end + 1)
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

    fn open(&mut self, run: &mut Run<'_>, place: usize, object: bool) -> Result<usize, TooDeep> {
        if self.levels.len() == MAX_DEPTH {
            return Err(TooDeep);
        }
        // Arrays are passed through: their elements stand where they stand.
        self.levels.push(Level { object, passed: false, cut: false, state: self.below });
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

/// Where a string's closing quote is.
fn string_end(inside: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + memchr::memchr2(b'"', b'\\', inside.get(from..)?)?;
        if inside[at] == b'"' {
            return Some(at);
        }
        from = at + 2;
    }
}

/// The name with its escapes resolved; an escape that is none stays as it is.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| raw.to_vec(), String::into_bytes)
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
