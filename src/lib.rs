//! Portcullis: a load balancer and API gateway in one binary, built on Pingora.

pub mod rules;
