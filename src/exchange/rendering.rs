//! The rendering of a rejection: a problem document (RFC 9457), or a gRPC status.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, VARY};

use super::{Exchange, Reason, Rejection, RenderedPage};
use crate::rules::grpc::encode_message;
use crate::rules::schema::Violation;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// A complete response.
#[derive(Debug)]
pub struct RenderedResponse {
    /// The status.
    pub status: u16,
    /// The headers, except those of the framing.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Bytes,
}

/// Renders a rejection in the format that the client of `exchange` understands: as a gRPC status, as `page`, or as a
/// problem document.
pub fn render(rejection: &Rejection, exchange: &Exchange, page: Option<RenderedPage>) -> RenderedResponse {
    let reason = rejection.reason;
    let mut headers = rejection.headers.clone();
    if let Some(error) = reason.proxy_error() {
        push(&mut headers, PROXY_STATUS, format!("portcullis; error={error}"));
    }
    let body = if reason == Reason::Preflight {
        Bytes::new()
    } else if exchange.grpc {
        grpc(rejection, &mut headers);
        // A trailers-only response: its HTTP status is always 200 (gRPC over HTTP/2, "Responses").
        return RenderedResponse { status: 200, headers, body: Bytes::new() };
    } else if let Some(web) = exchange.grpc_web {
        headers.push((CONTENT_TYPE, HeaderValue::from_static(web.content_type())));
        return RenderedResponse {
            status: 200,
            headers,
            body: web.trailers(reason.grpc_status(), &grpc_message(rejection)),
        };
    } else if let Some(relayed) = &rejection.relayed {
        return RenderedResponse { status: relayed.status, headers, body: relayed.body.clone() };
    } else if let Some(page) = page {
        vary(&mut headers, reason);
        headers.push((CONTENT_TYPE, page.content_type));
        page.body
    } else {
        vary(&mut headers, reason);
        headers.push((CONTENT_TYPE, HeaderValue::from_static("application/problem+json")));
        problem(rejection, exchange)
    };
    RenderedResponse { status: rejection.http_status(), headers, body }
}

/// Adds that the form was chosen by `Accept`, where caches may store the response unasked (RFC 9110, section 15.1).
fn vary(headers: &mut Vec<(HeaderName, HeaderValue)>, reason: Reason) {
    if matches!(reason.status(), 404 | 405 | 410 | 414 | 501) {
        headers.push((VARY, HeaderValue::from_static("accept")));
    }
}

fn push(headers: &mut Vec<(HeaderName, HeaderValue)>, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.push((name, value));
    }
}

fn grpc(rejection: &Rejection, headers: &mut Vec<(HeaderName, HeaderValue)>) {
    headers.push((CONTENT_TYPE, HeaderValue::from_static("application/grpc")));
    headers.push((GRPC_STATUS, HeaderValue::from(u16::from(rejection.reason.grpc_status()))));
    push(headers, GRPC_MESSAGE, grpc_message(rejection));
}

/// Returns the message, percent-encoded as gRPC requires.
fn grpc_message(rejection: &Rejection) -> String {
    encode_message(&message_of(rejection)).into_owned()
}

fn message_of(rejection: &Rejection) -> Cow<'static, str> {
    let title = rejection.reason.title();
    if rejection.detail.is_empty() { title.into() } else { format!("{title}: {}", rejection.detail).into() }
}

fn problem(rejection: &Rejection, exchange: &Exchange) -> Bytes {
    let reason = rejection.reason;
    let instance = exchange.request_id.as_ref().and_then(|id| id.to_str().ok());
    let mut document = serde_json::json!({
        "type": format!("urn:portcullis:{}", reason.code()),
        "title": reason.title(),
        "status": rejection.http_status(),
        "reason": reason.code(),
    });
    if !rejection.detail.is_empty() {
        document["detail"] = rejection.detail.as_ref().into();
    }
    if let Some(instance) = instance {
        document["instance"] = instance.into();
    }
    if !rejection.violations.is_empty() {
        document["violations"] = rejection.violations.iter().map(Violation::to_json).collect();
    }
    Bytes::from(document.to_string())
}
