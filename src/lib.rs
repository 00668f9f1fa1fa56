//! Portcullis: a load balancer and API gateway in one binary, built on Pingora.
//!
//! # The map
//!
//! A request's way: a connection is accepted in [`edge::listeners`], which counts it and gives it to the service of its
//! listener's kind; that knows its deadlines; for each request Pingora calls the phases in [`edge::proxy`], a file
//! each: `intake` (is it well-formed, whose is it), `route` (which route, through its filters, to its action),
//! `admission` and `pick` (which upstream and which target), `forward` (the edits for it), `answer` (edits on the way
//! back), `failure` (what failed becomes a reason), `finish` (log and metrics from one record). What a request has to
//! do with its upstream is an [`upstreams::Visit`]. Hedged requests take `relay`, and WebSockets `tunnel`.
//!
//! A configuration's way: [`config`] reads what was written and knows where each mistake stands,
//! [`compile`] turns it into an immutable [`snapshot`], [`process`] publishes it with one store. What a
//! reload keeps is in [`live`].
//!
//! # What must never be
//!
//! * A room that uses one above it (the order is in `tests/tidy.rs`).
//! * A clock, a socket or a lock in [`rules`].
//! * On a request: a look-up of a name, a compiled expression, a second snapshot, a lock shared by all
//!   workers, a panic.
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

pub use cli::{Arguments, Command, init_log};
pub use telemetry::finish_log;
