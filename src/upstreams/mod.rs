//! Groups of targets: who belongs to one, who of them is healthy, and which one is next.
//!
//! Membership, readiness and probes stand on `pingora-load-balancing` (`Backends`,
//! `ServiceDiscovery`, `HealthCheck`, `HealthRegistry`). Around three of its limits this room goes
//! its own way, each in one place:
//! * selection is by [`crate::rules::balance`] over the healthy targets alone ([`pool`]);
//! * weight is no part of a backend's identity, so a new weight keeps health ([`discovery`]);
//! * a target is unknown until its first probe, whose result counts at once, and the state machine
//!   knows why and since when ([`health`]); the registry is handed its verdict.

mod discovery;
mod health;
mod pool;
mod probe;
mod target;

pub use health::{HealthState, HealthView, Thresholds};
pub use pool::{ActiveProbe, Choice, Member, Picked, Pool, PoolShape, ProbeKind, Transport, TransportTls};
pub use target::{InFlight, Target, TargetSpec};
