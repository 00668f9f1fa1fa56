//! `routes`: which requests, through which filters, to which end.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::filters::FilterConfig;
use crate::notation::{Duration, HeaderText, Host, MethodName, Name, Network, Path, Pattern, Size};

/// What is done with which request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name, in logs and metrics.
    pub name: Name,
    /// The listeners it is for. Default: all.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Which requests. Default: all.
    #[serde(default, rename = "match")]
    pub matches: Match,
    /// What is done on the way, in the stages' order and within a stage in this order.
    #[serde(default)]
    pub filters: Vec<FilterConfig>,
    /// What ends the request.
    pub action: Action,
    /// The largest request body. Default: the listener's.
    pub body: Option<Size>,
}

/// One or several, written as a value or a list.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// Just one.
    One(T),
    /// Several, any of which will do.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// As a slice.
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// Conditions; all that are given have to hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// Any of these hosts.
    pub host: Option<OneOrMany<Host>>,
    /// Any of these paths.
    pub path: Option<OneOrMany<Path>>,
    /// Any of these methods; `GET` includes `HEAD`.
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

/// What ends a request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is sent to an upstream.
    Forward(Forward),
    /// The client is sent elsewhere.
    Redirect(Redirect),
    /// A fixed answer.
    Respond(Respond),
}

/// `forward: users`, or with settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Forward {
    /// Just the upstream's name.
    Name(String),
    /// With settings.
    To(Box<ForwardTo>),
}

/// Where and how a request is forwarded.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardTo {
    /// The upstream; or use `split`.
    pub upstream: Option<String>,
    /// Several upstreams by weight.
    pub split: Vec<Split>,
    /// The `Host` that the target sees: `keep` (the client's), `target` (the target's own name) or a
    /// text. Default `keep`.
    pub host: HostHeader,
    /// Removes this prefix, by segments, from the path.
    pub strip_prefix: Option<String>,
    /// The path to ask for, with the `{params}` of the match; `{*}` is what its `/*` took.
    pub rewrite: Option<String>,
    /// From the request's arrival to the end of its answer, retries included. Default: none, so that
    /// streams live. A stream is checked whenever it moves.
    pub timeout: Option<Duration>,
}

/// A share of the requests.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The upstream.
    pub upstream: String,
    /// Its share relative to the others.
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

/// The `Host` that a target sees.
#[derive(Clone, Debug, Default)]
pub enum HostHeader {
    /// The client's.
    #[default]
    Keep,
    /// The target's own name.
    Target,
    /// This one.
    Text(http::HeaderValue),
}

impl<'de> Deserialize<'de> for HostHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = HeaderText::deserialize(deserializer)?;
        Ok(match text.0.as_bytes() {
            b"keep" => Self::Keep,
            b"target" => Self::Target,
            _ => Self::Text(text.0),
        })
    }
}

impl JsonSchema for HostHeader {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostHeader".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        HeaderText::json_schema(generator)
    }
}

/// Sends the client elsewhere.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The `Location`, with `{host}`, `{path}`, `{query}` (with its `?`) and the `{params}` of the match.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default 308.
    #[serde(default = "permanent")]
    pub status: u16,
}

fn permanent() -> u16 {
    308
}

/// A fixed answer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status. Default 200.
    #[serde(default = "ok")]
    #[schemars(range(min = 200, max = 599))]
    pub status: u16,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, HeaderText>,
    /// Its body.
    #[serde(default)]
    pub body: String,
}

fn ok() -> u16 {
    200
}
