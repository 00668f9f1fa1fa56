//! Compiled schemas.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use jsonschema::paths::Location;
use jsonschema::{
    Draft, Keyword, PatternCache, PatternOptions, Registry, ValidationError, ValidationOptions, Validator,
};
use serde_json::Value;

use super::document::{DocumentReader, SchemaFault, Spot};
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
}

thread_local! {
    /// The set of the schema that validates at present. A schema cannot own those that it refers to: they may refer to
    /// it.
    static PRESENT: RefCell<Option<Arc<SchemaSet>>> = const { RefCell::new(None) };
}

/// Restores the set that was present before.
struct Restore(Option<Arc<SchemaSet>>);

impl Drop for Restore {
    fn drop(&mut self) {
        let before = self.0.take();
        PRESENT.with_borrow_mut(|present| *present = before);
    }
}

/// A schema that values are validated against.
#[derive(Clone)]
pub struct CompiledSchema {
    all: Arc<SchemaSet>,
    number: usize,
}

impl fmt::Debug for CompiledSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompiledSchema({})", self.number)
    }
}

impl SchemaSet {
    /// Returns the schema of a number.
    pub fn schema(self: &Arc<Self>, number: usize) -> Option<CompiledSchema> {
        (number < self.validators.len()).then(|| CompiledSchema { all: Arc::clone(self), number })
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
        self.set.validators.push(validator);
        Ok(self.set.validators.len() - 1)
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
        let set = Arc::new(SchemaSet { validators: vec![validator] });
        Ok((Self { all: set, number: 0 }, reader.paths()))
    }

    /// Returns what a function makes of the validator, while the schemas of its set can be referred to.
    fn with<R>(&self, run: impl FnOnce(&Validator) -> R) -> R {
        let before = PRESENT.with_borrow_mut(|present| present.replace(Arc::clone(&self.all)));
        let _restore = Restore(before);
        run(&self.all.validators[self.number])
    }

    /// Returns whether a value is valid.
    pub fn is_valid(&self, value: &Value) -> bool {
        self.with(|validator| validator.is_valid(value))
    }

    /// Adds the violations of a value; `prefix` is the pointer to it.
    pub fn collect(&self, value: &Value, place: ViolationPlace, prefix: &str, all: &mut Vec<Violation>) {
        self.with(|validator| self.all.collect(validator, value, place, prefix, all));
    }
}

impl SchemaSet {
    fn collect(
        &self,
        validator: &Validator,
        value: &Value,
        place: ViolationPlace,
        prefix: &str,
        all: &mut Vec<Violation>,
    ) {
        for error in validator.iter_errors(value) {
            if all.len() >= MAX_VIOLATIONS {
                return;
            }
            let below = || value.pointer(error.instance_path().as_str());
            match shared_number(&error).and_then(|number| self.validators.get(number)).zip(below()) {
                // The violations are those of the schema that is referred to.
                Some((validator, below)) => {
                    let prefix = format!("{prefix}{}", error.instance_path().as_str());
                    self.collect(validator, below, place, &prefix, all);
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

/// The keyword [`SHARED`].
struct Shared(usize);

impl<'i> Keyword<'i> for Shared {
    fn validate(&self, value: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(value) { Ok(()) } else { Err(ValidationError::custom(self.0.to_string())) }
    }

    fn is_valid(&self, value: &'i Value) -> bool {
        PRESENT.with_borrow(|present| {
            let validator = present.as_ref().and_then(|set| set.validators.get(self.0));
            validator.is_some_and(|validator| validator.is_valid(value))
        })
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
mod tests {
    use std::path::Path;

    use super::super::document::FileReader;
    use super::*;

    fn compiled(schema: &str) -> Result<CompiledSchema, SchemaFault> {
        let schema = schema.to_owned();
        let read: FileReader = Arc::new(move |path| match path.to_str() {
            Some("/s/a.yaml") => Ok(schema.clone()),
            Some("/s/sub/b.json") => Ok(r#"{"$defs": {"c": {"type": "string", "maxLength": 3}}}"#.to_owned()),
            _ => Err("there is no such file".to_owned()),
        });
        let mut reader = DocumentReader::new(read, Vec::new());
        let file = reader.open_first(Path::new("/s/a.yaml"))?;
        CompiledSchema::standalone(reader, file).map(|(schema, _)| schema)
    }

    fn violations(schema: &str, value: &str) -> Vec<String> {
        let schema = compiled(schema).expect("a schema");
        let value = serde_json::from_str(value).expect("JSON");
        let mut all = Vec::new();
        schema.collect(&value, ViolationPlace::Body, "", &mut all);
        assert_eq!(all.is_empty(), schema.is_valid(&value));
        all.iter().map(|one| format!("{} [{}]", one, one.keyword)).collect()
    }

    #[test]
    fn violations_name_the_place_and_repeat_no_value() {
        let schema = "
type: object
required: [name]
additionalProperties: false
properties:
  name: {type: string, minLength: 2, pattern: '^[a-z]+$'}
  mail: {type: string, format: email}
  tags: {type: array, items: {enum: [a, b]}, maxItems: 2}
  a/b: {$ref: 'sub/b.json#/$defs/c'}
";
        assert!(violations(schema, r#"{"name": "ada", "mail": "a@b.example", "a/b": "xyz"}"#).is_empty());
        let all = violations(
            schema,
            r#"{"name": "S3", "mail": "S3CRET", "tags": ["a", "S3", "b"], "a/b": "S3CRET", "more": 1}"#,
        );
        assert!(all.iter().all(|one| !one.contains("S3")), "{all:?}");
        for wanted in [
            "body/name: does not match the pattern ^[a-z]+$ [pattern]",
            "body/mail: does not have the format email [format]",
            "body/tags/1: expected one of \"a\", \"b\" [enum]",
            "body/tags: expected at most 2 items [maxItems]",
            "body/a~1b: expected at most 3 characters [maxLength]",
            "body/more: is not declared [additionalProperties]",
        ] {
            assert!(all.iter().any(|one| one == wanted), "{wanted} in {all:#?}");
        }
        assert_eq!(violations(schema, "{}"), ["body: the member name is missing [required]"]);
        assert_eq!(violations(schema, "[]"), ["body: expected a value of the type object [type]"]);
    }

    #[test]
    fn the_list_is_bounded() {
        let list = format!("[{}]", vec!["1"; 100].join(","));
        assert_eq!(violations("items: {type: string}", &list).len(), MAX_VIOLATIONS);
        let names: Vec<String> = (0..100).map(|n| format!("\"a{n}\": 1")).collect();
        let object = format!("{{{}}}", names.join(","));
        let all = violations("{properties: {x: {}}, additionalProperties: false}", &object);
        assert_eq!(all.len(), MAX_VIOLATIONS, "{all:?}");
    }

    #[test]
    fn errors_of_a_schema_have_their_line() {
        let fault = |schema: &str| {
            let fault = compiled(schema).expect_err(schema);
            (fault.location.unwrap_or_default(), fault.text)
        };
        let (location, text) = fault("type: object\nproperties:\n  a:\n    type: strin\n");
        assert!(location == "/s/a.yaml:4:11", "{location} {text}");
        let (location, text) = fault("properties:\n  a: {pattern: '(?=x)'}\n");
        assert!(location.starts_with("/s/a.yaml:2:"), "{location} {text}");
        let (_, text) = fault("properties:\n  a: {$ref: 'https://x.example/s.json'}\n");
        assert!(text.contains("only files are read"), "{text}");
        let (_, text) = fault("$ref: ../../etc/passwd\n");
        assert!(text.contains("leads out of"), "{text}");
        let (location, _) = fault("type: [\n");
        assert!(location.starts_with("/s/a.yaml:"), "{location}");
    }
}
