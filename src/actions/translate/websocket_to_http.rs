//! `websocket_to_http`: Messages of a WebSocket, each of which becomes a request to a target; its response is the
//! next message.

use http::{HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use super::sockets::{
    DEFAULT_IDLE_TIME, DEFAULT_MESSAGE, MessageRequests, SocketKind, SocketTranslation, bounded, is_handshake, positive,
};
use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::notation::{Duration, HeaderText, MethodName, Size};

/// Messages of a WebSocket, each of which becomes a request to a target; its response is the next message.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "WebsocketToHttp")]
pub struct Config {
    /// The method of the requests. Default POST.
    pub method: MethodName,
    /// The media type of messages that are texts; others are `application/octet-stream`. Default `application/json`.
    pub content_type: HeaderText,
    /// The most messages that wait for their turn; one more closes the WebSocket with 1013. Default 16.
    pub queue: usize,
    /// The time for each request. Default 30s.
    pub timeout: Duration,
    /// The longest message; a longer one closes the WebSocket with 1009. Default 1MiB.
    pub max_message: Size,
    /// How long neither side may send anything. Default 1h.
    pub idle_time: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            method: MethodName(Method::POST),
            content_type: HeaderText(HeaderValue::from_static("application/json")),
            queue: 16,
            timeout: Duration(std::time::Duration::from_secs(30)),
            max_message: Size(DEFAULT_MESSAGE),
            idle_time: Duration(DEFAULT_IDLE_TIME),
        }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct WebsocketToHttp(SocketTranslation);

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> WebsocketToHttp {
    if config.queue == 0 {
        context.mistakes.add(&context.place.key("queue"), "expected 1 or more: the first message waits, too");
    }
    WebsocketToHttp(SocketTranslation {
        kind: SocketKind::MessagesToRequests(MessageRequests {
            method: config.method.0.clone(),
            content_type: config.content_type.0.clone(),
            queue: config.queue,
            timeout: positive(config.timeout.0, "timeout", context),
        }),
        max_message: bounded(config.max_message.0, context),
        idle_time: positive(config.idle_time.0, "idle_time", context),
    })
}

impl Translate for WebsocketToHttp {
    fn protocols(&self) -> Protocols {
        Protocols { from: "websocket", to: "http" }
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
        vec!["websocket to http: each message is a request".to_owned()]
    }
}
