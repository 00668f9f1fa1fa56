//! `quota`: a number of requests in an hour, a day, a week or a month of the calendar, which outlives the process.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::limit_keys::{
    CostConfig, Costs, LimitBy, LimitKey, LimitKeys, LimitText, by_text, headers_of, note_least, state_text, write_note,
};
use super::{CompileContext, Consumers, HttpFilter, ResponseView, Stage, Verdict};
use crate::exchange::{Exchange, LimitNote, Reason, Rejection};
use crate::live::{QuotaCounts, QuotaOutcome};
use crate::notation::{Name, OneOrMany, Place, Quota, QuotaText, UtcOffset};
use crate::rules::limits::CalendarWindow;

/// A quota.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests in an hour, a day, a week (from Monday) or a month of the calendar.
    pub limit: QuotaText,
    /// Whether the consumer's own quota, or else that of its plan, takes precedence. Default false.
    #[serde(default)]
    pub from_plan: bool,
    /// What requests are counted by; several are combined. Default `consumer`.
    #[serde(default = "by_consumer")]
    pub by: LimitBy,
    /// What a request costs. Default: 1.
    #[serde(default)]
    pub cost: CostConfig,
    /// The offset of the calendar's clock from UTC. Default: UTC.
    pub utc_offset: Option<UtcOffset>,
    /// What happens to requests while the counts cannot be written. Default `reject`.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
    /// Quotas of the same name count together, wherever they are written. Counts belong to it, or without one to the
    /// place where the quota is written.
    pub name: Option<Name>,
    /// Whether responses have `X-RateLimit-Limit`, `-Remaining` and `-Reset` too. Default false.
    #[serde(default)]
    pub legacy_headers: bool,
}

/// What happens to requests while the counts cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnavailable {
    /// They are rejected with 503.
    #[default]
    Reject,
    /// They are accepted and not counted.
    Accept,
}

fn by_consumer() -> LimitBy {
    OneOrMany::One(LimitKey::Consumer)
}

/// Writes the quota as `1000/day by consumer`.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} by {}", self.limit.0, by_text(&self.by))
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    quota: Quota,
    plans: Option<Arc<Consumers>>,
    keys: LimitKeys,
    costs: Costs,
    offset: i64,
    counts: Arc<QuotaCounts>,
    when_unavailable: WhenUnavailable,
    label: String,
    text: LimitText,
    policy: ArcSwapOption<(u64, u64, HeaderValue)>,
    legacy_headers: bool,
}

/// A quota that several filters share.
struct SharedQuota {
    quota: Quota,
    offset: i64,
    place: Place,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let Some(folder) = context.state.clone() else {
            context.mistakes.add(&context.place, "counts have to be kept somewhere: set `process: {state: FOLDER}`");
            return None;
        };
        let (quota, offset) = (config.limit.0, config.utc_offset.as_ref().map_or(0, |offset| offset.0));
        let keys = LimitKeys::compile(&config.by, context)?;
        let costs = Costs::compile(&config.cost, quota.count, context)?;
        let name = match &config.name {
            Some(name) => format!("name:{}", name.0),
            None => context.route.count_name(keys.has_route()),
        };
        let shared = format!("quota {name}");
        let same = context
            .shared(shared.as_bytes(), |context| Some(SharedQuota { quota, offset, place: context.place.clone() }))?;
        if (same.quota, same.offset) != (quota, offset) {
            let why = format!("quotas of one name count together, and this one is another than {}", same.place);
            context.mistakes.add(&context.place.key("limit"), why);
        }
        let counts = context.live.quota(&folder, &name);
        context.keep(Arc::clone(counts.store()) as _);
        Some(Self {
            quota,
            plans: config.from_plan.then(|| Arc::clone(context.consumers)),
            keys,
            costs,
            offset,
            counts,
            when_unavailable: config.when_unavailable,
            label: config.name.as_ref().map_or("quota", |name| name.0.as_str()).to_owned(),
            text: LimitText::new(config.name.as_ref(), &config.by),
            policy: ArcSwapOption::empty(),
            legacy_headers: config.legacy_headers,
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        headers_of(&config.by).into_iter().chain(Costs::header_read(&config.cost)).collect()
    }

    /// Counts the request, or rejects it.
    async fn on_request(&self, request: &RequestHeader, exchange: &mut Exchange, (): &mut ()) -> Verdict {
        let cost = self.costs.of(request);
        if cost == 0 {
            return Ok(());
        }
        let quota = self.quota_of(exchange);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let window = CalendarWindow::at(quota.window, seconds, self.offset);
        let left = Duration::from_secs(u64::try_from(window.end - seconds).unwrap_or(0));
        let counted = self.counts.count(&self.keys.key(request, exchange), quota.count, window, cost.into());
        match counted.await {
            QuotaOutcome::Counted(remaining) => {
                note_least(exchange, self.note(quota, window, remaining, left));
                Ok(())
            }
            QuotaOutcome::Exceeded(remaining) => {
                exchange.limit = self.note(quota, window, remaining, left);
                let wait = left.as_secs().max(1);
                let rejection = Rejection::new(Reason::QuotaExceeded, format!("a new period begins in {wait} s"));
                let rejection = rejection.log(self.text.detail(quota));
                Err(rejection.header(RETRY_AFTER, HeaderValue::from(wait)))
            }
            QuotaOutcome::Unavailable if self.when_unavailable == WhenUnavailable::Accept => Ok(()),
            QuotaOutcome::Unavailable => Err(Rejection::new(Reason::QuotaUnavailable, "")
                .log(self.text.detail(quota))
                .header(RETRY_AFTER, HeaderValue::from_static("1"))),
        }
    }

    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        write_note(response, view);
    }
}

impl Filter {
    /// Returns the quota of a request's sender.
    fn quota_of(&self, exchange: &Exchange) -> Quota {
        let of_plan = || self.plans.as_ref()?.limit_of(exchange.identity.as_ref()?, |allowance| allowance.quota);
        of_plan().unwrap_or(self.quota)
    }

    /// Returns `RateLimit-Policy`. The last one is kept: the length of a month changes, and plans differ.
    fn policy(&self, count: u64, seconds: u64) -> Option<HeaderValue> {
        if let Some(known) = &*self.policy.load()
            && (known.0, known.1) == (count, seconds)
        {
            return Some(known.2.clone());
        }
        let fresh = HeaderValue::try_from(format!("\"{}\";q={count};w={seconds}", self.label)).ok()?;
        self.policy.store(Some(Arc::new((count, seconds, fresh.clone()))));
        Some(fresh)
    }

    fn note(&self, quota: Quota, window: CalendarWindow, remaining: u64, left: Duration) -> Option<LimitNote> {
        let seconds = u64::try_from(window.end - window.start).unwrap_or(0);
        Some(LimitNote {
            remaining,
            policy: self.policy(quota.count, seconds)?,
            state: state_text(&self.label, remaining, left),
            legacy: self.legacy_headers.then_some([quota.count, remaining, left.as_secs()]),
        })
    }
}
