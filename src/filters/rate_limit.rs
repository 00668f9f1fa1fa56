//! `rate_limit`: an exact limit in one or several windows, by address, consumer, header and other properties.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::limit_keys::{
    CostConfig, Costs, LimitBy, LimitKeys, LimitText, by_address, by_text, ceil_seconds, headers_of, note_least,
    state_text, write_note,
};
use super::{CompileContext, Consumers, HttpFilter, ResponseView, Stage, Verdict};
use crate::exchange::{Exchange, LimitNote, Reason, Rejection, clock};
use crate::live::Buckets;
use crate::notation::{Name, OneOrMany, Place, Rate, RateText};
use crate::rules::limits::{MAX_WINDOWS, Window, WindowKind, Windows, WindowsDecision};

/// A limit.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How many requests in which time. Of several windows, as in `[10/s, 1000/h]`, each has to allow a request; one
    /// that is rejected is counted in none.
    pub limit: OneOrMany<RateText>,
    /// Whether the consumer's own rate limit, or else that of its plan, takes precedence. Default false.
    #[serde(default)]
    pub from_plan: bool,
    /// How many of them may come at once. Default: all.
    #[schemars(range(min = 1))]
    pub burst: Option<u32>,
    /// How requests are counted. Default `gcra`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// What requests are counted by; several are combined. Default `address`.
    #[serde(default = "by_address")]
    pub by: LimitBy,
    /// What a request costs. Default: 1.
    #[serde(default)]
    pub cost: CostConfig,
    /// Limits of the same name count together, wherever they are written. Default: each counts alone: for its route,
    /// or where several routes have it (from `defaults`, a listener or a set) for all of them together. With `route`
    /// in `by` it counts for each of them by itself.
    pub name: Option<Name>,
    /// Whether responses have `X-RateLimit-Limit`, `-Remaining` and `-Reset` too. Default false.
    #[serde(default)]
    pub legacy_headers: bool,
}

/// How requests are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The generic cell rate algorithm: `burst` at once, and then one in each period divided by the number.
    #[default]
    Gcra,
    /// The number in any window of that length, by two counters: of the one before, the part counts that the window
    /// still covers.
    SlidingWindow,
}

/// Writes the limit as `100/s by consumer`.
impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rates: Vec<Rate> = self.limit.as_slice().iter().map(|rate| rate.0).collect();
        write!(f, "{} by {}", rates_text(&rates), by_text(&self.by))?;
        self.burst.map_or(Ok(()), |burst| write!(f, ", {burst} at once"))
    }
}

/// Returns rates as `10/s and 1000/h`.
fn rates_text(rates: &[Rate]) -> String {
    rates.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// The windows of a limit, with what responses say of them.
#[derive(Debug)]
struct DescribedWindows {
    windows: Arc<Windows>,
    /// The name and the number of each.
    each: Vec<(String, u32)>,
    /// `RateLimit-Policy`.
    policy: HeaderValue,
    /// The rates as a text.
    text: String,
}

impl DescribedWindows {
    /// Describes windows under the name of their limit. Several have their time in their names.
    fn new(label: &str, rates: &[Rate], kind: WindowKind, burst: Option<u32>) -> Option<Self> {
        let windows = rates.iter().map(|rate| Window::new(kind, rate.count, rate.period, burst)).collect::<Vec<_>>();
        let name = |rate: &Rate| match (rates.len(), rate.to_string().split_once('/')) {
            (2.., Some((_, period))) => format!("{label}-{period}"),
            _ => label.to_owned(),
        };
        let each: Vec<(String, u32)> = rates.iter().map(|rate| (name(rate), rate.count)).collect();
        let policy = |((name, count), rate): (&(String, u32), &Rate)| {
            format!("\"{name}\";q={count};w={}", rate.period.as_secs().max(1))
        };
        let policy = each.iter().zip(rates).map(policy).collect::<Vec<_>>().join(", ");
        let policy = HeaderValue::try_from(policy).ok()?;
        Some(Self { windows: Arc::new(windows.into()), policy, each, text: rates_text(rates) })
    }
}

/// The windows of consumers and plans.
#[derive(Debug)]
struct PlanWindows {
    consumers: Arc<Consumers>,
    kind: WindowKind,
    /// The windows that were described so far, by their rates; those of a file of consumers may change at any time.
    described: ArcSwap<AHashMap<Vec<Rate>, Arc<DescribedWindows>>>,
}

/// The most that are kept described.
const MAX_DESCRIBED: usize = 1_024;

impl PlanWindows {
    /// Returns the windows of a request's sender, if it has any.
    fn of(&self, exchange: &Exchange, label: &str) -> Option<Arc<DescribedWindows>> {
        self.consumers.limit_of(exchange.identity.as_ref()?, |allowance| self.described(&allowance.rate_limit, label))
    }

    fn described(&self, rates: &[Rate], label: &str) -> Option<Arc<DescribedWindows>> {
        if rates.is_empty() {
            return None;
        }
        if let Some(known) = self.described.load().get(rates) {
            return Some(Arc::clone(known));
        }
        let fresh = Arc::new(DescribedWindows::new(label, rates, self.kind, None)?);
        self.described.rcu(|known| {
            let mut known = if known.len() < MAX_DESCRIBED { AHashMap::clone(known) } else { AHashMap::new() };
            known.insert(rates.to_vec(), Arc::clone(&fresh));
            known
        });
        Some(fresh)
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    own: DescribedWindows,
    plans: Option<PlanWindows>,
    keys: LimitKeys,
    costs: Costs,
    buckets: Arc<Buckets>,
    label: String,
    text: LimitText,
    legacy_headers: bool,
}

/// A limit that several filters share.
struct SharedLimit {
    windows: Arc<Windows>,
    place: Place,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Limit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let rates = rates(config, context)?;
        let keys = LimitKeys::compile(&config.by, context)?;
        let kind = match config.algorithm {
            Algorithm::Gcra => WindowKind::Gcra,
            Algorithm::SlidingWindow => WindowKind::Sliding,
        };
        let label = config.name.as_ref().map_or("limit", |n| n.0.as_str()).to_owned();
        let own = DescribedWindows::new(&label, &rates, kind, config.burst)?;
        let costs = Costs::compile(&config.cost, own.windows.most().into(), context)?;
        let name = match &config.name {
            Some(name) => format!("name:{}", name.0),
            None => context.route.count_name(keys.has_route()),
        };
        let windows = Arc::clone(&own.windows);
        let same =
            context.shared(name.as_bytes(), |context| Some(SharedLimit { windows, place: context.place.clone() }))?;
        if same.windows != own.windows {
            let why = format!("limits of one name count together, and this one is another than {}", same.place);
            context.mistakes.add(&context.place.key("limit"), why);
        }
        let buckets = context.live.buckets(&name);
        let plans = config.from_plan.then(|| PlanWindows {
            consumers: Arc::clone(context.consumers),
            kind,
            described: ArcSwap::default(),
        });
        let text = LimitText::new(config.name.as_ref(), &config.by);
        Some(Self { own, plans, keys, costs, buckets, label, text, legacy_headers: config.legacy_headers })
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
        let of_plan = self.plans.as_ref().and_then(|plans| plans.of(exchange, &self.label));
        let described = of_plan.as_deref().unwrap_or(&self.own);
        let key = self.keys.key(request, exchange);
        let decision = self.buckets.admit(&described.windows, &key, cost, clock::now());
        let note = self.note(described, &decision);
        if !decision.is_allowed {
            exchange.limit = note;
            let seconds = ceil_seconds(decision.decision.retry_after).max(1);
            let detail = format!("try again in {seconds} s");
            let rejection = Rejection::new(Reason::RateLimited, detail).log(self.text.detail(&described.text));
            return Err(rejection.header(RETRY_AFTER, HeaderValue::from(seconds)));
        }
        note_least(exchange, note);
        Ok(())
    }

    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        write_note(response, view);
    }
}

/// Returns the rates of a limit; `None` when errors were noted.
fn rates(config: &Config, context: &mut CompileContext<'_>) -> Option<Vec<Rate>> {
    let rates: Vec<Rate> = config.limit.as_slice().iter().map(|rate| rate.0).collect();
    let place = context.place.key("limit");
    if rates.is_empty() || rates.len() > MAX_WINDOWS {
        context.mistakes.add(&place, format!("expected one to {MAX_WINDOWS} rates"));
        return None;
    }
    if let Some(second) = (1..rates.len()).find(|at| rates[..*at].iter().any(|r| r.period == rates[*at].period)) {
        context.mistakes.add(&place.index(second), "there is a rate for this time already");
        return None;
    }
    if config.burst.is_some() && (rates.len() > 1 || config.algorithm == Algorithm::SlidingWindow) {
        let why = "belongs to a single rate by gcra: of several rates the shortest limits what comes at once";
        context.mistakes.add(&context.place.key("burst"), why);
        return None;
    }
    Some(rates)
}

impl Filter {
    fn note(&self, described: &DescribedWindows, decision: &WindowsDecision) -> Option<LimitNote> {
        let (name, count) = described.each.get(decision.tightest)?;
        // A rejected request leaves nothing that it could have had.
        let remaining = if decision.is_allowed { decision.decision.remaining } else { 0 };
        let reset: Duration = decision.decision.reset;
        Some(LimitNote {
            remaining: remaining.into(),
            policy: described.policy.clone(),
            state: state_text(name, remaining.into(), reset),
            legacy: self.legacy_headers.then(|| [u64::from(*count), remaining.into(), ceil_seconds(reset)]),
        })
    }
}
