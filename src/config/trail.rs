//! The way to a value while a tree is walked: a chain on the stack, of which a place is made only where there
//! is something to tell.

use crate::notation::{Place, Step};

/// Where in the tree.
#[derive(Clone, Copy, Debug)]
pub enum Trail<'t> {
    /// At its root.
    Root,
    /// Behind a key of the mapping there.
    Key(&'t Self, &'t str),
    /// At a number in the list there.
    Index(&'t Self, usize),
}

impl Trail<'_> {
    /// As a place of its own.
    pub fn place(&self) -> Place {
        let (mut place, step) = match self {
            Self::Root => return Place::default(),
            Self::Key(above, key) => (above.place(), Step::Key((*key).to_owned().into())),
            Self::Index(above, index) => (above.place(), Step::Index(*index)),
        };
        place.0.push(step);
        place
    }
}
