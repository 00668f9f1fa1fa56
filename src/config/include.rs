//! Several files as one tree, and `${…}` in their texts.

use std::path::{Path, PathBuf};

use super::redact::Redactor;
use super::trail::Trail;
use super::tree::{Node, Size, Value};
use crate::notation::{Mistakes, Place};
use crate::tls::read_text;

/// The largest file for `${file:…}`.
const MAX_SUBSTITUTED: u64 = 1 << 20;

/// The notes of a walk over the tree's texts.
pub struct Substitution<'n> {
    /// The errors.
    pub mistakes: &'n mut Mistakes,
    /// The size of the configuration so far.
    pub size: &'n mut Size,
    /// The files that were read.
    pub files: Vec<String>,
    /// The values of the files and variables.
    pub redactor: Redactor,
}

/// The most files that one configuration may have.
pub const MAX_FILES: usize = 1_000;

/// Returns the folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the files that an `include` names, in order.
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
            // As in a shell, what begins with a dot is hidden, such as the locks and copies of editors.
            let hidden = before.is_empty() && name.starts_with('.');
            !hidden
                && name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
                && is_included(p)
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Turns sections that are lists, and hold one value, into lists of it, so that those of several files are joined.
pub fn list_sections(tree: &mut Node) {
    let Value::Map(members) = &mut tree.value else { return };
    for (key, node) in members {
        let is_one = match &node.value {
            Value::Text(_) => key.text == "include",
            Value::Map(members) => {
                matches!(key.text.as_str(), "listeners" | "routes" | "streams")
                    && members.iter().any(|(key, _)| key.text == "name")
            }
            _ => false,
        };
        if is_one {
            let one = std::mem::replace(node, Node::new(node.spot, Value::Null));
            node.value = Value::List(vec![one]);
        }
    }
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

/// Replaces every `${env:NAME}` and `${file:PATH}` in the tree's texts. Notes the errors, the files that it read, and
/// their contents.
pub fn substitute(node: &mut Node, base: &Path, trail: &Trail<'_>, notes: &mut Substitution<'_>) {
    match &mut node.value {
        Value::Text(text) if text.contains('$') && text.contains("${") => match notes.replace(text, base) {
            Ok(replaced) => {
                notes.redactor.note(&replaced, text);
                node.written = Some(std::mem::replace(text, replaced).into());
            }
            Err(why) => notes.mistakes.add(&trail.place(), why),
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

impl Substitution<'_> {
    fn replace(&mut self, text: &str, base: &Path) -> Result<String, String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once("${") {
            let (inner, after) = behind.split_once('}').ok_or("expected a } behind ${")?;
            out.push_str(before);
            let value = match inner.split_once(':') {
                Some(("env", name)) => variable(name)?,
                Some(("file", path)) => {
                    self.files.push(path.to_owned());
                    let read = read_text(&base.join(path), MAX_SUBSTITUTED);
                    read.map_err(|e| format!("cannot read the file {path}: {e}"))?
                }
                _ => return Err(unknown_reference(inner)),
            };
            let value = if inner.starts_with("file:") { value.trim_end_matches(['\r', '\n']) } else { &value };
            self.size.add_text(value.len())?;
            self.redactor.note(value, &format!("${{{inner}}}"));
            out.push_str(value);
            rest = after;
        }
        out.push_str(rest);
        Ok(out)
    }
}

/// Returns the value of an environment variable: of `NAME:-default` the default where it is not set or empty, as in a
/// shell.
fn variable(name: &str) -> Result<String, String> {
    let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
    if default.is_some_and(|default| default.contains('{')) {
        return Err(format!(
            "a default has neither references nor braces in it, since a reference ends at the first }}: expected a \
             text as the default of ${{env:{name}}}"
        ));
    }
    match (std::env::var(name), default) {
        (Ok(value), None) => Ok(value),
        (Ok(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Err(_), None) => {
            Err(format!("the environment variable {name} is not set: set it, or write ${{env:{name}:-VALUE}}"))
        }
    }
}

/// Returns the message for what stands between `${` and `}` and is no reference.
fn unknown_reference(inner: &str) -> String {
    // A default is not repeated: it may be a secret.
    let name = inner.split_once(":-").map_or(inner, |(name, _)| name);
    let is_of = |others: &[u8]| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    let variable = if is_of(b"_") { format!("; write ${{env:{name}}}") } else { String::new() };
    let request = if is_of(b"_.-") { "; values of the request are written as {host}" } else { "" };
    format!("expected ${{env:NAME}}, ${{env:NAME:-default}} or ${{file:PATH}}, found ${{{name}}}{variable}{request}")
}

/// Returns whether a pattern includes it: files, and dangling links, which are an error rather than ignored.
fn is_included(path: &Path) -> bool {
    path.is_file() || path.is_symlink() && !path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the messages about the text of a body.
    fn told(body: &str) -> Vec<String> {
        let text = format!("routes:\n  - name: a\n    action: {{respond: {{body: '{body}'}}}}\n");
        let mistakes = match super::super::load_text(&text, "c.yaml", Path::new("/nowhere")) {
            Ok(loaded) => loaded.locate(loaded.mistakes.clone()),
            Err(mistakes) => mistakes,
        };
        mistakes.lines().into_iter().filter(|line| line.contains("respond.body")).collect()
    }

    #[test]
    fn defaults_have_no_references_in_them() {
        assert!(told("${env:SURELY_NOT_SET:-c} ${env:SURELY_NOT_SET:-}").is_empty());
        for body in ["${env:SURELY_NOT_SET:-${env:B:-c}}", "${env:PATH:-a${file:b}}"] {
            let told = told(body);
            assert!(
                told.len() == 1
                    && told[0].starts_with("c.yaml:3:")
                    && told[0].contains("routes[0].action.respond.body: a default has neither references"),
                "{told:?}"
            );
        }
    }

    #[test]
    fn what_is_no_reference_is_told_from_a_value_of_the_request() {
        for name in ["host", "remote_addr", "header.x-a"] {
            let told = told(&format!("${{{name}}}"));
            assert!(told.len() == 1 && told[0].ends_with("; values of the request are written as {host}"), "{told:?}");
            assert_eq!(told[0].contains(&format!("; write ${{env:{name}}};")), name != "header.x-a", "{told:?}");
        }
        let told = told("${TOKEN:-zq9x7}");
        assert!(told.len() == 1 && told[0].contains("found ${TOKEN}; write ${env:TOKEN};"), "{told:?}");
        assert!(!told[0].contains("zq9x7"), "{told:?}");
    }
}
