//! The identity of a client: its address behind trusted proxies, its host, and the keys that group requests.

mod client;
mod content_digest;
mod countries;
mod forwarded;
mod host;
mod key;
pub mod message_signature;
mod networks;
mod password;
mod signature_key;
pub mod sigv4;
pub mod token;

pub use client::{client_address, forwarded_for};
pub use content_digest::check_content_digest;
pub use countries::{Countries, Country};
pub use forwarded::forwarded_client;
pub use host::host_name;
pub use key::RequestKey;
pub use networks::Networks;
pub use password::PasswordHash;
pub use signature_key::{SignatureAlgorithm, SignatureKey};
