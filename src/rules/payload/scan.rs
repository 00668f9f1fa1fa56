//! An editor for members of JSON documents that works on a stream, without buffering the document.
//!
//! The scanner follows strings, containers and names (RFC 8259) and copies every byte that is not part of an edited
//! member, white space and number formats included. It does not validate: a text that is not JSON is passed on
//! unchanged, and a target's syntax errors cannot hide a member. It buffers at most one comma and one name.
//!
//! The change of a member is a [`MemberEdit`], in a file each: [`super::strip`], [`super::rename`], [`super::mask`].

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};

use super::edit::{MemberChange, MemberEdit};
use super::fields::{FieldState, PathEnd};
use super::lex::{plain, short_string_end, string_end, unescaped, value_end};
use super::step::{Opaque, Step};

/// The maximum nesting of containers. Deeper documents are rejected, so that memory stays bounded.
pub const MAX_DEPTH: usize = 2_048;

/// The number of first bytes that reveal a document's encoding.
const ENCODING_BYTES: usize = 4;

/// The maximum white space between members that is kept, in bytes.
const MAX_MEMBER_SPACE: usize = 4_096;

/// The number of bytes above the longest known name beyond which a name is passed on without being compared.
const NAME_SLACK: usize = 16;

#[derive(Clone, Copy, Debug)]
struct Container {
    object: bool,
    /// The index of the current element of an array, where it matters.
    index: u32,
    /// Whether a member was passed on.
    passed: bool,
    /// Whether a member was removed, so that the first remaining one loses its comma.
    cut: bool,
    state: FieldState,
    /// The state below a name that is in no path.
    unknown: FieldState,
}

impl Container {
    /// Returns whether the next remaining member keeps its comma, if it has one.
    fn keeps_commas(&self) -> bool {
        self.passed || !self.cut
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ScanState {
    /// Before or between values, where the next string is a value.
    Value,
    /// In an object where the next string is a name.
    Name,
    /// Behind a name, before its colon and value.
    Colon,
    /// Within a string value; whether the last byte was a backslash.
    Text(bool),
    /// Within a name that does not matter: it is too long to be in a path, or belongs to a removed member.
    Unread(bool),
}

/// Edits the members of one document that the paths of `E` select, as the document streams by.
#[derive(Debug)]
pub struct Editor<E>
where
    E: Deref,
    E::Target: MemberEdit,
{
    edit: E,
    levels: Vec<Container>,
    at: ScanState,
    /// A comma, white space and the beginning of a name, which the next part decides about.
    held: Vec<u8>,
    /// The state below the name that was read last.
    below: FieldState,
    /// The depth of the object of the member that is being removed, or whose value is being replaced.
    taking: Option<usize>,
    /// For edits that add members, the positions whose names each level has.
    named: Vec<FieldState>,
    /// The replacement of the current value, or of the one that follows an unread name.
    value: Option<ValueOf<E>>,
    edited: u64,
    /// The number of first bytes that have been inspected.
    seen: usize,
}

type ValueOf<E> = <<E as Deref>::Target as MemberEdit>::Value;

/// The position of a scan in its part: bytes are copied in runs, which end only where something is removed.
struct CopyRun<'d> {
    data: &'d [u8],
    /// The first byte that has been neither copied nor dropped.
    keep: usize,
    /// In [`ScanState::Name`]: the start of what belongs to the next name, beginning with its comma.
    mark: usize,
}

impl CopyRun<'_> {
    fn copy_to(&mut self, end: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.data[self.keep..end]);
        self.keep = end;
    }
}

impl<E> Step for Editor<E>
where
    E: Deref + Send + Sync + fmt::Debug,
    E::Target: MemberEdit,
{
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        if self.seen < ENCODING_BYTES {
            self.check_encoding(part)?;
        }
        if self.held.is_empty() {
            self.scan(part, out)?;
        } else if !part.is_empty() {
            let mut data = std::mem::take(&mut self.held);
            data.extend_from_slice(part);
            self.scan(&data, out)?;
        }
        if end {
            out.append(&mut self.held);
        }
        Ok(())
    }
}

impl<E> Editor<E>
where
    E: Deref,
    E::Target: MemberEdit,
{
    /// Returns an editor at the start of a document.
    pub fn new(edit: E) -> Self {
        let below = edit.fields().start();
        let (levels, held, named) = (Vec::new(), Vec::new(), Vec::new());
        Self { edit, levels, at: ScanState::Value, held, below, taking: None, named, value: None, edited: 0, seen: 0 }
    }

    /// Returns the number of members that have been edited.
    pub fn edited(&self) -> u64 {
        self.edited
    }

    /// Inspects the first bytes: JSON in UTF-16 or UTF-32 has a NUL, or a byte order mark, among them.
    fn check_encoding(&mut self, part: &[u8]) -> Result<(), Opaque> {
        let first = &part[..part.len().min(ENCODING_BYTES - self.seen)];
        self.seen += first.len();
        if first.iter().any(|byte| matches!(byte, 0 | 0xfe | 0xff)) { Err(Opaque::NotUtf8) } else { Ok(()) }
    }

    fn scan(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), Opaque> {
        let mut run = CopyRun { data, keep: 0, mark: 0 };
        let mut place = self.resume(data);
        self.begin_value(&mut run, place, out);
        while let Some(&byte) = data.get(place) {
            place = match byte {
                b'"' if self.at == ScanState::Name => match self.name(&mut run, place, out) {
                    Some(next) => next,
                    None => break,
                },
                b'"' => self.pass_string(data, place + 1, ScanState::Text, ScanState::Value),
                b'{' | b'[' => self.open(&mut run, place, byte == b'{', out)?,
                b'}' | b']' | b',' => self.separate(&mut run, place, byte == b',', out),
                b':' if self.at == ScanState::Colon => {
                    self.at = ScanState::Value;
                    place + 1
                }
                _ if self.at == ScanState::Name => {
                    if !byte.is_ascii_whitespace() {
                        // The document is malformed here; what stands before is passed on unchanged.
                        run.mark = place + 1;
                    }
                    place + 1
                }
                _ => place + 1 + plain(&data[place + 1..]),
            };
        }
        self.end_part(&mut run, out);
        Ok(())
    }

    /// Continues the string in which the last part ended.
    fn resume(&mut self, data: &[u8]) -> usize {
        let (escaped, open, behind): (_, fn(bool) -> ScanState, _) = match self.at {
            ScanState::Text(escaped) => (escaped, ScanState::Text, ScanState::Value),
            ScanState::Unread(escaped) => (escaped, ScanState::Unread, ScanState::Colon),
            _ => return 0,
        };
        if escaped && !data.is_empty() {
            self.at = open(false);
            return self.pass_string(data, 1, open, behind);
        }
        self.pass_string(data, 0, open, behind)
    }

    /// Skips the rest of a string that contains `from`: to behind its quote, or the end of the part.
    fn pass_string(&mut self, data: &[u8], from: usize, open: fn(bool) -> ScanState, behind: ScanState) -> usize {
        match string_end(&data[from..]) {
            Ok(end) => {
                self.at = behind;
                from + end + 1
            }
            Err(escaped) => {
                // An empty part changes nothing.
                if from < data.len() || !matches!(self.at, ScanState::Text(_) | ScanState::Unread(_)) {
                    self.at = open(escaped);
                }
                data.len()
            }
        }
    }

    /// Copies what is decided, and buffers the rest.
    fn end_part(&mut self, run: &mut CopyRun<'_>, out: &mut Vec<u8>) {
        if self.taking.is_some() {
            if let Some(value) = &mut self.value {
                self.edit.replace(value, &run.data[run.keep..], false, out);
            }
            return;
        }
        if self.at != ScanState::Name {
            return run.copy_to(run.data.len(), out);
        }
        let mark = run.mark.max(run.keep);
        run.copy_to(mark, out);
        self.held.extend_from_slice(&run.data[mark..]);
        if !self.held.contains(&b'"') {
            // Excessive white space is dropped.
            self.held.truncate(MAX_MEMBER_SPACE);
        }
    }

    /// Reads the name that begins at `place`; `None` when its end is not in this part.
    #[inline]
    fn name(&mut self, run: &mut CopyRun<'_>, place: usize, out: &mut Vec<u8>) -> Option<usize> {
        let inside = &run.data[place + 1..];
        if self.taking.is_some() {
            return Some(self.pass_string(run.data, place + 1, ScanState::Unread, ScanState::Colon));
        }
        let end = match short_string_end(inside) {
            Some(end) => {
                self.look_up(run, place, &inside[..end], out);
                end
            }
            None => match self.long_name(run, place, out)? {
                Some(end) => end,
                None => {
                    let next = self.pass_string(run.data, place + 1, ScanState::Unread, ScanState::Colon);
                    self.begin_value(run, next, out);
                    return Some(next);
                }
            },
        };
        self.at = ScanState::Colon;
        let behind = place + 1 + end + 1;
        self.begin_value(run, behind, out);
        if self.taking.is_some() {
            return Some(value_end(run.data, behind, MAX_DEPTH - self.levels.len()).unwrap_or(behind));
        }
        Some(self.pass_scalar(run.data, behind))
    }

    /// Reads a name that may have escapes, as [`Self::name`] does: returns where it ends, or `Some(None)` if it is
    /// longer than any in a path.
    #[cold]
    fn long_name(&mut self, run: &mut CopyRun<'_>, place: usize, out: &mut Vec<u8>) -> Option<Option<usize>> {
        let inside = &run.data[place + 1..];
        // Each byte of the name may be an escape of six: a longer name is in no path.
        let longest = self.edit.fields().longest_name() * 6 + NAME_SLACK;
        match string_end(&inside[..inside.len().min(longest)]) {
            Ok(end) => {
                match unescaped(&inside[..end]) {
                    Cow::Borrowed(name) => self.look_up(run, place, name, out),
                    Cow::Owned(name) => self.known(run, place..place + 1 + end, &name, out),
                }
                Some(Some(end))
            }
            Err(_) if inside.len() < longest => None,
            Err(_) => {
                // `*` and `**` select it nevertheless.
                self.known(run, place..place, &[0xff], out);
                Some(None)
            }
        }
    }

    /// Begins to replace a value if the end of its name, at `place`, has been read.
    #[inline]
    fn begin_value(&mut self, run: &mut CopyRun<'_>, place: usize, out: &mut Vec<u8>) {
        if self.value.is_some() && self.taking.is_none() && self.at == ScanState::Colon {
            run.copy_to(place, out);
            self.taking = Some(self.levels.len());
        }
    }

    /// Looks up a name. The names of most documents have a length that is in no path, and end here.
    #[inline]
    fn look_up(&mut self, run: &mut CopyRun<'_>, place: usize, name: &[u8], out: &mut Vec<u8>) {
        match self.levels.last_mut() {
            Some(level) if level.keeps_commas() && !self.edit.fields().may_know(name.len()) => {
                level.passed = true;
                self.below = level.unknown;
            }
            _ => self.known(run, place..place + 1 + name.len(), name, out),
        }
    }

    /// Skips a colon and, if it follows at once, a string or another scalar.
    #[inline]
    fn pass_scalar(&mut self, data: &[u8], colon: usize) -> usize {
        let value = colon + 1;
        match (data.get(colon), data.get(value)) {
            (Some(b':'), Some(b'"')) => self.pass_string(data, value + 1, ScanState::Text, ScanState::Value),
            (Some(b':'), Some(_)) => {
                self.at = ScanState::Value;
                value + plain(&data[value..])
            }
            _ => colon,
        }
    }

    /// Processes a name that a path may have. `raw` is its range including the quotes, empty if its end is not known.
    fn known(&mut self, run: &mut CopyRun<'_>, raw: Range<usize>, name: &[u8], out: &mut Vec<u8>) {
        let fields = self.edit.fields();
        let (below, meant) = fields.enter(self.levels.last().map_or(0, |l| l.state), name);
        if E::Target::ADDS
            && let (Some(level), Some(named)) = (self.levels.last(), self.named.last_mut())
        {
            *named |= fields.named(level.state, name);
        }
        self.apply_change(run, raw, meant, out);
        self.below = below;
    }

    /// Removes the member or passes it on, with its comma unless no member precedes it any more.
    fn apply_change(&mut self, run: &mut CopyRun<'_>, raw: Range<usize>, meant: Option<PathEnd>, out: &mut Vec<u8>) {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return };
        let action = meant.map(|place| self.edit.action(place));
        self.edited += u64::from(!matches!(action, None | Some(MemberChange::Keep)));
        if let Some(MemberChange::Remove) = action {
            level.cut = true;
            self.taking = Some(depth);
            return run.copy_to(run.mark.max(run.keep), out);
        }
        let keeps = level.keeps_commas();
        level.passed = true;
        if !keeps && run.data.get(run.mark) == Some(&b',') {
            run.copy_to(run.mark.max(run.keep), out);
            run.keep = run.mark + 1;
        }
        match action {
            Some(MemberChange::Rename(name)) if !raw.is_empty() => {
                run.copy_to(raw.start + 1, out);
                out.extend_from_slice(name);
                run.keep = raw.end;
            }
            Some(MemberChange::Replace(value)) => self.value = Some(value),
            _ => {}
        }
    }

    fn open(&mut self, run: &mut CopyRun<'_>, place: usize, object: bool, out: &mut Vec<u8>) -> Result<usize, Opaque> {
        if self.levels.len() == MAX_DEPTH {
            return Err(Opaque::TooDeep);
        }
        let fields = self.edit.fields();
        let per_element = fields.is_per_element();
        let state = if object || per_element { self.below } else { fields.element(self.below, 0).0 };
        self.below = state;
        self.levels.push(Container {
            object,
            index: 0,
            passed: false,
            cut: false,
            state,
            unknown: fields.unknown(state),
        });
        if E::Target::ADDS {
            self.named.push(0);
        }
        self.at = if object { ScanState::Name } else { ScanState::Value };
        run.mark = place + 1;
        if per_element && !object {
            self.begin_element(run, place + 1, out);
        }
        Ok(place + 1)
    }

    /// Processes a comma, or the end of a container.
    fn separate(&mut self, run: &mut CopyRun<'_>, place: usize, comma: bool, out: &mut Vec<u8>) -> usize {
        if self.taking == Some(self.levels.len()) {
            self.taking = None;
            if let Some(mut value) = self.value.take() {
                self.edit.replace(&mut value, &run.data[run.keep..place], true, out);
            }
            run.keep = place;
        }
        if E::Target::ADDS && !comma && self.taking.is_none() {
            self.add_missing(run, place, out);
        }
        if !comma {
            self.levels.pop();
            if E::Target::ADDS {
                self.named.pop();
            }
        }
        let level = self.levels.last();
        self.below = level.map_or_else(|| self.edit.fields().start(), |l| l.state);
        let is_object = level.is_some_and(|l| l.object);
        self.at = if comma && is_object { ScanState::Name } else { ScanState::Value };
        run.mark = place;
        if comma && !is_object && self.edit.fields().is_per_element() {
            self.next_element(run, place, out);
        }
        place + 1
    }

    /// Decides about the element of an array behind the comma at `place`.
    #[cold]
    fn next_element(&mut self, run: &mut CopyRun<'_>, place: usize, out: &mut Vec<u8>) {
        if let Some(level) = self.levels.last_mut() {
            level.index = level.index.saturating_add(1);
            self.begin_element(run, place, out);
        }
    }

    /// Decides about the element of an array that begins behind `place`, which is a comma or behind the bracket.
    #[inline(never)]
    fn begin_element(&mut self, run: &mut CopyRun<'_>, place: usize, out: &mut Vec<u8>) {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut().filter(|_| self.taking.is_none()) else { return };
        let (below, meant) = self.edit.fields().element(level.state, level.index);
        self.below = below;
        let action = meant.map_or(MemberChange::Keep, |place| self.edit.action(place));
        self.edited += u64::from(!matches!(action, MemberChange::Keep));
        if let MemberChange::Remove = action {
            level.cut = true;
            self.taking = Some(depth);
            return run.copy_to(place.max(run.keep), out);
        }
        let is_comma = level.index > 0;
        let drops_comma = is_comma && !level.keeps_commas();
        level.passed = true;
        if drops_comma {
            run.copy_to(place.max(run.keep), out);
            run.keep = place + 1;
        }
        if let MemberChange::Replace(value) = action {
            run.copy_to((place + usize::from(is_comma)).max(run.keep), out);
            self.value = Some(value);
            self.taking = Some(depth);
        }
    }

    /// Adds the members that the object which ends at `place` lacks.
    fn add_missing(&mut self, run: &mut CopyRun<'_>, place: usize, out: &mut Vec<u8>) {
        let (Some(level), Some(named)) = (self.levels.last().filter(|level| level.object), self.named.last()) else {
            return;
        };
        let missing = self.edit.fields().creatable(level.state) & !named;
        if missing != 0 {
            run.copy_to(place.max(run.keep), out);
            self.edited += self.edit.add(missing, level.passed, out);
        }
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
