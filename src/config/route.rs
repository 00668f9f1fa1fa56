//! `routes`: which requests get which filters and action.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::errors::Errors;
use super::filters::FilterEntry;
use crate::actions::ActionConfig;
use crate::filters::OpenApiConfig;
use crate::notation::{Host, MethodName, Name, Network, OneOrMany, Path, Pattern, Size};

/// Which requests get which filters and action.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name, in logs and metrics.
    pub name: Name,
    /// The listeners it is for. Default: all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Which requests. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// The API of `apis` whose versions it is for. A segment `{version}` of its paths names the version.
    pub api: Option<String>,
    /// The versions that it is for. Default: all of the API.
    pub version: Option<OneOrMany<Name>>,
    /// The filters: in the order of the stages, and within a stage first those of `defaults`, then those of the
    /// listener, then these, each in its order. Of cross-origin rules, authentication and compression a request has
    /// one: that of the route, else that of the listener, else that of `defaults`; a list's own filter comes before
    /// one that it has from a set.
    #[serde(default)]
    pub filters: Vec<FilterEntry>,
    /// The filters of `defaults` and of its listeners that this route leaves out: keys of filters (`cors`), and names
    /// of sets.
    #[serde(default)]
    pub without: Vec<String>,
    /// The OpenAPI document of the route: its paths and methods become those of the route, and requests are validated
    /// by it. Hosts, headers and other conditions of `match` hold as well.
    pub openapi: Option<OpenApiConfig>,
    /// The action that ends the request.
    pub action: ActionConfig,
    /// The pages for rejections of its requests, by status or class of statuses.
    #[serde(default)]
    pub errors: Errors,
    /// The largest request body. Default: the listener's.
    pub body: Option<Size>,
    /// What happens to paths that the target may read differently from the gateway. Default: that of the
    /// configuration.
    #[serde(default)]
    pub paths: Paths,
}

impl RouteConfig {
    /// Returns the settings that stand for no route.
    pub fn unrouted() -> Self {
        Self {
            name: Name(String::new()),
            listeners: Vec::new(),
            matches: Match::default(),
            api: None,
            version: None,
            filters: Vec::new(),
            without: Vec::new(),
            openapi: None,
            action: ActionConfig::nothing(),
            errors: Errors::new(),
            body: None,
            paths: Paths::default(),
        }
    }
}

/// What happens to paths that a target may read differently from the gateway. Default: `reject` on routes that
/// authenticate (`jwt`, `api_key`), `keep` on others.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// A slash that is data (`%2F`), and `/`, `.`, `;` and a backslash that are encoded twice (`%252F`).
    pub encoded_slash: Option<PathRule>,
    /// Parameters of a segment (`/a;x=1`).
    pub parameters: Option<PathRule>,
}

/// What happens to such a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathRule {
    /// 400.
    Reject,
    /// It is forwarded as it is.
    Keep,
}

/// Conditions; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Any of these hosts.
    pub host: Option<OneOrMany<Host>>,
    /// Any of these paths.
    pub path: Option<OneOrMany<Path>>,
    /// Any of these methods; `GET` includes `HEAD`.
    #[schemars(length(min = 1))]
    pub methods: Vec<MethodName>,
    /// All of these headers.
    pub headers: BTreeMap<String, TextTest>,
    /// All of these cookies.
    pub cookies: BTreeMap<String, TextTest>,
    /// All of these query parameters.
    pub query: BTreeMap<String, TextTest>,
    /// The client's address is in any of these networks.
    pub client: Option<OneOrMany<Network>>,
}

/// `text` (exactly this), or `{regex: …}` or `{present: true}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TextTest {
    /// Exactly this.
    Exact(String),
    /// A rule.
    Rule(TextRule),
}

/// A rule for a text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TextRule {
    /// An expression that matches somewhere in it.
    Regex(Pattern),
    /// It is there (`true` is the only value).
    Present(bool),
}
