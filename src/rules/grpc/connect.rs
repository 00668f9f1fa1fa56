//! The parts of the Connect protocol that differ from gRPC (connectrpc.com/docs/protocol): errors in JSON, and the
//! message at the end of a stream.

use std::time::Duration;

use base64::Engine;
use base64::engine::GeneralPurposeConfig;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD};
use base64::engine::{DecodePaddingMode, general_purpose};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message;
use serde_json::{Map, Value, json};

use super::frames::write_frame;
use super::status::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS, GrpcStatus, decode_message};

/// The flag of the message at the end of a stream.
pub const END_STREAM: u8 = 0x02;

/// The base64 of binary metadata and of messages in a query, padded or not.
const ANY_PADDING: GeneralPurposeConfig =
    general_purpose::PAD.with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true);
const BINARY_METADATA: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, ANY_PADDING);
const QUERY_MESSAGE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, ANY_PADDING);

/// The most details of an error that are passed on.
const MAX_DETAILS: usize = 64;

/// A `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusMessage {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

/// A `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// An error as the Connect protocol writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// The status.
    pub status: GrpcStatus,
    /// The message.
    pub message: String,
    /// The details: the name of a type, and the bytes of a message.
    pub details: Vec<(String, Bytes)>,
}

impl ConnectError {
    /// Returns an error without details.
    pub fn new(status: GrpcStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), details: Vec::new() }
    }

    /// Returns the error in the trailers of a target, or `None` for a success. What has no status is an error too.
    pub fn of_trailers(trailers: &HeaderMap) -> Option<Self> {
        let Some(status) = GrpcStatus::of_fields(trailers) else {
            return Some(Self::new(GrpcStatus::Unknown, "the target sent no status"));
        };
        if status == GrpcStatus::Ok {
            return None;
        }
        let message = trailers.get(GRPC_MESSAGE).map(|value| decode_message(value.as_bytes())).unwrap_or_default();
        let details = trailers.get(GRPC_STATUS_DETAILS).map(|value| details(value.as_bytes())).unwrap_or_default();
        Some(Self { status, message, details })
    }

    /// Returns it in JSON ("Error codes" and "Unary-Response" of the protocol).
    pub fn to_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".to_owned(), self.status.word().into());
        if !self.message.is_empty() {
            error.insert("message".to_owned(), self.message.as_str().into());
        }
        if !self.details.is_empty() {
            let detail =
                |(name, value): &(String, Bytes)| json!({"type": name, "value": STANDARD_NO_PAD.encode(value)});
            error.insert("details".to_owned(), self.details.iter().map(detail).collect());
        }
        Value::Object(error)
    }
}

/// Returns the details in a `grpc-status-details-bin` field; none where it is not readable.
fn details(field: &[u8]) -> Vec<(String, Bytes)> {
    let status = BINARY_METADATA.decode(field).ok().and_then(|bytes| StatusMessage::decode(bytes.as_slice()).ok());
    let details = status.map(|status| status.details).unwrap_or_default();
    let name = |any: AnyMessage| {
        let name = any.type_url.rsplit('/').next().unwrap_or_default().to_owned();
        (name, any.value)
    };
    details.into_iter().take(MAX_DETAILS).map(name).collect()
}

/// Returns whether a field of a target is the protocol's own, and not metadata.
fn is_of_protocol(name: &HeaderName) -> bool {
    use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER};
    let own = [CONTENT_LENGTH, CONTENT_TYPE, TE, TRAILER, GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS];
    own.contains(name) || matches!(name.as_str(), "grpc-encoding" | "grpc-accept-encoding" | "content-encoding")
}

/// Returns the metadata among the fields of a target, with a prefix before each name.
pub fn metadata(fields: &HeaderMap, prefix: &str, more: usize) -> HeaderMap {
    let mut metadata = HeaderMap::with_capacity(fields.len() + more);
    for (name, value) in fields.iter().filter(|(name, _)| !is_of_protocol(name)) {
        let name = if prefix.is_empty() { Ok(name.clone()) } else { format!("{prefix}{name}").parse() };
        if let Ok(name) = name {
            metadata.append(name, value.clone());
        }
    }
    metadata
}

/// Appends the message at the end of a stream ("EndStreamResponse"), with the metadata of the trailers.
pub fn write_end_stream(error: Option<&ConnectError>, trailers: &HeaderMap, out: &mut BytesMut) {
    let mut end = Map::new();
    if let Some(error) = error {
        end.insert("error".to_owned(), error.to_json());
    }
    let mut metadata = Map::new();
    for name in trailers.keys().filter(|name| !is_of_protocol(name)) {
        let text = |value: &HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()).into_owned());
        metadata.insert(name.as_str().to_owned(), trailers.get_all(name).iter().map(text).collect());
    }
    if !metadata.is_empty() {
        end.insert("metadata".to_owned(), Value::Object(metadata));
    }
    write_frame(END_STREAM, Value::Object(end).to_string().as_bytes(), out);
}

/// Parses the value of `Connect-Timeout-Ms`: at most ten digits.
pub fn parse_timeout_ms(value: &[u8]) -> Option<Duration> {
    let digits = std::str::from_utf8(value).ok().filter(|d| d.len() <= 10 && d.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().map(Duration::from_millis)
}

/// Decodes a message in a query, which is URL-safe base64 with or without padding.
pub fn decode_query_message(text: &[u8]) -> Option<Vec<u8>> {
    QUERY_MESSAGE.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn errors_have_code_message_and_details() {
        let any =
            AnyMessage { type_url: "type.googleapis.com/a.Detail".to_owned(), value: Bytes::from_static(b"\x08\x01") };
        let status = StatusMessage { code: 5, message: "x".to_owned(), details: vec![any] };
        let details = general_purpose::STANDARD.encode(status.encode_to_vec());
        for details in [details.as_str(), details.trim_end_matches('=')] {
            let mut trailers = fields(&[("grpc-status", "5"), ("grpc-message", "no %E2%98%BA")]);
            trailers.insert(GRPC_STATUS_DETAILS, HeaderValue::from_str(details).expect("a value"));
            let error = ConnectError::of_trailers(&trailers).expect("an error");
            let detail = json!({"type": "a.Detail", "value": "CAE"});
            assert_eq!(error.to_json(), json!({"code": "not_found", "message": "no ☺", "details": [detail]}));
        }
    }

    #[test]
    fn a_success_is_none_and_no_status_is_one() {
        assert_eq!(ConnectError::of_trailers(&fields(&[("grpc-status", "0")])), None);
        let none = ConnectError::of_trailers(&fields(&[("x", "y")])).expect("an error");
        assert_eq!(none.status, GrpcStatus::Unknown);
        let odd = ConnectError::of_trailers(&fields(&[("grpc-status", "7"), ("grpc-status-details-bin", "%%%")]));
        assert_eq!(odd.expect("an error").to_json(), json!({"code": "permission_denied"}));
    }

    #[test]
    fn a_stream_ends_with_error_and_metadata() {
        let mut trailers = fields(&[("grpc-status", "8"), ("x-cost", "1"), ("content-type", "y")]);
        trailers.append("x-cost", HeaderValue::from_static("2"));
        let mut out = BytesMut::new();
        write_end_stream(Some(&ConnectError::new(GrpcStatus::ResourceExhausted, "m")), &trailers, &mut out);
        assert_eq!(out[0], END_STREAM);
        let end: Value = serde_json::from_slice(&out[5..]).expect("JSON");
        let error = json!({"code": "resource_exhausted", "message": "m"});
        assert_eq!(end, json!({"error": error, "metadata": {"x-cost": ["1", "2"]}}));
        let mut out = BytesMut::new();
        write_end_stream(None, &HeaderMap::new(), &mut out);
        assert_eq!(out[..], [2, 0, 0, 0, 2, b'{', b'}']);
    }

    #[test]
    fn times_have_at_most_ten_digits() {
        assert_eq!(parse_timeout_ms(b"1500"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_timeout_ms(b"9999999999"), Some(Duration::from_millis(9_999_999_999)));
        for wrong in [&b""[..], b"12345678901", b"-1", b"1.5", b"1s", b" 1"] {
            assert_eq!(parse_timeout_ms(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn messages_in_a_query_are_padded_or_not() {
        assert_eq!(decode_query_message(b"-_8="), Some(vec![0xfb, 0xff]));
        assert_eq!(decode_query_message(b"-_8"), Some(vec![0xfb, 0xff]));
        assert_eq!(decode_query_message(b"+/8="), None);
    }
}
