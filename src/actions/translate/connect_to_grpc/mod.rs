//! `connect_to_grpc`: the Connect protocol, to targets that speak gRPC (connectrpc.com/docs/protocol).
//!
//! A request is read whole before it is sent, so streams of clients are half duplex: the target gets all messages, and
//! only then the client gets responses.

mod response;

use std::borrow::Cow;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ALLOW};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use schemars::JsonSchema;
use serde::Deserialize;

use self::response::{StreamResponse, UnaryResponse};
use super::grpc_target::{GRPC_ACCEPT_ENCODING, malformed, operation, request_fields};
use super::{IncomingRequest, Protocols, Translate, TranslateResponse, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{CONNECT_VERSION, Codec, Connect, Reason, Rejection, RequestView};
use crate::notation::Size;
use crate::rules::grpc::{FrameBounds, FrameError, GrpcStatus, decode_query_message, parse_timeout_ms, write_frame};

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const TIMEOUT_MS: HeaderName = HeaderName::from_static("connect-timeout-ms");
const CONTENT_CODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const ACCEPT_CODING: HeaderName = HeaderName::from_static("connect-accept-encoding");

/// The Connect protocol, to targets that speak gRPC.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "ConnectToGrpc")]
pub struct Config {
    /// The longest request body. Default 4MiB.
    pub max_request_body: Size,
    /// The longest message of a unary response, which is held until the target's status is known. Default 4MiB.
    pub max_response: Size,
    /// Methods that may be called by GET, such as `shop.v1.Catalog/Item`. They must have no effect: a page of any site
    /// can make a browser send such a request. Default none.
    pub get: Vec<String>,
    /// Whether a request of plain JSON or protobuf has to name the protocol in `Connect-Protocol-Version`; otherwise it
    /// is not taken without it. Default false.
    pub require_version: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_request_body: Size(4 << 20), max_response: Size(4 << 20), get: Vec::new(), require_version: false }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct ConnectToGrpc {
    max_request_body: u64,
    max_response: u32,
    get: Vec<String>,
    require_version: bool,
}

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> ConnectToGrpc {
    for (index, method) in config.get.iter().enumerate() {
        let is_method = method.split_once('/').is_some_and(|(service, name)| {
            !service.is_empty() && !name.is_empty() && !name.contains('/') && !method.contains(['*', ' '])
        });
        if !is_method {
            let text = format!("expected a method such as shop.v1.Catalog/Item, found \"{method}\"");
            context.mistakes.add(&context.place.key("get").index(index), text);
        }
    }
    ConnectToGrpc {
        max_request_body: config.max_request_body.0,
        max_response: u32::try_from(config.max_response.0).unwrap_or(u32::MAX),
        get: config.get.clone(),
        require_version: config.require_version,
    }
}

fn invalid(why: impl Into<Cow<'static, str>>) -> Box<Rejection> {
    let why = why.into();
    Rejection::new(Reason::RequestUntranslatable, why.clone()).log(why)
}

/// Returns the rejection of a coding: the protocol wants to know which ones there are.
fn unknown_coding() -> Box<Rejection> {
    invalid("this coding of messages is not known here; supported: identity").grpc(GrpcStatus::Unimplemented)
}

impl Translate for ConnectToGrpc {
    fn protocols(&self) -> Protocols {
        Protocols { from: "connect", to: "grpc" }
    }

    fn is_named_by(&self, view: &RequestView<'_>) -> bool {
        let of_proto = |connect| matches!(connect, Connect::Get(_) | Connect::Unary(Codec::Proto));
        let named = |connect: Connect| connect.is_named_by(view.request) || of_proto(connect);
        self.takes(view, "") && Connect::of(view.request).is_some_and(named)
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        match Connect::of(view.request) {
            Some(Connect::Unary(_)) if self.require_version => view.request.headers.contains_key(CONNECT_VERSION),
            kind => kind.is_some(),
        }
    }

    fn needs_http2(&self) -> bool {
        true
    }

    fn max_request_body(&self) -> u64 {
        self.max_request_body
    }

    fn unknown_coding(&self) -> Box<Rejection> {
        invalid("this content coding is not known here; supported: gzip, br, zstd, identity")
            .grpc(GrpcStatus::Unimplemented)
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let came = request.view.request;
        let kind = Connect::of(came).ok_or_else(|| invalid("this is no call of the Connect protocol"))?;
        let format = match kind.codec() {
            Codec::Proto => "+proto",
            Codec::Json => "+json",
            Codec::Other => return Err(unknown_codec(kind)),
        };
        check_version(&came.headers)?;
        let body = match kind {
            Connect::Unary(_) => framed(&request.body),
            Connect::Stream(_) => checked_stream(&came.headers, &request.body)?,
            Connect::Get(_) => {
                self.check_get(request.path)?;
                framed(&query_message(request.query.unwrap_or_default())?)
            }
        };
        let mut headers = request_fields(format);
        headers.push((GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        let response: Box<dyn TranslateResponse> = match kind {
            Connect::Stream(_) => Box::new(StreamResponse::new(kind)),
            _ => Box::new(UnaryResponse::new(kind, self.max_response)),
        };
        Ok(TranslatedRequest {
            method: Method::POST,
            target: request.path.to_owned(),
            headers,
            removed: vec![ACCEPT, CONNECT_VERSION, TIMEOUT_MS, CONTENT_CODING, ACCEPT_CODING],
            body,
            is_safe: matches!(kind, Connect::Get(_)),
            is_grpc: true,
            wait: wait(&came.headers)?,
            operation: operation(request.path),
            response,
        })
    }

    fn describe(&self) -> Vec<String> {
        vec!["translates the Connect protocol to gRPC".to_owned()]
    }
}

impl ConnectToGrpc {
    fn check_get(&self, path: &str) -> Result<(), Box<Rejection>> {
        if self.get.iter().any(|method| path.strip_prefix('/') == Some(method)) {
            return Ok(());
        }
        let rejection = Rejection::new(Reason::MethodNotAllowed, "this method is called by POST only");
        Err(rejection.header(ALLOW, HeaderValue::from_static("POST")))
    }
}

/// Returns the rejection of messages in an unknown format (RFC 9110, section 15.5.16).
fn unknown_codec(kind: Connect) -> Box<Rejection> {
    let accepted = match kind {
        Connect::Stream(_) => "application/connect+proto, application/connect+json",
        _ => "application/proto, application/json",
    };
    let rejection = Rejection::new(Reason::MediaType, format!("accepted here: {accepted}"));
    rejection.header(ACCEPT_POST, HeaderValue::from_static(accepted))
}

fn check_version(headers: &HeaderMap) -> Result<(), Box<Rejection>> {
    match headers.get(CONNECT_VERSION) {
        Some(version) if version != "1" => Err(invalid("connect-protocol-version has to be 1")),
        _ => Ok(()),
    }
}

fn wait(headers: &HeaderMap) -> Result<Option<Duration>, Box<Rejection>> {
    let Some(value) = headers.get(TIMEOUT_MS) else { return Ok(None) };
    let wait = parse_timeout_ms(value.as_bytes());
    wait.map(Some).ok_or_else(|| invalid("connect-timeout-ms has to be a number of at most ten digits"))
}

/// Returns the frame of the one message of a unary call.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    write_frame(0, message, &mut frame);
    frame.freeze()
}

/// Returns the messages of a stream, whose frames are the same in both protocols.
fn checked_stream(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Box<Rejection>> {
    if headers.get(CONTENT_CODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unknown_coding());
    }
    // Without a coding no message can be compressed.
    let mut bounds = FrameBounds::accepting(0, u32::MAX);
    bounds.follow(body).map_err(malformed)?;
    if bounds.is_at_boundary() { Ok(body.clone()) } else { Err(malformed(FrameError::Incomplete)) }
}

/// Returns the message of a unary call by GET.
fn query_message(query: &str) -> Result<Vec<u8>, Box<Rejection>> {
    let value = |wanted: &str| {
        form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).map(|(_, value)| value)
    };
    let Some(message) = value("message") else { return Err(invalid("the query has no message")) };
    match value("compression").as_deref() {
        None | Some("" | "identity") => {}
        Some(_) => return Err(unknown_coding()),
    }
    match value("base64").as_deref() {
        Some("1") => {
            decode_query_message(message.as_bytes()).ok_or_else(|| invalid("the message is not URL-safe base64"))
        }
        Some(_) => Err(invalid("base64 has to be 1")),
        None => Ok(percent_decoded(query)),
    }
}

/// Returns the bytes of the message in the query, which need not be a text.
fn percent_decoded(query: &str) -> Vec<u8> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix("message=")).unwrap_or_default();
    let spaced = raw.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_query() {
        let message = |query: &str| query_message(query).map_err(|rejection| rejection.grpc_status());
        assert_eq!(message("connect=v1&message=%7B%22a%22%3A+1%7D"), Ok(br#"{"a": 1}"#.to_vec()));
        assert_eq!(message("message=%ff%00"), Ok(vec![0xff, 0]));
        assert_eq!(message("message="), Ok(Vec::new()));
        assert_eq!(message("base64=1&message=CgFh"), Ok(b"\n\x01a".to_vec()));
        assert_eq!(message("base64=1&message=CgE%3D"), Ok(b"\n\x01".to_vec()));
        assert_eq!(message("compression=identity&message=a"), Ok(b"a".to_vec()));
        assert_eq!(message("compression=gzip&message=a"), Err(GrpcStatus::Unimplemented));
        for wrong in ["", "connect=v1", "base64=1&message=!", "base64=0&message=a"] {
            assert_eq!(message(wrong), Err(GrpcStatus::InvalidArgument), "{wrong}");
        }
    }

    #[test]
    fn streams_are_frames_without_compression() {
        let checked = |fields: &[(HeaderName, &'static str)], body: &'static [u8]| {
            let headers = fields.iter().map(|(n, v)| (n.clone(), HeaderValue::from_static(v))).collect();
            checked_stream(&headers, &Bytes::from_static(body)).map_err(|rejection| rejection.grpc_status())
        };
        assert_eq!(checked(&[], b"\0\0\0\0\x01a"), Ok(Bytes::from_static(b"\0\0\0\0\x01a")));
        assert_eq!(checked(&[], b""), Ok(Bytes::new()));
        assert_eq!(checked(&[(CONTENT_CODING, "identity")], b""), Ok(Bytes::new()));
        assert_eq!(checked(&[(CONTENT_CODING, "gzip")], b""), Err(GrpcStatus::Unimplemented));
        for wrong in [&b"\x01\0\0\0\0"[..], b"\0\0\0\0\x02a", b"\x02\0\0\0\0", b"\0\0"] {
            let checked = checked_stream(&HeaderMap::new(), &Bytes::from_static(wrong));
            assert_eq!(checked.expect_err("malformed").grpc_status(), GrpcStatus::InvalidArgument, "{wrong:?}");
        }
    }
}
