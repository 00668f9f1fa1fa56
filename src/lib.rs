//! Portcullis: a load balancer and API gateway in one binary, built on Pingora.
//!
//! # The map
//!
//! The way of a request: a connection is accepted in [`edge::listeners`], which counts it and hands it to the service
//! of its listener's kind, which holds its deadlines. For each request Pingora calls the phases in [`edge::proxy`], one
//! file each: `intake` checks the request and finds its client, `route` finds the route and runs its filters and its
//! action, `admission` and `pick` choose the upstream and the target, `forward` applies the edits for the target,
//! `response` those on the way back, `failure` turns an error into a reason, and `finish` writes log and metrics from
//! one record. What a request does with its upstream is an [`upstreams::Visit`]. Hedged requests take `relay`,
//! WebSockets `tunnel`, and routes with a cache `cache`, which fetches what is not stored over the relay's connections.
//!
//! The way of a configuration: [`config`] reads the text and records where each value stands, [`compile`] turns it
//! into an immutable [`snapshot`], and [`process`] publishes that with one store. [`live`] holds the state that a
//! reload keeps.
//!
//! # What must never be
//!
//! * A module that uses one above it (the order is in `tests/tidy.rs`).
//! * A clock, a socket or a lock in [`rules`].
//! * On the request path: a DNS look-up, the compilation of a regex, a second snapshot, a lock shared by all workers,
//!   a panic.
//! * A secret in a log, an error, a metric or `Debug`.

mod actions;
mod admin;
mod cli;
mod clients;
mod compile;
mod config;
mod edge;
mod exchange;
mod filters;
mod live;
mod notation;
#[doc(hidden)]
pub mod parts;
mod process;
mod rules;
mod snapshot;
mod telemetry;
mod tls;
mod upstreams;

pub use cli::{Arguments, Command};
pub use telemetry::{finish_log, init_log};
