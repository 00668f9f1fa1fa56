//! `forward` as it is configured.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::actions::translate::TranslationConfig;
use crate::filters::HeaderEdits;
use crate::notation::{Duration, Header, HeaderText, KeyBy, MethodName, OneOrMany, RateText, Size};

/// `forward: users`, or with settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Forward")]
pub enum Config {
    /// The upstream's name only.
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
    pub split: Vec<SplitShare>,
    /// The `Host` that the target sees: `keep` (the client's), `target` (the target's own name) or a text. Default
    /// `keep`.
    pub host: HostHeader,
    /// Removes this prefix, by segments, from the path.
    pub strip_prefix: Option<String>,
    /// The path that the target gets, with the `{params}` of the match; `{*}` is what its `/*` matched.
    pub rewrite: Option<String>,
    /// The time from the request's arrival to the end of its response, retries included. Default: none, so that
    /// streams live. A stream is checked whenever it moves.
    pub timeout: Option<Duration>,
    /// Keeps requests of the same key on the same share of a `split`. Default: each request is assigned by itself.
    pub split_by: Option<KeyBy>,
    /// Sends copies of some requests to another upstream, or to each of several; their responses are discarded.
    pub mirror: Option<OneOrMany<MirrorConfig>>,
    /// Which requests are admitted first when the upstream's limits do not allow all: `high` may exceed them by a
    /// quarter, `low` has three quarters of them and never waits. Default `normal`.
    pub class: RequestClass,
    /// Methods of requests that may be sent again after they may have had an effect. Default: those that are
    /// idempotent (RFC 9110, section 9.2.2).
    pub retry_methods: Option<Vec<MethodName>>,
    /// A header in which the client says how long it waits, as `250ms` or in seconds; it shortens `timeout`, and is
    /// forwarded with the remaining time. `grpc-timeout` is always honoured.
    pub deadline_header: Option<Header>,
    /// Limits of WebSockets that are forwarded.
    pub websocket: Option<WebsocketLimits>,
    /// Protocols of clients that the targets do not speak. The first that a request is in is translated; what is in
    /// none of them is forwarded as it is.
    pub translate: Vec<TranslationConfig>,
}

/// Limits of WebSockets that are forwarded. Who exceeds one has the WebSocket closed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebsocketLimits {
    /// The longest message of the client; a longer one is closed with 1009. Messages are not compressed then. Default:
    /// any.
    pub max_message: Option<Size>,
    /// The most frames of the client in a time, as many of them at once; more are closed with 1008. Default: any
    /// number.
    pub messages: Option<RateText>,
    /// How long neither side may send anything. Default 1h.
    pub idle_time: Option<Duration>,
}

/// Copies for another upstream. At most 64 KiB of a body are kept; a longer request is not mirrored.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Mirror")]
pub struct MirrorConfig {
    /// The upstream.
    pub upstream: String,
    /// Percent of the requests. Default 100.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 0.001, max = 100))]
    pub percent: f64,
    /// The most copies at a time; further ones are not made. Default 100.
    #[serde(default = "default_concurrent")]
    #[schemars(range(min = 1))]
    pub concurrent: u32,
}

fn default_percent() -> f64 {
    100.0
}

fn default_concurrent() -> u32 {
    100
}

/// Which requests are admitted first.
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
#[schemars(rename = "Split")]
pub struct SplitShare {
    /// The upstream.
    pub upstream: String,
    /// Its share relative to the others.
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
    /// Edits of the requests that it gets.
    #[serde(default)]
    pub request: HeaderEdits,
    /// Edits of its responses, behind those of the route's filters.
    #[serde(default)]
    pub response: HeaderEdits,
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
