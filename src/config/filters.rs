//! `filters`, wherever they stand, `filter_sets` and `defaults`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{EnumAccessDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess, VariantAccess, Visitor,
};

use crate::filters::FilterConfig;
use crate::notation::Name;

/// The key beside a filter that says whether it rejects requests.
pub const ENFORCE: &str = "enforce";

/// The key beside a filter for the condition under which it runs.
pub const WHEN: &str = "when";

/// An entry of a list of filters: `set: NAME`, or a filter.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(untagged)]
pub enum FilterEntry {
    /// All filters of a set.
    Set(SetEntry),
    /// A filter.
    Filter(Box<ListedFilter>),
}

/// All filters of a set.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SetEntry {
    /// The set, one of `filter_sets`.
    pub set: Name,
}

/// A filter in a list, and whether it rejects requests.
#[derive(Clone, Debug)]
pub struct ListedFilter {
    /// The filter.
    pub config: FilterConfig,
    /// Whether requests that it rejects are rejected; otherwise they are only counted.
    pub enforce: bool,
    /// The condition under which it runs.
    pub when: Option<String>,
}

/// The settings of all routes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Defaults {
    /// Filters of all routes on all listeners. They come before those of the listener and of the route.
    pub filters: Vec<FilterEntry>,
}

/// The schema of a filter, with `enforce` and `when` beside its key.
impl JsonSchema for ListedFilter {
    fn schema_name() -> Cow<'static, str> {
        "ListedFilter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = FilterConfig::json_schema(generator);
        let enforce = json_schema!({
            "type": "boolean",
            "default": true,
            "description": "Whether requests that it rejects are rejected. With false they go on, and are counted in \
                            portcullis_would_reject_total and noted in the access log. Default true.",
        });
        let when = json_schema!({
            "type": "string",
            "description": "The condition under which the filter runs, an expression (CEL) over the request such as \
                            request.method == 'POST'. One that cannot be evaluated counts as true, beside fault as \
                            false. Default: always.",
        });
        let forms = schema.get_mut("oneOf").and_then(serde_json::Value::as_array_mut).into_iter().flatten();
        for properties in forms.filter_map(|form| form.get_mut("properties")?.as_object_mut()) {
            properties.insert(ENFORCE.to_owned(), enforce.as_value().clone());
            properties.insert(WHEN.to_owned(), when.as_value().clone());
        }
        schema
    }
}

/// Reads an entry by its key, so that nothing is read twice: an untagged enum would be buffered first.
impl<'de> Deserialize<'de> for FilterEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

impl<'de> Deserialize<'de> for ListedFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match FilterEntry::deserialize(deserializer)? {
            FilterEntry::Filter(listed) => Ok(*listed),
            FilterEntry::Set(_) => Err(D::Error::custom("expected a filter")),
        }
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = FilterEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a filter, or set: NAME")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FilterEntry, A::Error> {
        let (mut set, mut config, mut enforce, mut when) = (None, None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "set" => set = Some(map.next_value()?),
                ENFORCE => enforce = Some(map.next_value()?),
                WHEN => when = Some(map.next_value()?),
                _ if config.is_some() => return Err(A::Error::custom("expected one filter in an entry")),
                _ => {
                    let variant = FilterValue { key: &key, map: &mut map };
                    config = Some(FilterConfig::deserialize(EnumAccessDeserializer::new(variant))?);
                }
            }
        }
        match (set, config) {
            (Some(set), None) if enforce.is_none() && when.is_none() => Ok(FilterEntry::Set(SetEntry { set })),
            (None, Some(config)) => {
                let enforce = enforce.unwrap_or(true);
                Ok(FilterEntry::Filter(Box::new(ListedFilter { config, enforce, when })))
            }
            _ => Err(A::Error::custom("expected one filter, or set: NAME")),
        }
    }
}

/// A filter whose key has been read, as the variant of an enum.
struct FilterValue<'k, 'm, M> {
    key: &'k str,
    map: &'m mut M,
}

impl<'de, M: MapAccess<'de>> EnumAccess<'de> for FilterValue<'_, '_, M> {
    type Error = M::Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), M::Error> {
        let key: StrDeserializer<'_, M::Error> = self.key.into_deserializer();
        Ok((seed.deserialize(key)?, self))
    }
}

impl<'de, M: MapAccess<'de>> VariantAccess<'de> for FilterValue<'_, '_, M> {
    type Error = M::Error;

    fn unit_variant(self) -> Result<(), M::Error> {
        Err(M::Error::custom("expected the settings of a filter"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, M::Error> {
        self.map.next_value_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, M::Error> {
        self.unit_variant().and_then(|()| Err(M::Error::custom("no tuple")))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, M::Error> {
        self.unit_variant().and_then(|()| Err(M::Error::custom("no struct")))
    }
}
