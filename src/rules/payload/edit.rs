//! The change of members and elements of a JSON document.

use std::fmt;

use super::fields::{FieldState, Fields, PathEnd};

/// The change of the members that a set of paths selects.
pub trait MemberEdit {
    /// The state of one value that is being replaced.
    type Value: Send + Sync + fmt::Debug;
    /// Whether members are added that are missing.
    const ADDS: bool = false;

    /// Returns the paths of the members.
    fn fields(&self) -> &Fields;

    /// Returns the change of the member at which the path with this end ends.
    fn action(&self, place: PathEnd) -> MemberChange<'_, Self::Value>;

    /// Processes the next part of a value, from behind the name (white space and colon included) to the comma or
    /// bracket that follows it at `end`, and appends the replacement to `out`.
    fn replace(&self, value: &mut Self::Value, part: &[u8], end: bool, out: &mut Vec<u8>);

    /// Appends the members that an object lacks, which are at these positions; `begun` says that it has others.
    /// Returns how many were added.
    fn add(&self, _missing: FieldState, _begun: bool, _out: &mut Vec<u8>) -> u64 {
        0
    }
}

/// The change of one member.
#[derive(Debug)]
pub enum MemberChange<'e, V> {
    /// Leaves it as it is.
    Keep,
    /// Removes it, with its comma.
    Remove,
    /// Gives it this name, which is escaped already. A name that was too long to be read is kept.
    Rename(&'e [u8]),
    /// Replaces its value.
    Replace(V),
}
