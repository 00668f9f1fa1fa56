//! A list that may be written as one value.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Place;

/// One or several, written as a value or a list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// One value.
    One(T),
    /// Several values, any of which matches.
    Many(Vec<T>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T> OneOrMany<T> {
    /// Returns the values, each with its place.
    pub fn placed(&self, place: &Place) -> Vec<(&T, Place)> {
        match self {
            Self::One(one) => vec![(one, place.clone())],
            Self::Many(many) => many.iter().enumerate().map(|(index, one)| (one, place.index(index))).collect(),
        }
    }

    /// Returns the values as a slice.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}
