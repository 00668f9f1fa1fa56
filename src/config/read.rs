//! Reads a tree into the types of a configuration: a serde deserializer that borrows from it, so that nothing is
//! copied.
//!
//! An enum is written as a text, or as a mapping of one key, and not as a YAML tag.

use serde::Deserializer;
use serde::de::value::{Error, MapAccessDeserializer, MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{MapKey, Node, Value, is_true};

/// Reads a value.
///
/// # Errors
/// Returns serde's error; `check` accepts nothing that serde does not.
pub fn read<T: DeserializeOwned>(tree: &Node) -> Result<T, Error> {
    T::deserialize(tree)
}

type MapMembers<'t> =
    std::iter::Map<std::slice::Iter<'t, (MapKey, Node)>, fn(&'t (MapKey, Node)) -> (&'t str, &'t Node)>;

fn members(members: &[(MapKey, Node)]) -> MapDeserializer<'_, MapMembers<'_>, Error> {
    let split: fn(&(MapKey, Node)) -> (&str, &Node) = |(key, node)| (&key.text, node);
    MapDeserializer::new(members.iter().map(split))
}

impl<'t> IntoDeserializer<'t, Error> for &'t Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'t> Deserializer<'t> for &'t Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(word) => visitor.visit_bool(is_true(word)),
            Value::Integer(number) => visitor.visit_i64(*number),
            Value::Float(decimal) => visitor.visit_f64(decimal.number),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => SeqDeserializer::new(items.iter()).deserialize_any(visitor),
            Value::Map(all) => members(all).deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'t>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'t>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'t>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(text) => visitor.visit_enum(StrDeserializer::new(text)),
            Value::Map(all) if all.len() == 1 => visitor.visit_enum(MapAccessDeserializer::new(members(all))),
            other => {
                Err(Error::custom(format_args!("expected a text or a mapping of one key, found {}", other.kind())))
            }
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'t>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
