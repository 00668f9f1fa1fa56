//! Portcullis: a load balancer and API gateway in one binary, built on Pingora.

pub mod admin;
pub mod cli;
pub mod clients;
pub mod compile;
pub mod config;
pub mod edge;
pub mod exchange;
pub mod filters;
pub mod live;
pub mod notation;
pub mod process;
pub mod rules;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstreams;
