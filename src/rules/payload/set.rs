//! Values that members are set to, and members that are added where they are missing.

use std::sync::Arc;

use bytes::Bytes;

use super::edit::{MemberChange, MemberEdit};
use super::fields::{FieldPath, FieldState, Fields, PathEnd};
use super::lex::escaped;
use super::mask::Masked;

/// The paths of members that are set. The values may differ for each document.
#[derive(Debug)]
pub struct SetPaths {
    fields: Fields,
    /// Whether members that are there stay as they are.
    only_missing: bool,
}

impl SetPaths {
    /// Compiles paths. Of several that select one member the first counts.
    ///
    /// A member that is missing is added at the end of its object, with the objects above it, unless the path has a
    /// `**`, or an element of an array would have to be added. With `only_missing` members that are there stay.
    ///
    /// # Errors
    /// When the paths have too many steps together.
    pub fn new(paths: &[FieldPath], only_missing: bool) -> Result<Self, String> {
        Ok(Self { fields: Fields::new(paths)?, only_missing })
    }

    /// Returns whether all names are ASCII.
    pub fn is_ascii(&self) -> bool {
        self.fields.is_ascii()
    }
}

/// Paths, each with the JSON text of its value. A path without one changes nothing.
#[derive(Debug)]
pub struct SetValues {
    paths: Arc<SetPaths>,
    values: Vec<Option<Bytes>>,
}

impl SetValues {
    /// Returns the edit that sets these values, one for each path.
    pub fn new(paths: Arc<SetPaths>, values: Vec<Option<Bytes>>) -> Self {
        Self { paths, values }
    }

    fn value(&self, path: usize) -> Option<&Bytes> {
        self.values.get(path)?.as_ref()
    }

    /// Writes the members at these positions. Returns how many values they have.
    fn write(&self, mut missing: FieldState, mut begun: bool, out: &mut Vec<u8>) -> u64 {
        let mut added = 0;
        while let Some((name, same, end)) = self.paths.fields.first_named(missing) {
            missing &= !same;
            let value = end.map(|end| self.value(self.paths.fields.path_at(end)));
            if value == Some(None) {
                continue;
            }
            let from = out.len();
            out.extend_from_slice(if begun { b",\"" } else { b"\"" });
            out.extend(std::str::from_utf8(name).map_or_else(|_| name.to_vec(), escaped));
            out.extend_from_slice(b"\":");
            match value.flatten() {
                Some(value) => {
                    out.extend_from_slice(value);
                    added += 1;
                }
                None => {
                    out.push(b'{');
                    let within = self.write(same << 1, false, out);
                    out.push(b'}');
                    if within == 0 {
                        out.truncate(from);
                        continue;
                    }
                    added += within;
                }
            }
            begun = true;
        }
        added
    }
}

impl MemberEdit for SetValues {
    type Value = Masked;
    const ADDS: bool = true;

    fn fields(&self) -> &Fields {
        &self.paths.fields
    }

    fn action(&self, place: PathEnd) -> MemberChange<'_, Masked> {
        let path = self.paths.fields.path_at(place);
        if self.paths.only_missing || self.value(path).is_none() {
            return MemberChange::Keep;
        }
        MemberChange::Replace(Masked::new(path, 0))
    }

    fn replace(&self, value: &mut Masked, part: &[u8], end: bool, out: &mut Vec<u8>) {
        let text = self.value(value.path()).map(|text| &**text).unwrap_or_default();
        value.process(part, end, text, out);
    }

    fn add(&self, missing: FieldState, begun: bool, out: &mut Vec<u8>) -> u64 {
        self.write(missing, begun, out)
    }
}

#[cfg(test)]
#[path = "set_tests.rs"]
mod tests;
