//! `filters`, wherever they stand, `filter_sets` and `defaults`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::filters::FilterConfig;
use crate::notation::Name;

/// An entry of a list of filters: `set: NAME`, or a filter.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum FilterEntry {
    /// All filters of a set.
    Set(SetEntry),
    /// A filter.
    Filter(Box<FilterConfig>),
}

/// All filters of a set.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
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
