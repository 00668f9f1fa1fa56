//! Each rule for lifetimes and ages alone, and all of them against the formulas of RFC 9111 on a virtual clock.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::rules::caching::reuse::{Reuse, StaleLimits, StoredFacts};
use crate::rules::caching::{NotStored, RequestDirectives, StoreRequest, StoreRules, decide_storing};
use proptest::prelude::*;

/// The virtual time at which every response comes, in seconds.
const NOW: i64 = 1_800_000_000;

fn date(seconds: i64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds.cast_unsigned()))
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn of(status: u16, lines: &[(&'static str, &str)], rules: &TtlRules) -> Freshness {
    let headers = headers(lines);
    let (directives, targeted) = ResponseDirectives::of(&headers);
    Freshness::of(status, &headers, (&directives, targeted), rules, (NOW * 1_000, NOW * 1_000))
}

#[test]
fn what_is_said_counts_before_what_is_configured_and_that_before_a_guess() {
    let rules = TtlRules {
        default: Some(7),
        statuses: vec![(StatusSet { from: 404, to: 404 }, 5), (StatusSet { from: 500, to: 599 }, 3)],
        heuristic: true,
        ..TtlRules::default()
    };
    let lifetime = |status, lines: &[(&'static str, &str)]| {
        let found = of(status, lines, &rules);
        (found.lifetime, found.source)
    };
    use LifetimeSource::{Configured, Explicit, Heuristic};
    let (past, modified) = (date(NOW - 10), date(NOW - 1_000));
    assert_eq!(lifetime(200, &[("cache-control", "max-age=60, s-maxage=30")]), (30, Explicit));
    assert_eq!(lifetime(200, &[("cache-control", "max-age=60"), ("expires", &past)]), (60, Explicit));
    assert_eq!(lifetime(200, &[("expires", &date(NOW + 9))]), (9, Explicit));
    assert_eq!(lifetime(200, &[("expires", "0")]), (0, Explicit));
    assert_eq!(lifetime(200, &[("expires", &date(NOW + 9)), ("expires", &date(NOW + 8))]), (0, Explicit));
    assert_eq!(lifetime(200, &[("date", &past), ("expires", &date(NOW))]), (10, Explicit));
    assert_eq!(lifetime(200, &[("cdn-cache-control", "max-age=5"), ("cache-control", "no-store")]), (5, Explicit));
    assert_eq!(lifetime(200, &[("last-modified", &modified)]), (100, Heuristic));
    assert_eq!(lifetime(200, &[("last-modified", &date(1))]), (MAX_HEURISTIC, Heuristic));
    assert_eq!(lifetime(200, &[]), (7, Configured));
    assert_eq!(lifetime(404, &[]), (5, Configured));
    assert_eq!(lifetime(404, &[("cache-control", "max-age=1")]), (1, Explicit));
    assert_eq!(lifetime(503, &[]), (3, Configured));
    assert_eq!(lifetime(403, &[]), (0, LifetimeSource::None));
    assert_eq!(lifetime(200, &[("cache-control", "no-cache, max-age=9")]), (0, Explicit));
}

#[test]
fn a_fixed_lifetime_and_a_cap() {
    let fixed = TtlRules { fixed: Some(50), ..TtlRules::default() };
    assert_eq!(of(200, &[("cache-control", "max-age=1")], &fixed).lifetime, 50);
    assert_eq!(of(500, &[("cache-control", "max-age=1")], &fixed).lifetime, 1);
    let most = TtlRules { most: Some(10), ..TtlRules::default() };
    assert_eq!(of(200, &[("cache-control", "max-age=99")], &most).lifetime, 10);
}

#[test]
fn stale_windows_are_those_of_the_response_or_of_the_configuration() {
    let rules = TtlRules { stale_while_revalidate: 5, stale_if_error: 6, ..TtlRules::default() };
    let windows = |status, text: &str| {
        let found = of(status, &[("cache-control", text)], &rules);
        (found.stale_while_revalidate, found.stale_if_error)
    };
    assert_eq!(windows(200, "max-age=1"), (5, 6));
    assert_eq!(windows(200, "max-age=1, stale-while-revalidate=50, stale-if-error=60"), (50, 60));
    assert_eq!(windows(200, "s-maxage=1"), (0, 0));
    assert_eq!(windows(200, "s-maxage=1, stale-while-revalidate=50"), (50, 0));
    assert_eq!(windows(200, "max-age=1, must-revalidate, stale-while-revalidate=50"), (0, 0));
    assert_eq!(windows(404, "max-age=1"), (5, 0));
}

#[test]
fn the_first_age_counts() {
    for (lines, wanted) in [
        (&["7200"][..], 7_200),
        (&["abc"], 0),
        (&["-7200"], 0),
        (&["7200.0"], 0),
        (&["2147483649"], MAX_AGE),
        (&["7200, 0"], 7_200),
        (&["0", "7200"], 0),
        (&["7200;a=b"], 7_200),
    ] {
        let lines: Vec<_> = lines.iter().map(|line| ("age", *line)).collect();
        assert_eq!(of(200, &lines, &TtlRules::default()).initial_age, wanted, "{lines:?}");
    }
}

/// What a response says, in the terms of RFC 9111.
#[derive(Clone, Debug)]
struct Said {
    max_age: Option<u64>,
    s_maxage: Option<u64>,
    expires: Option<i64>,
    date: Option<i64>,
    age: Option<u64>,
    delay: i64,
    modified: Option<i64>,
}

/// A naive model: the formulas of RFC 9111, sections 4.2.1 to 4.2.3, one after the other, in seconds.
fn model_is_fresh(said: &Said, after: i64) -> bool {
    let response_time = NOW;
    let request_time = NOW - said.delay;
    let date_value = said.date.unwrap_or(NOW);
    let freshness_lifetime = match (said.s_maxage, said.max_age, said.expires) {
        (Some(shared), _, _) => shared.cast_signed(),
        (None, Some(own), _) => own.cast_signed(),
        (None, None, Some(expires)) => expires - date_value,
        (None, None, None) => match said.modified {
            Some(modified) if modified < date_value => ((date_value - modified) / 10).min(86_400),
            _ => 0,
        },
    };
    let apparent_age = (response_time - date_value).max(0);
    let response_delay = response_time - request_time;
    let corrected_age_value = said.age.unwrap_or(0).cast_signed() + response_delay;
    let corrected_initial_age = apparent_age.max(corrected_age_value);
    let resident_time = after;
    let current_age = corrected_initial_age + resident_time;
    freshness_lifetime > current_age
}

fn said() -> impl Strategy<Value = Said> {
    let seconds = || proptest::option::of(0_u64..200);
    let offset = || proptest::option::of(-150_i64..150);
    (seconds(), seconds(), offset(), proptest::option::of(-150_i64..50), seconds(), 0_i64..20, offset()).prop_map(
        |(max_age, s_maxage, expires, date, age, delay, modified)| Said {
            max_age,
            s_maxage,
            expires: expires.map(|offset| NOW + offset),
            date: date.map(|offset| NOW + offset),
            age,
            delay,
            modified: modified.map(|offset| NOW + 20 * offset),
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_096, ..ProptestConfig::default() })]
    #[test]
    fn freshness_is_that_of_the_naive_model(said in said(), after in 0_i64..300) {
        let mut lines = Vec::new();
        let control = [("max-age", said.max_age), ("s-maxage", said.s_maxage)];
        let control: Vec<String> =
            control.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?))).collect();
        let control = control.join(", ");
        if !control.is_empty() {
            lines.push(("cache-control", control.as_str()));
        }
        let texts = [said.expires, said.date, said.modified].map(|time| time.map(date));
        let age = said.age.map(|age| age.to_string());
        for (name, text) in ["expires", "date", "last-modified"].into_iter().zip(&texts) {
            lines.extend(text.as_deref().map(|text| (name, text)));
        }
        lines.extend(age.as_deref().map(|text| ("age", text)));
        let rules = StoreRules { ttl: TtlRules { heuristic: true, ..TtlRules::default() }, ..StoreRules::default() };
        let times = ((NOW - said.delay) * 1_000, NOW * 1_000);
        let headers = headers(&lines);
        let fresh = match decide_storing(&StoreRequest::default(), 200, &headers, &rules, times) {
            Ok(freshness) => {
                let stored = StoredFacts {
                    age_from: NOW * 1_000 - freshness.initial_age.cast_signed() * 1_000,
                    fresh_until: freshness.fresh_until(NOW * 1_000),
                    stale_while_revalidate: 0,
                    stale_if_error: 0,
                    limits: StaleLimits::of(&headers),
                };
                let now = (NOW + after) * 1_000;
                let reuse = stored.reuse(&RequestDirectives::default(), now);
                prop_assert_eq!(reuse == Reuse::Fresh, stored.ttl(now) > 0 || now < stored.fresh_until);
                reuse == Reuse::Fresh
            }
            Err(why) => {
                prop_assert_eq!(why, NotStored::Stale);
                false
            }
        };
        prop_assert_eq!(fresh, model_is_fresh(&said, after));
    }
}
