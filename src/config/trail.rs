//! The path to a value while a tree is walked: a chain on the stack, which becomes a place only where there is
//! something to report.

use crate::notation::{Place, PlaceStep};

/// The path to a value in the tree.
#[derive(Clone, Copy, Debug)]
pub enum Trail<'t> {
    /// The root.
    Root,
    /// The value of a key of the mapping there.
    Key(&'t Self, &'t str),
    /// An element of the list there.
    Index(&'t Self, usize),
}

impl Trail<'_> {
    /// Returns the last key, if there is one, and the path to the mapping that has it.
    fn last_key(&self) -> Option<(&Self, &str)> {
        match self {
            Self::Root => None,
            Self::Key(above, key) => Some((above, key)),
            Self::Index(above, _) => above.last_key(),
        }
    }

    /// Returns whether the keys of the path end with these: `health.active`, or `upstreams.*` with any key at the end.
    /// `^` is the empty path alone.
    pub fn ends_with(&self, keys: &str) -> bool {
        if keys == "^" {
            return self.last_key().is_none();
        }
        let mut at = self;
        keys.rsplit('.').all(|wanted| match at.last_key() {
            Some((above, key)) => {
                at = above;
                wanted == "*" || wanted == key
            }
            None => false,
        })
    }

    /// Returns the path as a place.
    pub fn place(&self) -> Place {
        let (mut place, step) = match self {
            Self::Root => return Place::default(),
            Self::Key(above, key) => (above.place(), PlaceStep::Key((*key).to_owned().into())),
            Self::Index(above, index) => (above.place(), PlaceStep::Index(*index)),
        };
        place.0.push(step);
        place
    }
}
