//! A mistake in a configuration, and where it is.

use std::borrow::Cow;
use std::fmt;

/// One step on the way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A key of a mapping.
    Key(Word),
    /// A place in a list.
    Index(usize),
    /// A key itself, rather than what stands behind it.
    Name(Word),
}

/// A key, which the gateway mostly knows itself.
pub type Word = Cow<'static, str>;

impl Step {
    /// The step to what stands behind a key.
    pub fn below(&self) -> Self {
        match self {
            Self::Name(key) => Self::Key(key.clone()),
            other => other.clone(),
        }
    }
}

/// The way to a value from the root: `routes[3].match.path`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place(pub Vec<Step>);

impl Place {
    /// The place of `key` in the mapping at this place.
    #[must_use]
    pub fn key(&self, key: impl Into<Word>) -> Self {
        self.step(Step::Key(key.into()))
    }

    /// The place of the word `key` itself in the mapping at this place.
    #[must_use]
    pub fn name(&self, key: impl Into<Word>) -> Self {
        self.step(Step::Name(key.into()))
    }

    /// The place of an element of the list at this place.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
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
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Key(key) | Step::Name(key) if count == 0 => write!(f, "{key}")?,
                Step::Key(key) | Step::Name(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

/// One mistake. `location` is filled in by whoever knows the files.
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
    /// The file of its location.
    pub fn file(&self) -> Option<String> {
        let location = self.location.as_deref()?;
        let mut rest = location;
        for _ in 0..2 {
            match rest.rsplit_once(':') {
                Some((before, number)) if number.bytes().all(|b| b.is_ascii_digit()) => rest = before,
                _ => return Some(location.to_owned()),
            }
        }
        Some(rest.to_owned())
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

/// All mistakes that were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// Adds one.
    pub fn add(&mut self, place: &Place, text: impl Into<String>) {
        self.0.push(Mistake { place: place.clone(), text: text.into(), location: None });
    }

    /// Takes the value of a result, or notes its error at `place`.
    pub fn take<T>(&mut self, place: &Place, result: Result<T, String>) -> Option<T> {
        result.map_err(|text| self.add(place, text)).ok()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for mistake in &self.0 {
            writeln!(f, "{mistake}")?;
        }
        let count = self.0.len();
        write!(f, "{count} mistake{}", if count == 1 { "" } else { "s" })
    }
}

/// `; did you mean "x"?` for the known word that is nearest to `word`, or nothing.
pub fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    let best = known.into_iter().map(|k| (strsim::damerau_levenshtein(word, k), k)).min();
    match best {
        Some((distance, known)) if distance <= 1 + known.len() / 3 => format!("; did you mean \"{known}\"?"),
        _ => String::new(),
    }
}
