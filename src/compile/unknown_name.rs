//! The error of a name that stands for nothing.

use crate::notation::nearest;

/// Returns the text of an error for a name that stands for nothing, with the nearest one that does.
pub fn there_is_no<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    format!("there is no {what} \"{name}\"{}", nearest(name, known))
}
