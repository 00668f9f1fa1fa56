//! `translate`: the protocols that a forwarded request is translated from and into, a file or folder per translation.
//!
//! A translation is its file and one row in [`translations!`]. It does no I/O: it makes the target's request of the
//! client's, and then the client's response of what the target sends. The edge reads, sends and waits.

mod connect_to_grpc;
mod grpc_target;
mod grpc_web_to_grpc;
mod http_to_websocket;
mod json_to_soap;
mod rest_to_graphql;
mod rest_to_grpc;
mod soap_terms;
mod soap_to_json;
mod sockets;
mod sse_to_websocket;
mod websocket_to_http;
mod websocket_to_sse;

use std::fmt::Debug;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
pub use sockets::{MessageRequests, SocketKind, SocketTranslation};

use soap_terms::SoapVersionName;

/// The table of translations: variant, key in the YAML, module.
macro_rules! translations {
    ($($(#[$doc:meta])* $variant:ident = $key:literal: $module:ident;)*) => {
        /// A translation as it is configured.
        #[derive(Clone, Debug, Deserialize, JsonSchema)]
        #[schemars(rename = "Translation", description = "A protocol of clients that targets do not speak.")]
        pub enum TranslationConfig {
            $($(#[$doc])* #[serde(rename = $key)] $variant($module::Config),)*
        }

        impl TranslationConfig {
            /// Compiles the translation. Where errors were noted, the result is never used.
            pub fn compile(&self, context: &mut ActionContext<'_>) -> Box<dyn Translate> {
                match self { $(Self::$variant(config) => {
                    let place = context.place.clone();
                    context.place = place.key($key);
                    let compiled = $module::compile(config, context);
                    context.place = place;
                    Box::new(compiled)
                })* }
            }
        }
    };
}

translations! {
    /// JSON over HTTP, to targets that speak gRPC.
    RestToGrpc = "rest_to_grpc": rest_to_grpc;
    /// gRPC-Web, to targets that speak gRPC.
    GrpcWebToGrpc = "grpc_web_to_grpc": grpc_web_to_grpc;
    /// The Connect protocol, to targets that speak gRPC.
    ConnectToGrpc = "connect_to_grpc": connect_to_grpc;
    /// Paths and methods, to targets that speak GraphQL.
    RestToGraphql = "rest_to_graphql": rest_to_graphql;
    /// JSON, to targets that speak SOAP.
    JsonToSoap = "json_to_soap": json_to_soap;
    /// SOAP, to targets that speak JSON.
    SoapToJson = "soap_to_json": soap_to_json;
    /// Messages of WebSockets, each of which becomes a request.
    WebsocketToHttp = "websocket_to_http": websocket_to_http;
    /// WebSockets, to targets that send `text/event-stream`.
    WebsocketToSse = "websocket_to_sse": websocket_to_sse;
    /// Requests, each of which becomes a message, to targets that speak WebSocket.
    HttpToWebsocket = "http_to_websocket": http_to_websocket;
    /// Clients of `text/event-stream`, to targets that speak WebSocket.
    SseToWebsocket = "sse_to_websocket": sse_to_websocket;
}

/// The protocols of a translation, as the words of the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols {
    /// That of the client.
    pub from: &'static str,
    /// That of the target.
    pub to: &'static str,
}

impl Protocols {
    /// Returns both words.
    pub fn words(self) -> (&'static str, &'static str) {
        (self.from, self.to)
    }
}

/// A translation.
pub trait Translate: Debug + Send + Sync {
    /// Returns its protocols.
    fn protocols(&self) -> Protocols;

    /// Returns whether a request says by itself that it is in the protocol of this translation, which then has it
    /// wherever it is in the list.
    fn is_named_by(&self, _view: &RequestView<'_>) -> bool {
        false
    }

    /// Returns whether it translates this request; otherwise the next translation is asked, and what none translates
    /// is forwarded as it is. The path has the edits of the route.
    fn takes(&self, view: &RequestView<'_>, path: &str) -> bool;

    /// Returns whether the target's request has nothing of the client's head but what the translation writes, `Host`
    /// included. The fields of [`IncomingRequest`] then are those that a target would be sent, with the edits of the
    /// route's filters and without a content coding.
    fn replaces_head(&self) -> bool {
        false
    }

    /// Returns whether the targets have to speak HTTP/2.
    fn needs_http2(&self) -> bool {
        false
    }

    /// Returns the longest request body, decoded, in bytes.
    fn max_request_body(&self) -> u64;

    /// Returns the rejection of a request whose content coding is not known.
    fn unknown_coding(&self) -> Box<Rejection> {
        Rejection::new(Reason::MediaType, "its content coding is not known")
    }

    /// Translates a request.
    ///
    /// # Errors
    /// Returns the rejection of a request that cannot be translated.
    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>>;

    /// Returns a rejection as the client's protocol has it.
    fn rejection(&self, rejection: Box<Rejection>, _view: &RequestView<'_>) -> Box<Rejection> {
        rejection
    }

    /// Returns the translation of messages, where one side speaks WebSocket; the edge does that by itself.
    fn sockets(&self) -> Option<&SocketTranslation> {
        None
    }

    /// Returns lines that describe it to an operator.
    fn describe(&self) -> Vec<String>;

    /// Returns lines that describe to an operator what becomes of a request without a body. The path has the edits of
    /// the route.
    fn call(&self, _view: &RequestView<'_>, _path: &str) -> Vec<String> {
        Vec::new()
    }
}

/// A request that is to be translated.
#[derive(Debug)]
pub struct IncomingRequest<'r> {
    /// The request as the client sent it.
    pub view: RequestView<'r>,
    /// The path, with the edits of the route.
    pub path: &'r str,
    /// The query, with the edits of the route.
    pub query: Option<&'r str>,
    /// The fields: those of the client, or what [`Translate::replaces_head`] says.
    pub headers: &'r HeaderMap,
    /// The body. Its content coding is decoded.
    pub body: Bytes,
}

/// A request in the protocol of the target.
#[derive(Debug)]
pub struct TranslatedRequest {
    /// The method.
    pub method: Method,
    /// The path and the query.
    pub target: String,
    /// The fields that replace those of the client of the same name. Those of framing, `Accept-Encoding` and
    /// `Content-Encoding` of the client are never sent on.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The client's fields that are not sent on.
    pub removed: Vec<HeaderName>,
    /// The body.
    pub body: Bytes,
    /// Whether it has no effect that could happen twice, so that it may be sent again.
    pub is_safe: bool,
    /// Whether the target speaks gRPC: it is told the time that is left, and its status is read.
    pub is_grpc: bool,
    /// How long the client says it waits.
    pub wait: Option<Duration>,
    /// The name of what is called, for the log.
    pub operation: Option<Box<str>>,
    /// What translates the response.
    pub response: Box<dyn TranslateResponse>,
}

/// The translation of one response. A method that fails before the head is decided has the client rejected with it;
/// after that the response is broken off.
pub trait TranslateResponse: Debug + Send {
    /// Handles the head of the target's response.
    ///
    /// # Errors
    /// Returns the rejection in place of a response that cannot be translated.
    fn head(&mut self, head: &ResponseHeader, out: &mut ClientResponse) -> Result<(), Box<Rejection>>;

    /// Handles a part of its body, whose content coding is decoded.
    ///
    /// # Errors
    /// Returns the rejection in place of a response that cannot be translated.
    fn part(&mut self, part: &Bytes, out: &mut ClientResponse) -> Result<(), Box<Rejection>>;

    /// Handles its end. The head is decided after that.
    ///
    /// # Errors
    /// Returns the rejection in place of a response that cannot be translated.
    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>>;

    /// Handles that the target broke off, or took too long, after the head was decided. Returns whether the response
    /// can be ended in order with what was written to `out`.
    fn broken(&mut self, _why: &Rejection, _out: &mut ClientResponse) -> bool {
        false
    }
}

/// The response to the client, as far as it is known. What is in it is taken out after each step.
#[derive(Debug, Default)]
pub struct ClientResponse {
    /// The head, once it is decided, without the fields of framing.
    pub head: Option<ResponseHeader>,
    /// The next bytes of the body.
    pub body: BytesMut,
    /// The trailers, which only clients with HTTP/2 get.
    pub trailers: Option<HeaderMap>,
    /// The status in the protocol of the target, for the log.
    pub target_status: Option<Box<str>>,
}

impl ClientResponse {
    /// Decides the head.
    pub fn decide(&mut self, status: StatusCode, headers: HeaderMap) {
        if let Ok(mut head) = ResponseHeader::build(status, Some(headers.len() + 8)) {
            for (name, value) in &headers {
                let _ = head.append_header(name.clone(), value.clone());
            }
            self.head = Some(head);
        }
    }
}
