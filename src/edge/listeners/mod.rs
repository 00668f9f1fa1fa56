//! Accepting connections: sockets, limits, TLS, and the choice of protocol. No two files here use each other, and
//! none uses the proxy.

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
mod handshake;
mod http1;
mod http2;
mod layer4;
mod linger;
mod listening;
mod pace;
mod peek;
mod presence;
mod progress;
mod proxied;
mod rare_line;
mod retry;
mod sending;
mod service;
mod settings;
mod socket;
mod spare;
mod stream;
mod tls_state;
mod wire;

pub use connection::{Connection, current_connection};
pub use drain::Drain;
pub use guard::MAX_FIELDS;
pub use layer4::{Datagrams, ServeStreams, StreamConnection, StreamWork};
pub use listening::Listening;
pub use pace::Pace;
pub use presence::{PRESENCE_CHECK_INTERVAL, client_gone, with_pace};
pub use progress::Progress;
pub use service::{ListenerContext, RequestWork, ServeHttp};
pub use socket::Bound;
pub use wire::Framing;
