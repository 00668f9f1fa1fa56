//! What the translations with a WebSocket on one side have in common.

use std::time::Duration;

use http::header::{ACCEPT, UPGRADE};
use http::{HeaderMap, HeaderValue, Method};

use crate::actions::ActionContext;
use crate::exchange::RequestView;

/// The longest message where the configuration says nothing.
pub const DEFAULT_MESSAGE: u64 = 1 << 20;

/// How long a WebSocket may be silent where the configuration says nothing.
pub const DEFAULT_IDLE_TIME: Duration = Duration::from_secs(3600);

/// A translation of messages.
#[derive(Debug)]
pub struct SocketTranslation {
    /// What becomes of messages.
    pub kind: SocketKind,
    /// The longest message, or event, in bytes.
    pub max_message: usize,
    /// How long neither side may send anything.
    pub idle_time: Duration,
}

/// What becomes of messages.
#[derive(Debug)]
pub enum SocketKind {
    /// Each message of the client becomes a request, and its response the next message to the client.
    MessagesToRequests(MessageRequests),
    /// A request becomes a message to the target, and the next message of the target its response.
    RequestToMessage {
        /// The media type of a response that is a text; by its content without one.
        content_type: Option<HeaderValue>,
        /// The time from the request's arrival to the message.
        timeout: Duration,
    },
    /// Each message of the target becomes an event of the response.
    MessagesToEvents {
        /// The message that is sent to the target first.
        first: Option<String>,
        /// The time after which a comment is sent where there is nothing else.
        heartbeat: Duration,
    },
    /// Each event of the target becomes a message to the client.
    EventsToMessages {
        /// Whether a message has the type and the id of the event beside its data.
        envelope: bool,
    },
}

/// The requests that messages become.
#[derive(Debug)]
pub struct MessageRequests {
    /// The method.
    pub method: Method,
    /// The media type of texts.
    pub content_type: HeaderValue,
    /// The most messages that wait for their turn; one more closes the WebSocket.
    pub queue: usize,
    /// The time for each request.
    pub timeout: Duration,
}

/// The longest message that can be configured: each is in memory whole.
const MAX_MESSAGE: u64 = 256 << 20;

/// Returns the longest message, and notes one that cannot be.
pub fn bounded(bytes: u64, context: &mut ActionContext<'_>) -> usize {
    if !(1..=MAX_MESSAGE).contains(&bytes) {
        context.mistakes.add(&context.place.key("max_message"), "expected a size from 1B to 256MiB");
    }
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// Returns a time, and notes one in which nothing could happen.
pub fn positive(time: Duration, key: &'static str, context: &mut ActionContext<'_>) -> Duration {
    if time.is_zero() {
        context.mistakes.add(&context.place.key(key), "expected a time longer than nothing");
    }
    time
}

/// Returns whether a request is the handshake of a WebSocket.
pub fn is_handshake(view: &RequestView<'_>) -> bool {
    let upgrade = view.request.headers.get(UPGRADE);
    view.request.method == Method::GET
        && upgrade.is_some_and(|upgrade| upgrade.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Returns whether a client wants a stream of events.
pub fn wants_events(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|accept| {
        let mut types = accept.as_bytes().split(|byte| *byte == b',');
        types.any(|kind| {
            let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
            kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
        })
    })
}
