//! Responses of Lambda functions, as API Gateway reads them ("Lambda function response for format 1.0" and "2.0"), and
//! the metadata before a streamed one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use serde_json::{Map, Value};

use super::event::EventFormat;

/// The headers of a response that are about a connection, or about framing, and are not the function's to set.
const DROPPED: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The most headers of a response.
const MAX_HEADERS: usize = 512;

/// The longest metadata before a streamed response.
const MAX_PRELUDE: usize = 64 * 1024;

/// The end of the metadata.
const PRELUDE_END: [u8; 8] = [0; 8];

/// The response of a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Reads what a function returned.
///
/// # Errors
/// Returns why it is malformed; the text repeats nothing of it.
pub fn parse_response(format: EventFormat, payload: Bytes) -> Result<FunctionResponse, &'static str> {
    if format == EventFormat::Raw {
        return Ok(FunctionResponse { status: 200, headers: json_type(), body: payload });
    }
    let value: Value = serde_json::from_slice(&payload).map_err(|_| "it is not JSON")?;
    match value {
        Value::Object(members) if format == EventFormat::V1 || members.contains_key("statusCode") => {
            of_members(&members)
        }
        _ if format == EventFormat::V1 => Err("it is not an object"),
        // The value is the body ("If your Lambda function returns valid JSON and doesn't return a statusCode").
        _ => Ok(FunctionResponse { status: 200, headers: json_type(), body: payload }),
    }
}

fn json_type() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))])
}

fn of_members(members: &Map<String, Value>) -> Result<FunctionResponse, &'static str> {
    let (status, headers) = head_of(members)?;
    let is_base64 = match members.get("isBase64Encoded") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::Bool(true)) => true,
        Some(_) => return Err("its isBase64Encoded is not a boolean"),
    };
    let body = match members.get("body") {
        None | Some(Value::Null) => Bytes::new(),
        Some(Value::String(text)) if is_base64 => {
            STANDARD.decode(text).map(Bytes::from).map_err(|_| "its body is not base64")?
        }
        Some(Value::String(text)) => Bytes::copy_from_slice(text.as_bytes()),
        Some(_) => return Err("its body is not a text"),
    };
    let has_body = !matches!(status, 204 | 304);
    Ok(FunctionResponse { status, headers, body: if has_body { body } else { Bytes::new() } })
}

/// Returns the status and the headers of a response.
fn head_of(members: &Map<String, Value>) -> Result<(u16, HeaderMap), &'static str> {
    let status = match members.get("statusCode") {
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        _ => return Err("it has no statusCode"),
    };
    let status = status.and_then(|status| u16::try_from(status).ok()).filter(|status| (200..=599).contains(status));
    let status = status.ok_or("its statusCode is not one of 200 to 599")?;
    let mut headers = HeaderMap::new();
    // Of a header in both, the list is the one that counts, and a value in the other is added if it is not in it.
    for (name, value) in object(members, "multiValueHeaders")? {
        let Value::Array(items) = value else { return Err("a header of its multiValueHeaders is not a list") };
        items.iter().try_for_each(|item| add(&mut headers, name, item))?;
    }
    for (name, value) in object(members, "headers")? {
        add(&mut headers, name, value)?;
    }
    match members.get("cookies") {
        None | Some(Value::Null) => {}
        Some(Value::Array(cookies)) => cookies.iter().try_for_each(|cookie| match cookie {
            Value::String(_) => add(&mut headers, SET_COOKIE.as_str(), cookie),
            _ => Err("one of its cookies is not a text"),
        })?,
        Some(_) => return Err("its cookies are not a list"),
    }
    drop_framing(&mut headers);
    if !headers.contains_key(CONTENT_TYPE) {
        headers.extend(json_type());
    }
    Ok((status, headers))
}

fn object<'m>(
    members: &'m Map<String, Value>,
    name: &'static str,
) -> Result<impl Iterator<Item = (&'m String, &'m Value)>, &'static str> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None.into_iter().flatten()),
        Some(Value::Object(members)) => Ok(Some(members).into_iter().flatten()),
        Some(_) => Err("its headers are not an object"),
    }
}

/// Adds a value of a header, unless it is there.
fn add(headers: &mut HeaderMap, name: &str, value: &Value) -> Result<(), &'static str> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        Value::Null => return Ok(()),
        Value::Array(_) | Value::Object(_) => return Err("a header of it is not a text"),
    };
    let name: HeaderName = name.parse().map_err(|_| "the name of a header of it cannot be sent")?;
    let value = HeaderValue::from_bytes(text.as_bytes()).map_err(|_| "a header of it cannot be sent")?;
    if headers.get_all(&name).iter().any(|known| *known == value) {
        return Ok(());
    }
    if headers.len() >= MAX_HEADERS {
        return Err("it has too many headers");
    }
    headers.try_append(name, value).map(|_| ()).map_err(|_| "it has too many headers")
}

/// Removes the headers of one connection and those that `Connection` names (RFC 9110, section 7.6.1).
fn drop_framing(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in DROPPED.iter().chain(&named) {
        headers.remove(name);
    }
}

/// The metadata of a streamed response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamPrelude {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
}

/// The beginning of a streamed response: metadata in JSON and eight zero bytes, or the body itself.
#[derive(Debug, Default)]
pub struct StreamStart {
    buffer: BytesMut,
}

impl StreamStart {
    /// Adds a part. Returns the metadata and what follows them, once they are there.
    ///
    /// # Errors
    /// Returns why the metadata are malformed.
    pub fn push(&mut self, part: &[u8]) -> Result<Option<(StreamPrelude, Bytes)>, &'static str> {
        let searched = self.buffer.len().saturating_sub(PRELUDE_END.len() - 1);
        self.buffer.extend_from_slice(part);
        if self.buffer.first().is_some_and(|first| *first != b'{') {
            return Ok(Some(self.without()));
        }
        let end = memchr::memmem::find(&self.buffer[searched..], &PRELUDE_END).map(|at| searched + at);
        let Some(end) = end else {
            return Ok((self.buffer.len() > MAX_PRELUDE).then(|| self.without()));
        };
        let Ok(Value::Object(mut members)) = serde_json::from_slice(&self.buffer[..end]) else {
            return Ok(Some(self.without()));
        };
        members.entry("statusCode").or_insert_with(|| 200.into());
        let (status, headers) = head_of(&members)?;
        let body = self.buffer.split_off(end + PRELUDE_END.len()).freeze();
        Ok(Some((StreamPrelude { status, headers }, body)))
    }

    /// Returns the response of a stream that ended before any metadata.
    pub fn end(&mut self) -> (StreamPrelude, Bytes) {
        self.without()
    }

    /// Returns the response of a stream without metadata.
    fn without(&mut self) -> (StreamPrelude, Bytes) {
        let kind = HeaderValue::from_static("application/octet-stream");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, kind)]);
        (StreamPrelude { status: 200, headers }, self.buffer.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(format: EventFormat, text: &str) -> Result<FunctionResponse, &'static str> {
        parse_response(format, Bytes::copy_from_slice(text.as_bytes()))
    }

    fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn version_1_merges_both_kinds_of_headers() {
        let text = r#"{"statusCode":"201","headers":{"X-A":"1","X-N":7,"Connection":"x-hop, close","X-Hop":"1",
            "Content-Length":"99"},"multiValueHeaders":{"x-a":["1","2"],"Set-Cookie":["a=1","b=2"]},"body":"aGk=",
            "isBase64Encoded":true}"#;
        let response = parse(EventFormat::V1, text).expect("a response");
        assert_eq!((response.status, &response.body[..]), (201, &b"hi"[..]));
        assert_eq!(list(&response.headers, "x-a"), ["1", "2"]);
        assert_eq!(list(&response.headers, "set-cookie"), ["a=1", "b=2"]);
        assert_eq!(list(&response.headers, "x-n"), ["7"]);
        assert_eq!(list(&response.headers, "content-type"), ["application/json"]);
        for dropped in ["connection", "x-hop", "content-length"] {
            assert!(!response.headers.contains_key(dropped), "{dropped}");
        }
    }

    #[test]
    fn version_2_has_cookies_and_bare_values() {
        let text = r#"{"statusCode":200,"cookies":["a=1","b=2"],"headers":{"content-type":"text/plain"},"body":"hi"}"#;
        let response = parse(EventFormat::V2, text).expect("a response");
        assert_eq!(list(&response.headers, "set-cookie"), ["a=1", "b=2"]);
        assert_eq!(list(&response.headers, "content-type"), ["text/plain"]);
        for bare in [r#"{"message":"hi"}"#, r#""hi""#, "null", "7", "[1]"] {
            let response = parse(EventFormat::V2, bare).expect("a response");
            assert_eq!((response.status, &response.body[..]), (200, bare.as_bytes()));
            assert_eq!(list(&response.headers, "content-type"), ["application/json"]);
        }
        let empty = parse(EventFormat::V2, r#"{"statusCode":204,"body":"x"}"#).expect("a response");
        assert_eq!((empty.status, empty.body.len()), (204, 0));
    }

    #[test]
    fn malformed_responses_are_errors() {
        let both = [
            "",
            "{",
            r#"{"statusCode":99}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":600}"#,
            r#"{"statusCode":"x"}"#,
            r#"{"statusCode":null}"#,
            r#"{"statusCode":200,"headers":[]}"#,
            r#"{"statusCode":200,"headers":{"a b":"1"}}"#,
            r#"{"statusCode":200,"headers":{"a":"1\r\nb: 2"}}"#,
            r#"{"statusCode":200,"headers":{"a":["1"]}}"#,
            r#"{"statusCode":200,"multiValueHeaders":{"a":"1"}}"#,
            r#"{"statusCode":200,"cookies":"a=1"}"#,
            r#"{"statusCode":200,"cookies":[1]}"#,
            r#"{"statusCode":200,"body":{}}"#,
            r#"{"statusCode":200,"body":"?","isBase64Encoded":true}"#,
            r#"{"statusCode":200,"isBase64Encoded":"yes"}"#,
        ];
        for text in both {
            assert!(parse(EventFormat::V1, text).is_err() && parse(EventFormat::V2, text).is_err(), "{text}");
        }
        for text in ["{}", r#"{"body":"x"}"#, "null", r#""hi""#, "[]"] {
            assert!(parse(EventFormat::V1, text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_metadata_of_streams_are_read_however_they_are_cut() {
        let text = b"{\"statusCode\":418,\"headers\":{\"x-a\":\"1\"},\"cookies\":[\"c=1\"]}\0\0\0\0\0\0\0\0body";
        for size in 1..text.len() {
            let (mut start, mut found, mut rest) = (StreamStart::default(), None, Vec::new());
            for part in text.chunks(size) {
                if found.is_some() {
                    rest.extend_from_slice(part);
                } else if let Some((prelude, body)) = start.push(part).expect("a part") {
                    rest.extend_from_slice(&body);
                    found = Some(prelude);
                }
            }
            let prelude = found.expect("metadata");
            assert_eq!((prelude.status, &rest[..]), (418, &b"body"[..]));
            assert_eq!(
                (list(&prelude.headers, "x-a"), list(&prelude.headers, "set-cookie")),
                (vec!["1".to_owned()], vec!["c=1".to_owned()])
            );
        }
    }

    #[test]
    fn streams_without_metadata_are_bodies() {
        let mut start = StreamStart::default();
        assert_eq!(start.push(b"hello").expect("a part").expect("a response").1, Bytes::from("hello"));
        let mut start = StreamStart::default();
        assert_eq!(start.push(b"{\"a\":1}"), Ok(None));
        assert_eq!(start.end().1, Bytes::from("{\"a\":1}"));
        let mut start = StreamStart::default();
        assert!(start.push(b"{\"statusCode\":7}\0\0\0\0\0\0\0\0").is_err());
    }

    proptest::proptest! {
        #[test]
        fn what_is_accepted_can_be_sent(
            name in "[ -~]{0,8}", value in "\\PC{0,8}", status in 0_u32..1_000, body in "\\PC{0,8}"
        ) {
            let text = serde_json::json!({"statusCode": status, "headers": {name: value}, "body": body}).to_string();
            for format in [EventFormat::V1, EventFormat::V2] {
                if let Ok(response) = parse(format, &text) {
                    proptest::prop_assert!((200..=599).contains(&response.status));
                    proptest::prop_assert!(!response.headers.contains_key(TRANSFER_ENCODING));
                    let has_body = !matches!(response.status, 204 | 304);
                    proptest::prop_assert_eq!(&response.body[..], if has_body { body.as_bytes() } else { b"" });
                }
            }
        }
    }
}
