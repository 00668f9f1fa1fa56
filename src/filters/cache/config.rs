//! The settings of `cache`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Duration, Header, MethodName, OneOrMany, Size};

/// How responses of targets are cached (RFC 9111).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The cache that holds the responses, one of `caches`. Default `default`, which exists without being configured.
    pub store: String,
    /// The methods that are served from the cache, `GET` and `HEAD`. Default: both.
    #[schemars(length(min = 1))]
    pub methods: Vec<MethodName>,
    /// For how long responses are fresh.
    pub ttl: TtlConfig,
    /// What besides scheme, host and path tells responses apart.
    pub key: KeyConfig,
    /// Which requests are neither served from the cache nor stored in it.
    pub bypass: BypassConfig,
    /// The largest body that is stored. Default: that of the cache.
    pub max_object: Option<Size>,
    /// For how long stale responses may be used.
    pub stale: StaleConfig,
    /// How long a request waits for the response to another one for the same, before it is sent to a target itself.
    /// Default 5s.
    pub lock_timeout: Duration,
    /// The headers of responses that list tags, by which they are purged.
    pub tags: TagConfig,
    /// What is done with responses that set cookies. Default `skip`.
    pub set_cookie: SetCookie,
    /// Headers of requests that are ignored where responses vary with them, such as `user-agent`.
    pub ignore_vary: Vec<Header>,
    /// Whether clients may demand responses that are fresher, or none that are stored, by `Cache-Control: no-cache`,
    /// `max-age` and others. Default true. `only-if-cached` and `no-store` hold in any case.
    pub obey_clients: bool,
    /// Whether responses get the header `Cache-Status` (RFC 9211). Default true.
    pub status_header: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            store: "default".to_owned(),
            methods: vec![MethodName(http::Method::GET), MethodName(http::Method::HEAD)],
            ttl: TtlConfig::default(),
            key: KeyConfig::default(),
            bypass: BypassConfig::default(),
            max_object: None,
            stale: StaleConfig::default(),
            lock_timeout: Duration(std::time::Duration::from_secs(5)),
            tags: TagConfig::default(),
            set_cookie: SetCookie::Skip,
            ignore_vary: Vec::new(),
            obey_clients: true,
            status_header: true,
        }
    }
}

/// For how long responses are fresh, beside what they say themselves.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TtlConfig {
    /// The time of successful responses (200, 203, 204, 300, 301, 308) that say nothing of it. Default: they are not
    /// stored, unless `heuristic` finds one.
    pub default: Option<Duration>,
    /// The time of successful responses whatever they say of it. `no-store`, `private` and others still hold.
    #[serde(rename = "override")]
    pub fixed: Option<Duration>,
    /// The times by status, of responses that say nothing of it: `{404: 30s, 500-504: 1s}`.
    pub statuses: BTreeMap<String, Duration>,
    /// The longest time, whatever responses say. Default: any.
    pub most: Option<Duration>,
    /// Whether a tenth of the time since `Last-Modified`, and at most a day, is taken where nothing else says it.
    /// Default true.
    pub heuristic: bool,
}

impl Default for TtlConfig {
    fn default() -> Self {
        Self { default: None, fixed: None, statuses: BTreeMap::new(), most: None, heuristic: true }
    }
}

/// What tells responses apart.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeyConfig {
    /// The parameters of the query: `all` as they are, `none`, `{only: [page]}`, or `{without: [utm_*, fbclid]}`.
    /// Default `all`.
    pub query: QueryConfig,
    /// Whether the order of parameters is ignored. Default false.
    pub sort_query: bool,
    /// Headers of the request.
    pub headers: Vec<Header>,
    /// Cookies of the request.
    pub cookies: Vec<String>,
    /// Whether each consumer has responses of its own, which may then be private to it; `false` says that responses
    /// are the same for all. Default: responses to identified clients, and to requests with `Authorization`, are stored
    /// only if they permit it (`public`, `s-maxage` or `must-revalidate`).
    pub consumer: Option<bool>,
}

/// The parameters of the query that tell responses apart.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum QueryConfig {
    /// All or none.
    Word(QueryWord),
    /// Some.
    List(QueryList),
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self::Word(QueryWord::All)
    }
}

/// All parameters, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryWord {
    /// All, as they are.
    All,
    /// None.
    None,
}

/// Some parameters; a `*` at the end stands for any end.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueryList {
    /// These alone.
    Only(OneOrMany<String>),
    /// All but these.
    Without(OneOrMany<String>),
}

/// Which requests have nothing to do with the cache.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BypassConfig {
    /// Those for which this expression (CEL) over the request is true. One that cannot be evaluated counts as false.
    pub when: Option<String>,
    /// Those that have any of these headers.
    pub headers: Vec<Header>,
    /// Those that have any of these cookies.
    pub cookies: Vec<String>,
}

/// For how long stale responses may be used, where they do not say it themselves (RFC 5861).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StaleConfig {
    /// While they are validated in the background. Default: not at all.
    pub while_revalidate: Option<Duration>,
    /// When no target responds, or with 500, 502, 503 or 504. Default: not at all.
    pub if_error: Option<Duration>,
}

/// The headers of responses that list tags.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TagConfig {
    /// Their names; the tags in them are separated by blanks or commas. Default `[surrogate-key, cache-tag]`.
    pub headers: Vec<Header>,
    /// Whether clients do not get them. Default true.
    pub remove: bool,
}

impl Default for TagConfig {
    fn default() -> Self {
        let names = ["surrogate-key", "cache-tag"];
        Self { headers: names.map(|name| Header(http::HeaderName::from_static(name))).to_vec(), remove: true }
    }
}

/// What is done with responses that set cookies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SetCookie {
    /// They are not stored: the cookie may be of one client.
    Skip,
    /// They are stored without the cookies.
    Remove,
    /// They are stored with them: every client gets the same.
    Keep,
}
