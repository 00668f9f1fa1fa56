//! `apis`: the versions of an API and their lifecycle.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Header, Name, Timestamp};

/// The versions of an API. Routes are for one or several of them by `api` and `version`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Where requests name their version, besides a segment `{version}` in the paths of routes: the first place that
    /// names one counts.
    #[serde(default)]
    pub version_by: Vec<VersionPlace>,
    /// The version of requests that name none. Default: they are rejected.
    pub default: Option<Name>,
    /// The versions by their names.
    pub versions: BTreeMap<String, VersionConfig>,
}

/// A place in which a request may name a version.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionPlace {
    /// A header.
    Header(Header),
    /// A query parameter.
    Query(String),
    /// A media type in `Accept`, or in `Content-Type`: `application/vnd.example.{version}+json`.
    MediaType(String),
    /// A parameter of a media type there: `version` for `application/json; version=v2`.
    MediaTypeParameter(String),
}

/// A version of an API.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VersionConfig {
    /// Other names of it.
    pub aliases: Vec<Name>,
    /// Its state. Default `published`.
    pub state: VersionState,
    /// The groups of consumers that may use it while it is a draft. Default: none.
    pub preview_groups: Vec<String>,
    /// When it was, or will be, deprecated: `2026-06-01T00:00:00Z` (RFC 9745).
    pub deprecated: Option<Timestamp>,
    /// When it ends (RFC 8594).
    pub sunset: Option<Timestamp>,
    /// Whether requests are rejected with 410 from `sunset` on. Default false.
    pub reject_after_sunset: bool,
    /// A page about the deprecation.
    pub documentation: Option<String>,
    /// The version, or the URL, that replaces it.
    pub successor: Option<String>,
}

/// The state of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VersionState {
    /// For `preview_groups` alone; to others it does not exist.
    Draft,
    /// For all.
    #[default]
    Published,
    /// For all, with headers that say that it will end.
    Deprecated,
    /// Requests are rejected with 410.
    Retired,
}
