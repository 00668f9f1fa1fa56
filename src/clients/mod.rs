//! Calls that the gateway makes for itself.

mod fetch;

pub use fetch::{FetchError, Fetcher};
