//! Calls that the gateway makes for itself.

mod dns;
mod fetch;

pub use dns::{DnsError, Resolver, Service};
pub use fetch::{FetchError, Fetcher};
