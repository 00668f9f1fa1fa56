//! The identity of a client: its address behind trusted proxies, its host, and the keys that group requests.

mod client;
mod forwarded;
mod host;
mod key;
mod password;

pub use client::{client_address, forwarded_for};
pub use forwarded::forwarded_client;
pub use host::host_name;
pub use key::RequestKey;
pub use password::PasswordHash;
