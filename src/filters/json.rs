//! The common parts of filters that edit JSON responses.

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, IF_RANGE, RANGE};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::{Edit, Reason, Rejection};

/// What happens to a response that is not JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Other {
    /// It is passed on unchanged.
    #[default]
    Keep,
    /// It is replaced by a 502.
    Reject,
}

/// Returns the edits that ask a target for the whole document without a coding: a part of one could not be parsed.
pub(super) fn whole_document_edits() -> Arc<[Edit]> {
    // Apache httpd also reads `Request-Range`.
    [ACCEPT_ENCODING, RANGE, IF_RANGE, HeaderName::from_static("request-range")].map(Edit::Remove).into()
}

/// Returns whether the body of a response is JSON that can be edited; `ascii` where only ASCII is searched for.
///
/// # Errors
/// Returns the response to send instead, when it has to be edited and cannot be.
pub(super) fn is_editable(response: &ResponseHeader, other: Other, ascii: bool) -> Result<bool, Box<Rejection>> {
    let opaque = |why| Err(Rejection::new(Reason::ResponseOpaque, "").log(why));
    if response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0") {
        return Ok(false);
    }
    let partial = response.status == http::StatusCode::PARTIAL_CONTENT;
    // The parts of several ranges have types of their own.
    if !(is_json(&response.headers) || partial && is_multipart(response)) {
        return match other {
            Other::Keep => Ok(false),
            Other::Reject => opaque("the response is not JSON"),
        };
    }
    if is_other_charset(&response.headers, ascii) {
        return opaque("the response is JSON that is not UTF-8");
    }
    if partial {
        return opaque("the response is partial although the whole was requested");
    }
    Ok(true)
}

/// Returns whether a body with this head may be read as JSON: `application/json`, any `+json` (RFC 6839), and streams
/// of JSON documents, which have many names. So may one without a type, or with several types of which this is one.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter().peekable();
    values.peek().is_none() || values.any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_json_type))
}

fn is_multipart(response: &ResponseHeader) -> bool {
    let is = |kind: &[u8]| kind.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/"));
    response.headers.get_all(CONTENT_TYPE).iter().any(|kind| is(kind.as_bytes().trim_ascii_start()))
}

fn is_json_type(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.is_empty() || kind.windows(4).any(|word| word.eq_ignore_ascii_case(b"json"))
}

/// Returns whether another encoding than UTF-8 is named, which is the only one of JSON (RFC 8259, section 8.1).
/// Latin-1 is equivalent for names that are ASCII (`ascii`), and old frameworks send it with everything.
pub(super) fn is_other_charset(headers: &HeaderMap, ascii: bool) -> bool {
    let fine = |charset: &[u8]| {
        let is = |name: &&str| charset.eq_ignore_ascii_case(name.as_bytes());
        ["utf-8", "utf8", "us-ascii"].iter().any(is) || (ascii && ["iso-8859-1", "latin1"].iter().any(is))
    };
    let mut parameters =
        headers.get_all(CONTENT_TYPE).iter().flat_map(|value| value.as_bytes().split(|b| matches!(b, b';' | b',')));
    parameters.any(|parameter| {
        let Some(at) = memchr::memchr(b'=', parameter) else { return false };
        let (name, charset) = (parameter[..at].trim_ascii(), parameter[at + 1..].trim_ascii());
        let charset = charset.strip_prefix(b"\"").and_then(|c| c.strip_suffix(b"\"")).unwrap_or(charset);
        name.eq_ignore_ascii_case(b"charset") && !fine(charset)
    })
}
