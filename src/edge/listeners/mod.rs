//! Accepting connections: sockets, limits, TLS, and which protocol is spoken. A file uses only files that do not use
//! it, and none of the proxy's.

mod accept;
mod admit;
mod admitted;
mod clock;
mod connection;
mod drain;
mod evict;
mod fields;
mod follow;
mod greet;
mod guard;
mod http1;
mod http2;
mod linger;
mod listening;
mod pace;
mod presence;
mod progress;
mod retry;
mod sending;
mod service;
mod settings;
mod socket;
mod spare;
mod stream;
mod wire;

pub use connection::{Connection, current_connection};
pub use drain::Drain;
pub use guard::MOST_FIELDS;
pub use listening::Listening;
pub use pace::Pace;
pub use presence::{LOOK, client_gone, with_pace};
pub use progress::Progress;
pub use service::{RequestWork, ServeHttp, Shared};
pub use socket::Bound;
pub use wire::Framing;
