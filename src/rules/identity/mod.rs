//! Who is asking: the client's address behind trusted proxies.

mod client;
mod key;

pub use client::{client_address, forwarded_for};
pub use key::RequestKey;
