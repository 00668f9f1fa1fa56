//! Messages of WebSockets (RFC 6455) and events of `text/event-stream` (HTML, section 9.2), without I/O.

mod events;
mod limits;
mod messages;

pub use events::{EventReader, ServerEvent, write_event};
pub use limits::{FrameLimiter, FrameLimits};
pub use messages::{MessageReader, SocketFault, SocketMessage, accept_key, write_close, write_message, write_pong};
