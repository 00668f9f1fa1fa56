//! Upstreams: groups of targets, their membership, their health, and the pick.
//!
//! Membership uses `pingora-load-balancing` (`Backends`, `ServiceDiscovery`). Three of its limits are worked around,
//! each in one place:
//! * selection uses [`crate::rules::balance`] over the eligible targets alone ([`choice`]);
//! * a new weight keeps the health, and a change of anything else is detected ([`discovery`]);
//! * its probes assume every target healthy at first, give no reason, cannot read a body and have one interval. A
//!   [`watch`] is unknown until its first probe, whose result counts at once; it is shared by all upstreams with the
//!   same probe, and reports the reason and the time of a change.

mod breaker;
mod call;
mod choice;
mod datagram_probe;
mod discovery;
mod failure;
mod gate;
mod health;
mod members;
mod pool;
mod probe;
mod proxy_header;
mod reflection;
mod saved_state;
mod send;
mod sessions;
mod shape;
mod socket;
mod sticky;
mod target;
mod upstream;
mod view;
mod visit;
mod watch;

pub use breaker::SharedBreaker;
pub use call::{MAX_INTERIM, error_text, is_exhaustion, misframed};
pub use choice::Member;
pub use datagram_probe::{DatagramProbe, DnsProbe};
pub use discovery::{DiscoveryShape, TargetChange, TargetChanges, TargetText};
pub use failure::{CLIENT_GONE, Failure, exhausted, reason_of};
pub use gate::{Class, GateShape};
pub use health::Thresholds;
pub use pool::Pool;
pub use probe::{Expression, HttpProbe, ProbeKind};
pub use proxy_header::{ProxiedClient, ProxyHeaderShape, keep_to_one_client};
pub use reflection::{ReflectedServices, reflect};
pub use saved_state::SavedPool;
pub use send::{Calls, OutgoingRequest, Response};
pub use sessions::Sessions;
pub use shape::{PoolShape, SessionKey, TargetTransport, TransportTls, widen_window};
pub use socket::SocketOptions;
pub use sticky::Sticky;
pub use target::{Target, TargetOutcome, TargetSpec};
pub use upstream::{Retry, Upstream};
pub use visit::{Caller, ResendConditions, Visit};
pub use watch::ActiveProbe;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod zone_simulation;
