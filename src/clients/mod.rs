//! Clients for calls of the gateway itself.

mod dns;
mod http;
mod single_flight;

pub use dns::{DnsError, Family, ResolvedAddresses, Resolver, SrvRecord};
pub use http::{CallConfig, CallError, HttpClient, HttpClientSettings, Repeatable};
pub use single_flight::SingleFlight;
