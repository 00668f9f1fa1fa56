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

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// The longest value of a header that is part of a key; longer ones are cut, and share a bucket.
const MAX_HEADER: usize = 256;

/// A limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many in which time.
    pub limit: RateText,
    /// How many of them may come at once. Default: all.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// Whose requests are counted together; several are combined. Default `address`.
    #[serde(default = "by_address")]
    pub by: By,
    /// Limits of the same name, wherever they are written, count together. Default: each counts alone: for its route, or
    /// where several routes have it (from `defaults`, a listener or a set) for all of them together. With `route` in `by` it
    /// counts for each of them by itself.
    pub name: Option<Name>,
}

fn by_address() -> By {
    By::One(Part::Address)
}

/// One part or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum By {
    /// Just this.
    One(Part),
    /// The combination.
    Several(Vec<Part>),
    /// A header.
    Header(HeaderPart),
}

/// What requests are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The client's address; of IPv6 its /64.
    Address,
    /// The consumer; a request without one by its address.
    Consumer,
    /// Nothing: all of the route's requests count together.
    Route,
}

/// A header's value.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderPart {
    /// The header; a request without it by its address.
    pub header: Header,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    gcra: Gcra,
    parts: Vec<Part>,
    header: Option<HeaderName>,
    buckets: Arc<Buckets>,
    policy: HeaderValue,
    label: String,
}

fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A limit of which several filters are one.
struct Named {
    gcra: Gcra,
    place: Place,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let (parts, header) = match &config.by {
            By::One(part) => (vec![*part], None),
            By::Several(parts) if parts.is_empty() => {
                context.mistakes.add(&context.place.key("by"), "expected at least one of address, consumer, route");
                return None;
            }
            By::Several(parts) => (parts.clone(), None),
            By::Header(part) => (Vec::new(), Some(part.header.0.clone())),
        };
        let gcra = Gcra::new(config.limit.0.count, config.limit.0.period, config.burst);
        let label = config.name.as_ref().map_or("limit", |n| n.0.as_str()).to_owned();
        let name = match &config.name {
            Some(name) => format!("name:{}", name.0),
            None => context.route.count_name(parts.contains(&Part::Route)),
        };
        let same = context.shared(name.as_bytes(), |context| Some(Named { gcra, place: context.place.clone() }))?;
        if same.gcra != gcra {
            let why = format!("limits of one name count together, and this one is another than {}", same.place);
            context.mistakes.add(&context.place.key("limit"), why);
        }
        let window = config.limit.0.period.as_secs().max(1);
        let policy = format!("\"{label}\";q={};w={window}", config.limit.0.count);
        Some(Self { gcra, parts, header, buckets: context.live.buckets(&name), policy: HeaderValue::try_from(policy).ok()?, label })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        match &config.by {
            By::Header(part) => vec![(part.header.0.clone(), vec!["by".to_owned(), "header".to_owned()])],
            By::One(_) | By::Several(_) => Vec::new(),
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
            let seconds = seconds_up(decision.retry_after).max(1);
            let detail = format!("try again in {seconds} s");
            return Err(Rejection::new(Reason::RateLimited, detail).header(RETRY_AFTER, HeaderValue::from(seconds)));
        }
        // Of several limits the one with the least left is told, and the first of them; a rejection always tells its own.
        if let Some(note) = note
            && exchange.limit.as_ref().is_none_or(|told| note.remaining < told.remaining)
        {
            exchange.limit = Some(note);
        }
        Ok(())
    }

    /// Says where the client stands (IETF httpapi, RateLimit header fields).
    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        if let Some(note) = &view.exchange.limit {
            let _ = response.insert_header(POLICY, note.policy.clone());
            let _ = response.insert_header(STATE, note.state.clone());
        }
    }
}

impl Filter {
    fn note(&self, decision: &Decision) -> Option<LimitNote> {
        use std::io::Write;
        let mut text = Vec::with_capacity(self.label.len() + 32);
        let _ = write!(text, "\"{}\";r={};t={}", self.label, decision.remaining, seconds_up(decision.reset));
        let remaining = decision.remaining;
        Some(LimitNote { remaining, policy: self.policy.clone(), state: HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok()? })
    }

    /// Writes the key of a request; each part with a tag, so that no two keys of different kinds meet.
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
        for part in &self.parts {
            match (part, &exchange.identity) {
                (Part::Consumer, Some(identity)) => {
                    let name = identity.name.as_bytes();
                    push(b'c', &name[..name.len().min(MAX_HEADER)]);
                }
                (Part::Address | Part::Consumer, _) => address(&mut push),
                (Part::Route, _) => push(b'r', &[]),
            }
        }
        at
    }
}
