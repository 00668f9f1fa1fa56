//! Groups of targets: who belongs to one, who of them may be picked, and which one is next.
//!
//! Membership stands on `pingora-load-balancing` (`Backends`, `ServiceDiscovery`). Around three of its
//! limits this room goes its own way, each in one place:
//! * selection is by [`crate::rules::balance`] over the eligible targets alone ([`choice`]);
//! * a new weight keeps health, and a change of anything else is seen ([`discovery`]);
//! * its probes start every target as healthy, know no reason, cannot read a body and know one interval:
//!   a [`watch`] is unknown until its first probe, whose result counts at once, is shared by all upstreams
//!   that probe alike, and tells them why and since when.

mod ask;
mod bequest;
mod breaker;
mod call;
mod choice;
mod discovery;
mod failure;
mod gate;
mod health;
mod members;
mod pool;
mod probe;
mod sessions;
mod shape;
mod sticky;
mod target;
mod upstream;
mod view;
mod visit;
mod watch;

pub use ask::{Asked, Calls, Response};
pub use bequest::Bequest;
pub use breaker::SharedBreaker;
pub use call::{MAX_INTERIM, error_text, is_exhaustion, misframed};
pub use choice::Member;
pub use discovery::{Change, Changes, DiscoveryShape, TargetText};
pub use failure::{CLIENT_GONE, Failure, exhausted, reason_of};
pub use gate::{Class, GateShape};
pub use health::Thresholds;
pub use pool::Pool;
pub use probe::{Expression, HttpProbe, ProbeKind};
pub use sessions::Sessions;
pub use shape::{PoolShape, SessionKey, Transport, TransportTls, widen_window};
pub use sticky::Sticky;
pub use target::{Outcome, Target, TargetSpec};
pub use upstream::{Retry, Upstream};
pub use visit::{Caller, Replay, Visit};
pub use watch::ActiveProbe;

#[cfg(test)]
mod simulation;
