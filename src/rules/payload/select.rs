//! Selection of JSON members: keeps those that a [`Selection`] names, and removes all others, as the document streams
//! by.
//!
//! Of what is kept every byte stays: numbers, escapes, order and duplicates. An array or object of which nothing is
//! kept stays, empty. Where members of a value are selected that has none, `null` stays, and other values are removed;
//! a document that is such a value becomes `null`. Unlike the editors of members, it has to know where it is, so a text
//! that is not JSON is an error as far as that matters; several documents may follow each other. It buffers at most
//! one name, with the white space around it.

use std::sync::Arc;

use super::lex::{plain, string_end, unescaped};
use super::scan::MAX_DEPTH;
use super::selection::{Kept, SelectedNodes, Selection};
use super::step::{Opaque, Step};

/// The longest name that can be selected, as it is written. A longer one is removed.
const MAX_NAME: usize = 4_096;

/// The bytes that are buffered, beyond which white space is dropped.
const MAX_HELD: usize = 2 * MAX_NAME;

/// Selects members of one document after the other.
#[derive(Debug)]
pub struct Selector {
    selection: Arc<Selection>,
    /// The objects and arrays of which members are selected.
    levels: Vec<SelectedLevel>,
    at: SelectorState,
    /// A comma, white space and a name, which the next part decides about.
    held: Vec<u8>,
}

#[derive(Debug)]
struct SelectedLevel {
    object: bool,
    /// Whether it has a member or element already.
    begun: bool,
    /// Whether one of them was kept.
    kept: bool,
    nodes: SelectedNodes,
}

#[derive(Clone, Copy, Debug)]
enum SelectorState {
    /// Before a document, or behind the last.
    Outside,
    /// Before a comma, a member or element, or the end, of the innermost level.
    Between,
    /// Within a value that is kept or removed as a whole.
    Value { keep: bool, depth: usize, text: TextState },
    /// In a text that is a document, or in another scalar.
    Scalar { keep: bool, text: TextState },
}

/// The state within a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextState {
    Outside,
    /// Within one; whether the next byte is escaped.
    Inside(bool),
}

impl Selector {
    /// Returns a selector at the start of a document.
    pub fn new(selection: Arc<Selection>) -> Self {
        Self { selection, levels: Vec::new(), at: SelectorState::Outside, held: Vec::new() }
    }

    fn scan(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Opaque> {
        let mut place = 0;
        while place < data.len() {
            place = match self.at {
                SelectorState::Outside => self.begin_document(data, place, out)?,
                SelectorState::Between => match self.next_member(data, place, out)? {
                    Some(next) => next,
                    None => {
                        self.hold(&data[place..]);
                        break;
                    }
                },
                SelectorState::Value { keep, depth, text } => {
                    let end = self.pass_value(data, place, (keep, depth, text))?;
                    if keep {
                        out.extend_from_slice(&data[place..end]);
                    }
                    end
                }
                SelectorState::Scalar { keep, text } => {
                    let end = self.pass_scalar(data, place, (keep, text));
                    if keep {
                        out.extend_from_slice(&data[place..end]);
                    }
                    end
                }
            };
        }
        Ok(())
    }

    /// Buffers what is undecided; excessive white space is dropped.
    fn hold(&mut self, rest: &[u8]) {
        self.held.extend_from_slice(rest);
        if self.held.len() > MAX_HELD {
            let from = memchr::memchr(b'"', &self.held).unwrap_or(self.held.len());
            let text = self.held.get(from + 1..).unwrap_or_default();
            let to = string_end(text).map_or(self.held.len(), |end| from + 1 + end);
            let mut at = 0;
            self.held.retain(|byte| {
                at += 1;
                (from < at && at <= to) || !byte.is_ascii_whitespace()
            });
        }
    }

    /// Begins a document. White space, a byte order mark and the separators of RFC 7464 may stand before it.
    fn begin_document(&mut self, data: &[u8], from: usize, out: &mut Vec<u8>) -> Result<usize, Opaque> {
        let is_between = |byte: &u8| byte.is_ascii_whitespace() || [0x1e, 0xef, 0xbb, 0xbf].contains(byte);
        let place = data[from..].iter().position(|byte| !is_between(byte)).map_or(data.len(), |at| from + at);
        out.extend_from_slice(&data[from..place]);
        let Some(&first) = data.get(place) else { return Ok(place) };
        match first {
            b'{' | b'[' => {
                out.push(first);
                self.open(first == b'{', Selection::root())?;
                return Ok(place + 1);
            }
            b'n' => self.at = SelectorState::Scalar { keep: true, text: TextState::Outside },
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' => {
                out.extend_from_slice(b"null");
                let text = if first == b'"' { TextState::Inside(false) } else { TextState::Outside };
                self.at = SelectorState::Scalar { keep: false, text };
                return Ok(place + 1);
            }
            _ => return Err(Opaque::NotJson),
        }
        Ok(place)
    }

    /// Opens an object or array of which members are selected.
    fn open(&mut self, object: bool, nodes: SelectedNodes) -> Result<(), Opaque> {
        if self.levels.len() == MAX_DEPTH {
            return Err(Opaque::TooDeep);
        }
        let nodes = if object { nodes } else { self.selection.elements(nodes) };
        self.levels.push(SelectedLevel { object, begun: false, kept: false, nodes });
        self.at = SelectorState::Between;
        Ok(())
    }

    /// Decides about the next member or element of the innermost level, from the comma before it up to its value, or
    /// about the end of the level. Returns `None` where too little of it has come.
    fn next_member(&mut self, data: &[u8], from: usize, out: &mut Vec<u8>) -> Result<Option<usize>, Opaque> {
        let Some(level) = self.levels.last_mut() else { return Err(Opaque::NotJson) };
        let Some(mut place) = next_token(data, from) else { return Ok(None) };
        if data[place] == (if level.object { b'}' } else { b']' }) {
            out.extend_from_slice(&data[from..=place]);
            self.levels.pop();
            self.at = if self.levels.is_empty() { SelectorState::Outside } else { SelectorState::Between };
            return Ok(Some(place + 1));
        }
        let mut lead = Lead { from, comma: None };
        if level.begun {
            if data[place] != b',' {
                return Err(Opaque::NotJson);
            }
            lead.comma = Some(place);
            let Some(behind) = next_token(data, place + 1) else { return Ok(None) };
            place = behind;
        }
        if !level.object {
            let nodes = level.nodes.clone();
            return self.begin_value(data, place, lead, nodes, out).map(Some);
        }
        if data[place] != b'"' {
            return Err(Opaque::NotJson);
        }
        let inside = &data[place + 1..];
        let Ok(length) = string_end(&inside[..inside.len().min(MAX_NAME)]) else {
            if inside.len() < MAX_NAME {
                return Ok(None);
            }
            level.begun = true;
            self.at = SelectorState::Value { keep: false, depth: 0, text: TextState::Inside(false) };
            return Ok(Some(place + 1));
        };
        let behind = place + 1 + length + 1;
        match self.selection.enter(&level.nodes, &unescaped(&inside[..length])) {
            Kept::Members(nodes) => {
                let Some(colon) = next_token(data, behind) else { return Ok(None) };
                if data[colon] != b':' {
                    return Err(Opaque::NotJson);
                }
                let Some(value) = next_token(data, colon + 1) else { return Ok(None) };
                return self.begin_value(data, value, lead, nodes, out).map(Some);
            }
            Kept::Whole => {
                self.pass_lead(data, behind, lead, out);
                self.at = SelectorState::Value { keep: true, depth: 0, text: TextState::Outside };
            }
            Kept::Nothing => {
                level.begun = true;
                self.at = SelectorState::Value { keep: false, depth: 0, text: TextState::Outside };
            }
        }
        Ok(Some(behind))
    }

    /// Begins a value of which members are selected, by its first byte.
    fn begin_value(
        &mut self,
        data: &[u8],
        place: usize,
        lead: Lead,
        nodes: SelectedNodes,
        out: &mut Vec<u8>,
    ) -> Result<usize, Opaque> {
        let first = data[place];
        match first {
            b'{' | b'[' => {
                self.pass_lead(data, place + 1, lead, out);
                self.open(first == b'{', nodes)?;
                return Ok(place + 1);
            }
            b'n' => {
                self.pass_lead(data, place, lead, out);
                self.at = SelectorState::Value { keep: true, depth: 0, text: TextState::Outside };
            }
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' => {
                self.levels.last_mut().into_iter().for_each(|level| level.begun = true);
                self.at = SelectorState::Value { keep: false, depth: 0, text: TextState::Outside };
            }
            _ => return Err(Opaque::NotJson),
        }
        Ok(place)
    }

    /// Passes on what stands before a value that is kept, without the comma where nothing was kept before it.
    fn pass_lead(&mut self, data: &[u8], to: usize, lead: Lead, out: &mut Vec<u8>) {
        let Some(level) = self.levels.last_mut() else { return };
        match lead.comma.filter(|_| !level.kept) {
            Some(comma) => {
                out.extend_from_slice(&data[lead.from..comma]);
                out.extend_from_slice(&data[comma + 1..to]);
            }
            None => out.extend_from_slice(&data[lead.from..to]),
        }
        (level.begun, level.kept) = (true, true);
    }

    /// Returns where a value that is kept or removed as a whole ends in this part: at the comma or bracket behind it.
    fn pass_value(
        &mut self,
        data: &[u8],
        from: usize,
        (keep, mut depth, text): (bool, usize, TextState),
    ) -> Result<usize, Opaque> {
        let within = |depth, text| SelectorState::Value { keep, depth, text };
        let mut place = match text_end(data, from, text) {
            Ok(place) => place,
            Err(text) => {
                self.at = within(depth, text);
                return Ok(data.len());
            }
        };
        loop {
            place += plain(&data[place..]);
            match data.get(place) {
                None => {
                    self.at = within(depth, TextState::Outside);
                    return Ok(data.len());
                }
                Some(b'"') => match string_end(&data[place + 1..]) {
                    Ok(end) => place += end + 1,
                    Err(escaped) => {
                        self.at = within(depth, TextState::Inside(escaped));
                        return Ok(data.len());
                    }
                },
                Some(b'{' | b'[') if self.levels.len() + depth == MAX_DEPTH => return Err(Opaque::TooDeep),
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']' | b',') if depth == 0 => {
                    self.at = SelectorState::Between;
                    return Ok(place);
                }
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
            }
            place += 1;
        }
    }

    /// Returns where a document that is a scalar ends in this part.
    fn pass_scalar(&mut self, data: &[u8], from: usize, (keep, text): (bool, TextState)) -> usize {
        if text != TextState::Outside {
            return match text_end(data, from, text) {
                Ok(end) => {
                    self.at = SelectorState::Outside;
                    end
                }
                Err(text) => {
                    self.at = SelectorState::Scalar { keep, text };
                    data.len()
                }
            };
        }
        let is_within = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        match data[from..].iter().position(|byte| !is_within(byte)) {
            Some(length) => {
                self.at = SelectorState::Outside;
                from + length
            }
            None => data.len(),
        }
    }
}

/// What stands before a value: white space, perhaps a comma, and the name of a member.
#[derive(Clone, Copy)]
struct Lead {
    from: usize,
    comma: Option<usize>,
}

/// Returns the place of the next byte that is not white space.
fn next_token(data: &[u8], from: usize) -> Option<usize> {
    data.get(from..)?.iter().position(|byte| !byte.is_ascii_whitespace()).map(|at| from + at)
}

/// Returns the place behind the string in which `from` is, or the state at the end of the part.
fn text_end(data: &[u8], from: usize, text: TextState) -> Result<usize, TextState> {
    let TextState::Inside(escaped) = text else { return Ok(from) };
    let from = from + usize::from(escaped);
    match string_end(data.get(from..).unwrap_or_default()) {
        Ok(end) => Ok(from + end + 1),
        Err(escaped) => Err(TextState::Inside(escaped)),
    }
}

impl Step for Selector {
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        if self.selection.is_whole() {
            out.extend_from_slice(part);
        } else if self.held.is_empty() {
            self.scan(part, out)?;
        } else if !part.is_empty() {
            let mut data = std::mem::take(&mut self.held);
            data.extend_from_slice(part);
            self.scan(&data, out)?;
        }
        if end {
            // The name of a document that ends too early: whether it is kept is unknown.
            self.held.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "select_tests.rs"]
mod tests;
