//! Renaming of JSON members; their values stay.

use std::convert::Infallible;

use super::edit::{MemberChange, MemberEdit};
use super::fields::{FieldPath, Fields, PathEnd};
use super::lex::escaped;

/// Paths of members, each with the new name. The paths are those of the document as it arrives.
///
/// A member that has the new name already stays beside the renamed one: whether there is one is known only at the end
/// of the object, which is not awaited. Remove it first where it is not wanted.
#[derive(Debug)]
pub struct Renames {
    fields: Fields,
    /// One for each path, escaped.
    names: Box<[Box<[u8]>]>,
}

impl Renames {
    /// Compiles pairs of path and new name. Of several paths that select one member the first counts.
    ///
    /// # Errors
    /// When the paths have too many steps together, or one ends with `*`: several members would get one name.
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

    fn action(&self, place: PathEnd) -> MemberChange<'_, Infallible> {
        self.names.get(self.fields.path_at(place)).map_or(MemberChange::Remove, |name| MemberChange::Rename(name))
    }

    fn replace(&self, value: &mut Infallible, _: &[u8], _: bool, _: &mut Vec<u8>) {
        match *value {}
    }
}

#[cfg(test)]
#[path = "rename_tests.rs"]
mod tests;
