//! Several files as one tree, and `${…}` in their texts.

use std::path::{Path, PathBuf};

use super::trail::Trail;
use super::tree::{Node, Value};
use crate::notation::{Mistakes, Place};

/// The most files that one configuration may have.
pub const MAX_FILES: usize = 1_000;

/// The folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The files that an `include` names, in order.
pub fn expand(base: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let path = base.join(pattern);
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else {
        return Err("expected a file, or a last part with a * in it".to_owned());
    };
    let folder = self::folder(&path);
    if folder.to_string_lossy().contains('*') {
        return Err("expected a * in the last part of the path alone".to_owned());
    }
    let Some((before, after)) = name.split_once('*') else {
        return Ok(vec![path]);
    };
    let entries = std::fs::read_dir(folder).map_err(|e| format!("cannot read the folder {}: {e}", folder.display()))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| {
            let name = p.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            // As in a shell: what begins with a dot is hidden, such as the locks and copies of editors.
            let hidden = before.is_empty() && name.starts_with('.');
            !hidden && name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after) && is_meant(p)
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Joins `other` into `tree`: lists are appended, mappings joined, anything else may be there once.
pub fn join(tree: &mut Node, other: Node, place: &Place, clashes: &mut Vec<(Place, super::tree::Spot, String)>) {
    match (&mut tree.value, other.value) {
        (Value::Map(members), Value::Map(others)) => {
            for (key, node) in others {
                match members.iter_mut().find(|(k, _)| k.text == key.text) {
                    Some((_, own)) => join(own, node, &place.key(key.text.clone()), clashes),
                    None => members.push((key, node)),
                }
            }
        }
        (Value::List(items), Value::List(others)) => items.extend(others),
        _ => clashes.push((place.clone(), other.spot, "is already set in another file".to_owned())),
    }
}

/// Replaces every `${env:NAME}` and `${file:PATH}` in the tree's texts.
/// Notes what is wrong, and which files it read.
pub fn substitute(node: &mut Node, base: &Path, trail: &Trail<'_>, notes: &mut (&mut Mistakes, &mut Vec<String>)) {
    match &mut node.value {
        Value::Text(text) if text.contains('$') && text.contains("${") => match replace(text, base, notes.1) {
            Ok(replaced) => {
                *text = replaced;
                node.substituted = true;
            }
            Err(why) => notes.0.add(&trail.place(), why),
        },
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                substitute(item, base, &Trail::Index(trail, index), notes);
            }
        }
        Value::Map(members) => {
            for (key, item) in members {
                substitute(item, base, &Trail::Key(trail, &key.text), notes);
            }
        }
        _ => {}
    }
}

fn replace(text: &str, base: &Path, files: &mut Vec<String>) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("${") {
        let (inner, after) = behind.split_once('}').ok_or("expected a } behind ${")?;
        out.push_str(before);
        match inner.split_once(':') {
            Some(("env", name)) => {
                let value = std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"))?;
                out.push_str(&value);
            }
            Some(("file", path)) => {
                files.push(path.to_owned());
                let value = std::fs::read_to_string(base.join(path)).map_err(|e| format!("cannot read the file {path}: {e}"))?;
                out.push_str(value.trim_end_matches(['\r', '\n']));
            }
            _ => return Err(format!("expected ${{env:NAME}} or ${{file:PATH}}, found ${{{inner}}}")),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a pattern means it: files, and links that lead nowhere, which is a mistake and not a configuration without them.
fn is_meant(path: &Path) -> bool {
    path.is_file() || path.is_symlink() && !path.exists()
}
