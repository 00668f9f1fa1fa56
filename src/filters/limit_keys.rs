//! What limits count requests by, what a request costs, and what responses say of a limit.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::SmallVec;

use super::{CompileContext, ResponseView};
use crate::exchange::{Exchange, LimitNote, claim, claim_text};
use crate::live::consumer_digest;
use crate::notation::{Header, MethodName, Name, OneOrMany, carries_credentials, is_named_like_secret};
use crate::rules::routing::{PathPattern, cookie, parameter};

/// The longest value that is a part of a key as it is; of longer ones, and of secrets, the SHA-256 digest is.
const MAX_VALUE: usize = 32;

/// The longest key; of a longer one the digest is taken.
const MAX_KEY: usize = 64;

/// The most properties of one key.
const MAX_PARTS: usize = 8;

/// A property by which requests are counted. A request that does not have it is counted by its address.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// The client's address; of IPv6 its /64.
    Address,
    /// The consumer.
    Consumer,
    /// The consumer's plan: all consumers that have it count together.
    Plan,
    /// Nothing: all of the route's requests count together.
    Route,
    /// The requested host.
    Host,
    /// A header's first value.
    Header(Header),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// A claim of the token; a dot leads into an object.
    Claim(String),
    /// A parameter of the route's path.
    Param(String),
}

/// The properties by which a limit counts.
pub type LimitBy = OneOrMany<LimitKey>;

/// Returns the default of `by`.
pub fn by_address() -> LimitBy {
    OneOrMany::One(LimitKey::Address)
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("address"),
            Self::Consumer => f.write_str("consumer"),
            Self::Plan => f.write_str("plan"),
            Self::Route => f.write_str("route"),
            Self::Host => f.write_str("host"),
            Self::Header(name) => write!(f, "the header {}", name.0),
            Self::Cookie(name) => write!(f, "the cookie {name}"),
            Self::Query(name) => write!(f, "the query parameter {name}"),
            Self::Claim(name) => write!(f, "the claim {name}"),
            Self::Param(name) => write!(f, "the path parameter {name}"),
        }
    }
}

/// Returns the properties as a text: `consumer and the header x-tenant`.
pub fn by_text(by: &LimitBy) -> String {
    by.as_slice().iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// What the log says of a limit that rejects a request: its name, or without one the limit itself and what it counts
/// by. Values of requests are no part of it.
#[derive(Debug)]
pub struct LimitText {
    name: Option<String>,
    by: String,
}

impl LimitText {
    /// Returns the text of a limit with that name, if it has one.
    pub fn new(name: Option<&Name>, by: &LimitBy) -> Self {
        Self { name: name.map(|name| name.0.clone()), by: by_text(by) }
    }

    /// Returns the detail of a rejection; `limit` is the one that the request exceeds.
    pub fn detail(&self, limit: impl fmt::Display) -> String {
        match &self.name {
            Some(name) => format!("limit {name}"),
            None => format!("limit {limit} by {}", self.by),
        }
    }
}

/// Returns whether one of the properties is known only of an authenticated request.
pub fn needs_identity(by: &LimitBy) -> bool {
    by.as_slice().iter().any(|key| matches!(key, LimitKey::Consumer | LimitKey::Plan | LimitKey::Claim(_)))
}

/// Returns the headers that are among the properties, each with the keys that lead to its name.
pub fn headers_of(by: &LimitBy) -> Vec<(HeaderName, Vec<String>)> {
    let is_list = matches!(by, OneOrMany::Many(_));
    let headers = by.as_slice().iter().filter_map(|key| match key {
        LimitKey::Header(name) => Some(name.0.clone()),
        _ => None,
    });
    let keys = |name| match is_list {
        true => (name, vec!["by".to_owned()]),
        false => (name, vec!["by".to_owned(), "header".to_owned()]),
    };
    headers.map(keys).collect()
}

/// A compiled property.
#[derive(Debug)]
enum KeyPart {
    Address,
    Consumer,
    Plan,
    Route,
    Host,
    Header {
        name: HeaderName,
        is_secret: bool,
    },
    Cookie(String),
    Query {
        name: String,
        is_secret: bool,
    },
    Claim(String),
    /// The route's paths that have the parameter, the most specific first.
    Param {
        name: String,
        paths: Vec<PathPattern>,
    },
}

impl KeyPart {
    /// Appends the property of a request to its key; `None` where it has none.
    fn push(&self, key: &mut KeyBytes, request: &RequestHeader, exchange: &Exchange) -> Option<()> {
        let identity = || exchange.identity.as_ref();
        match self {
            Self::Address => return None,
            Self::Route => key.push(b'r'),
            Self::Consumer => push(key, b'c', identity()?.name.as_bytes(), false),
            Self::Plan => push(key, b'p', identity()?.plan()?.as_bytes(), false),
            Self::Host => push(key, b'H', exchange.host.as_bytes(), false),
            Self::Header { name, is_secret } => push(key, b'h', request.headers.get(name)?.as_bytes(), *is_secret),
            // Most cookies that a client can be counted by are secrets.
            Self::Cookie(name) => push(key, b'k', cookie(&request.headers, name)?, true),
            Self::Query { name, is_secret } => push(key, b'q', &parameter(request.uri.query(), name)?, *is_secret),
            Self::Claim(name) => {
                let found = claim(identity()?.claims.as_deref()?, name)?;
                push(key, b'j', claim_text(found).as_bytes(), false);
            }
            Self::Param { name, paths } => {
                let path = request.uri.path();
                let matching = paths.iter().find(|pattern| pattern.matches(path))?;
                push(key, b'P', matching.value(path, name)?.as_bytes(), false);
            }
        }
        Some(())
    }
}

/// The compiled properties of a limit.
#[derive(Debug)]
pub struct LimitKeys(Box<[KeyPart]>);

/// The key of a request.
pub type KeyBytes = SmallVec<[u8; 96]>;

impl LimitKeys {
    /// Compiles the properties; returns `None` when errors were noted.
    pub fn compile(by: &LimitBy, context: &mut CompileContext<'_>) -> Option<Self> {
        let keys = by.as_slice();
        let place = context.place.key("by");
        if keys.is_empty() || keys.len() > MAX_PARTS {
            context
                .mistakes
                .add(&place, format!("expected one to {MAX_PARTS} properties, such as address or consumer"));
            return None;
        }
        let mut parts = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let place = if matches!(by, OneOrMany::Many(_)) { place.index(index) } else { place.clone() };
            if keys[..index].iter().any(|known| known.to_string() == key.to_string()) {
                context.mistakes.add(&place, format!("{key} is there twice"));
                return None;
            }
            parts.push(match key {
                LimitKey::Address => KeyPart::Address,
                LimitKey::Consumer => KeyPart::Consumer,
                LimitKey::Plan => KeyPart::Plan,
                LimitKey::Route => KeyPart::Route,
                LimitKey::Host => KeyPart::Host,
                LimitKey::Header(name) => {
                    let is_secret = carries_credentials(name.0.as_str()) || is_named_like_secret(name.0.as_str());
                    KeyPart::Header { name: name.0.clone(), is_secret }
                }
                LimitKey::Cookie(name) => KeyPart::Cookie(name.clone()),
                LimitKey::Query(name) => KeyPart::Query { name: name.clone(), is_secret: is_named_like_secret(name) },
                LimitKey::Claim(name) => KeyPart::Claim(name.clone()),
                LimitKey::Param(name) => {
                    let Some(paths) = context.route.paths_with(name) else {
                        let text = format!("not every path of the route has a parameter {{{name}}}");
                        context.mistakes.add(&place.key("param"), text);
                        return None;
                    };
                    KeyPart::Param { name: name.clone(), paths }
                }
            });
        }
        Some(Self(parts.into()))
    }

    /// Returns whether each route counts by itself.
    pub fn has_route(&self) -> bool {
        self.0.iter().any(|part| matches!(part, KeyPart::Route))
    }

    /// Returns whether the properties are the same for all requests of a route.
    pub fn is_route_alone(&self) -> bool {
        self.0.iter().all(|part| matches!(part, KeyPart::Route))
    }

    /// Returns the key of a request. Each part has a tag and, unless all of its kind have one length, its length, so
    /// that different requests never have the same key by the way their parts are joined.
    pub fn key(&self, request: &RequestHeader, exchange: &Exchange) -> KeyBytes {
        let mut key = KeyBytes::new();
        for part in &self.0 {
            if part.push(&mut key, request, exchange).is_none() {
                push_address(&mut key, exchange.client);
            }
        }
        if key.len() > MAX_KEY {
            let digest = consumer_digest(&key);
            key.clear();
            push(&mut key, b'#', &digest, false);
        }
        key
    }
}

fn push_address(key: &mut KeyBytes, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            key.push(b'4');
            key.extend_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            key.push(b'6');
            key.extend_from_slice(&v6.octets()[..8]);
        }
    }
}

fn push(key: &mut KeyBytes, tag: u8, value: &[u8], is_secret: bool) {
    key.push(tag);
    if is_secret || value.len() > MAX_VALUE {
        // No value has this length otherwise.
        key.push(u8::MAX);
        key.extend_from_slice(&consumer_digest(value));
    } else {
        key.push(value.len() as u8);
        key.extend_from_slice(value);
    }
}

/// What a request costs. Default: 1.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CostConfig {
    /// The cost by method; 0 is not counted. Default: 1 for each.
    pub methods: BTreeMap<String, u32>,
    /// The header in which a request states its cost, as a number. It counts where it is more than that of the method.
    pub header: Option<Header>,
    /// The most that the header can make of it. Default 100.
    #[schemars(range(min = 1))]
    pub max: Option<u32>,
}

const MAX_HEADER_COST: u32 = 100;

/// The compiled costs of requests.
#[derive(Debug, Default)]
pub struct Costs {
    methods: Vec<(http::Method, u32)>,
    header: Option<(HeaderName, u32)>,
}

impl Costs {
    /// Compiles the costs, of which none may be more than `most`; returns `None` when errors were noted.
    pub fn compile(config: &CostConfig, most: u64, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.key("cost");
        let mut methods = Vec::with_capacity(config.methods.len());
        for (name, cost) in &config.methods {
            let place = place.key("methods").key(name.clone());
            let method = name.parse::<MethodName>().map_err(|wanted| format!("expected {wanted}"));
            match method {
                Ok(_) if u64::from(*cost) > most => {
                    context.mistakes.add(&place, format!("costs more than the limit of {most} ever allows"));
                    return None;
                }
                Ok(method) => methods.push((method.0, *cost)),
                Err(why) => {
                    context.mistakes.add(&place, why);
                    return None;
                }
            }
        }
        if let (Some(_), None) = (config.max, &config.header) {
            context.mistakes.add(&place.key("max"), "has no effect without header");
            return None;
        }
        let max = config.max.unwrap_or(MAX_HEADER_COST).min(u32::try_from(most).unwrap_or(u32::MAX));
        Some(Self { methods, header: config.header.as_ref().map(|header| (header.0.clone(), max)) })
    }

    /// Returns what a request costs.
    pub fn of(&self, request: &RequestHeader) -> u32 {
        let by_method = self.methods.iter().find(|(method, _)| *method == request.method).map_or(1, |(_, cost)| *cost);
        let Some((name, max)) = &self.header else { return by_method };
        let stated = request.headers.get(name).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        by_method.max(stated.map_or(0, |cost| u32::try_from(cost).unwrap_or(u32::MAX).min(*max)))
    }

    /// Returns the header that is read, with the keys that lead to its name.
    pub fn header_read(config: &CostConfig) -> Option<(HeaderName, Vec<String>)> {
        Some((config.header.as_ref()?.0.clone(), vec!["cost".to_owned(), "header".to_owned()]))
    }
}

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LEGACY: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

/// Writes the state of the client's limit (IETF httpapi, RateLimit header fields).
pub fn write_note(response: &mut ResponseHeader, view: &ResponseView<'_>) {
    let Some(note) = &view.exchange.limit else { return };
    let _ = response.insert_header(RATELIMIT_POLICY, note.policy.clone());
    if let Ok(state) = HeaderValue::from_bytes(&note.state) {
        let _ = response.insert_header(RATELIMIT, state);
    }
    if let Some(legacy) = note.legacy {
        for (name, value) in LEGACY.into_iter().zip(legacy) {
            let _ = response.insert_header(name, HeaderValue::from(value));
        }
    }
}

/// Notes the state of a limit that allows the request. The limit with the least left is reported, the first of equal
/// ones; a rejection always reports its own.
pub fn note_least(exchange: &mut Exchange, note: Option<LimitNote>) {
    if let Some(note) = note
        && exchange.limit.as_ref().is_none_or(|noted| note.remaining < noted.remaining)
    {
        exchange.limit = Some(note);
    }
}

/// Returns the `RateLimit` field of a limit.
pub fn state_text(label: &str, remaining: u64, reset: Duration) -> SmallVec<[u8; 64]> {
    use std::io::Write;
    let (mut buffer, seconds) = ([0_u8; 64], ceil_seconds(reset));
    let mut rest = &mut buffer[..];
    if write!(rest, "\"{label}\";r={remaining};t={seconds}").is_err() {
        return format!("\"{label}\";r={remaining};t={seconds}").into_bytes().into();
    }
    let left = rest.len();
    SmallVec::from_slice(&buffer[..buffer.len() - left])
}

/// Returns a duration in whole seconds, rounded up.
pub fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
