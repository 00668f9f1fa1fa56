//! Values of claims that the configuration names.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ClaimValue {
    /// A truth value.
    Flag(bool),
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

impl ClaimValue {
    /// Returns whether a claim has this value, or is a list with it.
    pub fn is_in(&self, claim: &Json) -> bool {
        match (claim, self) {
            (Json::Array(items), _) => items.iter().any(|item| !item.is_array() && self.is_in(item)),
            (Json::String(text), Self::Text(value)) => text == value,
            (Json::Bool(flag), Self::Flag(value)) => flag == value,
            (Json::Number(number), Self::Number(value)) => number.as_i64() == Some(*value),
            _ => false,
        }
    }
}
