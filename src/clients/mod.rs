//! Clients for calls of the gateway itself.

mod dns;
mod fetch;

pub use dns::{Addresses, DnsError, Family, Resolver, Service};
pub use fetch::Fetcher;
