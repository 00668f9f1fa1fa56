//! `http_to_websocket`: Requests whose body becomes a message to a target that speaks WebSocket; its next message is
//! the response.

use schemars::JsonSchema;
use serde::Deserialize;

use super::sockets::{
    DEFAULT_IDLE_TIME, DEFAULT_MESSAGE, SocketKind, SocketTranslation, bounded, is_handshake, positive, wants_events,
};
use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::notation::{Duration, HeaderText, Size};

/// Requests whose body becomes a message to a target that speaks WebSocket; its next message is the response.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "HttpToWebsocket")]
pub struct Config {
    /// The `Content-Type` of responses that are texts. Default `application/json` for JSON, else `text/plain`.
    pub content_type: Option<HeaderText>,
    /// The time from the request's arrival to the message of the target. Default 30s.
    pub timeout: Duration,
    /// The longest message, either way. Default 1MiB.
    pub max_message: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            content_type: None,
            timeout: Duration(std::time::Duration::from_secs(30)),
            max_message: Size(DEFAULT_MESSAGE),
        }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct HttpToWebsocket(SocketTranslation);

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> HttpToWebsocket {
    HttpToWebsocket(SocketTranslation {
        kind: SocketKind::RequestToMessage {
            content_type: config.content_type.as_ref().map(|text| text.0.clone()),
            timeout: positive(config.timeout.0, "timeout", context),
        },
        max_message: bounded(config.max_message.0, context),
        idle_time: DEFAULT_IDLE_TIME,
    })
}

impl Translate for HttpToWebsocket {
    fn protocols(&self) -> Protocols {
        Protocols { from: "http", to: "websocket" }
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        !is_handshake(view) && !wants_events(&view.request.headers)
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
        vec!["http to websocket: the body is a message".to_owned()]
    }
}
