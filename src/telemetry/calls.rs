//! Counts of the calls that the gateway makes for itself.

use prometheus::proto::MetricFamily;

use super::catalogue::{CALL_SECONDS, CALLS};
use super::cells::{Cells, Timings};
use super::family::Series;

/// The outcomes of calls.
const OUTCOMES: [&str; 5] = ["completed", "failed", "timed_out", "breaker_open", "busy"];

/// Defines what the gateway calls other servers for.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $word:literal;)*) => {
        /// What a call is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CallKind {
            $($(#[$doc])* $kind,)*
        }

        /// The label of each kind, in their order.
        const KINDS: &[&str] = &[$($word),*];
    };
}

kinds! {
    /// The keys of a token issuer.
    KeySet = "key_set";
    /// The introspection of tokens.
    Introspection = "introspection";
    /// Forward authentication.
    ForwardAuth = "forward_auth";
    /// The logins of OpenID Connect.
    Oidc = "oidc";
    /// Certificates.
    Acme = "acme";
    /// Credentials of the gateway for targets.
    Credentials = "credentials";
}

/// The counts of one kind.
#[derive(Debug, Default)]
pub struct CallMetrics {
    outcomes: Cells<{ OUTCOMES.len() }>,
    seconds: Timings,
}

impl CallMetrics {
    /// Records a call by the index of its outcome. Only calls that were made have a duration.
    pub fn observe(&self, outcome: CallOutcome, seconds: f64) {
        self.outcomes.add(outcome as usize, 1);
        if !matches!(outcome, CallOutcome::BreakerOpen | CallOutcome::Busy) {
            self.seconds.observe(seconds);
        }
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// With a response, of whichever status.
    Completed,
    /// Without a usable response.
    Failed,
    /// At its time-out.
    TimedOut,
    /// It was not made, because the breaker is open.
    BreakerOpen,
    /// It was not made, because too many are in progress.
    Busy,
}

/// The counts of all kinds.
#[derive(Debug)]
pub struct AllCalls(Vec<CallMetrics>);

impl Default for AllCalls {
    fn default() -> Self {
        Self(KINDS.iter().map(|_| CallMetrics::default()).collect())
    }
}

impl AllCalls {
    /// Returns the counts of a kind.
    pub fn of(&self, kind: CallKind) -> &CallMetrics {
        &self.0[kind as usize]
    }

    /// Returns the families, with the series of the kinds of which there was a call.
    pub fn families(&self) -> [MetricFamily; 2] {
        let (mut calls, mut seconds) = (Series::of(&CALLS), Series::of(&CALL_SECONDS));
        for (kind, metrics) in KINDS.iter().zip(&self.0) {
            let sums = metrics.outcomes.sums();
            if sums.iter().all(|count| *count == 0) {
                continue;
            }
            OUTCOMES.iter().zip(sums).for_each(|(outcome, count)| calls.add(&[kind, outcome], count as f64));
            seconds.add_timings(&[kind], &metrics.seconds);
        }
        [calls.family(), seconds.family()]
    }
}
