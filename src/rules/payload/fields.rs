//! Paths that select parts of a JSON document: `ssn`, `user.address.street`, `**.internal`, `items[].cost`, `$..ssn`,
//! `/items/0/cost`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// One path to a member or element.
///
/// Three notations are read. Names with dots (`a.b`) are transparent to arrays; `*` is any one name, or, before the
/// last step, any element of an array, `**` any number of names, `[]` every element and `[0]` one. A JSON Pointer
/// (`/a/0/b`, RFC 6901) and a JSONPath (`$.a[0].b`, `$..b`, RFC 9535) name arrays explicitly: their names are those of
/// objects alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath {
    steps: Vec<FieldStep>,
    /// Whether its names do not pass through arrays.
    explicit: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FieldStep {
    Name(Box<[u8]>),
    One,
    Any,
    /// Every element of an array.
    Each,
    /// An element of an array.
    Index(u32),
    /// The member of that name, or the element of that index: a token of a JSON Pointer.
    Token(Box<[u8]>, u32),
}

/// What a path looks like, for messages.
const WANTED: &str = "a field such as ssn, user.address.street, items.*.cost, **.internal, items[0].cost, \
                      /items/0/cost or $..internal";

/// The most steps of a path.
const MAX_PATH: usize = 32;

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let steps = match text.strip_prefix('/') {
            Some(pointer) => read_pointer(pointer),
            None => read_dotted(text),
        };
        let steps =
            steps.filter(|steps| !steps.is_empty() && steps.len() <= MAX_PATH).ok_or_else(|| WANTED.to_owned())?;
        if steps.last() == Some(&FieldStep::Any) {
            return Err(WANTED.to_owned());
        }
        Ok(Self { steps, explicit: text.starts_with(['/', '$']) })
    }
}

/// Reads a JSON Pointer behind its first slash (RFC 6901).
fn read_pointer(text: &str) -> Option<Vec<FieldStep>> {
    let step = |token: &str| {
        let is_escaped = |rest: &str| rest.starts_with(['0', '1']);
        if !token.split('~').skip(1).all(is_escaped) {
            return None;
        }
        let name = token.replace("~1", "/").replace("~0", "~");
        let index = name.parse::<u32>().ok().filter(|index| index.to_string() == name);
        let name = name.into_bytes().into_boxed_slice();
        Some(index.map_or_else(|| FieldStep::Name(name.clone()), |index| FieldStep::Token(name.clone(), index)))
    };
    text.split('/').map(step).collect()
}

/// Reads names with dots and brackets, with or without `$` before them.
fn read_dotted(text: &str) -> Option<Vec<FieldStep>> {
    let (mut rest, mut steps) = (text.strip_prefix('$').unwrap_or(text), Vec::new());
    let is_path = rest.len() < text.len();
    if is_path && !rest.starts_with(['.', '[']) {
        return None;
    }
    // A dot stands before every name but the first.
    let mut is_first = !is_path;
    while !rest.is_empty() {
        if rest.starts_with('[') {
            let (step, behind) = read_bracket(rest)?;
            steps.push(step);
            (rest, is_first) = (behind, false);
            continue;
        }
        if !is_first {
            rest = rest.strip_prefix('.')?;
            if let (true, Some(deep)) = (is_path, rest.strip_prefix('.')) {
                steps.push(FieldStep::Any);
                rest = deep;
            }
            if rest.starts_with('[') && steps.last() != Some(&FieldStep::Any) {
                return None;
            }
        }
        is_first = false;
        if rest.starts_with('[') {
            continue;
        }
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let name;
        (name, rest) = rest.split_at(end);
        steps.push(match name {
            "" => return None,
            name if name.contains(']') => return None,
            "*" => FieldStep::One,
            "**" if steps.last() == Some(&FieldStep::Any) => continue,
            "**" => FieldStep::Any,
            name => FieldStep::Name(name.as_bytes().into()),
        });
    }
    Some(steps)
}

/// Reads a step in brackets: `[]`, `[*]`, `[0]`, `['name']`; returns it and what follows.
fn read_bracket(text: &str) -> Option<(FieldStep, &str)> {
    let inner = text.strip_prefix('[')?;
    if let Some(quote) = inner.chars().next().filter(|first| matches!(first, '\'' | '"')) {
        let (name, behind) = inner[1..].split_once(quote)?;
        return Some((FieldStep::Name(name.as_bytes().into()), behind.strip_prefix(']')?));
    }
    let (inner, behind) = inner.split_once(']')?;
    let step = match inner {
        "" | "*" => FieldStep::Each,
        index => FieldStep::Index(index.parse().ok()?),
    };
    Some((step, behind))
}

impl FieldPath {
    /// Returns whether the path ends with `*`, so that it may select several members of one object.
    pub fn ends_with_any_name(&self) -> bool {
        self.steps.last() == Some(&FieldStep::One)
    }

    /// Returns whether the path may end at an element of an array, which has no name.
    pub fn may_end_at_element(&self) -> bool {
        matches!(self.steps.last(), Some(FieldStep::Each | FieldStep::Index(_) | FieldStep::Token(..)))
            || (self.explicit && self.ends_with_any_name())
    }

    /// Returns whether the path selects one place alone, without `*`, `**` and `[]`.
    pub fn is_single(&self) -> bool {
        !self.steps.iter().any(|step| matches!(step, FieldStep::One | FieldStep::Any | FieldStep::Each))
    }

    /// Returns the path without transparency to arrays.
    #[must_use]
    pub fn explicit(mut self) -> Self {
        self.explicit = true;
        self
    }

    /// Returns whether the path selects a place within, or the same place as, another.
    pub fn is_within(&self, other: &Self) -> bool {
        self.steps.starts_with(&other.steps)
    }

    /// Returns how much the path leaves open, for an order in which the narrowest comes first: its `**`, then its `*`.
    pub fn breadth(&self) -> (usize, usize) {
        let count = |segment| self.steps.iter().filter(|one| **one == segment).count();
        (count(FieldStep::Any), count(FieldStep::One) + count(FieldStep::Each))
    }

    /// Returns the text of the value that the path selects in a document, if it selects one place and there is one.
    pub fn value_in<'d>(&self, document: &'d RawValue) -> Option<&'d RawValue> {
        self.steps.iter().try_fold(document, |value, step| child(value, step))
    }
}

/// Returns the member or element of a value at that step; of several members of one name the last.
fn child<'d>(value: &'d RawValue, step: &FieldStep) -> Option<&'d RawValue> {
    let (name, index) = match step {
        FieldStep::Name(name) => (Some(name), None),
        FieldStep::Index(index) => (None, Some(*index)),
        FieldStep::Token(name, index) => (Some(name), Some(*index)),
        FieldStep::One | FieldStep::Any | FieldStep::Each => return None,
    };
    if value.get().starts_with('{') {
        let members: RawMembers<'d> = serde_json::from_str(value.get()).ok()?;
        let name = name?;
        return members.0.into_iter().rev().find(|(known, _)| known.as_bytes() == &**name).map(|(_, value)| value);
    }
    let items: Vec<&'d RawValue> = serde_json::from_str(value.get()).ok()?;
    items.get(usize::try_from(index?).ok()?).copied()
}

/// A set of paths as one automaton. A state is a bit set of the positions of the paths.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    steps: Vec<FieldStep>,
    /// Bits of the positions where a path begins, or continues after a leading `**`.
    start: u128,
    /// Bits of the last positions of the paths.
    last: u128,
    longest_name: usize,
    /// Bits of the positions of `**`.
    any: u128,
    /// Whether any step is a `*`.
    one: bool,
    /// Bits of the positions that do not pass through arrays.
    rigid: u128,
    /// Bits of the positions that may take an element of an array.
    by_element: u128,
    /// Whether the elements of an array differ: some are selected, or by their index.
    per_element: bool,
    /// Bits of the positions from which on a path has only names, so that it can be created where it is missing.
    creatable: u128,
    /// Bits of the lengths of the names; the last is for all longer ones.
    lengths: u64,
}

/// The positions of all paths on one level of the document.
pub type FieldState = u128;

/// The last step of one path of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathEnd(u8);

impl Fields {
    /// The maximum number of steps of all paths of one set.
    pub const MAX_STEPS: usize = 128;

    /// Builds the automaton.
    ///
    /// # Errors
    /// When the paths have more than [`Fields::MAX_STEPS`] steps together.
    pub fn new(paths: &[FieldPath]) -> Result<Self, String> {
        let mut fields = Self::default();
        for path in paths {
            fields.start |= 1_u128.checked_shl(fields.steps.len() as u32).unwrap_or(0);
            let from = fields.steps.len();
            fields.steps.extend(path.steps.iter().cloned());
            if fields.steps.len() > Self::MAX_STEPS {
                return Err(format!("at most {} steps in all fields together", Self::MAX_STEPS));
            }
            fields.last |= 1 << (fields.steps.len() - 1);
            fields.note_path(path, from);
        }
        for (place, step) in fields.steps.iter().enumerate() {
            match step {
                FieldStep::Name(name) | FieldStep::Token(name, _) => {
                    fields.longest_name = fields.longest_name.max(name.len());
                    fields.lengths |= 1 << name.len().min(63);
                }
                FieldStep::One => fields.one = true,
                FieldStep::Any => fields.any |= 1 << place,
                FieldStep::Each | FieldStep::Index(_) => {}
            }
        }
        fields.start = fields.closed(fields.start);
        Ok(fields)
    }

    /// Notes how the steps of a path, which begin at `from`, pass through arrays, and where it can be created.
    fn note_path(&mut self, path: &FieldPath, from: usize) {
        let has_any = path.steps.contains(&FieldStep::Any);
        self.per_element |= path.explicit;
        for (place, step) in path.steps.iter().enumerate() {
            let bit = 1 << (from + place);
            let takes_elements = matches!(step, FieldStep::Each | FieldStep::Index(_) | FieldStep::Token(..));
            if takes_elements || *step == FieldStep::One {
                self.by_element |= bit;
            }
            if takes_elements || (path.explicit && *step != FieldStep::Any) {
                self.rigid |= bit;
            }
            self.per_element |= takes_elements;
            if !has_any && path.steps[place..].iter().all(|step| matches!(step, FieldStep::Name(_))) {
                self.creatable |= bit;
            }
        }
    }

    /// Returns the number, from 0, of the path that ends at `place`.
    pub fn path_at(&self, place: PathEnd) -> usize {
        (self.last & ((1 << place.0) - 1)).count_ones() as usize
    }

    /// Returns the state at the root.
    pub fn start(&self) -> FieldState {
        self.start
    }

    /// Returns the maximum length of a name in a path, in bytes.
    pub fn longest_name(&self) -> usize {
        self.longest_name
    }

    /// Returns whether a path may have a name of this many bytes.
    #[inline]
    pub fn may_know(&self, length: usize) -> bool {
        self.one || self.lengths >> length.min(63) & 1 == 1
    }

    /// Returns whether all names are ASCII.
    pub fn is_ascii(&self) -> bool {
        let is_other =
            |step: &FieldStep| matches!(step, FieldStep::Name(name) | FieldStep::Token(name, _) if !name.is_ascii());
        !self.steps.iter().any(is_other)
    }

    /// Returns whether each element of an array has to be looked at.
    #[inline]
    pub fn is_per_element(&self) -> bool {
        self.per_element
    }

    /// Returns the state below a name that is in no path.
    pub fn unknown(&self, state: FieldState) -> FieldState {
        self.closed(state & self.any)
    }

    /// Enters the member `name` on a level in `state`: returns the state below it and, if a path ends at it, that
    /// path's last step. Of several paths the first counts.
    pub fn enter(&self, state: FieldState, name: &[u8]) -> (FieldState, Option<PathEnd>) {
        let mut below = state & self.any;
        let mut meant = None;
        let mut rest = state & !self.any;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            let place = bit.trailing_zeros();
            let fits = match &self.steps[place as usize] {
                FieldStep::Name(wanted) | FieldStep::Token(wanted, _) => wanted.as_ref() == name,
                FieldStep::One => true,
                FieldStep::Any | FieldStep::Each | FieldStep::Index(_) => false,
            };
            if fits && self.last & bit != 0 {
                meant = meant.or(Some(PathEnd(place as u8)));
            } else if fits {
                below |= bit << 1;
            }
        }
        (self.closed(below), meant)
    }

    /// Enters the element `index` of an array in `state`: returns the state below it and, if a path ends at it, that
    /// path's last step. Names that are transparent to arrays keep their position, and a `*` may take an element.
    pub fn element(&self, state: FieldState, index: u32) -> (FieldState, Option<PathEnd>) {
        let mut below = state & !self.rigid;
        let mut meant = None;
        let mut rest = state & self.by_element;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            let place = bit.trailing_zeros();
            let fits = match &self.steps[place as usize] {
                FieldStep::Index(wanted) | FieldStep::Token(_, wanted) => *wanted == index,
                _ => true,
            };
            if fits && self.last & bit == 0 {
                below |= bit << 1;
            } else if fits && self.rigid & bit != 0 {
                meant = meant.or(Some(PathEnd(place as u8)));
            }
        }
        (self.closed(below), meant)
    }

    /// Returns the positions at which a path can be created, of those in `state`.
    #[inline]
    pub fn creatable(&self, state: FieldState) -> FieldState {
        state & self.creatable
    }

    /// Returns the positions in `state` of paths that have that name there.
    pub fn named(&self, state: FieldState, name: &[u8]) -> FieldState {
        let is_it = |place: u32| match &self.steps[place as usize] {
            FieldStep::Name(known) | FieldStep::Token(known, _) => **known == *name,
            _ => false,
        };
        bits(state).filter(|place| is_it(*place)).fold(0, |named, place| named | 1 << place)
    }

    /// Returns the name at the first of some positions of [`Self::creatable`], with those that have the same name,
    /// and the path that ends at one of these.
    pub fn first_named(&self, positions: FieldState) -> Option<(&[u8], FieldState, Option<PathEnd>)> {
        let first = bits(positions).next()?;
        let FieldStep::Name(name) = &self.steps[first as usize] else { return None };
        let same = self.named(positions, name);
        let end = bits(same & self.last).next().map(|place| PathEnd(place as u8));
        Some((name, same, end))
    }

    /// Returns the closure of a state: `**` may also match nothing, so that a path at it is also behind it. It is
    /// never last and never twice in a row.
    fn closed(&self, state: FieldState) -> FieldState {
        state | (state & self.any) << 1
    }
}

/// Returns the places of the bits that are set.
fn bits(mut set: u128) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let place = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (place < u128::BITS).then_some(place)
    })
}

/// The members of an object, each with the text of its value.
pub(super) struct RawMembers<'d>(pub(super) Vec<(String, &'d RawValue)>);

impl<'de: 'd, 'd> Deserialize<'de> for RawMembers<'d> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = RawMembers<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<RawMembers<'de>, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(RawMembers(all))
            }
        }
        deserializer.deserialize_map(RawVisitor)
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
