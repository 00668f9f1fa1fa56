//! Portcullis: a load balancer and API gateway in one binary, built on Pingora.

pub mod clients;
pub mod compile;
pub mod config;
pub mod exchange;
pub mod filters;
pub mod live;
pub mod notation;
pub mod rules;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstreams;
