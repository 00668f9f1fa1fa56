//! JSON that a client or a target has sent, as a value to validate.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// The error that a document is not JSON, or JSON that parsers read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadJson {
    /// Whether an object has two members of one name.
    pub duplicate: bool,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

impl fmt::Display for BadJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.duplicate { "an object has two members of one name" } else { "the document is not JSON" };
        write!(f, "{what} at line {} column {}", self.line, self.column)
    }
}

/// Parses a whole document. Objects with two members of one name are rejected: which of them counts is open (RFC 8259,
/// section 4), and the target may take the one that was not validated.
///
/// # Errors
/// Returns what is wrong and where; nothing of the document is repeated.
pub fn parse_json(document: &[u8]) -> Result<Value, BadJson> {
    let duplicate = Cell::new(false);
    let mut parser = serde_json::Deserializer::from_slice(document);
    let value = UniqueValue(&duplicate).deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    value.map_err(|error| BadJson { duplicate: duplicate.get(), line: error.line(), column: error.column() })
}

/// A value whose objects have each name once.
#[derive(Clone, Copy)]
struct UniqueValue<'d>(&'d Cell<bool>);

impl<'de> DeserializeSeed<'de> for UniqueValue<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueValue<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.insert(name, members.next_value_seed(self)?).is_some() {
                self.0.set(true);
                return Err(A::Error::custom("two members of one name"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_whole_and_names_are_unique() {
        let text = r#"{"a": [1, -2, 1.5, null, true, "\u00e9"], "b": {"a": 18446744073709551615}}"#;
        assert_eq!(parse_json(text.as_bytes()), Ok(serde_json::from_str(text).expect("JSON")));
        let bad = |text: &str| parse_json(text.as_bytes()).expect_err("bad");
        assert_eq!(bad("{\n\"a\": }"), BadJson { duplicate: false, line: 2, column: 6 });
        assert!(bad(r#"{"a": 1, "\u0061": 2}"#).duplicate);
        assert!(bad(r#"[{"x": {"a": 1, "a": 1}}]"#).duplicate);
        assert!(!bad("1 2").duplicate && !bad("").duplicate && !bad("\"\u{1}\"").duplicate);
        assert!(!parse_json(b"\"\xff\"").expect_err("no UTF-8").duplicate);
        let deep = "[".repeat(200);
        assert!(!bad(&deep).duplicate, "its depth is bounded");
    }
}
