//! `grpc_web_to_grpc`: gRPC-Web, to targets that speak gRPC (`PROTOCOL-WEB.md` of grpc/grpc).

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::grpc_target::{Responding, malformed, malformed_response, no_grpc, no_trailers, operation, request_fields};
use super::{ClientResponse, IncomingRequest, Protocols, Translate, TranslateResponse, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{GrpcWeb, Reason, Rejection, RequestView, message_format};
use crate::notation::Size;
use crate::rules::grpc::{
    COMPRESSED, FrameBounds, FrameError, GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, GrpcStatus, decode_text,
    parse_timeout,
};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const X_GRPC_WEB: HeaderName = HeaderName::from_static("x-grpc-web");

/// gRPC-Web, to targets that speak gRPC.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GrpcWebToGrpc")]
pub struct Config {
    /// The longest request body, its content coding and base64 not yet decoded. Default 4MiB.
    pub max_request_body: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_request_body: Size(4 << 20) }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct GrpcWebToGrpc {
    max_request_body: u64,
}

/// Compiles the translation.
pub fn compile(config: &Config, _context: &mut ActionContext<'_>) -> GrpcWebToGrpc {
    GrpcWebToGrpc { max_request_body: config.max_request_body.0 }
}

impl Translate for GrpcWebToGrpc {
    fn protocols(&self) -> Protocols {
        Protocols { from: "grpc_web", to: "grpc" }
    }

    fn is_named_by(&self, view: &RequestView<'_>) -> bool {
        self.takes(view, "")
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        view.exchange.grpc_web.is_some() && view.request.method == Method::POST
    }

    fn needs_http2(&self) -> bool {
        true
    }

    fn max_request_body(&self) -> u64 {
        self.max_request_body
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let wrong = |why: &'static str| Rejection::new(Reason::RequestUntranslatable, why).log(why);
        let headers = &request.view.request.headers;
        let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let sent = GrpcWeb::of(content_type).ok_or_else(|| Rejection::new(Reason::MediaType, ""))?;
        let body = match sent {
            GrpcWeb::Binary => request.body.clone(),
            GrpcWeb::Text => Bytes::from(decode_text(&request.body).map_err(wrong)?),
        };
        let mut bounds = FrameBounds::accepting(COMPRESSED, u32::MAX);
        bounds.follow(&body).map_err(malformed)?;
        if !bounds.is_at_boundary() {
            return Err(malformed(FrameError::Incomplete));
        }
        let wait = match headers.get(GRPC_TIMEOUT) {
            Some(value) => Some(parse_timeout(value.as_bytes()).ok_or_else(|| wrong("grpc-timeout is malformed"))?),
            None => None,
        };
        let format = message_format(content_type).unwrap_or("+proto");
        Ok(TranslatedRequest {
            method: Method::POST,
            target: request.path.to_owned(),
            headers: request_fields(format),
            removed: vec![ACCEPT, X_GRPC_WEB],
            body,
            is_safe: false,
            is_grpc: true,
            wait,
            operation: operation(request.path),
            response: Box::new(WebResponse {
                web: sent.accepted(headers.get_all(ACCEPT)),
                format: format.into(),
                bounds: FrameBounds::accepting(COMPRESSED, u32::MAX),
                kind: Responding::Messages,
                held: HeaderMap::new(),
            }),
        })
    }

    fn call(&self, _view: &RequestView<'_>, path: &str) -> Vec<String> {
        let operation = operation(path).unwrap_or_default();
        vec![format!("request to the target: POST {path}"), format!("operation: {operation}")]
    }

    fn describe(&self) -> Vec<String> {
        vec!["translates gRPC-Web to gRPC".to_owned()]
    }
}

/// The translation of one response.
#[derive(Debug)]
struct WebResponse {
    web: GrpcWeb,
    /// The format of messages, as `+proto`.
    format: Box<str>,
    bounds: FrameBounds,
    kind: Responding,
    /// The head of a response without messages.
    held: HeaderMap,
}

impl WebResponse {
    fn content_type(&self, head: &ResponseHeader) -> HeaderValue {
        let sent = head.headers.get(CONTENT_TYPE).and_then(|kind| message_format(kind.as_bytes()));
        let text = format!("{}{}", self.web.content_type(), sent.unwrap_or(&self.format));
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(self.web.content_type()))
    }
}

/// Returns the fields of the target's head for the client.
fn fields_of(head: &ResponseHeader, content_type: HeaderValue) -> HeaderMap {
    let mut fields = head.headers.clone();
    [CONTENT_LENGTH, TRAILER].iter().for_each(|name| _ = fields.remove(name));
    fields.insert(CONTENT_TYPE, content_type);
    fields
}

impl TranslateResponse for WebResponse {
    fn head(&mut self, head: &ResponseHeader, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        self.kind = Responding::of(head);
        let mut fields = fields_of(head, self.content_type(head));
        fields.remove(http::header::CONTENT_ENCODING);
        match self.kind {
            Responding::Messages => out.decide(StatusCode::OK, fields),
            Responding::TrailersOnly => self.held = fields,
            Responding::Otherwise(status) => {
                status.write(&no_grpc(head), &mut fields);
                self.held = fields;
            }
        }
        Ok(())
    }

    fn part(&mut self, part: &Bytes, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if self.kind == Responding::Messages {
            self.bounds.follow(part).map_err(malformed_response)?;
            self.web.write(part, &mut out.body);
        }
        Ok(())
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if self.kind != Responding::Messages {
            let own = [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS];
            let mut frame = HeaderMap::new();
            for name in &own {
                self.held.get(name).into_iter().for_each(|value| _ = frame.insert(name.clone(), value.clone()));
            }
            note_status(&frame, out);
            // Of an error some clients read the status in the head, and others in the body. That of success is in the
            // body alone: with one in the head, clients expect no body.
            if GrpcStatus::of_fields(&frame) == Some(GrpcStatus::Ok) {
                own.iter().for_each(|name| _ = self.held.remove(name));
            }
            self.web.write_trailers(&frame, &mut out.body);
            out.decide(StatusCode::OK, std::mem::take(&mut self.held));
            return Ok(());
        }
        if !self.bounds.is_at_boundary() {
            return Err(malformed_response(FrameError::Incomplete));
        }
        let missing = trailers.is_none_or(|trailers| !trailers.contains_key(GRPC_STATUS)).then(no_trailers);
        let trailers = missing.as_ref().or(trailers);
        trailers.into_iter().for_each(|trailers| {
            note_status(trailers, out);
            self.web.write_trailers(trailers, &mut out.body);
        });
        Ok(())
    }

    fn broken(&mut self, why: &Rejection, out: &mut ClientResponse) -> bool {
        if self.kind != Responding::Messages || !self.bounds.is_at_boundary() {
            return false;
        }
        let mut trailers = HeaderMap::new();
        why.grpc_status().write(&why.message(), &mut trailers);
        self.web.write_trailers(&trailers, &mut out.body);
        true
    }
}

/// Notes the status for the log.
fn note_status(trailers: &HeaderMap, out: &mut ClientResponse) {
    out.target_status = GrpcStatus::of_fields(trailers).map(|status| status.name().into());
}
