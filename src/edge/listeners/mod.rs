//! Accepting connections: limits, TLS, and which protocol is spoken.

mod admit;
mod clock;
mod connection;
mod guard;
mod http1;
pub mod http2;
mod listening;
mod pace;
mod presence;
mod sending;
mod stream;

pub use connection::{Connection, current_connection};
pub use listening::{Bound, Drain, Listening, Shared};
pub use pace::{Pace, with_pace};
pub use presence::{LOOK, client_gone};
