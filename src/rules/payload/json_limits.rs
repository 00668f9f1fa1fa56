//! Limits on JSON documents, against input that is expensive to parse or that parsers read differently.

use std::cell::Cell;
use std::fmt;

use ahash::AHashSet;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The maximum nesting that limits can allow: beyond it the parser itself fails.
pub const MAX_DEPTH: u32 = 127;

/// The limits. Strings and names are measured in bytes of UTF-8, without their escapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonLimits {
    /// The maximum nesting of objects and lists.
    pub depth: u32,
    /// The maximum number of members of one object.
    pub members: u32,
    /// The maximum number of elements of one list.
    pub elements: u32,
    /// The maximum length of a name in bytes.
    pub name: u32,
    /// The maximum length of a string in bytes.
    pub text: u32,
    /// Whether an object may have two members of one name (RFC 8259, section 4, leaves open which of them counts).
    pub duplicate_names: bool,
}

impl JsonLimits {
    /// Checks a whole document (RFC 8259): one value, surrounded by nothing but white space.
    ///
    /// # Errors
    /// Returns what is wrong and where, fit for the client: no part of the document is repeated.
    pub fn check(&self, document: &[u8]) -> Result<(), String> {
        if std::str::from_utf8(document).is_err() {
            return Err("the document is not UTF-8".to_owned());
        }
        let broken = Cell::new(None);
        let mut parser = serde_json::Deserializer::from_slice(document);
        let checked = CheckedValue { limits: self, depth: 0, broken: &broken }
            .deserialize(&mut parser)
            .and_then(|()| parser.end());
        checked.map_err(|error| match broken.take() {
            Some(broken) => format!("{broken} at line {} column {}", error.line(), error.column()),
            None => format!("the document is not JSON at line {} column {}", error.line(), error.column()),
        })
    }
}

/// The limit that a document exceeds.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Depth(u32),
    Members(u32),
    Elements(u32),
    Name(u32),
    Text(u32),
    Duplicate,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth(most) => write!(f, "the document is nested deeper than {most} levels"),
            Self::Members(most) => write!(f, "an object has more than {most} members"),
            Self::Elements(most) => write!(f, "a list has more than {most} elements"),
            Self::Name(most) => write!(f, "a name is longer than {most} bytes"),
            Self::Text(most) => write!(f, "a text is longer than {most} bytes"),
            Self::Duplicate => f.write_str("an object has two members of one name"),
        }
    }
}

/// A value at some depth.
#[derive(Clone, Copy)]
struct CheckedValue<'l> {
    limits: &'l JsonLimits,
    depth: u32,
    broken: &'l Cell<Option<Broken>>,
}

impl CheckedValue<'_> {
    fn fail<E: Error>(&self, broken: Broken) -> E {
        self.broken.set(Some(broken));
        E::custom(broken)
    }

    fn within<E: Error>(&self, count: usize, most: u32, broken: fn(u32) -> Broken) -> Result<(), E> {
        if count > most as usize { Err(self.fail(broken(most))) } else { Ok(()) }
    }

    /// Returns the seed for the values in a container that begins here.
    fn below<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        self.within(depth as usize, self.limits.depth, Broken::Depth)?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for CheckedValue<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for CheckedValue<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.within(text.len(), self.limits.text, Broken::Text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut count = 0;
        while list.next_element_seed(below)?.is_some() {
            count += 1;
            self.within(count, self.limits.elements, Broken::Elements)?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let below = self.below()?;
        let mut names = AHashSet::new();
        let mut count = 0;
        while let Some(name) = object.next_key::<std::borrow::Cow<'de, str>>()? {
            count += 1;
            self.within(count, self.limits.members, Broken::Members)?;
            self.within(name.len(), self.limits.name, Broken::Name)?;
            if !self.limits.duplicate_names && !names.insert(name) {
                return Err(self.fail(Broken::Duplicate));
            }
            object.next_value_seed(below)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: JsonLimits =
        JsonLimits { depth: 3, members: 2, elements: 3, name: 4, text: 5, duplicate_names: false };

    #[track_caller]
    fn is(document: &str, wanted: &str) {
        let error = LIMITS.check(document.as_bytes()).err().unwrap_or_default();
        assert!(error.starts_with(wanted) && error.is_empty() == wanted.is_empty(), "{document}: {error}");
    }

    #[test]
    fn each_limit_at_its_edge() {
        is("[[[1]]]", "");
        is("[[[[1]]]]", "the document is nested deeper than 3 levels at line 1 column 4");
        is(r#"{"a":{"b":[1]}}"#, "");
        is(r#"{"a":{"b":[{}]}}"#, "the document is nested deeper");
        is(r#"{"a":1,"b":2}"#, "");
        is(r#"{"a":1,"b":2,"c":3}"#, "an object has more than 2 members");
        is("[1,2,3]", "");
        is("[1,2,3,4]", "a list has more than 3 elements");
        is(r#"{"four":1}"#, "");
        is(r#"{"fives":1}"#, "a name is longer than 4 bytes");
        is(r#"["\u0061bcde"]"#, "");
        is(r#"["abcdef"]"#, "a text is longer than 5 bytes");
        is(r#"{"a":1,"\u0061":2}"#, "an object has two members of one name");
        is("true", "");
    }

    #[test]
    fn what_is_not_one_document_is_not_taken() {
        for text in ["", "{", "[1,]", "{'a':1}", "1 2", "nul", "[1]x", "NaN", "\u{feff}[]"] {
            is(text, "the document is not JSON at line 1");
        }
        assert!(LIMITS.check(b"\"\xff\"").is_err_and(|error| error == "the document is not UTF-8"));
        assert!(LIMITS.check(&[b'['; 100_000]).is_err(), "no stack is used up");
    }

    fn depth(value: &serde_json::Value) -> u32 {
        match value {
            serde_json::Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            serde_json::Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn depth_agrees_with_the_parsed_document(shape in "[\\[\\]]{0,24}", most in 0_u32..8) {
            let limits = JsonLimits { depth: most, elements: 1000, ..LIMITS };
            let fitting = serde_json::from_str::<serde_json::Value>(&shape).is_ok_and(|value| depth(&value) <= most);
            prop_assert_eq!(limits.check(shape.as_bytes()).is_ok(), fitting);
        }
    }
}
