//! Clients for calls of the gateway itself.

mod dns;
mod fetch;

pub use dns::{DnsError, Family, ResolvedAddresses, Resolver, SrvRecord};
pub use fetch::Fetcher;
