//! Every name and every text of a JSON document, as it is parsed: of two members with one name both count, since a
//! target may take either.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// The deepest nesting that is inspected.
const MAX_DEPTH: usize = 64;

/// A part of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonPart {
    /// The name of a member.
    Name,
    /// A text.
    Text,
}

/// Calls `inspect` with every name and text of a document, each with the name of the member that has it, until it
/// returns false. Returns false if the document is malformed or too deep.
pub fn inspect_json(body: &[u8], inspect: &mut dyn FnMut(JsonPart, &str, &str) -> bool) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let walked = Walk { name: "", depth: 0, inspect }.deserialize(&mut deserializer);
    walked.and_then(|()| deserializer.end()).is_ok()
}

struct Walk<'w> {
    name: &'w str,
    depth: usize,
    inspect: &'w mut dyn FnMut(JsonPart, &str, &str) -> bool,
}

impl Walk<'_> {
    fn go_on<E: Error>(&mut self, part: JsonPart, text: &str) -> Result<(), E> {
        if (self.inspect)(part, self.name, text) { Ok(()) } else { Err(E::custom("found")) }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH { Ok(()) } else { Err(E::custom("too deep")) }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.go_on(JsonPart::Text, text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let Self { name, depth, inspect } = self;
        while all.next_element_seed(Walk { name, depth: depth + 1, inspect: &mut *inspect })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut all: A) -> Result<(), A::Error> {
        self.check_depth()?;
        while let Some(name) = all.next_key::<Cow<'_, str>>()? {
            self.go_on(JsonPart::Name, &name)?;
            all.next_value_seed(Walk { name: &name, depth: self.depth + 1, inspect: &mut *self.inspect })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_of_two_members_with_one_name_are_inspected() {
        let mut seen = Vec::new();
        let mut note = |part, name: &str, text: &str| {
            seen.push(format!("{part:?} {name}={text}"));
            true
        };
        assert!(inspect_json(br#"{"a": "1", "a": ["2", {"b": "3"}], "c": 4, "d": [null, true, -1, 0.5]}"#, &mut note));
        let names = ["Name =a", "Text a=1", "Name =a", "Text a=2", "Name a=b", "Text b=3", "Name =c", "Name =d"];
        assert_eq!(seen, names);
        assert!(!inspect_json(b"[1] 2", &mut |_, _, _| true) && !inspect_json(b"{", &mut |_, _, _| true));
        let deep = "[".repeat(65) + &"]".repeat(65);
        assert!(!inspect_json(deep.as_bytes(), &mut |_, _, _| true));
    }
}
