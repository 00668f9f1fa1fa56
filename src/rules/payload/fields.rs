//! Paths that select members of a JSON document: `ssn`, `user.address.street`, `**.internal`.

use std::str::FromStr;

/// One path to a member: names from the root, transparent to arrays. `*` is any one name, or, before the last step,
/// any element of an array, and `**` any number of names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldPath(Vec<FieldStep>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FieldStep {
    Name(Box<[u8]>),
    One,
    Any,
}

impl FromStr for FieldPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a field such as ssn, user.address.street, items.*.cost or **.internal".to_owned();
        if text.starts_with("$.") || text.starts_with('/') || text.contains(['[', ']']) {
            return Err(
                "a field such as ssn or items.*.cost: names and * with dots between them, and no $, / or []".to_owned()
            );
        }
        let mut steps = Vec::new();
        for step in text.split('.') {
            steps.push(match step {
                "" => return Err(wrong()),
                "*" => FieldStep::One,
                "**" if steps.last() == Some(&FieldStep::Any) => continue,
                "**" => FieldStep::Any,
                name => FieldStep::Name(name.as_bytes().into()),
            });
        }
        if steps.last() == Some(&FieldStep::Any) || steps.len() > 32 {
            return Err(wrong());
        }
        Ok(Self(steps))
    }
}

impl FieldPath {
    /// Returns whether the path ends with `*`, so that it may select several members of one object.
    pub fn ends_with_any_name(&self) -> bool {
        self.0.last() == Some(&FieldStep::One)
    }

    /// Returns how much the path leaves open, for an order in which the narrowest comes first: its `**`, then its `*`.
    pub fn breadth(&self) -> (usize, usize) {
        let count = |segment| self.0.iter().filter(|one| **one == segment).count();
        (count(FieldStep::Any), count(FieldStep::One))
    }
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
            fields.steps.extend(path.0.iter().cloned());
            if fields.steps.len() > Self::MAX_STEPS {
                return Err(format!("at most {} steps in all fields together", Self::MAX_STEPS));
            }
            fields.last |= 1 << (fields.steps.len() - 1);
        }
        for (place, step) in fields.steps.iter().enumerate() {
            match step {
                FieldStep::Name(name) => {
                    fields.longest_name = fields.longest_name.max(name.len());
                    fields.lengths |= 1 << name.len().min(63);
                }
                FieldStep::One => fields.one = true,
                FieldStep::Any => fields.any |= 1 << place,
            }
        }
        fields.start = fields.closed(fields.start);
        Ok(fields)
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
        self.steps.iter().all(|step| !matches!(step, FieldStep::Name(name) if !name.is_ascii()))
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
                FieldStep::Name(wanted) => wanted.as_ref() == name,
                FieldStep::One => true,
                FieldStep::Any => false,
            };
            if fits && self.last & bit != 0 {
                meant = meant.or(Some(PathEnd(place as u8)));
            } else if fits {
                below |= bit << 1;
            }
        }
        (self.closed(below), meant)
    }

    /// Returns the state of an array's elements: the positions are those of the array, and a `*` may take an element.
    pub fn element(&self, state: FieldState) -> FieldState {
        if !self.one {
            return state;
        }
        let mut below = state;
        let mut rest = state & !self.last;
        while rest != 0 {
            let bit = rest & rest.wrapping_neg();
            rest ^= bit;
            if self.steps[bit.trailing_zeros() as usize] == FieldStep::One {
                below |= bit << 1;
            }
        }
        self.closed(below)
    }

    /// Returns the closure of a state: `**` may also match nothing, so that a path at it is also behind it. It is
    /// never last and never twice in a row.
    fn closed(&self, state: FieldState) -> FieldState {
        state | (state & self.any) << 1
    }
}
