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
    /// Whether a member was let through, so that the next one needs its comma.
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
    /// Within a name; whether the last byte was a backslash.
    InName(bool),
    /// Behind a name, before its colon and value.
    Colon,
    /// Within a string that is a value.
    InText(bool),
}

/// The state of one document.
#[derive(Debug)]
pub struct Stripper<F> {
    fields: F,
    levels: Vec<Level>,
    at: At,
    /// A comma, white space and a name whose fate is open.
    held: Vec<u8>,
    /// Where in `held` the name begins.
    name_from: usize,
    /// The state below the name that was read last.
    below: State,
    /// Some while a member is being dropped: the depth of its object.
    dropping: Option<usize>,
    removed: u64,
}

impl<F: Deref<Target = Fields>> Stripper<F> {
    /// Starts a document.
    pub fn new(fields: F) -> Self {
        Self {
            below: fields.start(),
            fields,
            levels: Vec::new(),
            at: At::Value,
            held: Vec::new(),
            name_from: 0,
            dropping: None,
            removed: 0,
        }
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
        let mut rest = part;
        while let Some(&byte) = rest.first() {
            let taken = match self.at {
                At::InText(_) | At::InName(_) => self.within_string(rest, out),
                At::Value | At::Name | At::Colon => {
                    let run = rest.iter().position(|b| is_structural(*b)).unwrap_or(rest.len());
                    if run > 0 {
                        self.emit(&rest[..run], out);
                        run
                    } else {
                        self.structural(byte, out)?;
                        1
                    }
                }
            };
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// Ends the document: whatever was held back and not dropped comes out.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if self.dropping.is_none() {
            out.append(&mut self.held);
        }
        self.held.clear();
    }

    fn emit(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.dropping.is_some() {
            return;
        }
        if self.at != At::Name {
            out.extend_from_slice(bytes);
        } else if !bytes.iter().all(u8::is_ascii_whitespace) {
            // No name can follow but by a slip of the target's: what was held is as it came.
            out.append(&mut self.held);
            out.extend_from_slice(bytes);
        } else if self.held.len() < MAX_SPACE {
            // White space behind a held comma shares its fate. More of it than anyone writes is left out.
            self.held.extend_from_slice(bytes);
        }
    }

    /// Passes the inside of a string on, up to and with its closing quote or a backslash.
    fn within_string(&mut self, rest: &[u8], out: &mut Vec<u8>) -> usize {
        let name = matches!(self.at, At::InName(_));
        if matches!(self.at, At::InText(true) | At::InName(true)) {
            self.string_bytes(name, &rest[..1], out);
            self.at = if name { At::InName(false) } else { At::InText(false) };
            return 1;
        }
        let end = memchr::memchr2(b'"', b'\\', rest);
        let taken = end.map_or(rest.len(), |at| at + 1);
        self.string_bytes(name, &rest[..taken], out);
        match end.map(|at| rest[at]) {
            Some(b'\\') => self.at = if name { At::InName(true) } else { At::InText(true) },
            Some(_) if name => self.name_ends(out),
            Some(_) => self.at = At::Value,
            None => {}
        }
        taken
    }

    fn string_bytes(&mut self, name: bool, bytes: &[u8], out: &mut Vec<u8>) {
        if self.dropping.is_some() {
            return;
        }
        if !name {
            out.extend_from_slice(bytes);
        } else if self.held.is_empty() && self.name_from == usize::MAX {
            out.extend_from_slice(bytes);
        } else {
            self.held.extend_from_slice(bytes);
            // Six bytes of escape for each of the name: longer than that cannot be a known name.
            if self.held.len() - self.name_from > self.fields.longest_name() * 6 + SLACK {
                self.let_through(out);
                self.name_from = usize::MAX;
            }
        }
    }

    fn name_ends(&mut self, out: &mut Vec<u8>) {
        self.at = At::Colon;
        if self.dropping.is_some() {
            return;
        }
        let state = self.levels.last().map_or(0, |l| l.state);
        let (below, meant) = if self.name_from == usize::MAX {
            // Too long for any known name; `*` and `**` still take it.
            self.fields.enter(state, &[0xff])
        } else {
            let raw = self.held.get(self.name_from + 1..self.held.len() - 1).unwrap_or_default();
            if raw.contains(&b'\\') {
                self.fields.enter(state, &unescaped(raw))
            } else {
                self.fields.enter(state, raw)
            }
        };
        self.below = below;
        if meant && self.name_from != usize::MAX {
            self.held.clear();
            self.removed += 1;
            if let Some(level) = self.levels.last_mut() {
                level.cut = true;
            }
            self.dropping = Some(self.levels.len());
        } else {
            self.let_through(out);
        }
    }

    /// The member stays: its comma (unless nothing stayed before it) and its name come out.
    fn let_through(&mut self, out: &mut Vec<u8>) {
        let first = self.levels.last_mut().is_some_and(|level| !std::mem::replace(&mut level.passed, true) && level.cut);
        let from = usize::from(first && self.held.first() == Some(&b','));
        out.extend_from_slice(&self.held[from..]);
        self.held.clear();
    }

    fn structural(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), TooDeep> {
        match byte {
            b'"' => self.quote(out),
            b'{' | b'[' => self.open(byte, out)?,
            b'}' | b']' => self.close(byte, out),
            b',' => self.comma(out),
            _ => {
                self.emit(&[byte], out);
                self.at = At::Value;
            }
        }
        Ok(())
    }

    fn quote(&mut self, out: &mut Vec<u8>) {
        if self.at == At::Name {
            if self.dropping.is_none() {
                self.name_from = self.held.len();
                self.held.push(b'"');
            }
            self.at = At::InName(false);
        } else {
            self.emit(b"\"", out);
            self.at = At::InText(false);
        }
    }

    fn open(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), TooDeep> {
        if self.levels.len() == MAX_DEPTH {
            return Err(TooDeep);
        }
        if self.at == At::Name && self.dropping.is_none() {
            self.let_through(out);
        }
        self.at = At::Value;
        self.emit(&[byte], out);
        // Arrays are passed through: their elements stand where they stand.
        self.levels.push(Level { object: byte == b'{', passed: false, cut: false, state: self.below });
        self.at = if byte == b'{' { At::Name } else { At::Value };
        Ok(())
    }

    fn close(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.dropping == Some(self.levels.len()) {
            self.dropping = None;
        }
        if self.dropping.is_none() {
            // White space before the brace, or a stray comma: as it came.
            out.append(&mut self.held);
        }
        self.at = At::Value;
        self.emit(&[byte], out);
        self.levels.pop();
        self.below = self.levels.last().map_or_else(|| self.fields.start(), |l| l.state);
    }

    fn comma(&mut self, out: &mut Vec<u8>) {
        if self.dropping == Some(self.levels.len()) {
            self.dropping = None;
        }
        let Some(level) = self.levels.last() else {
            self.below = self.fields.start();
            self.at = At::Value;
            return self.emit(b",", out);
        };
        self.below = level.state;
        if level.object {
            if self.dropping.is_none() {
                out.append(&mut self.held);
                self.held.push(b',');
            }
            self.at = At::Name;
        } else {
            self.at = At::Value;
            self.emit(b",", out);
        }
    }
}

fn is_structural(byte: u8) -> bool {
    matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b',' | b':')
}

/// The name with its escapes resolved; an escape that is none stays as it is.
fn unescaped(raw: &[u8]) -> Vec<u8> {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map_or_else(|_| raw.to_vec(), String::into_bytes)
}

#[cfg(test)]
#[path = "strip_tests.rs"]
mod tests;
