//! Calls that the gateway makes for itself.

mod dns;
mod fetch;

pub use dns::{Addresses, DnsError, Family, Resolver, Service};
pub use fetch::Fetcher;
