//! `filters`, wherever they stand, `filter_sets` and `defaults`.

use std::fmt;

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::value::{EnumAccessDeserializer, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};

use crate::filters::FilterConfig;
use crate::notation::Name;

/// An entry of a list of filters: `set: NAME`, or a filter.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum FilterEntry {
    /// All filters of a set.
    Set(SetEntry),
    /// A filter.
    Filter(Box<FilterConfig>),
}

/// All filters of a set.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SetEntry {
    /// The set, one of `filter_sets`.
    pub set: Name,
}

/// The settings of all routes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Filters of all routes on all listeners. They come before those of the listener and of the route.
    pub filters: Vec<FilterEntry>,
}

/// Reads an entry by its key, so that nothing is read twice: an untagged enum would be buffered first.
impl<'de> Deserialize<'de> for FilterEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_enum("FilterEntry", &[], EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = FilterEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a filter, or set: NAME")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<FilterEntry, A::Error> {
        let (key, variant) = access.variant::<String>()?;
        if key == "set" {
            return Ok(FilterEntry::Set(SetEntry { set: variant.newtype_variant()? }));
        }
        FilterConfig::deserialize(EnumAccessDeserializer::new(Known { key: &key, variant }))
            .map(|config| FilterEntry::Filter(Box::new(config)))
    }
}

/// A variant whose key has been read.
struct Known<'k, V> {
    key: &'k str,
    variant: V,
}

impl<'de, V: VariantAccess<'de>> EnumAccess<'de> for Known<'_, V> {
    type Error = V::Error;
    type Variant = V;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, V), V::Error> {
        let key: StrDeserializer<'_, V::Error> = self.key.into_deserializer();
        Ok((seed.deserialize(key)?, self.variant))
    }
}
