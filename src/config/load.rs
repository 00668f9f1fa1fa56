//! From files to a [`Config`], with every mistake at once.

use std::path::{Path, PathBuf};

use super::tree::{self, Node, Spot, Value};
use super::{Config, check, include};
use crate::notation::{Mistake, Mistakes, Place};

/// A configuration that was read, and where everything in it stands.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The folder that relative paths in it start from.
    pub base: PathBuf,
    files: Vec<PathBuf>,
    tree: Node,
}

impl Loaded {
    /// Gives each mistake its file, line and column, and puts them in the order of the text.
    #[must_use]
    pub fn locate(&self, mistakes: Mistakes) -> Mistakes {
        locate(mistakes, &self.tree, &self.files)
    }

    /// The files that were read, the first one first.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Reads a configuration from a file and all that it includes.
///
/// # Errors
/// Every mistake of syntax, shape and substitution, each with its place.
pub fn load(path: &Path) -> Result<Loaded, Mistakes> {
    let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let text = read(path).map_err(|text| {
        let mut mistakes = Mistakes::default();
        mistakes.add(&Place::default(), text);
        mistakes
    })?;
    load_tree(&text, path.to_path_buf(), base)
}

/// Reads a configuration from a text that stands for a file of that name.
///
/// # Errors
/// As for [`load`].
pub fn load_text(text: &str, name: &str, base: &Path) -> Result<Loaded, Mistakes> {
    load_tree(text, PathBuf::from(name), base.to_path_buf())
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: cannot be read: {e}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| format!("{}: is no UTF-8 text", path.display()))
}

fn load_tree(text: &str, name: PathBuf, base: PathBuf) -> Result<Loaded, Mistakes> {
    let mut files = vec![name];
    let mut tree = tree::parse(text, 0).map_err(|bad| single(&files, bad.spot, bad.text))?;
    include_all(&mut tree, &base, &mut files)?;
    let mut mistakes = Mistakes::default();
    include::substitute(&mut tree, &base, &Place::default(), &mut mistakes);
    check::check(&tree, &super::schema(), &mut mistakes);
    if !mistakes.is_empty() {
        return Err(locate(mistakes, &tree, &files));
    }
    // An enum is written as a mapping of one key, not as a YAML tag.
    match serde_yaml::with::singleton_map_recursive::deserialize::<Config, _>(tree.to_yaml()) {
        Ok(config) => Ok(Loaded { config, base, files, tree }),
        // The check above takes what serde takes; should they ever differ, serde has the last word.
        Err(error) => Err(single(&files, Spot::default(), error.to_string())),
    }
}

fn include_all(tree: &mut Node, base: &Path, files: &mut Vec<PathBuf>) -> Result<(), Mistakes> {
    let place = Place::default().key("include");
    let patterns = match &tree.value {
        Value::Map(members) => members.iter().find(|(k, _)| k.text == "include").map(|(_, n)| n.value.clone()),
        _ => None,
    };
    let Some(Value::List(patterns)) = patterns else { return Ok(()) };
    let mut wrong: Vec<(Place, Spot, String)> = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let Value::Text(text) = &pattern.value else { continue };
        match include::expand(base, text) {
            Err(text) => wrong.push((place.index(index), pattern.spot, text)),
            Ok(found) => {
                for path in found {
                    include_one(tree, path, pattern.spot, files, &mut wrong);
                }
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let located = |(place, spot, text)| Mistake { place, text, location: location(spot, files) };
    Err(Mistakes(wrong.into_iter().map(located).collect()))
}

fn include_one(tree: &mut Node, path: PathBuf, from: Spot, files: &mut Vec<PathBuf>, wrong: &mut Vec<(Place, Spot, String)>) {
    if files.len() >= include::MAX_FILES || files.contains(&path) {
        return wrong.push((Place::default(), from, format!("{} is included twice, or there are too many files", path.display())));
    }
    let number = files.len() as u32;
    files.push(path.clone());
    let parsed = read(&path).map_err(|text| (from, text)).and_then(|text| tree::parse(&text, number).map_err(|b| (b.spot, b.text)));
    match parsed {
        Err((spot, text)) => wrong.push((Place::default(), spot, text)),
        Ok(other) => {
            if let Value::Map(members) = &other.value {
                if let Some((key, _)) = members.iter().find(|(k, _)| k.text == "include") {
                    return wrong.push((Place::default().key("include"), key.spot, "only the main file includes others".to_owned()));
                }
            }
            include::join(tree, other, &Place::default(), wrong);
        }
    }
}

fn location(spot: Spot, files: &[PathBuf]) -> Option<String> {
    let file = files.get(spot.file as usize)?;
    Some(if spot.line == 0 { file.display().to_string() } else { format!("{}:{}:{}", file.display(), spot.line, spot.column) })
}

fn single(files: &[PathBuf], spot: Spot, text: String) -> Mistakes {
    Mistakes(vec![Mistake { place: Place::default(), text, location: location(spot, files) }])
}

fn locate(mut mistakes: Mistakes, tree: &Node, files: &[PathBuf]) -> Mistakes {
    let mut spots: Vec<(Spot, Mistake)> = Vec::new();
    for mut mistake in mistakes.0.drain(..) {
        let spot = tree.spot_of(&mistake.place);
        mistake.location = location(spot, files);
        spots.push((spot, mistake));
    }
    spots.sort_by_key(|(spot, _)| (spot.file, spot.line, spot.column));
    spots.dedup_by(|a, b| a.1 == b.1);
    Mistakes(spots.into_iter().map(|(_, mistake)| mistake).collect())
}
