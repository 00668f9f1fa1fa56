//! The folders of files that are created.

use std::path::Path;

use crate::notation::{Mistakes, Place};

/// Notes a path at which no file could be created, because its folder does not exist.
pub fn check_folder(path: &Path, place: &Place, mistakes: &mut Mistakes) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if path.file_name().is_none() || folder.is_some_and(|folder| !folder.is_dir()) {
        mistakes.add(place, format!("there is no folder for {}", path.display()));
    }
}
