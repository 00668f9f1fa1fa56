//! Compiled schemas.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use ahash::AHashMap;
use jsonschema::paths::Location;
use jsonschema::{
    Draft, Keyword, PatternCache, PatternOptions, Registry, ValidationError, ValidationOptions, Validator,
};
use serde_json::Value;

use super::diagnosis::{UNMATCHED, has_alternatives, is_cheap, with_silent_alternatives};
use super::document::{DocumentReader, SchemaFault, Spot};
use super::openapi::{Content, Direction, load_schema};
use super::violation::{MAX_VIOLATIONS, Violation, ViolationPlace, add};

/// The keyword of a member that must not be sent in this direction; its value is `readOnly` or `writeOnly`.
pub const FORBIDDEN: &str = "x-portcullis-forbidden";

/// The keyword that stands for `$ref` between the schemas of one set; its value is the number of the schema. The
/// compiler would compile what a `$ref` leads to again for each schema that has it.
pub const SHARED: &str = "x-portcullis-shared";

/// The most bytes of one compiled expression.
const MAX_EXPRESSION: usize = 1 << 20;

/// Schemas that are compiled together, and may refer to each other.
#[derive(Debug, Default)]
pub struct SchemaSet {
    validators: Vec<Validator>,
    /// For schemas with alternatives, the validator that lists violations: it does not list those of each alternative.
    listing: AHashMap<usize, Validator>,
}

thread_local! {
    /// The validation that runs at present. A schema cannot own those that it refers to: they may refer to it.
    static PRESENT: RefCell<Option<Rc<Present>>> = const { RefCell::new(None) };
}

/// A validation that runs.
struct Present {
    set: Arc<SchemaSet>,
    memo: Memo,
}

/// What is known of the objects and lists of one value, by the number of a schema and by their address. Without it the
/// time of recursive alternatives would double, or worse, with each level.
#[derive(Default)]
struct Memo {
    visits: Cell<u32>,
    known: RefCell<AHashMap<(usize, usize), bool>>,
    /// Those that are being validated, from the outside to the inside.
    running: RefCell<Vec<(usize, usize)>>,
}

/// The visits after which outcomes are remembered: for fewer that costs more than it saves.
const MEMO_FROM: u32 = 32;

/// Restores the validation that was present before.
struct Restore(Option<Rc<Present>>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        PRESENT.with_borrow_mut(|present| *present = before);
    }
}

impl Memo {
    /// Returns whether a value is valid by the schema of a number.
    fn is_valid(&self, set: &SchemaSet, number: usize, value: &Value) -> bool {
        let Some(validator) = set.validators.get(number) else { return false };
        if !value.is_object() && !value.is_array() {
            // It has nothing below it, and may be a temporary value, whose address says nothing.
            return validator.is_valid(value);
        }
        let key = (number, std::ptr::from_ref(value).addr());
        // A schema that leads back to itself at the same value says no more than it has said.
        let same = |entry: &&(usize, usize)| entry.1 == key.1;
        if self.running.borrow().iter().rev().take_while(same).any(|entry| *entry == key) {
            return true;
        }
        let visits = self.visits.get().saturating_add(1);
        self.visits.set(visits);
        if visits > MEMO_FROM
            && let Some(known) = self.known.borrow().get(&key)
        {
            return *known;
        }
        self.running.borrow_mut().push(key);
        let is_valid = validator.is_valid(value);
        self.running.borrow_mut().pop();
        if visits > MEMO_FROM {
            self.known.borrow_mut().insert(key, is_valid);
        }
        is_valid
    }
}

/// A schema that values are validated against.
#[derive(Clone)]
pub struct CompiledSchema {
    all: Arc<SchemaSet>,
    number: usize,
    /// Where its violations are listed by another schema that accepts the same, that one.
    listing: Listing,
}

/// The schema by which violations are listed.
#[derive(Clone)]
enum Listing {
    /// The schema itself.
    Itself,
    /// Another, by its number.
    Other(Arc<SchemaSet>, usize),
    /// None: a violation says no more than that there is one.
    Nothing,
}

impl fmt::Debug for CompiledSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompiledSchema({})", self.number)
    }
}

impl SchemaSet {
    /// Returns the schema of a number.
    pub fn schema(self: &Arc<Self>, number: usize) -> Option<CompiledSchema> {
        (number < self.validators.len()).then(|| CompiledSchema {
            all: Arc::clone(self),
            number,
            listing: Listing::Itself,
        })
    }
}

/// Compiles the schemas of a set.
#[derive(Debug, Default)]
pub struct SetCompiler {
    set: SchemaSet,
    patterns: PatternCache,
}

impl SetCompiler {
    /// Compiles the next schema, and returns its number.
    ///
    /// # Errors
    /// Returns the JSON Pointer to what is wrong, and a message.
    pub fn add(&mut self, schema: &Value) -> Result<usize, (String, String)> {
        let compiled = options().with_pattern_cache(self.patterns.clone()).build(schema);
        let validator = compiled.map_err(|error| (error.instance_path().as_str().to_owned(), describe(&error)))?;
        let number = self.set.validators.len();
        self.set.validators.push(validator);
        if let Some(silent) = with_silent_alternatives(schema) {
            let compiled = options().with_pattern_cache(self.patterns.clone()).build(&silent);
            self.set.listing.extend(compiled.ok().map(|validator| (number, validator)));
        }
        Ok(number)
    }

    /// Returns the set.
    pub fn finish(self) -> Arc<SchemaSet> {
        Arc::new(self.set)
    }
}

impl CompiledSchema {
    /// Compiles a schema of its own: a file, or a value that stands in the configuration. Returns it with the files
    /// that were read.
    ///
    /// # Errors
    /// Returns what is wrong, and where.
    pub fn standalone(mut reader: DocumentReader, file: usize) -> Result<(Self, Vec<PathBuf>), SchemaFault> {
        reader.open_all(file)?;
        let has_alternatives = reader.files().iter().any(|file| has_alternatives(&file.value));
        let listing = match has_alternatives.then(|| load_schema(reader.clone(), file, Direction::Neither)) {
            None => Listing::Itself,
            Some(Ok((Content { schema: Some(Self { all, number, .. }), .. }, _))) => Listing::Other(all, number),
            Some(_) => Listing::Nothing,
        };
        let source = reader.file(file);
        let fault = |error: &ValidationError<'_>| {
            let spot = Spot { file, pointer: error.instance_path().as_str().to_owned() };
            reader.fault(&spot, describe(error))
        };
        let others = reader.files().iter().enumerate().filter(|(number, _)| *number != file);
        let mut registry = Registry::new();
        for (_, other) in others {
            registry = registry.add(uri_of(&other.path), other.value.clone()).map_err(|e| fault(&e.into()))?;
        }
        let registry = registry.prepare().map_err(|error| fault(&error.into()))?;
        let compiled = options().with_base_uri(uri_of(&source.path)).with_registry(&registry).build(&source.value);
        let validator = compiled.map_err(|error| fault(&error))?;
        let set = Arc::new(SchemaSet { validators: vec![validator], listing: AHashMap::new() });
        Ok((Self { all: set, number: 0, listing }, reader.paths()))
    }

    /// Returns what a function makes of the validator, while the schemas of its set can be referred to.
    fn with<R>(set: &Arc<SchemaSet>, number: usize, run: impl FnOnce(&Validator) -> R) -> R {
        let here = Rc::new(Present { set: Arc::clone(set), memo: Memo::default() });
        let before = PRESENT.with_borrow_mut(|present| present.replace(here));
        let _restore = Restore(before);
        run(&set.validators[number])
    }

    /// Returns whether a value is valid.
    pub fn is_valid(&self, value: &Value) -> bool {
        Self::with(&self.all, self.number, |validator| validator.is_valid(value))
    }

    /// Adds the violations of a value; `prefix` is the pointer to it.
    pub fn collect(&self, value: &Value, place: ViolationPlace, prefix: &str, all: &mut Vec<Violation>) {
        let before = all.len();
        match &self.listing {
            Listing::Itself => {
                Self::with(&self.all, self.number, |_| self.all.collect(self.number, value, place, prefix, all));
            }
            Listing::Other(set, number) => {
                Self::with(set, *number, |_| set.collect(*number, value, place, prefix, all));
            }
            Listing::Nothing => {}
        }
        if all.len() == before && before < MAX_VIOLATIONS && !self.is_valid(value) {
            all.push(Violation::new(place, prefix, "schema", "is not as the schema requires"));
        }
    }
}

impl SchemaSet {
    fn collect(&self, number: usize, value: &Value, place: ViolationPlace, prefix: &str, all: &mut Vec<Violation>) {
        let Some(validator) = self.listing.get(&number).or_else(|| self.validators.get(number)) else { return };
        // All errors are made before the first can be read: of a large value there is only the first.
        let errors: Vec<ValidationError<'_>> = if is_cheap(value) {
            validator.iter_errors(value).take(MAX_VIOLATIONS).collect()
        } else {
            validator.validate(value).err().into_iter().collect()
        };
        for error in errors {
            if all.len() >= MAX_VIOLATIONS {
                return;
            }
            let below = || value.pointer(error.instance_path().as_str());
            match shared_number(&error).zip(below()) {
                // The violations are those of the schema that is referred to.
                Some((number, below)) => {
                    let prefix = format!("{prefix}{}", error.instance_path().as_str());
                    self.collect(number, below, place, &prefix, all);
                }
                None => add(&error, place, prefix, all),
            }
        }
    }
}

/// Returns the number of the schema that an error of the keyword [`SHARED`] is about.
fn shared_number(error: &ValidationError<'_>) -> Option<usize> {
    match error.kind() {
        jsonschema::error::ValidationErrorKind::Custom { message, .. } => message.parse().ok(),
        _ => None,
    }
}

/// Returns the message of an error in a schema, without a long value in it.
pub fn describe(error: &ValidationError<'_>) -> String {
    use jsonschema::error::ValidationErrorKind as Kind;
    let text = match error.kind() {
        Kind::Referencing(_) => error.to_string(),
        Kind::AnyOf { .. } if error.instance_path().as_str().ends_with("/type") => {
            "expected one of null, boolean, object, array, number, string and integer, or a list of them".to_owned()
        }
        Kind::Format { format } if format == "regex" => {
            "expected an expression that can be matched in linear time: no look-around, no back-reference".to_owned()
        }
        _ => error.masked().to_string(),
    };
    let cut = (0..=300.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    text[..cut].to_owned()
}

/// Returns the options by which all schemas are compiled: nothing is fetched, formats are checked, and expressions are
/// matched in linear time.
pub fn options<'o>() -> ValidationOptions<'o> {
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .offline()
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_EXPRESSION))
        .should_validate_formats(true)
        .with_keyword(FORBIDDEN, |_, value, _: Location| {
            let message = if value == "writeOnly" { "is write-only" } else { "is read-only" };
            Ok(Box::new(Forbidden(message)))
        })
        .with_keyword(UNMATCHED, |_, value, _: Location| {
            Ok(Box::new(Unmatched(value.as_str().unwrap_or_default().to_owned())))
        })
        .with_keyword(SHARED, |_, value, _: Location| {
            let number = value.as_u64().and_then(|number| usize::try_from(number).ok()).unwrap_or(usize::MAX);
            Ok(Box::new(Shared(number)))
        })
}

/// The keyword [`FORBIDDEN`], which no value satisfies.
struct Forbidden(&'static str);

impl<'i> Keyword<'i> for Forbidden {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        Err(ValidationError::custom(self.0))
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        false
    }
}

/// The keyword [`UNMATCHED`], which no value satisfies.
struct Unmatched(String);

impl<'i> Keyword<'i> for Unmatched {
    fn validate(&self, _: &'i Value) -> Result<(), ValidationError<'i>> {
        Err(ValidationError::custom(self.0.clone()))
    }

    fn is_valid(&self, _: &'i Value) -> bool {
        false
    }
}

/// The keyword [`SHARED`].
struct Shared(usize);

impl<'i> Keyword<'i> for Shared {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(value) { Ok(()) } else { Err(ValidationError::custom(self.0.to_string())) }
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        let present = PRESENT.with_borrow(Clone::clone);
        present.is_some_and(|present| present.memo.is_valid(&present.set, self.0, value))
    }
}

/// Returns the URI of a file.
fn uri_of(path: &std::path::Path) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    format!("file://{}", percent_encoding::utf8_percent_encode(&absolute.to_string_lossy(), KEPT))
}

#[cfg(test)]
#[path = "compiled_tests.rs"]
mod tests;
