//! `concurrency`: a limit of the requests that are under way at a time.

use std::sync::Arc;

use http::HeaderName;
use http::header::{HeaderValue, RETRY_AFTER};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::limit_keys::{LimitBy, LimitKeys, LimitText, by_address, by_text, headers_of};
use super::{CompileContext, Consumers, HttpFilter, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::live::{Places, TakenPlace};
use crate::notation::{Name, Place};

/// A limit of concurrency.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests may be under way at a time, from their head to the end of the response. A WebSocket is one for
    /// as long as it lives.
    #[schemars(range(min = 1))]
    pub limit: u32,
    /// Whether the consumer's own number, or else that of its plan, takes precedence. Default false.
    #[serde(default)]
    pub from_plan: bool,
    /// What requests are counted by; several are combined. Default `address`.
    #[serde(default = "by_address")]
    pub by: LimitBy,
    /// Limits of the same name count together, wherever they are written.
    pub name: Option<Name>,
}

/// Writes the limit as `5 at a time by consumer`.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at a time by {}", self.limit, by_text(&self.by))
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    limit: u32,
    plans: Option<Arc<Consumers>>,
    keys: LimitKeys,
    places: Arc<Places>,
    text: LimitText,
}

/// A limit that several filters share.
struct SharedLimit {
    limit: u32,
    place: Place,
}

impl HttpFilter for Filter {
    type Config = Config;
    /// The place of the request.
    type Memory = Option<TakenPlace>;
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let keys = LimitKeys::compile(&config.by, context)?;
        let limit = config.limit;
        let name = match &config.name {
            Some(name) => format!("name:{}", name.0),
            None => context.route.count_name(keys.has_route()),
        };
        let key = format!("concurrency {name}");
        let same =
            context.shared(key.as_bytes(), |context| Some(SharedLimit { limit, place: context.place.clone() }))?;
        if same.limit != limit {
            let why = format!("limits of one name count together, and this one is another than {}", same.place);
            context.mistakes.add(&context.place.key("limit"), why);
        }
        let text = LimitText::new(config.name.as_ref(), &config.by);
        let plans = config.from_plan.then(|| Arc::clone(context.consumers));
        Some(Self { limit, plans, keys, places: context.live.places(&name), text })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        headers_of(&config.by)
    }

    /// Takes a place for the request, or rejects it.
    async fn on_request(
        &self,
        request: &RequestHeader,
        exchange: &mut Exchange,
        memory: &mut Option<TakenPlace>,
    ) -> Verdict {
        let of_plan = || self.plans.as_ref()?.limit_of(exchange.identity.as_ref()?, |allowance| allowance.concurrency);
        let limit = of_plan().unwrap_or(self.limit);
        let (place, _) = self.places.take(&self.keys.key(request, exchange), limit);
        *memory = place;
        if memory.is_some() {
            return Ok(());
        }
        // That a route is full is not for the client to change.
        let reason = if self.keys.is_route_alone() { Reason::RouteFull } else { Reason::ConcurrencyLimited };
        let rejection = Rejection::new(reason, format!("at most {limit} at a time"));
        let rejection = rejection.log(self.text.detail(format_args!("{limit} at a time")));
        Err(rejection.header(RETRY_AFTER, HeaderValue::from_static("1")))
    }
}
