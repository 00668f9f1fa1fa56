//! Hashes of JSON values: SHA-256, or HMAC-SHA-256 with a key (RFC 2104), in hexadecimal digits.
//!
//! Of a text its characters are hashed, whatever escapes they are written with; of any other value its JSON without
//! white space. `null` stays, since its hash would say as much.

use std::fmt;

use aws_lc_rs::{digest, hmac};

use super::edit::{MemberChange, MemberEdit};
use super::fields::{FieldPath, Fields, PathEnd};

/// The maximum white space behind a value that is kept, in bytes.
const MAX_SPACE: usize = 4_096;

/// Paths of members whose values are replaced by their hashes.
#[derive(Debug)]
pub struct Hashes {
    fields: Fields,
    key: Option<hmac::Key>,
}

impl Hashes {
    /// Compiles paths; with a key the hashes can be made by its holders alone.
    ///
    /// # Errors
    /// When the paths have too many steps together.
    pub fn new(paths: &[FieldPath], key: Option<&[u8]>) -> Result<Self, String> {
        Ok(Self { fields: Fields::new(paths)?, key: key.map(|key| hmac::Key::new(hmac::HMAC_SHA256, key)) })
    }
}

impl MemberEdit for Hashes {
    type Value = Hashed;

    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn action(&self, _: PathEnd) -> MemberChange<'_, Hashed> {
        let context = match &self.key {
            Some(key) => HashContext::Keyed(Box::new(hmac::Context::with_key(key))),
            None => HashContext::Plain(Box::new(digest::Context::new(&digest::SHA256))),
        };
        MemberChange::Replace(Hashed {
            context,
            stage: HashStage::Lead,
            text: TextDecoder::default(),
            literal: Vec::new(),
            space: Vec::new(),
        })
    }

    fn replace(&self, value: &mut Hashed, part: &[u8], end: bool, out: &mut Vec<u8>) {
        value.process(part, out);
        if end {
            value.finish(out);
        }
    }
}

/// The state of one value that is being hashed.
#[derive(Debug)]
pub struct Hashed {
    context: HashContext,
    stage: HashStage,
    text: TextDecoder,
    /// The first bytes of a value that may be `null`.
    literal: Vec<u8>,
    /// The white space at the end of what was read.
    space: Vec<u8>,
}

enum HashContext {
    Plain(Box<digest::Context>),
    Keyed(Box<hmac::Context>),
}

impl fmt::Debug for HashContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashContext")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HashStage {
    /// Before the value: white space and the colon.
    Lead,
    Text,
    /// In another value; whether within a text, and whether its next byte is escaped.
    Other(bool, bool),
}

impl HashContext {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Plain(context) => context.update(bytes),
            Self::Keyed(context) => context.update(bytes),
        }
    }
}

impl Hashed {
    fn process(&mut self, part: &[u8], out: &mut Vec<u8>) {
        let mut rest = part;
        while let Some((first, behind)) = rest.split_first() {
            match self.stage {
                HashStage::Lead if first.is_ascii_whitespace() || *first == b':' => out.push(*first),
                HashStage::Lead => {
                    self.stage = if *first == b'"' { HashStage::Text } else { HashStage::Other(false, false) };
                    if *first == b'"' {
                        rest = behind;
                    }
                    continue;
                }
                HashStage::Text => {
                    let (taken, ended) = self.text.take(rest, |bytes| self.context.update(bytes));
                    if ended {
                        // What follows a text is white space, or no JSON.
                        self.stage = HashStage::Other(false, false);
                    }
                    rest = &rest[taken..];
                    continue;
                }
                HashStage::Other(in_text, escaped) => self.other(*first, in_text, escaped),
            }
            rest = behind;
        }
    }

    fn other(&mut self, byte: u8, in_text: bool, escaped: bool) {
        if !in_text && byte.is_ascii_whitespace() {
            if self.space.len() < MAX_SPACE {
                self.space.push(byte);
            }
            return;
        }
        self.space.clear();
        self.stage = match (in_text, byte) {
            (true, _) if escaped => HashStage::Other(true, false),
            (true, b'\\') => HashStage::Other(true, true),
            (_, b'"') => HashStage::Other(!in_text, false),
            _ => HashStage::Other(in_text, false),
        };
        if self.literal.len() < 5 {
            self.literal.push(byte);
        }
        self.context.update(&[byte]);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        if self.stage == HashStage::Lead {
            return;
        }
        if self.literal == b"null" && self.text == TextDecoder::default() {
            out.extend_from_slice(b"null");
        } else {
            self.text.end(|bytes| self.context.update(bytes));
            let other = HashContext::Plain(Box::new(digest::Context::new(&digest::SHA256)));
            let hex = match std::mem::replace(&mut self.context, other) {
                HashContext::Plain(context) => hex(context.finish().as_ref()),
                HashContext::Keyed(context) => hex(context.sign().as_ref()),
            };
            out.push(b'"');
            out.extend_from_slice(&hex);
            out.push(b'"');
        }
        out.append(&mut self.space);
    }
}

fn hex(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]).collect()
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Decodes the escapes of a text as it streams by (RFC 8259, section 7).
#[derive(Debug, Default, PartialEq, Eq)]
struct TextDecoder {
    /// Whether a text has begun.
    begun: bool,
    escape: Escape,
    /// The first half of a surrogate pair.
    high: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// Behind a backslash.
    Begun,
    /// In a `\u` escape: digits so far, and their value.
    Digits(u8, u32),
}

impl TextDecoder {
    /// Takes bytes up to the closing quote. Returns how many were taken, and whether the text has ended.
    fn take(&mut self, bytes: &[u8], mut give: impl FnMut(&[u8])) -> (usize, bool) {
        self.begun = true;
        let mut place = 0;
        while let Some(&byte) = bytes.get(place) {
            match self.escape {
                Escape::None => {
                    let rest = &bytes[place..];
                    let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                    if end > 0 {
                        self.end(&mut give);
                        give(&rest[..end]);
                    }
                    match rest.get(end) {
                        Some(b'"') => {
                            self.end(&mut give);
                            return (place + end + 1, true);
                        }
                        Some(_) => self.escape = Escape::Begun,
                        None => return (bytes.len(), false),
                    }
                    place += end + 1;
                    continue;
                }
                Escape::Begun if byte == b'u' => self.escape = Escape::Digits(0, 0),
                Escape::Begun => {
                    self.end(&mut give);
                    self.escape = Escape::None;
                    match byte {
                        b'b' => give(b"\x08"),
                        b'f' => give(b"\x0c"),
                        b'n' => give(b"\n"),
                        b'r' => give(b"\r"),
                        b't' => give(b"\t"),
                        other => give(&[other]),
                    }
                }
                Escape::Digits(count, value) => match char::from(byte).to_digit(16) {
                    Some(digit) if count == 3 => {
                        self.escape = Escape::None;
                        self.unit(value << 4 | digit, &mut give);
                    }
                    Some(digit) => self.escape = Escape::Digits(count + 1, value << 4 | digit),
                    None => {
                        // It is no escape; the byte is looked at again.
                        self.escape = Escape::None;
                        give(b"\xef\xbf\xbd");
                        continue;
                    }
                },
            }
            place += 1;
        }
        (bytes.len(), false)
    }

    /// Takes a unit of UTF-16.
    fn unit(&mut self, unit: u32, give: &mut impl FnMut(&[u8])) {
        let mut write = |code: u32| {
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            give(character.encode_utf8(&mut [0; 4]).as_bytes());
        };
        match (self.high.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => write(0x10000 + ((high & 0x3ff) << 10 | (unit & 0x3ff))),
            (before, 0xd800..=0xdbff) => {
                before.into_iter().for_each(write);
                self.high = Some(unit);
            }
            (before, _) => {
                before.into_iter().for_each(&mut write);
                write(unit);
            }
        }
    }

    /// Gives a first half that has no second.
    fn end(&mut self, mut give: impl FnMut(&[u8])) {
        if self.high.take().is_some() {
            give(b"\xef\xbf\xbd");
        }
    }
}

#[cfg(test)]
#[path = "hash_tests.rs"]
mod tests;
