//! The errors of calls.

use std::fmt;
use std::time::Duration;

use crate::telemetry::metrics::CallOutcome;

/// The reason why a call has no result. Its text has no secret: neither the query of the URL, nor headers or bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Earlier calls failed, so that none is made for a while.
    Open,
    /// As many calls as may be are in progress, and none has ended in time.
    Busy,
    /// The call took longer than its time-out.
    TimedOut(Duration),
    /// No connection could be made.
    Connect(String),
    /// The connection broke, or the response is not valid HTTP.
    Broken(String),
    /// The body of the response exceeds that many bytes.
    TooLarge(usize),
    /// The request cannot be sent at all.
    Request(String),
    /// The response has another status than the one that was expected.
    Status(u16),
}

impl CallError {
    /// Returns whether the other side is the cause: it is not reachable, too slow or broken.
    pub fn is_failure(&self) -> bool {
        match self {
            Self::TimedOut(_) | Self::Connect(_) | Self::Broken(_) => true,
            Self::Open | Self::Busy | Self::TooLarge(_) | Self::Request(_) | Self::Status(_) => false,
        }
    }

    /// Returns the outcome for metrics.
    pub(super) fn outcome(&self) -> CallOutcome {
        match self {
            Self::Status(_) => CallOutcome::Completed,
            Self::TimedOut(_) => CallOutcome::TimedOut,
            Self::Open => CallOutcome::BreakerOpen,
            Self::Busy => CallOutcome::Busy,
            Self::Connect(_) | Self::Broken(_) | Self::TooLarge(_) | Self::Request(_) => CallOutcome::Failed,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("no call is made for a moment, because the last ones failed"),
            Self::Busy => f.write_str("too many calls are in progress"),
            Self::TimedOut(limit) => write!(f, "took longer than {limit:?}"),
            Self::Connect(why) => write!(f, "cannot be reached: {why}"),
            Self::Broken(why) => write!(f, "the response broke off: {why}"),
            Self::TooLarge(most) => write!(f, "the response has more than {most} bytes"),
            Self::Request(why) => write!(f, "the request cannot be sent: {why}"),
            Self::Status(status) => write!(f, "responded with {status}"),
        }
    }
}

impl std::error::Error for CallError {}

/// Returns an error with its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
