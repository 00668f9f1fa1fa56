//! `throttle`: requests beyond a rate wait for their turn, and are rejected only where too many wait or for too long.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use http::header::{HeaderValue, RETRY_AFTER};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::limit_keys::{LimitBy, LimitKeys, LimitText, by_address, by_text, ceil_seconds, headers_of};
use super::{CompileContext, HttpFilter, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::live::{NoTurn, QueueBounds, Turns};
use crate::notation::{Duration as DurationText, Name, Place, RateText};
use crate::rules::limits::Gcra;

/// A throttle.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests in which time. Those beyond it wait for their turn, in the order in which they came.
    pub limit: RateText,
    /// How many of them may come at once without a delay. Default 1.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// What requests are counted by; several are combined. Default `address`.
    #[serde(default = "by_address")]
    pub by: LimitBy,
    /// The longest delay; a request whose turn comes later is rejected. Default 5s.
    pub max_delay: Option<DurationText>,
    /// How many requests of one key may wait. Default 100.
    #[schemars(range(min = 1))]
    pub queue: Option<u32>,
    /// How many requests of all keys may wait. Default 10000.
    #[schemars(range(min = 1))]
    pub queue_total: Option<u32>,
    /// Throttles of the same name count together, wherever they are written.
    pub name: Option<Name>,
}

/// Writes the limit as `10/s by address, others wait`.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}, others wait", self.limit.0, by_text(&self.by))
    }
}

const MAX_DELAY: Duration = Duration::from_secs(5);
const QUEUE: u32 = 100;
const QUEUE_TOTAL: u32 = 10_000;

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    rate: Gcra,
    bounds: QueueBounds,
    keys: LimitKeys,
    turns: Arc<Turns>,
    /// What the log says of it.
    text: String,
}

/// A throttle that several filters share.
struct SharedLimit {
    rate: Gcra,
    place: Place,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let keys = LimitKeys::compile(&config.by, context)?;
        let rate = Gcra::new(config.limit.0.count, config.limit.0.period, Some(config.burst.unwrap_or(1)));
        let name = match &config.name {
            Some(name) => format!("name:{}", name.0),
            None => context.route.count_name(keys.has_route()),
        };
        let key = format!("throttle {name}");
        let same =
            context.shared(key.as_bytes(), |context| Some(SharedLimit { rate, place: context.place.clone() }))?;
        if same.rate != rate {
            let why = format!("limits of one name count together, and this one is another than {}", same.place);
            context.mistakes.add(&context.place.key("limit"), why);
        }
        let bounds = QueueBounds {
            of_key: config.queue.unwrap_or(QUEUE) as usize,
            of_all: config.queue_total.unwrap_or(QUEUE_TOTAL) as usize,
            delay: config.max_delay.as_ref().map_or(MAX_DELAY, |delay| delay.0),
        };
        let text = LimitText::new(config.name.as_ref(), &config.by).detail(config.limit.0);
        Some(Self { rate, bounds, keys, turns: context.live.turns(&name), text })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        headers_of(&config.by)
    }

    fn may_wait(&self) -> bool {
        true
    }

    /// Waits for the turn of the request, or rejects it.
    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        let none = match self.turns.wait(self.rate, &self.keys.key(request, exchange), self.bounds) {
            Ok(None) => return Ok(()),
            Ok(Some(wait)) => {
                wait.await;
                return Ok(());
            }
            Err(none) => none,
        };
        let (NoTurn::TooLong(wait) | NoTurn::Full(wait)) = none;
        let seconds = ceil_seconds(Duration::from_nanos(wait)).max(1);
        let why = match none {
            NoTurn::TooLong(_) => "the wait would be too long",
            NoTurn::Full(_) => "too many wait",
        };
        let rejection = Rejection::new(Reason::ThrottleFull, format!("try again in {seconds} s"));
        let rejection = rejection.log(format!("{}: {why}", self.text));
        Err(rejection.header(RETRY_AFTER, HeaderValue::from(seconds)))
    }
}
