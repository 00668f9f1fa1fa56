//! Removal of JSON members.

use std::convert::Infallible;

use super::edit::{MemberChange, MemberEdit};
use super::fields::{Fields, PathEnd};
use super::scan::Editor;

/// Removes the members that a set of paths selects.
pub type Stripper<F> = Editor<F>;

/// A set of paths alone removes what it selects.
impl MemberEdit for Fields {
    type Value = Infallible;

    #[inline]
    fn fields(&self) -> &Fields {
        self
    }

    #[inline]
    fn action(&self, _: PathEnd) -> MemberChange<'_, Infallible> {
        MemberChange::Remove
    }

    #[inline]
    fn replace(&self, value: &mut Infallible, _: &[u8], _: bool, _: &mut Vec<u8>) {
        match *value {}
    }
}
