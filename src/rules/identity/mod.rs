//! Who is asking: the client's address behind trusted proxies.

mod client;
mod host;
mod key;
mod password;

pub use client::{client_address, forwarded_for};
pub use host::host_name;
pub use key::RequestKey;
pub use password::PasswordHash;
