//! `websocket_to_sse`: WebSockets whose messages are the events that a target sends as `text/event-stream`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sockets::{
    DEFAULT_IDLE_TIME, DEFAULT_MESSAGE, SocketKind, SocketTranslation, bounded, is_handshake, positive,
};
use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::notation::{Duration, Size};

/// WebSockets whose messages are the events that a target sends as `text/event-stream`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "WebsocketToSse")]
pub struct Config {
    /// Whether a message is a JSON object with `event`, `id` and `data` instead of the data alone. Default false.
    pub envelope: bool,
    /// The longest event; a longer one closes the WebSocket with 1009. Default 1MiB.
    pub max_message: Size,
    /// How long neither side may send anything. Default 1h.
    pub idle_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { envelope: false, max_message: Size(DEFAULT_MESSAGE), idle_time: Duration(DEFAULT_IDLE_TIME) }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct WebsocketToSse(SocketTranslation);

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> WebsocketToSse {
    WebsocketToSse(SocketTranslation {
        kind: SocketKind::EventsToMessages { envelope: config.envelope },
        max_message: bounded(config.max_message.0, context),
        idle_time: positive(config.idle_time.0, "idle_time", context),
    })
}

impl Translate for WebsocketToSse {
    fn protocols(&self) -> Protocols {
        Protocols { from: "websocket", to: "sse" }
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        is_handshake(view)
    }

    fn max_request_body(&self) -> u64 {
        self.0.max_message as u64
    }

    fn translate(&self, _request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        // The edge translates the messages themselves.
        Err(Rejection::new(Reason::Internal, ""))
    }

    fn sockets(&self) -> Option<&SocketTranslation> {
        Some(&self.0)
    }

    fn describe(&self) -> Vec<String> {
        vec!["websocket to events: each event of the target is a message".to_owned()]
    }
}
