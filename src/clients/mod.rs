//! Calls that the gateway makes for itself.

mod dns;
mod fetch;
mod file;

pub use dns::{Addresses, DnsError, Family, Resolver, Service};
pub use fetch::{FetchError, Fetcher};
pub use file::{FileVersion, MAX_MATERIAL, read_file, read_text};
