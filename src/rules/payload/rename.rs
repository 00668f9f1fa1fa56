//! Renames members of JSON, and leaves their values as they are.

use std::convert::Infallible;

use super::fields::{FieldPath, Fields, Place};
use super::lex::escaped;
use super::scan::{MemberChange, MemberEdit};

/// Paths of members, each with the name that the member gets. The paths are those of the document as it comes in.
///
/// A member that has the new name already stays beside the renamed one; whether that can be is known only at the end
/// of the object, which is not waited for. Remove it first where it is not wanted.
#[derive(Debug)]
pub struct Renames {
    fields: Fields,
    /// One for each path, escaped.
    names: Box<[Box<[u8]>]>,
}

impl Renames {
    /// Compiles pairs of path and new name. Of several paths that take one member the first counts.
    ///
    /// # Errors
    /// When the paths have too many steps together, or one ends with `*`: all members would get one name.
    pub fn new(renames: &[(FieldPath, &str)]) -> Result<Self, String> {
        if renames.iter().any(|(path, _)| path.ends_with_any_name()) {
            return Err("a path that ends with * would give several members the same name".to_owned());
        }
        let paths: Vec<_> = renames.iter().map(|(path, _)| path.clone()).collect();
        let names = renames.iter().map(|(_, name)| escaped(name).into()).collect();
        Ok(Self { fields: Fields::new(&paths)?, names })
    }
}

impl MemberEdit for Renames {
    type Value = Infallible;

    fn fields(&self) -> &Fields {
        &self.fields
    }

    fn action(&self, place: Place) -> MemberChange<'_, Infallible> {
        self.names.get(self.fields.path_at(place)).map_or(MemberChange::Remove, |name| MemberChange::Rename(name))
    }

    fn replace(&self, value: &mut Infallible, _: &[u8], _: bool, _: &mut Vec<u8>) {
        match *value {}
    }
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
