//! Loads a [`Config`] from files, and notes all errors at once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use super::facts::{self, NamedResources, SCHEMA};
use super::include::Substitution;
use super::redact::Redactor;
use super::shown::{Shown, ShownLater};
use super::trail::Trail;
use super::tree::{self, BadYaml, Node, Size, Spot, Value};
use super::{Config, Flat, Inherited, admin, check, include, read, shown};
use crate::notation::{KeyWord, Mistake, Mistakes, Place, PlaceStep};
use crate::tls::read_text;

/// The most bytes of all files of a configuration.
const MAX_FILES_TEXT: u64 = 64 << 20;

/// A configuration that was read, with the places of its values.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The folder in which relative paths begin.
    pub base: PathBuf,
    /// The errors so far; the sections concerned are not in `config`.
    pub mistakes: Mistakes,
    left_out: LeftOut,
    /// The places of references that cannot be resolved here.
    unresolved: Vec<Place>,
    files: Vec<PathBuf>,
    /// The files of `${file:…}` references.
    substituted: Vec<String>,
    redactor: Redactor,
    tree: Node,
    named: NamedResources,
}

impl Loaded {
    /// Adds file, line and column to each error, and sorts them in the order of the text; only the first are kept.
    /// None of them repeats the value of a reference.
    #[must_use]
    pub fn locate(&self, mistakes: Mistakes) -> Mistakes {
        locate(mistakes, &self.tree, &self.files, &self.redactor)
    }

    /// Returns the text with each value of a reference replaced by the reference, `${env:NAME}`.
    pub fn redact(&self, text: &str) -> String {
        self.redactor.redact(text)
    }

    /// Returns the place of the route of that number.
    pub fn route_place(&self, index: usize) -> Place {
        self.left_out.place("routes", index)
    }

    /// Returns the place of the listener of that number.
    pub fn listener_place(&self, index: usize) -> Place {
        self.left_out.place("listeners", index)
    }

    /// Returns the place of the rule of layer 4 of that number.
    pub fn stream_place(&self, index: usize) -> Place {
        self.left_out.place("streams", index)
    }

    /// Returns whether something of that section was left out, so that it may be wrong to miss it.
    pub fn is_partial(&self, section: &str) -> bool {
        self.left_out.0.iter().any(|(s, _)| s == section)
    }

    /// Returns whether the entry of that name, or its whole section, was left out, so that it may be wrong to miss
    /// it.
    pub fn is_left_out(&self, section: &str, name: &str) -> bool {
        let named = |step: &PlaceStep| matches!(step, PlaceStep::Key(key) | PlaceStep::Name(key) if key == name);
        self.left_out.0.iter().any(|(s, entry)| s == section && entry.as_ref().is_none_or(named))
    }

    /// Returns whether these errors are all about references that cannot be resolved here, `${env:…}` and `${file:…}`:
    /// another process, with another environment, may resolve them.
    pub fn are_unresolved(&self, mistakes: &Mistakes) -> bool {
        !mistakes.is_cut() && mistakes.0.iter().all(|mistake| self.unresolved.contains(&mistake.place))
    }

    /// Returns every value by its path.
    pub fn flat(&self) -> Flat {
        let mut flat = Flat::of(&self.tree);
        flat.overlay(self.at_start());
        for (place, filters) in Inherited::new(self, &mut Mistakes::default()).lists() {
            flat.add_list(self.redact(&place), filters.iter().map(|one| self.redact(one)).collect());
        }
        self.named.files.iter().for_each(|path| flat.add_file(&self.base.join(path), &self.redactor));
        flat
    }

    /// Returns the settings that a process that starts with this configuration keeps.
    pub fn at_start(&self) -> Flat {
        Flat::at_start(&self.tree, &self.base)
    }

    /// Returns what operators see of the configuration, computed on first use: for a large one that takes a while.
    pub fn shown_later(self) -> ShownLater {
        Arc::new(LazyLock::new(Box::new(move || Shown { document: shown::packed(&self.tree), flat: self.flat() })))
    }

    /// Returns a digest of all values at a place, with the contents of the files that they name.
    pub fn identity(&self, place: &Place) -> [u8; 32] {
        facts::identity(&self.tree, place, &self.base)
    }

    /// Returns the query parameters whose values are credentials.
    pub fn secret_parameters(&self) -> &[String] {
        &self.named.secret_parameters
    }

    /// Returns the files and folders whose change may change the configuration.
    pub fn watched(&self) -> Vec<PathBuf> {
        let mut all = self.files.clone();
        let patterns = self.config.include.iter().filter(|p| p.contains('*'));
        all.extend(patterns.map(|p| include::folder(&self.base.join(p)).to_path_buf()));
        all.extend(
            self.named
                .files
                .iter()
                .map(PathBuf::as_path)
                .chain(self.substituted.iter().map(Path::new))
                .map(|path| self.base.join(path)),
        );
        all
    }

    /// Returns the files that were read, the main one first.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }
}

/// Reads a configuration from a file and all that it includes.
///
/// # Errors
/// Returns the error that prevents all further checks: no file, no YAML. All others are in [`Loaded::mistakes`], and
/// `compile` adds those in the rest.
pub fn load(path: &Path) -> Result<Loaded, Mistakes> {
    let base = path.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    let text = read_text(path, MAX_FILES_TEXT)
        .map_err(|why| one_error(&[path.to_path_buf()], Spot::default(), unreadable(&why)))?;
    load_tree(&text, path.to_path_buf(), base)
}

/// Reads a configuration from a text, as if it were a file of that name.
///
/// # Errors
/// As for [`load`].
pub fn load_text(text: &str, name: &str, base: &Path) -> Result<Loaded, Mistakes> {
    load_tree(text, PathBuf::from(name), base.to_path_buf())
}

fn unreadable(why: &str) -> String {
    format!("cannot be read: {why}")
}

fn load_tree(text: &str, name: PathBuf, base: PathBuf) -> Result<Loaded, Mistakes> {
    let schema = &*SCHEMA;
    let sections: Vec<&str> =
        schema["properties"].as_object().map(|p| p.keys().map(String::as_str).collect()).unwrap_or_default();
    let mut files = vec![name];
    let mut size = Size::default();
    let (mut tree, again) =
        tree::parse_within(text, 0, &sections, &mut size).map_err(|bad| one_error(&files, bad.spot, bad.text))?;
    include::list_sections(&mut tree);
    let left = MAX_FILES_TEXT.saturating_sub(text.len() as u64);
    let mut reading = ReadLimits { sections: &sections, left, size: &mut size, again };
    let mut mistakes = Mistakes::of(include_all(&mut tree, &base, &mut files, &mut reading));
    let again = reading.again;
    let include = Place::default().key("include");
    let lacks_files = mistakes.0.iter().any(|m| m.place.0.is_empty() || m.place.0.starts_with(&include.0));
    let before = mistakes.0.len();
    let mut notes =
        Substitution { mistakes: &mut mistakes, size: &mut size, files: Vec::new(), redactor: Redactor::default() };
    include::substitute(&mut tree, &base, &Trail::Root, &mut notes);
    let Substitution { files: substituted, redactor, .. } = notes;
    let unresolved = mistakes.0.iter().skip(before).map(|mistake| mistake.place.clone()).collect();
    admin::expand(&mut tree);
    let mut seen = Mistakes::default();
    check::check(&mut tree, schema, &mut seen);
    // If the text could not be assembled, what else it has is unknown.
    seen.0.retain(|m| mistakes.0.iter().all(|unknown| unknown.place.0.is_empty() || unknown.place != m.place));
    mistakes.append(seen);
    if mistakes.is_cut() {
        // The places of all of them are unknown, and so which parts of the configuration are right.
        return Err(locate(mistakes, &tree, &files, &redactor));
    }
    let (config, left_out) = if mistakes.is_empty() {
        (read::read(&tree), LeftOut::default())
    } else {
        let mut sound = tree.clone();
        let mut left_out = LeftOut::new(&mut sound, &mistakes);
        if lacks_files {
            left_out.0.extend(
                ["listeners", "upstreams", "consumers", "plans", "filter_sets", "caches", "defaults"]
                    .map(|section| (section.into(), None)),
            );
        }
        (read::read(&sound), left_out)
    };
    // They are no part of what is missing: the values of both are read.
    again.into_iter().for_each(|bad| {
        mistakes.0.push(Mistake { place: Place::default(), text: bad.text, location: location(bad.spot, &files) });
    });
    match config {
        Ok(config) => {
            let named = NamedResources::of(&tree);
            Ok(Loaded { config, base, mistakes, left_out, unresolved, files, substituted, redactor, tree, named })
        }
        // The check above accepts what serde accepts; should they ever differ, serde decides.
        Err(error) if mistakes.is_empty() => {
            Err(one_error(&files, Spot::default(), redactor.redact(&error.to_string())))
        }
        Err(_) => Err(locate(mistakes, &tree, &files, &redactor)),
    }
}

/// The sections of which an error leaves out one entry alone. The keys of `admin` and `process` are independent of each
/// other: an operator who cannot read the admin token still finds the address.
const PRUNED_BY_ENTRY: &[&str] =
    &["routes", "streams", "listeners", "upstreams", "consumers", "plans", "filter_sets", "caches", "admin", "process"];

/// The parts of a configuration that were left out because of errors: sections, and in them keys or numbers.
#[derive(Debug, Default)]
struct LeftOut(Vec<(KeyWord, Option<PlaceStep>)>);

impl LeftOut {
    /// Removes from the tree whatever has an error: a route, an upstream, or else a whole section.
    fn new(tree: &mut Node, mistakes: &Mistakes) -> Self {
        let mut all = Vec::new();
        for mistake in &mistakes.0 {
            let Some(PlaceStep::Key(section) | PlaceStep::Name(section)) = mistake.place.0.first() else { continue };
            let of_many = PRUNED_BY_ENTRY.contains(&&**section);
            let entry = (section.clone(), if of_many { mistake.place.0.get(1).map(PlaceStep::below) } else { None });
            if !all.contains(&entry) {
                all.push(entry);
            }
        }
        let left_out = Self(all);
        if let Value::Map(sections) = &mut tree.value {
            sections.retain(|(key, _)| !left_out.0.iter().any(|(s, e)| *s == key.text && e.is_none()));
            for (key, node) in sections {
                left_out.prune(&key.text, node);
            }
        }
        left_out
    }

    fn has(&self, section: &str, step: &PlaceStep) -> bool {
        self.0.iter().any(|(s, e)| s == section && e.as_ref() == Some(step))
    }

    fn prune(&self, section: &str, node: &mut Node) {
        match &mut node.value {
            Value::Map(members) => {
                members.retain(|(key, _)| !self.has(section, &PlaceStep::Key(key.text.clone().into())));
            }
            Value::List(items) => {
                let mut index = 0;
                items.retain(|_| {
                    index += 1;
                    !self.has(section, &PlaceStep::Index(index - 1))
                });
            }
            _ => {}
        }
    }

    /// Returns the place in the text of number `index` among those that were not left out.
    fn place(&self, section: &'static str, index: usize) -> Place {
        let of_section = self.0.iter().filter(|(s, _)| s == section);
        let mut gone: Vec<usize> = of_section
            .filter_map(|(_, entry)| if let Some(PlaceStep::Index(i)) = entry { Some(*i) } else { None })
            .collect();
        gone.sort_unstable();
        let number = gone.iter().fold(index, |number, gone| number + usize::from(*gone <= number));
        Place::default().key(section).index(number)
    }
}

/// Joins the included files into the tree, and returns the errors in them.
fn include_all(tree: &mut Node, base: &Path, files: &mut Vec<PathBuf>, reading: &mut ReadLimits<'_>) -> Vec<Mistake> {
    let place = Place::default().key("include");
    let patterns = match &tree.value {
        Value::Map(members) => members.iter().find(|(k, _)| k.text == "include").map(|(_, n)| n.value.clone()),
        _ => None,
    };
    let Some(Value::List(patterns)) = patterns else { return Vec::new() };
    let mut wrong: Vec<IncludeError> = Vec::new();
    for (index, pattern) in patterns.iter().enumerate() {
        let Value::Text(text) = &pattern.value else { continue };
        match include::expand(base, text) {
            Err(text) => wrong.push((place.index(index), pattern.spot, text)),
            Ok(found) => {
                for path in found {
                    include_one(tree, path, (place.index(index), pattern.spot), (files, reading), &mut wrong);
                }
            }
        }
    }
    wrong.into_iter().map(|(place, spot, text)| Mistake { place, text, location: location(spot, files) }).collect()
}

/// An error of an include: its place in the tree, its place in the file, and its text.
type IncludeError = (Place, Spot, String);

/// The limits of what may still be read.
struct ReadLimits<'r> {
    sections: &'r [&'r str],
    /// The remaining bytes of files.
    left: u64,
    size: &'r mut Size,
    /// The keys that are in a mapping for the second time.
    again: Vec<BadYaml>,
}

fn include_one(
    tree: &mut Node,
    path: PathBuf,
    (place, spot): (Place, Spot),
    (files, reading): (&mut Vec<PathBuf>, &mut ReadLimits<'_>),
    wrong: &mut Vec<IncludeError>,
) {
    if files.len() >= include::MAX_FILES || files.contains(&path) {
        return wrong.push((place, spot, format!("{} is included twice, or there are too many files", path.display())));
    }
    let number = files.len() as u32;
    files.push(path.clone());
    let text = match read_text(&path, reading.left) {
        Ok(text) => text,
        Err(why) => {
            let all = if why.contains("too large") {
                format!(" of the {MAX_FILES_TEXT} of all files together")
            } else {
                String::new()
            };
            return wrong.push((place, spot, format!("{}: {}{all}", path.display(), unreadable(&why))));
        }
    };
    reading.left = reading.left.saturating_sub(text.len() as u64);
    match tree::parse_within(&text, number, reading.sections, reading.size) {
        Err(bad) => wrong.push((Place::default(), bad.spot, bad.text)),
        Ok((mut other, again)) => {
            reading.again.extend(again);
            include::list_sections(&mut other);
            if let Value::Map(members) = &other.value
                && let Some((key, _)) = members.iter().find(|(k, _)| k.text == "include")
            {
                return wrong.push((
                    Place::default().key("include"),
                    key.spot,
                    "only the main file includes others".to_owned(),
                ));
            }
            include::join(tree, other, &Place::default(), wrong);
        }
    }
}

fn location(spot: Spot, files: &[PathBuf]) -> Option<String> {
    let file = files.get(spot.file as usize)?;
    Some(if spot.line == 0 {
        file.display().to_string()
    } else {
        format!("{}:{}:{}", file.display(), spot.line, spot.column)
    })
}

fn one_error(files: &[PathBuf], spot: Spot, text: String) -> Mistakes {
    Mistakes::of(vec![Mistake { place: Place::default(), text, location: location(spot, files) }])
}

fn locate(mut mistakes: Mistakes, tree: &Node, files: &[PathBuf], redactor: &Redactor) -> Mistakes {
    let mut spots: Vec<(Spot, Mistake)> = Vec::new();
    for mut mistake in std::mem::take(&mut mistakes.0) {
        let spot = tree.spot_of(&mistake.place);
        if mistake.location.is_none() {
            mistake.location = location(spot, files);
        }
        spots.push((spot, mistake));
    }
    spots.sort_by_key(|(spot, _)| (spot.file, spot.line, spot.column));
    spots.dedup_by(|a, b| a.1 == b.1);
    mistakes.0 = spots.into_iter().map(|(_, mistake)| mistake).collect();
    let mut mistakes = mistakes.cut();
    for mistake in &mut mistakes.0 {
        mistake.text = redactor.redact_at(tree, &mistake.place, &mistake.text);
    }
    mistakes
}
