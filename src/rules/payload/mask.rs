//! Masking of JSON values, optionally with the last characters of the value kept.

use std::collections::VecDeque;

use super::edit::{MemberChange, MemberEdit};
use super::fields::{FieldPath, Fields, PathEnd};
use super::lex::escaped;

/// The replacement of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskText {
    /// A JSON string.
    text: Box<[u8]>,
    /// The number of characters of the value that follow, at most.
    keep_last: usize,
}

impl MaskText {
    /// The maximum number of characters of a value that can be kept.
    pub const MAX_KEPT: usize = 32;

    /// Returns the mask of that text, a JSON string, followed by the last `keep_last` characters of a string or number.
    ///
    /// A value of less than twice as many characters is masked whole, so that at least half of every value is hidden.
    /// Of other values nothing is kept.
    ///
    /// # Errors
    /// When more than [`MaskText::MAX_KEPT`] characters are to be kept.
    pub fn of_text(text: &str, keep_last: usize) -> Result<Self, String> {
        if keep_last > Self::MAX_KEPT {
            return Err(format!("at most {} characters can be kept", Self::MAX_KEPT));
        }
        Ok(Self { text: [b"\"", escaped(text).as_slice(), b"\""].concat().into(), keep_last })
    }
}

/// Paths of members, each with the mask for its value.
///
/// Objects and arrays are replaced as a whole, and so is an invalid value. Of a value that is kept in part at most
/// [`MaskText::MAX_KEPT`] characters of 12 bytes are buffered.
#[derive(Debug)]
pub struct Masks {
    fields: Fields,
    /// One mask for each path.
    masks: Box<[MaskText]>,
}

impl Masks {
    /// Compiles pairs of path and mask. Of several paths that select one member the first counts.
    ///
    /// # Errors
    /// When the paths have too many steps together.
    pub fn new(masks: &[(FieldPath, MaskText)]) -> Result<Self, String> {
        let paths: Vec<_> = masks.iter().map(|(path, _)| path.clone()).collect();
        Ok(Self { fields: Fields::new(&paths)?, masks: masks.iter().map(|(_, mask)| mask.clone()).collect() })
    }
}

impl MemberEdit for Masks {
    type Value = Masked;

    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn action(&self, place: PathEnd) -> MemberChange<'_, Masked> {
        let path = self.fields.path_at(place);
        self.masks
            .get(path)
            .map_or(MemberChange::Remove, |mask| MemberChange::Replace(Masked::new(path, mask.keep_last)))
    }

    fn replace(&self, value: &mut Masked, part: &[u8], end: bool, out: &mut Vec<u8>) {
        let mask = self.masks.get(value.path).map(|mask| &*mask.text).unwrap_or_default();
        value.process(part, end, mask, out);
    }
}

/// The maximum white space behind a value that is kept, in bytes.
const MAX_MASKED_SPACE: usize = 4_096;

/// The state of one value that is being masked.
#[derive(Debug)]
pub struct Masked {
    path: usize,
    stage: MaskStage,
    kept: KeptCharacters,
    /// The white space at the end of what was read.
    space: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MaskStage {
    /// Before the value: white space and the colon.
    Lead,
    /// In a value of which nothing is kept.
    Whole,
    Number,
    Text,
    /// Behind a string or number.
    Behind,
}

impl Masked {
    /// Returns the state of a value that the path of that number selects, of which that many characters are kept.
    pub(super) fn new(path: usize, keep_last: usize) -> Self {
        Self { path, stage: MaskStage::Lead, kept: KeptCharacters::new(keep_last), space: Vec::new() }
    }

    /// Returns the number of the path that selects the value.
    pub(super) fn path(&self) -> usize {
        self.path
    }

    /// Processes the next part of the value, which `text` replaces, a JSON text.
    pub(super) fn process(&mut self, part: &[u8], end: bool, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = part;
        while let Some((first, behind)) = rest.split_first() {
            rest = match self.stage {
                MaskStage::Lead if first.is_ascii_whitespace() || *first == b':' => {
                    out.push(*first);
                    behind
                }
                MaskStage::Lead => {
                    self.stage = self.begin(*first);
                    if self.stage == MaskStage::Text { behind } else { rest }
                }
                MaskStage::Whole => self.pass_space(rest),
                MaskStage::Number if first.is_ascii_whitespace() => {
                    self.stage = MaskStage::Behind;
                    rest
                }
                MaskStage::Number if first.is_ascii_alphanumeric() || b"+-.".contains(first) => {
                    self.kept.take(*first, false);
                    behind
                }
                MaskStage::Text if *first == b'"' && !self.kept.escapes() => {
                    self.stage = MaskStage::Behind;
                    behind
                }
                MaskStage::Text => {
                    self.kept.take(*first, true);
                    behind
                }
                MaskStage::Behind if first.is_ascii_whitespace() => self.pass_space(rest),
                // It is no number, or there is more than one value: nothing of it is kept.
                MaskStage::Number | MaskStage::Behind => {
                    self.kept.wanted = 0;
                    self.stage = MaskStage::Whole;
                    rest
                }
            };
        }
        if end && self.stage != MaskStage::Lead {
            self.write(text, out);
        }
    }

    /// Returns the stage of a value with this first byte.
    fn begin(&mut self, first: u8) -> MaskStage {
        match first {
            b'"' if self.kept.wanted > 0 => MaskStage::Text,
            b'-' | b'0'..=b'9' if self.kept.wanted > 0 => MaskStage::Number,
            _ => {
                self.kept.wanted = 0;
                MaskStage::Whole
            }
        }
    }

    /// Skips the part of a value that is not kept, and saves the white space at its end, which does not belong to it.
    fn pass_space<'p>(&mut self, part: &'p [u8]) -> &'p [u8] {
        let end = match self.stage {
            MaskStage::Behind => part.iter().take_while(|byte| byte.is_ascii_whitespace()).count(),
            _ => part.len(),
        };
        let (now, rest) = part.split_at(end);
        let space = now.len() - now.trim_ascii_end().len();
        if space < now.len() {
            self.space.clear();
        }
        let room = MAX_MASKED_SPACE - self.space.len();
        self.space.extend_from_slice(&now[now.len() - space..][..space.min(room)]);
        rest
    }

    /// Writes the mask with the kept characters before its closing quote, and the white space behind the value.
    fn write(&mut self, text: &[u8], out: &mut Vec<u8>) {
        match text.split_last() {
            Some((quote, text)) if self.kept.is_enough() => {
                out.extend_from_slice(text);
                self.kept.last().for_each(|one| out.extend_from_slice(one.bytes()));
                out.push(*quote);
            }
            _ => out.extend_from_slice(text),
        }
        out.append(&mut self.space);
    }
}

/// The last characters of a string or number, in their encoded form.
#[derive(Debug)]
struct KeptCharacters {
    wanted: usize,
    seen: usize,
    characters: VecDeque<Character>,
    /// What the next byte belongs to.
    next: NextByte,
}

/// What the next byte of a string may continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NextByte {
    /// It begins a character.
    First,
    /// It continues a UTF-8 sequence of so many more bytes.
    Utf8(u8),
    /// It follows a backslash.
    Escape,
    /// It continues a `\u` escape of so many more digits.
    Digit(u8),
}

impl KeptCharacters {
    fn new(wanted: usize) -> Self {
        Self {
            wanted,
            seen: 0,
            characters: VecDeque::with_capacity(if wanted > 0 { wanted + 1 } else { 0 }),
            next: NextByte::First,
        }
    }

    /// Returns whether the next byte is escaped by a backslash.
    fn escapes(&self) -> bool {
        self.next == NextByte::Escape
    }

    /// Returns whether any characters are to be kept: at least half of the value must stay hidden.
    fn is_enough(&self) -> bool {
        self.wanted > 0 && self.seen >= 2 * self.wanted
    }

    /// Processes a byte of a string, or of a number.
    fn take(&mut self, byte: u8, string: bool) {
        let next = match (self.next, byte) {
            (NextByte::Escape, b'u') => NextByte::Digit(4),
            (NextByte::Escape, _) => NextByte::First,
            (NextByte::Digit(more), _) if byte.is_ascii_hexdigit() => more_of(more, NextByte::Digit),
            (NextByte::Utf8(more), 0x80..=0xbf) => more_of(more, NextByte::Utf8),
            _ => return self.begin(byte, string),
        };
        let joins = matches!(self.next, NextByte::Digit(1));
        self.next = next;
        if let Some(last) = self.characters.back_mut() {
            last.push(byte);
        }
        if joins {
            self.join_surrogates();
        }
    }

    /// Begins a character.
    fn begin(&mut self, byte: u8, string: bool) {
        self.next = match byte {
            _ if !string => NextByte::First,
            b'\\' => NextByte::Escape,
            0xc2..=0xdf => NextByte::Utf8(1),
            0xe0..=0xef => NextByte::Utf8(2),
            0xf0..=0xf4 => NextByte::Utf8(3),
            _ => NextByte::First,
        };
        self.seen += 1;
        self.characters.push_back(Character::of(byte));
        // One more than is wanted, since two may turn out to be one.
        if self.characters.len() > self.wanted + 1 {
            self.characters.pop_front();
        }
    }
}

/// Returns the state after one of `more` bytes.
fn more_of(more: u8, next: fn(u8) -> NextByte) -> NextByte {
    if more > 1 { next(more - 1) } else { NextByte::First }
}

impl KeptCharacters {
    /// Joins the last two characters if they are the halves of a surrogate pair (RFC 8259, section 7).
    fn join_surrogates(&mut self) {
        let half = |at: Option<&Character>| at.and_then(Character::surrogate);
        let last = self.characters.len();
        if last < 2 || half(self.characters.get(last - 2)) != Some(true) || half(self.characters.back()) != Some(false)
        {
            return;
        }
        if let (Some(low), Some(high)) = (self.characters.pop_back(), self.characters.back_mut()) {
            low.bytes().iter().for_each(|byte| high.push(*byte));
            self.seen -= 1;
        }
    }

    /// Returns the characters that are kept, after all have been processed.
    fn last(&self) -> impl Iterator<Item = &Character> {
        self.characters.iter().skip(self.characters.len().saturating_sub(self.wanted))
    }
}

/// One character in its encoded form: at most two escapes of six bytes.
#[derive(Clone, Copy, Debug)]
struct Character {
    bytes: [u8; 12],
    len: u8,
}

impl Character {
    fn of(first: u8) -> Self {
        let mut bytes = [0; 12];
        bytes[0] = first;
        Self { bytes, len: 1 }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, byte: u8) {
        if let Some(place) = self.bytes.get_mut(usize::from(self.len)) {
            *place = byte;
            self.len += 1;
        }
    }

    /// Returns whether the escape is the first half of a surrogate pair (true) or the second (false).
    fn surrogate(&self) -> Option<bool> {
        match self.bytes() {
            [b'\\', b'u', b'd' | b'D', digit, _, _] => match digit.to_ascii_lowercase() {
                b'8' | b'9' | b'a' | b'b' => Some(true),
                b'c'..=b'f' => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "mask_tests.rs"]
mod tests;
