//! `sse_to_websocket`: Clients of `text/event-stream`, whose events are the messages of a target that speaks WebSocket.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sockets::{
    DEFAULT_IDLE_TIME, DEFAULT_MESSAGE, SocketKind, SocketTranslation, bounded, is_handshake, positive, wants_events,
};
use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::notation::{Duration, Size};

/// Clients of `text/event-stream`, whose events are the messages of a target that speaks WebSocket.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "SseToWebsocket")]
pub struct Config {
    /// The message that the target is sent first, such as a subscription. Default: none.
    pub first: Option<String>,
    /// The time after which a comment is sent where there is no event, so that the stream is known to live. Default
    /// 15s.
    pub heartbeat: Duration,
    /// The longest message; a longer one ends the stream. Default 1MiB.
    pub max_message: Size,
    /// How long neither side may send anything. Default 1h.
    pub idle_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first: None,
            heartbeat: Duration(std::time::Duration::from_secs(15)),
            max_message: Size(DEFAULT_MESSAGE),
            idle_time: Duration(DEFAULT_IDLE_TIME),
        }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct SseToWebsocket(SocketTranslation);

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> SseToWebsocket {
    SseToWebsocket(SocketTranslation {
        kind: SocketKind::MessagesToEvents {
            first: config.first.clone(),
            heartbeat: positive(config.heartbeat.0, "heartbeat", context),
        },
        max_message: bounded(config.max_message.0, context),
        idle_time: positive(config.idle_time.0, "idle_time", context),
    })
}

impl Translate for SseToWebsocket {
    fn protocols(&self) -> Protocols {
        Protocols { from: "sse", to: "websocket" }
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        !is_handshake(view) && wants_events(&view.request.headers)
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
        vec!["events to websocket: each message of the target is an event".to_owned()]
    }
}
