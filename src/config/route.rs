//! `routes`: which requests, through which filters, to which end.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::balance::KeyBy;
use super::filters::FilterEntry;
use crate::notation::{Duration, Header, HeaderText, Host, MethodName, Name, Network, Path, Pattern, Size};

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
    /// What is done on the way: in the order of the stages, and within a stage first what `defaults` has, then what the
    /// listener has, then this, each in its order. Of cross-origin rules, authentication and compression a request has one:
    /// that of the route, else that of the listener, else that of `defaults`; what a list has itself counts before what it
    /// has from a set.
    #[serde(default)]
    pub filters: Vec<FilterEntry>,
    /// What of `defaults` and of its listeners this route does without: keys of filters (`cors`), and names of sets.
    #[serde(default)]
    pub without: Vec<String>,
    /// What ends the request.
    pub action: Action,
    /// The largest request body. Default: the listener's.
    pub body: Option<Size>,
    /// What becomes of paths that the target may read otherwise than the gateway. Default: that of the configuration.
    #[serde(default)]
    pub paths: Paths,
}

/// What becomes of paths that a target may read otherwise than the gateway. Default: `reject` on routes that
/// authenticate (`jwt`, `api_key`), `keep` on others.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// A slash that is data (`%2F`), and `/`, `.`, `;` and a backslash that are encoded twice (`%252F`).
    pub encoded_slash: Option<PathRule>,
    /// Parameters of a segment (`/a;x=1`).
    pub parameters: Option<PathRule>,
}

/// What becomes of such a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathRule {
    /// 400.
    Reject,
    /// It is forwarded as it is.
    Keep,
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
    /// Keeps requests of the same key on the same share of a `split`. Default: each is assigned for itself.
    pub split_by: Option<KeyBy>,
    /// Sends copies of some requests to another upstream, whose answers nobody sees.
    pub mirror: Option<Mirror>,
    /// Who is let in first when the upstream's limits do not allow for all: `high` may exceed them by a
    /// quarter, `low` has three quarters of them and never waits. Default `normal`.
    pub class: RequestClass,
    /// Methods of requests that may be sent a second time after they may have had an effect. Default:
    /// those that are idempotent (RFC 9110, section 9.2.2).
    pub retry_methods: Option<Vec<MethodName>>,
    /// A header with which the client says how long it waits, as `250ms` or in seconds; it shortens
    /// `timeout`, and is forwarded with what is left. `grpc-timeout` is always heeded.
    pub deadline_header: Option<Header>,
}

/// Copies for another upstream. Of a body at most 64 KiB are kept; a longer request is not mirrored.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// The upstream.
    pub upstream: String,
    /// Percent of the requests. Default 100.
    #[serde(default = "all")]
    #[schemars(range(min = 0.001, max = 100))]
    pub percent: f64,
    /// Copies at a time; further ones are not made. Default 100.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1))]
    pub concurrent: u32,
}

fn all() -> f64 {
    100.0
}

fn hundred() -> u32 {
    100
}

/// Who is let in first.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestClass {
    /// Before all others.
    High,
    /// As usual.
    #[default]
    Normal,
    /// After all others.
    Low,
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
