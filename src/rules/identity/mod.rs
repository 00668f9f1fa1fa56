//! Who is asking: the client's address behind trusted proxies.

mod client;
mod host;
mod key;

pub use client::{client_address, forwarded_for};
pub use host::host_name;
pub use key::RequestKey;
