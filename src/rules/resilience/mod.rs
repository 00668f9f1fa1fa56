//! Resilience: breakers, ejection, retries, failover, slow start and adaptive concurrency. Time is a parameter, in
//! nanoseconds of the caller's clock.

mod adaptive;
mod breaker;
mod outlier;
mod priority;
mod retry;

pub use adaptive::{AdaptiveShape, Gradient};
pub use breaker::{Admission, BreakerPhase, BreakerShape, BreakerState};
pub use outlier::{Deviation, Ejection, FailureShare, OutlierShape, Tally, may_eject, outliers};
pub use priority::{overprovisioned, shares, slow_start};
pub use retry::{RecentCount, RetryBudget, backoff};
