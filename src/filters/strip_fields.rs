//! `strip_fields`: removes members from JSON answers, at any depth, while they stream by.
//!
//! The document is never held, so there is no size beyond which anything changes. What cannot be
//! looked into (an encoding that the gateway does not know, another character set than UTF-8, nesting
//! beyond 2048 levels) is refused
//! rather than passed on with the field still in it.

use std::sync::Arc;

use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_RANGE, RANGE,
};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::CompileContext;
use crate::exchange::{Reason, Rejection};
use crate::notation::Field;
use crate::rules::payload::{Decoder, Fields};

/// What is said of a body and is no longer right, but for its length.
static SPOILED: [HeaderName; 5] = [
    ACCEPT_RANGES,
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// What is removed.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Members of JSON answers: `ssn` (of the document, or of each in a list), `user.address.street`,
    /// `items.*.cost` (`*` is one name, or any element of a list), `**.internal` (at any depth).
    #[schemars(length(min = 1))]
    pub response: Vec<Field>,
    /// What becomes of answers in another form than JSON, in which the members may stand as well: for routes whose
    /// clients can choose the form (`Accept`, a suffix, a parameter). Default `keep`.
    #[serde(default)]
    pub other: Other,
}

/// What becomes of an answer that is not JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Other {
    /// It passes as it is.
    #[default]
    Keep,
    /// 502 in its place.
    Reject,
}

/// How an answer's body is edited.
#[derive(Debug)]
pub struct Strip<'f> {
    /// What is removed.
    pub fields: &'f Arc<Fields>,
    /// What takes its coding off first.
    pub decoder: Option<Decoder>,
}

/// The filter at work.
#[derive(Debug)]
pub struct Filter {
    fields: Arc<Fields>,
    other: Other,
}

impl Filter {
    /// Compiles it.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let paths: Vec<_> = config.response.iter().map(|f| f.0.clone()).collect();
        let place = context.place.key("response");
        Some(Self { fields: Arc::new(context.mistakes.take(&place, Fields::new(&paths))?), other: config.other })
    }

    /// Asks for the whole and plain document: a part or an encoded one could not be looked into.
    pub fn on_request(&self, request: &mut RequestHeader) {
        for name in [ACCEPT_ENCODING, RANGE, IF_RANGE] {
            request.remove_header(&name);
        }
    }

    /// The fields to remove from this answer; its head is made ready for a body of another length.
    pub fn on_response(&self, response: &mut ResponseHeader) -> Result<Option<Strip<'_>>, Box<Rejection>> {
        let empty = response.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        if empty {
            return Ok(None);
        }
        if !is_json(response) {
            return match self.other {
                Other::Keep => Ok(None),
                Other::Reject => Err(Rejection::new(Reason::AnswerOpaque, "").log("the answer is not JSON")),
            };
        }
        if is_other_charset(response, &self.fields) {
            return Err(Rejection::new(Reason::AnswerOpaque, "").log("the answer is JSON that is no UTF-8"));
        }
        if response.status == http::StatusCode::PARTIAL_CONTENT {
            return Err(Rejection::new(Reason::AnswerOpaque, "").log("the answer is partial although the whole was asked for"));
        }
        let decoder = decoder(response)?;
        response.remove_header(&CONTENT_LENGTH);
        // An answer has few headers, and seldom one of these: one look at each of them is less than a search for each of these.
        if response.headers.keys().any(|name| SPOILED.contains(name)) {
            for name in &SPOILED {
                response.remove_header(name);
            }
        }
        weaken_etag(response);
        Ok(Some(Strip { fields: &self.fields, decoder }))
    }
}

/// Whether an answer may be read as JSON: `application/json`, everything with `+json` (RFC 6839), and its streams of
/// documents, which have many names. What says nothing of its kind, or several things of which this is one, may be too.
fn is_json(response: &ResponseHeader) -> bool {
    let mut values = response.headers.get_all(CONTENT_TYPE).iter().peekable();
    values.peek().is_none() || values.any(|value| value.as_bytes().split(|byte| *byte == b',').any(is_json_type))
}

fn is_json_type(value: &[u8]) -> bool {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.is_empty() || kind.windows(4).any(|word| word.eq_ignore_ascii_case(b"json"))
}

/// What takes the answer's coding off, if it has one although none was asked for.
fn decoder(response: &mut ResponseHeader) -> Result<Option<Decoder>, Box<Rejection>> {
    let opaque = || Rejection::new(Reason::AnswerOpaque, "").log("the answer is encoded although that was not asked for");
    let mut codings = Vec::new();
    for value in response.headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().map_err(|_| opaque())?;
        codings.extend(text.split(',').map(str::trim).filter(|c| !c.is_empty() && !c.eq_ignore_ascii_case("identity")));
    }
    let decoder = match codings.as_slice() {
        [] => return Ok(None),
        [one] => Decoder::of(one).ok_or_else(opaque)?,
        _ => return Err(opaque()),
    };
    response.remove_header(&CONTENT_ENCODING);
    Ok(Some(decoder))
}

/// Whether another encoding than UTF-8 is named, which is the only one of JSON (RFC 8259, section 8.1). Latin-1 is as
/// good for names that are ASCII, and old frameworks say it of all that they send.
fn is_other_charset(response: &ResponseHeader, fields: &Fields) -> bool {
    let fine = |charset: &[u8]| {
        let is = |name: &&str| charset.eq_ignore_ascii_case(name.as_bytes());
        ["utf-8", "utf8", "us-ascii"].iter().any(is) || (fields.is_ascii() && ["iso-8859-1", "latin1"].iter().any(is))
    };
    let mut parameters =
        response.headers.get_all(CONTENT_TYPE).iter().flat_map(|value| value.as_bytes().split(|b| matches!(b, b';' | b',')));
    parameters.any(|parameter| {
        let Some(at) = memchr::memchr(b'=', parameter) else { return false };
        let (name, charset) = (parameter[..at].trim_ascii(), parameter[at + 1..].trim_ascii());
        let charset = charset.strip_prefix(b"\"").and_then(|c| c.strip_suffix(b"\"")).unwrap_or(charset);
        name.eq_ignore_ascii_case(b"charset") && !fine(charset)
    })
}

/// The body is another than the target's, so its strong validator is not ours (RFC 9110, section 8.8.1).
fn weaken_etag(response: &mut ResponseHeader) {
    let Some(etag) = response.headers.get(ETAG) else { return };
    if etag.as_bytes().starts_with(b"W/") {
        return;
    }
    let weak = [b"W/", etag.as_bytes()].concat();
    if let Ok(weak) = HeaderValue::from_bytes(&weak) {
        let _ = response.insert_header(ETAG, weak);
    }
}
