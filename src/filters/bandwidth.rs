//! `bandwidth`: a limit of the bytes per second of bodies.

use std::sync::Arc;

use http::HeaderName;
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::limit_keys::{LimitBy, LimitKeys, by_text, headers_of};
use super::{CompileContext, HttpFilter, Stage, Verdict};
use crate::exchange::{Exchange, clock};
use crate::live::Pacers;
use crate::notation::{ByteRate, Name, Size};
use crate::rules::limits::{BytePace, Pacer};

/// A limit of bandwidth.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The rate of response bodies, of at least 1KiB/s.
    pub response: Option<ByteRate>,
    /// The rate of request bodies, of at least 1KiB/s.
    pub request: Option<ByteRate>,
    /// How many bytes may go at once. Default 64KiB.
    pub burst: Option<Size>,
    /// What shares the rate: all requests that have these properties in common. Default: each request has it alone.
    pub by: Option<LimitBy>,
    /// Limits of the same name share the rate, wherever they are written; only with `by`.
    pub name: Option<Name>,
}

/// Writes the limit as `1MiB/s of responses by consumer`.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rates = [(&self.response, "responses"), (&self.request, "requests")];
        let rates = rates.iter().filter_map(|(rate, what)| Some(format!("{} B/s of {what}", rate.as_ref()?.0)));
        write!(f, "{}", rates.collect::<Vec<_>>().join(" and "))?;
        self.by.as_ref().map_or(Ok(()), |by| write!(f, " by {}", by_text(by)))
    }
}

const BURST: u64 = 64 * 1024;

/// The slowest rate: parts of a body of 64 KiB wait for no more than about a minute.
const SLOWEST: u64 = 1024;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    response: Option<BytePace>,
    request: Option<BytePace>,
    shared: Option<(LimitKeys, Arc<Pacers>)>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        if config.response.is_none() && config.request.is_none() {
            context.mistakes.add(&context.place, "expected response, request or both");
            return None;
        }
        for (key, rate) in [("response", &config.response), ("request", &config.request)] {
            if rate.as_ref().is_some_and(|rate| rate.0 < SLOWEST) {
                context.mistakes.add(&context.place.key(key), "expected a rate of at least 1KiB/s");
                return None;
            }
        }
        if config.by.is_none() && config.name.is_some() {
            context
                .mistakes
                .add(&context.place.key("name"), "has no effect without by: each request has the rate alone");
            return None;
        }
        let shared = match &config.by {
            None => None,
            Some(by) => {
                let keys = LimitKeys::compile(by, context)?;
                let name = match &config.name {
                    Some(name) => format!("name:{}", name.0),
                    None => context.route.count_name(keys.has_route()),
                };
                Some((keys, context.live.pacers(&name)))
            }
        };
        let burst = config.burst.as_ref().map_or(BURST, |burst| burst.0);
        let pace = |rate: &Option<ByteRate>| rate.as_ref().map(|rate| BytePace::new(rate.0, burst));
        Some(Self { response: pace(&config.response), request: pace(&config.request), shared })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        config.by.as_ref().map(headers_of).unwrap_or_default()
    }

    /// Gives the bodies of the request their paces.
    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        let key = self.shared.as_ref().map(|(keys, _)| keys.key(request, exchange));
        let pacer = |pace: BytePace, side: u8| match (&self.shared, &key) {
            (Some((_, pacers)), Some(key)) => {
                let mut key = key.clone();
                key.push(side);
                pacers.get(&key, pace, clock::now())
            }
            _ => Arc::new(Pacer::new(pace, 0)),
        };
        let (response, sent) =
            (self.response.map(|pace| pacer(pace, b'>')), self.request.map(|pace| pacer(pace, b'<')));
        exchange.pacing.response.extend(response);
        exchange.pacing.request.extend(sent);
        Ok(())
    }
}
