//! Who is asking: the client's address behind trusted proxies.

mod client;

pub use client::{client_address, forwarded_for};
