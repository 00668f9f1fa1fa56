//! Errors in a configuration, with their places.

use std::borrow::Cow;
use std::fmt;

/// One step on the path to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlaceStep {
    /// A key of a mapping.
    Key(KeyWord),
    /// A place in a list.
    Index(usize),
    /// A key itself, rather than what stands behind it.
    Name(KeyWord),
}

/// A key, which is mostly a static string.
pub type KeyWord = Cow<'static, str>;

impl PlaceStep {
    /// Returns the step to the value of a key.
    pub fn below(&self) -> Self {
        match self {
            Self::Name(key) => Self::Key(key.clone()),
            other => other.clone(),
        }
    }
}

/// The path to a value from the root: `routes[3].match.path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub Vec<PlaceStep>);

impl Place {
    /// Returns the place of the value of `key` in the mapping at this place.
    #[must_use]
    pub fn key(&self, key: impl Into<KeyWord>) -> Self {
        self.step(PlaceStep::Key(key.into()))
    }

    /// Returns the place of the word `key` itself in the mapping at this place.
    #[must_use]
    pub fn name(&self, key: impl Into<KeyWord>) -> Self {
        self.step(PlaceStep::Name(key.into()))
    }

    /// Returns the place of an element of the list at this place.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(PlaceStep::Index(index))
    }

    fn step(&self, step: PlaceStep) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, step) in self.0.iter().enumerate() {
            match step {
                PlaceStep::Index(index) => write!(f, "[{index}]")?,
                PlaceStep::Key(key) | PlaceStep::Name(key) if count == 0 => write!(f, "{key}")?,
                PlaceStep::Key(key) | PlaceStep::Name(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// One error. `location` is filled in by the code that knows the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where in the configuration.
    pub place: Place,
    /// What is wrong, what was expected, and the nearest known word if there is one.
    pub text: String,
    /// `file:line:column`.
    pub location: Option<String>,
}

impl Mistake {
    /// Returns the file of the location.
    pub fn file(&self) -> Option<String> {
        self.file_and_spot().map(|(file, _)| file.to_owned())
    }

    /// Returns the file of the location, and line and column in it, if they are known.
    pub fn file_and_spot(&self) -> Option<(&str, Option<(u32, u32)>)> {
        let location = self.location.as_deref()?;
        let mut parts = location.rsplitn(3, ':');
        let (column, line) = (parts.next()?.parse().ok(), parts.next().and_then(|line| line.parse().ok()));
        Some(match (parts.next(), line.zip(column)) {
            (Some(file), Some(spot)) => (file, Some(spot)),
            _ => (location, None),
        })
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        if !self.place.0.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}", self.text)
    }
}

/// The most errors that are shown; further ones are counted.
pub const MAX_SHOWN: usize = 100;

/// The most errors that are kept to choose from them those that come first in the text. A generated configuration may
/// have one in each of 100,000 routes.
const MAX_KEPT_ERRORS: usize = 1_000;

/// The errors in a configuration: the first ones, and how many more there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>, usize);

impl Mistakes {
    /// Returns a list of these errors.
    pub fn of(all: Vec<Mistake>) -> Self {
        Self(all, 0)
    }

    /// Adds an error.
    pub fn add(&mut self, place: &Place, text: impl Into<String>) {
        self.push(Mistake { place: place.clone(), text: text.into(), location: None });
    }

    fn push(&mut self, mistake: Mistake) {
        if self.0.len() < MAX_KEPT_ERRORS {
            self.0.push(mistake);
        } else {
            self.1 += 1;
        }
    }

    /// Adds the errors of another list.
    pub fn append(&mut self, other: Self) {
        self.1 += other.1;
        other.0.into_iter().for_each(|mistake| self.push(mistake));
    }

    /// Returns the number of errors, with those that were only counted.
    pub fn count(&self) -> usize {
        self.0.len() + self.1
    }

    /// Returns whether some were only counted, so that the places of all are not known.
    pub fn is_cut(&self) -> bool {
        self.1 > 0
    }

    /// Keeps the errors that are shown, and counts the others.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.1 += self.0.len().saturating_sub(MAX_SHOWN);
        self.0.truncate(MAX_SHOWN);
        self
    }

    /// Returns each error as a line, and a last line with the number of further ones.
    pub fn lines(&self) -> Vec<String> {
        let more = (self.1 > 0).then(|| format!("and {} more, which are not shown", self.1));
        self.0.iter().map(ToString::to_string).chain(more).collect()
    }

    /// Takes the value of a result, or notes its error at `place`.
    pub fn take<T>(&mut self, place: &Place, result: Result<T, String>) -> Option<T> {
        result.map_err(|text| self.add(place, text)).ok()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            writeln!(f, "{line}")?;
        }
        let count = self.count();
        write!(f, "{count} error{}", if count == 1 { "" } else { "s" })
    }
}
