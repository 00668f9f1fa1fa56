//! The files of a schema or of an OpenAPI document, and the references between them.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use ahash::AHashMap;
use serde_json::Value;

use super::reading::{locate, parse_text};

/// Reads a file; the error says why it cannot be read.
pub type FileReader = Arc<dyn Fn(&Path) -> Result<String, String> + Send + Sync>;

/// The most files of one document.
const MAX_FILES: usize = 1_000;

/// A file of a document.
#[derive(Debug)]
pub struct SourceFile {
    /// Its path.
    pub path: PathBuf,
    text: String,
    /// Its content.
    pub value: Value,
}

/// A value in a file: the number of the file and a JSON Pointer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spot {
    /// The number of the file.
    pub file: usize,
    /// The JSON Pointer.
    pub pointer: String,
}

impl Spot {
    /// Returns the spot of a member or an item.
    #[must_use]
    pub fn below(&self, step: &str) -> Self {
        Self { file: self.file, pointer: format!("{}{}", self.pointer, super::violation::pointer_step(step)) }
    }
}

/// An error in a schema or a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// The file with line and column as far as they are known; `None` for what stands in the configuration itself.
    pub location: Option<String>,
    /// The JSON Pointer.
    pub pointer: String,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for SchemaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pointer.is_empty() { f.write_str(&self.text) } else { write!(f, "{}: {}", self.pointer, self.text) }
    }
}

/// The files of a document, which are read as references lead to them.
#[derive(Clone)]
pub struct DocumentReader {
    read: FileReader,
    /// The folders in which files may be.
    folders: Vec<PathBuf>,
    files: Vec<Arc<SourceFile>>,
    by_path: AHashMap<PathBuf, usize>,
}

impl fmt::Debug for DocumentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentReader").field("folders", &self.folders).finish_non_exhaustive()
    }
}

impl DocumentReader {
    /// Returns a reader of files in these folders, and in that of the first file that is opened.
    pub fn new(read: FileReader, folders: Vec<PathBuf>) -> Self {
        let folders = folders.iter().map(|folder| normal(folder)).collect();
        Self { read, folders, files: Vec::new(), by_path: AHashMap::new() }
    }

    /// Opens the first file, which the configuration names.
    ///
    /// # Errors
    /// Returns why it cannot be read or parsed.
    pub fn open_first(&mut self, path: &Path) -> Result<usize, SchemaFault> {
        let path = normal(path);
        self.folders.extend(path.parent().map(Path::to_path_buf));
        self.open(&path)
    }

    /// Adds a value that stands in the configuration, whose references begin in the folder of `path`.
    pub fn add_inline(&mut self, path: &Path, value: Value) -> usize {
        self.files.push(Arc::new(SourceFile { path: normal(path), text: String::new(), value }));
        self.files.len() - 1
    }

    fn open(&mut self, path: &Path) -> Result<usize, SchemaFault> {
        if let Some(known) = self.by_path.get(path) {
            return Ok(*known);
        }
        let name = path.display();
        let fault = |text: String| SchemaFault { location: None, pointer: String::new(), text };
        if self.files.len() >= MAX_FILES {
            return Err(fault(format!("there are more than {MAX_FILES} files")));
        }
        let text = (self.read)(path).map_err(|why| fault(format!("cannot read {name}: {why}")))?;
        let value = parse_text(&text).map_err(|bad| SchemaFault {
            location: Some(format!("{name}:{}:{}", bad.line, bad.column)),
            pointer: String::new(),
            text: bad.text,
        })?;
        self.files.push(Arc::new(SourceFile { path: path.to_path_buf(), text, value }));
        self.by_path.insert(path.to_path_buf(), self.files.len() - 1);
        Ok(self.files.len() - 1)
    }

    /// Returns a file.
    pub fn file(&self, number: usize) -> Arc<SourceFile> {
        Arc::clone(&self.files[number])
    }

    /// Replaces the content of a file by another form of it.
    pub fn replace(&mut self, number: usize, value: Value) {
        let old = &self.files[number];
        self.files[number] = Arc::new(SourceFile { path: old.path.clone(), text: old.text.clone(), value });
    }

    /// Returns the paths of all files.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.by_path.keys().cloned().collect()
    }

    /// Returns the spot to which a reference leads (RFC 3986; JSON Schema 2020-12, section 8.2).
    ///
    /// # Errors
    /// Returns why it leads nowhere.
    pub fn resolve(&mut self, from: usize, reference: &str) -> Result<Spot, SchemaFault> {
        let fault = |text: String| SchemaFault { location: None, pointer: String::new(), text };
        let (target, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let file = if target.is_empty() {
            from
        } else {
            let target = percent_encoding::percent_decode_str(target).decode_utf8_lossy().into_owned();
            if target.contains("://") || target.starts_with("//") {
                let text = format!("{reference} is a reference to another server: only files are read");
                return Err(fault(text));
            }
            let folder = self.files[from].path.parent().map(Path::to_path_buf).unwrap_or_default();
            let path = normal(&folder.join(&target));
            if !self.is_within(&path) {
                let text = format!("{reference} leads out of the folders of the document and of the configuration");
                return Err(fault(text));
            }
            self.open(&path)?
        };
        let pointer = percent_encoding::percent_decode_str(fragment).decode_utf8_lossy().into_owned();
        let value = &self.files[file].value;
        let pointer = if pointer.is_empty() || pointer.starts_with('/') {
            value.pointer(&pointer).map(|_| pointer)
        } else {
            find_anchor(value, &pointer, "")
        };
        pointer.map(|pointer| Spot { file, pointer }).ok_or_else(|| fault(format!("{reference} leads nowhere")))
    }

    /// Opens all files to which a file and those refer.
    ///
    /// # Errors
    /// Returns the first reference that leads to no file.
    pub fn open_all(&mut self, from: usize) -> Result<(), SchemaFault> {
        let (mut open, mut seen) = (vec![from], vec![from]);
        while let Some(number) = open.pop() {
            let file = self.file(number);
            let (mut references, mut has_ids) = (Vec::new(), false);
            find_references(&file.value, "", &mut references, &mut has_ids);
            for (pointer, reference) in references {
                match self.resolve(number, reference.split('#').next().unwrap_or_default()) {
                    Ok(spot) if seen.contains(&spot.file) => {}
                    Ok(spot) => {
                        seen.push(spot.file);
                        open.push(spot.file);
                    }
                    // It may be relative to an `$id`, which the compiler knows.
                    Err(_) if has_ids => {}
                    Err(fault) if fault.location.is_some() => return Err(fault),
                    Err(fault) => return Err(self.fault(&Spot { file: number, pointer }, fault.text)),
                }
            }
        }
        Ok(())
    }

    /// Returns all files that were opened.
    pub fn files(&self) -> &[Arc<SourceFile>] {
        &self.files
    }

    fn is_within(&self, path: &Path) -> bool {
        self.folders.iter().any(|folder| path.starts_with(folder))
    }

    /// Returns an error at a spot, with file and line.
    pub fn fault(&self, spot: &Spot, text: impl Into<String>) -> SchemaFault {
        let file = &self.files[spot.file];
        let location = (!file.text.is_empty()).then(|| match locate(&file.text, &spot.pointer) {
            Some((line, column)) => format!("{}:{line}:{column}", file.path.display()),
            None => file.path.display().to_string(),
        });
        SchemaFault { location, pointer: spot.pointer.clone(), text: text.into() }
    }
}

/// Returns a path without `.` and `..`, as far as the text says.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if matches!(out.components().next_back(), Some(Component::Normal(_))) => _ = out.pop(),
            part => out.push(part),
        }
    }
    out
}

/// Adds the references of a value to other files, each with its pointer, and notes whether there are identifiers.
fn find_references(value: &Value, at: &str, found: &mut Vec<(String, String)>, has_ids: &mut bool) {
    match value {
        Value::Object(members) => {
            *has_ids |= members.get("$id").is_some_and(Value::is_string);
            for (key, below) in members {
                let at = format!("{at}{}", super::violation::pointer_step(key));
                match below.as_str() {
                    Some(reference) if key == "$ref" && !reference.starts_with('#') => {
                        found.push((at, reference.to_owned()));
                    }
                    _ => find_references(below, &at, found, has_ids),
                }
            }
        }
        Value::Array(items) => {
            for (index, below) in items.iter().enumerate() {
                find_references(below, &format!("{at}/{index}"), found, has_ids);
            }
        }
        _ => {}
    }
}

/// Returns the pointer to the schema with that `$anchor`.
fn find_anchor(value: &Value, name: &str, at: &str) -> Option<String> {
    match value {
        Value::Object(members) => {
            if members.get("$anchor").is_some_and(|anchor| anchor == name) {
                return Some(at.to_owned());
            }
            members.iter().find_map(|(key, below)| {
                find_anchor(below, name, &format!("{at}{}", super::violation::pointer_step(key)))
            })
        }
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(index, below)| find_anchor(below, name, &format!("{at}/{index}")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(files: &[(&str, &str)]) -> DocumentReader {
        let files: AHashMap<PathBuf, String> = files.iter().map(|(p, t)| (p.into(), (*t).to_owned())).collect();
        let read: FileReader =
            Arc::new(move |path| files.get(path).cloned().ok_or_else(|| "there is no such file".to_owned()));
        DocumentReader::new(read, vec!["/conf".into()])
    }

    #[test]
    fn references_lead_to_files_and_no_further() {
        let mut reader = reader(&[
            ("/api/a.yaml", "x: {y/z: 1}\nb: {$anchor: here}\n"),
            ("/api/parts/b.json", "{\"c\": [1]}"),
            ("/conf/shared.yaml", "d: 1"),
            ("/etc/secret.yaml", "e: 1"),
        ]);
        let first = reader.open_first(Path::new("/api/./a.yaml")).expect("a file");
        let spot = |spot: Result<Spot, SchemaFault>| spot.map(|s| (s.file, s.pointer)).map_err(|f| f.text);
        assert_eq!(spot(reader.resolve(first, "#/x/y~1z")), Ok((0, "/x/y~1z".to_owned())));
        assert_eq!(spot(reader.resolve(first, "#here")), Ok((0, "/b".to_owned())));
        assert_eq!(spot(reader.resolve(first, "parts/b.json#/c/0")), Ok((1, "/c/0".to_owned())));
        assert_eq!(spot(reader.resolve(1, "../a.yaml#/x")), Ok((0, "/x".to_owned())));
        assert_eq!(spot(reader.resolve(first, "../conf/shared.yaml")), Ok((2, String::new())));
        for (reference, wanted) in [
            ("../etc/secret.yaml", "leads out of"),
            ("https://x.example/s.json", "another server"),
            ("#/nothing", "leads nowhere"),
            ("c.yaml", "no such file"),
        ] {
            let text = reader.resolve(first, reference).expect_err(reference).text;
            assert!(text.contains(wanted), "{text}");
        }
        let fault = reader.fault(&Spot { file: 0, pointer: "/b/$anchor".to_owned() }, "x");
        assert_eq!(fault.location.as_deref(), Some("/api/a.yaml:2:14"));
        assert_eq!(reader.paths().len(), 3);
    }
}
