//! The keys by which requests are kept together.

use schemars::JsonSchema;
use serde::Deserialize;

use super::Header;
use crate::rules::identity::RequestKey;

/// The key by which requests are kept together.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyBy {
    /// The client's address.
    #[default]
    Address,
    /// The consumer.
    Consumer,
    /// The path.
    Path,
    /// A header's value.
    Header(Header),
    /// A cookie's value.
    Cookie(String),
    /// A query parameter's value.
    Query(String),
}

impl KeyBy {
    /// Returns the key as rules take it from a request.
    pub fn request_key(&self) -> RequestKey {
        match self {
            Self::Address => RequestKey::Address,
            Self::Consumer => RequestKey::Consumer,
            Self::Path => RequestKey::Path,
            Self::Header(name) => RequestKey::Header(name.0.clone()),
            Self::Cookie(name) => RequestKey::Cookie(name.clone()),
            Self::Query(name) => RequestKey::Query(name.clone()),
        }
    }

    /// Returns the header that it reads, if it reads one.
    pub fn header(&self) -> Option<&http::HeaderName> {
        match self {
            Self::Header(name) => Some(&name.0),
            _ => None,
        }
    }
}
