//! The identity of a client: its address behind trusted proxies, its host, and the keys that group requests.

mod client;
mod host;
mod key;
mod networks;
mod password;

pub use client::{client_address, forwarded_for};
pub use host::host_name;
pub use key::RequestKey;
pub use networks::Networks;
pub use password::PasswordHash;
