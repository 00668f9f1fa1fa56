//! The rendering of a rejection: a problem document (RFC 9457), or a gRPC status.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, VARY};

use super::{Connect, Exchange, GrpcWeb, Reason, Rejection, RenderedPage};
use crate::rules::grpc::{ConnectError, GRPC_MESSAGE, GRPC_STATUS, encode_message, write_end_stream};
use crate::rules::schema::Violation;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

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
        return grpc_web(rejection, web, headers);
    } else if let Some(connect) = exchange.connect {
        return connect_error(rejection, connect, headers);
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
    headers.push((GRPC_STATUS, HeaderValue::from(u16::from(rejection.grpc_status().number()))));
    push(headers, GRPC_MESSAGE, encode_message(&rejection.message()).into_owned());
}

/// Returns a response without messages. Some clients read the status in the head, and others in the body, so it is in
/// both. Its HTTP status is 200, except where what the client sent is not gRPC-Web.
fn grpc_web(rejection: &Rejection, web: GrpcWeb, mut headers: Vec<(HeaderName, HeaderValue)>) -> RenderedResponse {
    let mut trailers = HeaderMap::new();
    rejection.grpc_status().write(&rejection.message(), &mut trailers);
    let mut body = BytesMut::new();
    web.write_trailers(&trailers, &mut body);
    push(&mut headers, CONTENT_TYPE, format!("{}+proto", web.content_type()));
    headers.extend(
        [GRPC_STATUS, GRPC_MESSAGE].into_iter().filter_map(|name| Some((name.clone(), trailers.remove(name)?))),
    );
    let is_malformed = matches!(rejection.reason, Reason::RequestUntranslatable | Reason::MediaType);
    RenderedResponse { status: if is_malformed { rejection.http_status() } else { 200 }, headers, body: body.freeze() }
}

/// Returns an error of the Connect protocol: that of a stream is in its body, behind the status 200.
fn connect_error(
    rejection: &Rejection,
    connect: Connect,
    mut headers: Vec<(HeaderName, HeaderValue)>,
) -> RenderedResponse {
    let error = ConnectError::new(rejection.grpc_status(), rejection.message());
    if let (Connect::Stream(_), false) = (connect, rejection.reason == Reason::MediaType) {
        let mut body = BytesMut::new();
        write_end_stream(Some(&error), &HeaderMap::new(), &mut body);
        headers.push((CONTENT_TYPE, connect.content_type()));
        return RenderedResponse { status: 200, headers, body: body.freeze() };
    }
    headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
    RenderedResponse { status: rejection.http_status(), headers, body: error.to_json().to_string().into() }
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
