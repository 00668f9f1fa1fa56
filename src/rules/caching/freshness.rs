//! For how long a response is fresh, and how old it is (RFC 9111, section 4.2).
//!
//! Times are milliseconds of Unix time, and durations seconds where HTTP has seconds.

use http::header::{AGE, DATE, EXPIRES, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};

use super::date::parse_http_date;
use super::directives::{ResponseDirectives, Scope};

/// The largest age; a larger one counts as this (RFC 9111, section 1.2.2).
const MAX_AGE: u64 = 1 << 31;

/// The share of the time since the last change for which a response without a lifetime is fresh, and the most of it
/// (RFC 9111, section 4.2.2: "a typical setting of this fraction might be 10 %").
const HEURISTIC_SHARE: i64 = 10;
const MAX_HEURISTIC: u64 = 86_400;

/// The lifetimes that the configuration gives to responses, in seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TtlRules {
    /// That of successful responses that have none of their own.
    pub default: Option<u64>,
    /// That of successful responses, whatever they say.
    pub fixed: Option<u64>,
    /// Those of responses by their status, of those that have none of their own; the first that matches counts.
    pub statuses: Vec<(StatusSet, u64)>,
    /// The longest lifetime of any.
    pub most: Option<u64>,
    /// Whether the lifetime may be estimated from `Last-Modified`.
    pub heuristic: bool,
    /// For how many seconds a response that says nothing else may be used stale while it is validated.
    pub stale_while_revalidate: u64,
    /// The same, where the origin fails.
    pub stale_if_error: u64,
}

/// Some statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusSet {
    /// The first.
    pub from: u16,
    /// The last.
    pub to: u16,
}

impl StatusSet {
    fn has(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

/// Where the lifetime of a response comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// The response says it.
    Explicit,
    /// The configuration says it.
    Configured,
    /// It is estimated.
    Heuristic,
    /// There is none: the response is stale at once.
    None,
}

/// The freshness of a response at the time when it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// For how many seconds it is fresh in all.
    pub lifetime: u64,
    /// Where that comes from.
    pub source: LifetimeSource,
    /// How many seconds old it was when it came (`corrected_initial_age`, section 4.2.3).
    pub initial_age: u64,
    /// For how many seconds after that it may be used while it is validated.
    pub stale_while_revalidate: u64,
    /// For how many seconds after that it may be used where the origin fails.
    pub stale_if_error: u64,
}

impl Freshness {
    /// Returns the freshness of a response to a request that was sent at `sent` and responded to at `came`.
    pub fn of(
        status: u16,
        headers: &HeaderMap,
        (directives, targeted): (&ResponseDirectives, bool),
        rules: &TtlRules,
        (sent, came): (i64, i64),
    ) -> Self {
        let date = date_of(headers, &DATE).unwrap_or(came / 1_000);
        let (lifetime, source) = lifetime(status, headers, (directives, targeted), rules, date);
        let lifetime = rules.most.map_or(lifetime, |most| lifetime.min(most));
        let (mut revalidate, mut error) = (
            directives.stale_while_revalidate.unwrap_or(rules.stale_while_revalidate),
            directives.stale_if_error.unwrap_or(if is_success(status) { rules.stale_if_error } else { 0 }),
        );
        if directives.forbids_stale() {
            // Of these only what the response itself says beside it holds: `s-maxage` forbids what it does not permit
            // (RFC 9111, section 5.2.2.10; RFC 5861, section 3).
            let may =
                !(directives.must_revalidate || directives.proxy_revalidate || directives.no_cache == Scope::Whole);
            revalidate = directives.stale_while_revalidate.filter(|_| may).unwrap_or(0);
            error = directives.stale_if_error.filter(|_| may).unwrap_or(0);
        }
        let initial_age = initial_age(headers, date, (sent, came));
        Self { lifetime, source, initial_age, stale_while_revalidate: revalidate, stale_if_error: error }
    }

    /// Returns when the response that came at `came` is stale, in milliseconds.
    pub fn fresh_until(&self, came: i64) -> i64 {
        let left = i64::try_from(self.lifetime).unwrap_or(i64::MAX) - i64::try_from(self.initial_age).unwrap_or(0);
        came.saturating_add(left.saturating_mul(1_000))
    }
}

/// Returns whether a status is of a successful response or of a redirect that is lasting (RFC 9110, section 15.1).
fn is_success(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 300 | 301 | 308)
}

/// Returns whether the lifetime of a response with that status may be estimated (RFC 9110, section 15.1).
pub fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

fn lifetime(
    status: u16,
    headers: &HeaderMap,
    (directives, targeted): (&ResponseDirectives, bool),
    rules: &TtlRules,
    date: i64,
) -> (u64, LifetimeSource) {
    use LifetimeSource::{Configured, Explicit, Heuristic};
    if let (Some(fixed), true) = (rules.fixed, is_success(status)) {
        return (fixed, Configured);
    }
    if directives.no_cache == Scope::Whole {
        return (0, Explicit);
    }
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return (seconds, Explicit);
    }
    if !targeted && headers.contains_key(EXPIRES) {
        // What is no date is in the past, and so are two dates (RFC 9111, section 5.3).
        let left = date_of(headers, &EXPIRES).map_or(0, |expires| expires - date);
        return (u64::try_from(left).unwrap_or(0), Explicit);
    }
    if let Some((_, seconds)) = rules.statuses.iter().find(|(statuses, _)| statuses.has(status)) {
        return (*seconds, Configured);
    }
    let modified = date_of(headers, &LAST_MODIFIED).filter(|modified| rules.heuristic && *modified < date);
    if let (Some(modified), true) = (modified, is_heuristically_cacheable(status) || directives.public) {
        let share = u64::try_from((date - modified) / HEURISTIC_SHARE).unwrap_or(0);
        return (share.min(MAX_HEURISTIC), Heuristic);
    }
    match rules.default.filter(|_| is_success(status)) {
        Some(seconds) => (seconds, Configured),
        None => (0, LifetimeSource::None),
    }
}

/// Returns how old a response was when it came (RFC 9111, section 4.2.3).
fn initial_age(headers: &HeaderMap, date: i64, (sent, came): (i64, i64)) -> u64 {
    let apparent = u64::try_from(came / 1_000 - date).unwrap_or(0);
    let delay = u64::try_from((came - sent) / 1_000).unwrap_or(0);
    apparent.max(age_value(headers).saturating_add(delay)).min(MAX_AGE)
}

/// Returns the value of `Age`: the first of several, and 0 for what is no number (RFC 9111, section 5.1).
fn age_value(headers: &HeaderMap) -> u64 {
    let Some(text) = headers.get(AGE).and_then(|value| value.to_str().ok()) else { return 0 };
    let first = text.split([',', ';']).next().unwrap_or_default().trim();
    super::directives::parse_seconds(first).unwrap_or(0)
}

/// Returns the date of a field, if there is one with a valid date; of several equal ones that one.
pub fn date_of(headers: &HeaderMap, name: &HeaderName) -> Option<i64> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = values.next()?;
    if values.any(|other| other != first) {
        return None;
    }
    parse_http_date(first)
}

#[cfg(test)]
#[path = "freshness_tests.rs"]
mod tests;
