//! `rate_limit`: an exact limit (GCRA), by address, consumer, header or route.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, ResponseView, Stage, Verdict};
use crate::exchange::{Exchange, LimitNote, Reason, Rejection, clock};
use crate::live::Buckets;
use crate::notation::{Header, Name, Place, RateText};
use crate::rules::limits::{Decision, Gcra};

const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The longest value of a header in a key; longer ones are cut, and share a bucket.
const MAX_HEADER: usize = 256;

/// A limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests in which time.
    pub limit: RateText,
    /// How many of them may come at once. Default: all.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// What requests are counted by; several are combined. Default `address`.
    #[serde(default = "by_address")]
    pub by: LimitKeys,
    /// Limits of the same name count together, wherever they are written. Default: each counts alone: for its route,
    /// or where several routes have it (from `defaults`, a listener or a set) for all of them together. With `route`
    /// in `by` it counts for each of them by itself.
    pub name: Option<Name>,
}

fn by_address() -> LimitKeys {
    LimitKeys::One(LimitKey::Address)
}

/// Writes the limit as `100/s by consumer`.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |key: &LimitKey| match key {
            LimitKey::Address => "address",
            LimitKey::Consumer => "consumer",
            LimitKey::Route => "route",
        };
        let by = match &self.by {
            LimitKeys::One(key) => word(key).to_owned(),
            LimitKeys::Several(keys) => keys.iter().map(word).collect::<Vec<_>>().join(" and "),
            LimitKeys::Header(key) => format!("the header {}", key.header.0),
        };
        write!(f, "{} by {by}", self.limit.0)?;
        self.burst.map_or(Ok(()), |burst| write!(f, ", {burst} at once"))
    }
}

/// One property or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum LimitKeys {
    /// One property.
    One(LimitKey),
    /// The combination of several.
    Several(Vec<LimitKey>),
    /// A header.
    Header(HeaderLimitKey),
}

impl LimitKeys {
    /// Returns whether the consumer is one of the properties.
    pub fn has_consumer(&self) -> bool {
        match self {
            Self::One(key) => *key == LimitKey::Consumer,
            Self::Several(keys) => keys.contains(&LimitKey::Consumer),
            Self::Header(_) => false,
        }
    }
}

/// A property by which requests are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitKey {
    /// The client's address; of IPv6 its /64.
    Address,
    /// The consumer; a request without one is counted by its address.
    Consumer,
    /// Nothing: all of the route's requests count together.
    Route,
}

/// A header's value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderLimitKey {
    /// The header; a request without it is counted by its address.
    pub header: Header,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    gcra: Gcra,
    keys: Vec<LimitKey>,
    header: Option<HeaderName>,
    buckets: Arc<Buckets>,
    policy: HeaderValue,
    label: String,
}

fn ceil_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A limit that several filters share.
struct SharedLimit {
    gcra: Gcra,
    place: Place,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let (keys, header) = match &config.by {
            LimitKeys::One(part) => (vec![*part], None),
            LimitKeys::Several(keys) if keys.is_empty() => {
                context.mistakes.add(&context.place.key("by"), "expected at least one of address, consumer, route");
                return None;
            }
            LimitKeys::Several(keys) => (keys.clone(), None),
            LimitKeys::Header(part) => (Vec::new(), Some(part.header.0.clone())),
        };
        let gcra = Gcra::new(config.limit.0.count, config.limit.0.period, config.burst);
        let label = config.name.as_ref().map_or("limit", |n| n.0.as_str()).to_owned();
        let name = match &config.name {
            Some(name) => format!("name:{}", name.0),
            None => context.route.count_name(keys.contains(&LimitKey::Route)),
        };
        let same =
            context.shared(name.as_bytes(), |context| Some(SharedLimit { gcra, place: context.place.clone() }))?;
        if same.gcra != gcra {
            let why = format!("limits of one name count together, and this one is another than {}", same.place);
            context.mistakes.add(&context.place.key("limit"), why);
        }
        let window = config.limit.0.period.as_secs().max(1);
        let policy = format!("\"{label}\";q={};w={window}", config.limit.0.count);
        Some(Self {
            gcra,
            keys,
            header,
            buckets: context.live.buckets(&name),
            policy: HeaderValue::try_from(policy).ok()?,
            label,
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        match &config.by {
            LimitKeys::Header(part) => vec![(part.header.0.clone(), vec!["by".to_owned(), "header".to_owned()])],
            LimitKeys::One(_) | LimitKeys::Several(_) => Vec::new(),
        }
    }

    /// Counts the request, or rejects it.
    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        let mut key = [0_u8; MAX_HEADER + 64];
        let length = self.key(request, exchange, &mut key);
        let decision = self.buckets.admit(self.gcra, &key[..length], clock::now());
        let note = self.note(&decision);
        if decision.tat.is_none() {
            exchange.limit = note;
            let seconds = ceil_seconds(decision.retry_after).max(1);
            let detail = format!("try again in {seconds} s");
            return Err(Rejection::new(Reason::RateLimited, detail).header(RETRY_AFTER, HeaderValue::from(seconds)));
        }
        // The limit with the least left is reported, the first of equal ones; a rejection always reports its own.
        if let Some(note) = note
            && exchange.limit.as_ref().is_none_or(|noted| note.remaining < noted.remaining)
        {
            exchange.limit = Some(note);
        }
        Ok(())
    }

    /// Writes the state of the client's limit (IETF httpapi, RateLimit header fields).
    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        if let Some(note) = &view.exchange.limit {
            let _ = response.insert_header(RATELIMIT_POLICY, note.policy.clone());
            let _ = response.insert_header(RATELIMIT, note.state.clone());
        }
    }
}

impl Filter {
    fn note(&self, decision: &Decision) -> Option<LimitNote> {
        use std::io::Write;
        let mut text = Vec::with_capacity(self.label.len() + 32);
        let _ = write!(text, "\"{}\";r={};t={}", self.label, decision.remaining, ceil_seconds(decision.reset));
        let remaining = decision.remaining;
        Some(LimitNote {
            remaining,
            policy: self.policy.clone(),
            state: HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()?,
        })
    }

    /// Writes the key of a request; each part has a tag, so that keys of different kinds never collide.
    fn key(&self, request: &RequestHeader, exchange: &Exchange, out: &mut [u8; MAX_HEADER + 64]) -> usize {
        let mut at = 0;
        let mut push = |tag: u8, bytes: &[u8]| {
            let bytes = &bytes[..bytes.len().min(out.len() - at - 1)];
            out[at] = tag;
            out[at + 1..at + 1 + bytes.len()].copy_from_slice(bytes);
            at += 1 + bytes.len();
        };
        let address = |push: &mut dyn FnMut(u8, &[u8])| match exchange.client {
            IpAddr::V4(v4) => push(b'4', &v4.octets()),
            IpAddr::V6(v6) => push(b'6', &v6.octets()[..8]),
        };
        if let Some(header) = &self.header {
            match request.headers.get(header) {
                Some(value) => push(b'h', &value.as_bytes()[..value.len().min(MAX_HEADER)]),
                None => address(&mut push),
            }
        }
        for part in &self.keys {
            match (part, &exchange.identity) {
                (LimitKey::Consumer, Some(identity)) => {
                    let name = identity.name.as_bytes();
                    push(b'c', &name[..name.len().min(MAX_HEADER)]);
                }
                (LimitKey::Address | LimitKey::Consumer, _) => address(&mut push),
                (LimitKey::Route, _) => push(b'r', &[]),
            }
        }
        at
    }
}
