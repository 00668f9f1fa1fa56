//! JSON documents as values of templates: their members keep their order, and their numbers their digits.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use minijinja::value::{Enumerator, Object, ObjectRepr, Value};
use serde::de::IgnoredAny;

use crate::rules::payload::string_end;

/// Returns a JSON document as a value.
///
/// # Errors
/// Returns an error where the text is not JSON (RFC 8259), or nested deeper than 128 levels.
pub fn json_value(text: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(text).map_err(|_| "the document is not UTF-8".to_owned())?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|error| error.to_string())?;
    Parser { rest: text }
        .value(MAX_DEPTH)
        .ok_or_else(|| format!("the document is nested deeper than {MAX_DEPTH} levels"))
}

/// Returns a JSON value that has been read already.
pub fn of_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(flag) => Value::from(*flag),
        serde_json::Value::Number(number) => number_value(&number.to_string()),
        serde_json::Value::String(text) => Value::from(text.as_str()),
        serde_json::Value::Array(items) => Value::from(items.iter().map(of_json).collect::<Vec<_>>()),
        serde_json::Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (Arc::from(name.as_str()), of_json(value)));
            Value::from_object(JsonObject { members: members.collect(), index: OnceLock::new() })
        }
    }
}

/// A number with more digits than the engine's numbers have, or in another notation. It is written as it came.
#[derive(Debug)]
pub(super) struct ExactNumber(pub(super) Box<str>);

impl Object for ExactNumber {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn number_value(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>()
        && number.to_string() == text
    {
        return Value::from(number);
    }
    match text.parse::<f64>() {
        Ok(number) if Value::from(number).to_string() == text => Value::from(number),
        _ => Value::from_object(ExactNumber(text.into())),
    }
}

/// The number of members from which on they are found by an index.
const INDEXED: usize = 16;

/// An object in the order in which it came.
#[derive(Debug)]
struct JsonObject {
    members: Vec<(Arc<str>, Value)>,
    index: OnceLock<AHashMap<Arc<str>, usize>>,
}

impl JsonObject {
    fn find(&self, name: &str) -> Option<&Value> {
        if self.members.len() <= INDEXED {
            // Of several members of one name the last counts, as with most parsers.
            return self.members.iter().rev().find(|(known, _)| **known == *name).map(|(_, value)| value);
        }
        let index = self.index.get_or_init(|| {
            self.members.iter().enumerate().map(|(place, (name, _))| (Arc::clone(name), place)).collect()
        });
        self.members.get(*index.get(name)?).map(|(_, value)| value)
    }
}

impl Object for JsonObject {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.find(key.as_str()?).cloned()
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.find(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.members.iter().map(|(name, _)| Value::from(Arc::clone(name))).collect())
    }
}

/// The deepest nesting of a document.
const MAX_DEPTH: usize = 128;

/// A parser of a text that is known to be JSON: it finds no errors but nesting, and keeps the digits of numbers.
struct Parser<'t> {
    rest: &'t str,
}

impl<'t> Parser<'t> {
    /// Takes white space and the given separators, and returns the byte that follows.
    fn next(&mut self, separators: &[char]) -> u8 {
        self.rest = self.rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || separators.contains(&c));
        self.rest.as_bytes().first().copied().unwrap_or(b']')
    }

    fn take(&mut self, length: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Returns the next value; `None` where it is nested more than that many levels deep.
    fn value(&mut self, depth: usize) -> Option<Value> {
        Some(match self.next(&[]) {
            b'{' => {
                let below = depth.checked_sub(1)?;
                self.take(1);
                let mut members: Vec<(Arc<str>, Value)> = Vec::new();
                while self.next(&[',']) == b'"' {
                    let name = self.text();
                    self.next(&[':']);
                    members.push((name.as_ref().into(), self.value(below)?));
                }
                self.take(1);
                Value::from_object(JsonObject { members, index: OnceLock::new() })
            }
            b'[' => {
                let below = depth.checked_sub(1)?;
                self.take(1);
                let mut items = Vec::new();
                while self.next(&[',']) != b']' {
                    items.push(self.value(below)?);
                }
                self.take(1);
                Value::from(items)
            }
            b'"' => Value::from(self.text().as_ref()),
            _ => {
                let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
                match self.take(end.unwrap_or(self.rest.len()).max(1)) {
                    "null" => Value::from(()),
                    "true" => Value::from(true),
                    "false" => Value::from(false),
                    number => number_value(number),
                }
            }
        })
    }

    fn text(&mut self) -> Cow<'t, str> {
        let inside = self.rest.get(1..).unwrap_or_default();
        let end = string_end(inside.as_bytes()).unwrap_or(inside.len());
        let raw = self.take(end + 2);
        let plain = &inside[..end];
        if !plain.contains('\\') {
            return Cow::Borrowed(plain);
        }
        // A lone half of a surrogate pair is no character.
        serde_json::from_str(raw).map_or(Cow::Borrowed(plain), Cow::Owned)
    }
}
