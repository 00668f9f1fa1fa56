//! Violations of a schema, in words that repeat no value.

use std::borrow::Cow;
use std::fmt;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value;

use super::diagnosis::UNMATCHED_WORDS;

/// The most violations of one message that are listed.
pub const MAX_VIOLATIONS: usize = 20;

/// The longest pointer that is shown, in bytes: its names may be the client's.
const MAX_POINTER: usize = 256;

/// The longest list of allowed values that is shown, in bytes.
const MAX_LISTED: usize = 200;

/// The part of a message that a value is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViolationPlace {
    /// The body.
    Body,
    /// The query.
    Query,
    /// The path.
    Path,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
}

impl ViolationPlace {
    /// Returns its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Query => "query",
            Self::Path => "path",
            Self::Header => "header",
            Self::Cookie => "cookie",
        }
    }
}

/// One violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The part of the message.
    pub place: ViolationPlace,
    /// The place in that part, a JSON Pointer (RFC 6901).
    pub pointer: String,
    /// The keyword of the schema that is violated.
    pub keyword: Cow<'static, str>,
    /// What is expected; no part of the value.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}: {}", self.place.word(), self.pointer, self.message)
    }
}

impl Violation {
    /// Returns a violation.
    pub fn new(
        place: ViolationPlace,
        pointer: impl Into<String>,
        keyword: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { place, pointer: short(pointer.into()), keyword: Cow::Borrowed(keyword), message: message.into() }
    }

    /// Returns the violation as it is shown to clients.
    pub fn to_json(&self) -> Value {
        serde_json::json!({
            "in": self.place.word(),
            "pointer": self.pointer,
            "keyword": self.keyword,
            "message": self.message,
        })
    }
}

/// Returns a name as one step of a JSON Pointer.
pub fn pointer_step(name: &str) -> String {
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn short(mut pointer: String) -> String {
    if pointer.len() > MAX_POINTER {
        let cut = (0..=MAX_POINTER).rev().find(|at| pointer.is_char_boundary(*at)).unwrap_or_default();
        pointer.truncate(cut);
        pointer.push('…');
    }
    pointer
}

/// Adds the violations of one error.
pub fn add(error: &ValidationError<'_>, place: ViolationPlace, prefix: &str, all: &mut Vec<Violation>) {
    let pointer = format!("{prefix}{}", error.instance_path().as_str());
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            // Each has a place of its own.
            let keyword = error.kind().keyword().to_owned();
            for name in unexpected.iter().take(MAX_VIOLATIONS - all.len()) {
                let pointer = short(format!("{pointer}{}", pointer_step(name)));
                let message = "is not declared".to_owned();
                all.push(Violation { place, pointer, keyword: keyword.clone().into(), message });
            }
        }
        kind => {
            let keyword: Cow<'static, str> = match kind {
                ValidationErrorKind::Custom { message, .. } if message == "is write-only" => Cow::Borrowed("writeOnly"),
                ValidationErrorKind::Custom { message, .. } if unmatched(message).is_some() => {
                    let word = unmatched(message).unwrap_or_default();
                    Cow::Borrowed(word.split(' ').next().unwrap_or(word))
                }
                ValidationErrorKind::Custom { .. } => Cow::Borrowed("readOnly"),
                kind => Cow::Owned(kind.keyword().to_owned()),
            };
            all.push(Violation { place, pointer: short(pointer), keyword, message: message(kind) });
        }
    }
}

/// Returns the word for alternatives that do not match, if an error is about them.
fn unmatched(message: &str) -> Option<&'static str> {
    UNMATCHED_WORDS.into_iter().find(|word| *word == message)
}

/// Returns what is expected, in words of the schema alone.
fn message(kind: &ValidationErrorKind) -> String {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Type { kind: TypeKind::Single(one) } => format!("expected a value of the type {one}"),
        Kind::Type { kind: TypeKind::Multiple(several) } => {
            let names: Vec<String> = several.iter().map(|one| one.to_string()).collect();
            format!("expected a value of the type {}", names.join(" or "))
        }
        Kind::Required { property } => {
            format!("the member {} is missing", listed(property.as_str().unwrap_or_default()))
        }
        Kind::Enum { options } => match options.as_array() {
            Some(options) => {
                let all = options.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                format!("expected one of {}", listed(&all))
            }
            None => "expected one of the declared values".to_owned(),
        },
        Kind::Constant { expected_value } => format!("expected {}", listed(&expected_value.to_string())),
        Kind::Minimum { limit } => format!("expected at least {limit}"),
        Kind::Maximum { limit } => format!("expected at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("expected more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("expected less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("expected a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("expected at least {}", counted(*limit, "character")),
        Kind::MaxLength { limit } => format!("expected at most {}", counted(*limit, "character")),
        Kind::MinItems { limit } => format!("expected at least {}", counted(*limit, "item")),
        Kind::MaxItems { limit } => format!("expected at most {}", counted(*limit, "item")),
        Kind::MinProperties { limit } => format!("expected at least {}", counted(*limit, "member")),
        Kind::MaxProperties { limit } => format!("expected at most {}", counted(*limit, "member")),
        Kind::Pattern { pattern } => format!("does not match the pattern {}", listed(pattern)),
        Kind::Format { format } => format!("does not have the format {}", listed(format)),
        Kind::UniqueItems => "the items are not unique".to_owned(),
        Kind::Contains => "no item is as one has to be".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "matches none of the alternatives".to_owned(),
        Kind::OneOfMultipleValid { .. } => "matches more than one of the alternatives".to_owned(),
        Kind::Not { .. } => "matches what is excluded".to_owned(),
        Kind::PropertyNames { .. } => "the name of a member is not accepted".to_owned(),
        Kind::Custom { message, .. } => match unmatched(message) {
            Some(word) if word == UNMATCHED_WORDS[2] => "matches more than one of the alternatives".to_owned(),
            Some(_) => "matches none of the alternatives".to_owned(),
            None => message.clone(),
        },
        Kind::FalseSchema => "no value is accepted here".to_owned(),
        Kind::AdditionalItems { .. } | Kind::UnevaluatedItems { .. } => "there are too many items".to_owned(),
        _ => "is not valid".to_owned(),
    }
}

fn counted(number: u64, unit: &str) -> String {
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

fn listed(text: &str) -> String {
    let cut = (0..=MAX_LISTED.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    if cut < text.len() { format!("{}…", &text[..cut]) } else { text.to_owned() }
}
