//! `fault`: delays or rejects some requests on purpose, to test how clients cope.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::notation::Duration;

/// The faults. With `when` beside the filter they are for some requests, such as those with a header.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests that wait before they go on.
    pub delay: Option<DelayConfig>,
    /// Requests that are rejected.
    pub abort: Option<AbortConfig>,
}

/// Requests that wait.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DelayConfig {
    /// How long: at most 5m.
    pub time: Duration,
    /// The share of the requests, in percent. Default 100.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
    /// How many wait at a time at most; others do not. Default 1000.
    #[serde(default = "concurrent")]
    pub concurrent: u32,
}

/// Requests that are rejected.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AbortConfig {
    /// The status. Default 503.
    #[serde(default = "unavailable")]
    #[schemars(range(min = 400, max = 599))]
    pub status: u16,
    /// The share of the requests, in percent. Default 100.
    #[serde(default = "all")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: f64,
}

fn all() -> f64 {
    100.0
}

fn concurrent() -> u32 {
    1000
}

fn unavailable() -> u16 {
    503
}

const MAX_DELAY: std::time::Duration = std::time::Duration::from_secs(300);

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    delay: Option<(DelayConfig, Arc<AtomicU32>)>,
    abort: Option<AbortConfig>,
}

/// One of the requests that wait.
struct Waiting<'w>(&'w AtomicU32);

impl<'w> Waiting<'w> {
    fn begin(count: &'w AtomicU32, most: u32) -> Option<Self> {
        let free = |now: u32| (now < most).then(|| now + 1);
        count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_ok().then(|| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns whether a request is one of that share.
fn is_of(percent: f64) -> bool {
    fastrand::f64() * 100.0 < percent
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Validate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if config.delay.is_none() && config.abort.is_none() {
            context.mistakes.add(&place, "expected delay, abort, or both");
        }
        if config.delay.as_ref().is_some_and(|delay| delay.time.0 > MAX_DELAY) {
            context.mistakes.add(&place.key("delay").key("time"), "expected at most 5m");
        }
        let delay = config.delay.clone().map(|delay| (delay, Arc::default()));
        Some(Self { delay, abort: config.abort.clone() })
    }

    /// Returns that it does not: it harms those whom it reaches.
    fn runs_in_doubt(&self) -> bool {
        false
    }

    fn may_wait(&self) -> bool {
        self.delay.is_some()
    }

    async fn on_request(&self, _request: &RequestHeader, _exchange: &mut Exchange, (): &mut ()) -> Verdict {
        if let Some((delay, waiting)) = &self.delay
            && is_of(delay.percent)
            && let Some(_waiting) = Waiting::begin(waiting, delay.concurrent)
        {
            tokio::time::sleep(delay.time.0).await;
        }
        match &self.abort {
            Some(abort) if is_of(abort.percent) => Err(Rejection::new(Reason::FaultInjected, "").status(abort.status)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filters::test_kit::{compile, request};

    #[test]
    fn shares_are_kept() {
        let mut kit = compile("- fault: {abort: {status: 418, percent: 25}}").expect("a filter");
        let hit = |kit: &mut crate::filters::test_kit::Kit| match kit.on_request(request("GET /", &[])) {
            Ok(()) => false,
            Err(rejection) => rejection.reason == Reason::FaultInjected && rejection.status == Some(418),
        };
        let aborted = (0..4000).filter(|_| hit(&mut kit)).count();
        assert!((800..1200).contains(&aborted), "{aborted}");
        let mut kit = compile("- fault: {abort: {percent: 0}}").expect("a filter");
        assert!(!(0..100).any(|_| hit(&mut kit)));
    }

    #[test]
    fn few_wait_at_a_time() {
        let count = AtomicU32::new(0);
        let first = Waiting::begin(&count, 1);
        assert!(first.is_some() && Waiting::begin(&count, 1).is_none());
        drop(first);
        assert!(Waiting::begin(&count, 1).is_some());
        for wrong in ["- fault: {}", "- fault: {delay: {time: 6m}}"] {
            assert!(compile(wrong).is_err(), "{wrong}");
        }
    }
}
