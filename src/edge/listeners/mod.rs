//! Accepting connections: limits, TLS, and which protocol is spoken.

mod admit;
mod clock;
mod connection;
mod evict;
mod guard;
mod http1;
pub mod http2;
mod linger;
mod listening;
mod pace;
mod presence;
mod retry;
mod sending;
mod spare;
mod stream;
mod wire;

pub use connection::{Connection, current_connection};
pub use guard::MOST_FIELDS;
pub use listening::{Bound, Drain, Listening, Shared};
pub use pace::{Pace, with_pace};
pub use presence::{LOOK, client_gone};
pub use wire::Framing;
