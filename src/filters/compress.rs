//! `compress`: encodes responses of targets in a content coding that the client accepts, while they stream.
//!
//! A body of unknown length is flushed with every part that comes, so that events and messages arrive at once. A body
//! that has a coding, a partial body, and one whose sender forbids a transformation are unchanged (RFC 9110, sections
//! 7.7, 8.4 and 15.3.7).
//!
//! Where a response holds a secret beside text that an attacker chooses, its compressed length reveals something of
//! the secret (the attack BREACH); do not compress such routes.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap,
    HeaderName, HeaderValue, VARY,
};
use http::{Method, StatusCode};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::chain::weaken_etag;
use super::{BodyStep, CompileContext, HttpFilter, Needs, ResponseView, Stage};
use crate::notation::Size;
use crate::rules::payload::{Coding, CompressionLevel, Encoder, Opaque, Step, choose_coding};

/// What is compressed, and how.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The codings in the order of preference, which decides where the client accepts several equally. Default zstd,
    /// br, gzip.
    #[schemars(length(min = 1))]
    pub codings: Vec<CodingName>,
    /// Media types: `application/json`, `text/*`, `*+json`, or `*` for all. Default: texts and fonts that are not
    /// compressed already.
    #[schemars(length(min = 1))]
    pub types: Vec<String>,
    /// The size below which bodies are not compressed. Default 1KiB.
    pub min_size: Size,
    /// How much time is spent on smaller bodies. Default `balanced`.
    pub level: LevelName,
    /// The memory of all responses together that are compressed at a time; further ones are not compressed. Default
    /// 256MiB.
    pub memory: Size,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            codings: vec![CodingName::Zstd, CodingName::Br, CodingName::Gzip],
            types: DEFAULT_TYPES.iter().map(|name| (*name).to_owned()).collect(),
            min_size: Size(1 << 10),
            level: LevelName::Balanced,
            memory: Size(256 << 20),
        }
    }
}

/// The media types that are compressed by default.
const DEFAULT_TYPES: [&str; 15] = [
    "text/*",
    "*+json",
    "*+xml",
    "*+text",
    "application/json",
    "application/x-ndjson",
    "application/json-seq",
    "application/javascript",
    "application/xml",
    "application/yaml",
    "application/wasm",
    "font/ttf",
    "font/otf",
    "image/bmp",
    "image/x-icon",
];

/// A content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CodingName {
    /// The fastest, and as small as br: for clients that support it.
    Zstd,
    /// For browsers over TLS.
    Br,
    /// Every client supports it.
    Gzip,
}

impl CodingName {
    /// Returns the coding of that name.
    pub fn coding(self) -> Coding {
        match self {
            Self::Zstd => Coding::Zstd,
            Self::Br => Coding::Br,
            Self::Gzip => Coding::Gzip,
        }
    }
}

/// How much time is spent on smaller bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LevelName {
    /// The least time: gzip 1, br 1, zstd 1.
    Fast,
    /// gzip 4, br 4, zstd 3.
    Balanced,
    /// The smallest bodies for which a client may still wait: gzip 6, br 5, zstd 6.
    Best,
}

/// Media types as they are written in the configuration.
#[derive(Debug, PartialEq, Eq)]
enum TypePattern {
    All,
    /// One type.
    One(Box<str>),
    /// `text/`, of `text/*`.
    Begins(Box<str>),
    /// `+json`, of `*+json`.
    Ends(Box<str>),
}

impl TypePattern {
    fn parse(text: &str) -> Result<Self, String> {
        let is_token =
            |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b));
        match text.split_once('/') {
            Some((kind, "*")) if is_token(kind) => Ok(Self::Begins(format!("{kind}/").into())),
            Some((kind, name)) if is_token(kind) && is_token(name) => Ok(Self::One(text.into())),
            None if text == "*" => Ok(Self::All),
            None if text.starts_with("*+") && is_token(&text[2..]) => Ok(Self::Ends(text[1..].into())),
            _ => Err("expected a media type such as application/json, text/* or *+json".to_owned()),
        }
    }

    /// Returns whether the pattern matches that type, which has no parameters.
    fn takes(&self, kind: &[u8]) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => kind.eq_ignore_ascii_case(one.as_bytes()),
            Self::Begins(start) => {
                kind.get(..start.len()).is_some_and(|part| part.eq_ignore_ascii_case(start.as_bytes()))
            }
            Self::Ends(end) => {
                let from = kind.len().checked_sub(end.len());
                from.is_some_and(|from| kind[from..].eq_ignore_ascii_case(end.as_bytes()))
            }
        }
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    codings: Vec<Coding>,
    types: Vec<TypePattern>,
    min_size: u64,
    level: CompressionLevel,
    memory: u64,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Encode;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let level = match config.level {
            LevelName::Fast => CompressionLevel::Fast,
            LevelName::Balanced => CompressionLevel::Balanced,
            LevelName::Best => CompressionLevel::Best,
        };
        let mut codings = Vec::new();
        for (index, name) in config.codings.iter().enumerate() {
            let coding = name.coding();
            if codings.contains(&coding) {
                context
                    .mistakes
                    .add(&context.place.key("codings").index(index), "the coding is there already".to_owned());
            }
            let cost = Encoder::cost(coding, level);
            if cost > config.memory.0 {
                let text =
                    format!("expected at least {}KiB, which one response with {} takes", cost >> 10, coding.name());
                context.mistakes.add(&context.place.key("memory"), text);
            }
            codings.push(coding);
        }
        let mut types = Vec::new();
        for (index, text) in config.types.iter().enumerate() {
            let place = context.place.key("types").index(index);
            types.extend(context.mistakes.take(&place, TypePattern::parse(text)));
        }
        Some(Self { codings, types, min_size: config.min_size.0.max(1), level, memory: config.memory.0 })
    }

    fn needs(&self) -> Needs {
        Needs::ResponseBody
    }

    fn needs_whole_responses(&self) -> bool {
        // It leaves a part of a response as it is.
        false
    }

    fn on_response_body(&self, response: &mut ResponseHeader, view: &ResponseView<'_>) -> BodyStep {
        if !self.may_encode(response, view) {
            return Ok(None);
        }
        add_vary(response);
        if response.status == StatusCode::PARTIAL_CONTENT {
            return Ok(None);
        }
        let accepted = view.request.headers.get_all(ACCEPT_ENCODING).iter().map(HeaderValue::as_bytes);
        let Some(coding) = choose_coding(accepted, &self.codings) else { return Ok(None) };
        if response.status == StatusCode::NOT_MODIFIED {
            // The validator of the response that it confirms, which was encoded (RFC 9111, section 4.3.4).
            weaken_etag(response);
            return Ok(None);
        }
        let Some(reserved) = Reserved::take(&ENCODER_MEMORY, Encoder::cost(coding, self.level), self.memory) else {
            return Ok(None);
        };
        let flushes = length_of(response).is_none();
        if response.insert_header(CONTENT_ENCODING, HeaderValue::from_static(coding.name())).is_err() {
            return Ok(None);
        }
        // A response to HEAD has no body: it needs no encoder.
        let encoder =
            if view.request.method == Method::HEAD { None } else { Some(Encoder::new(coding, self.level, flushes)) };
        match encoder.transpose() {
            Ok(encoder) => Ok(Some(Box::new(Compressing { encoder, _reserved: reserved }))),
            Err(_) => {
                response.remove_header(&CONTENT_ENCODING);
                Ok(None)
            }
        }
    }
}

impl Filter {
    /// Returns whether this response may be encoded for a client that accepts codings. A part of one is never encoded,
    /// and gets the `Vary` of the whole (RFC 9110, section 15.3.7).
    fn may_encode(&self, response: &ResponseHeader, view: &ResponseView<'_>) -> bool {
        let status = response.status;
        if status.is_informational() || matches!(status.as_u16(), 204 | 205) || view.exchange.grpc {
            return false;
        }
        let confirms = status == StatusCode::NOT_MODIFIED;
        let is_part = status == StatusCode::PARTIAL_CONTENT;
        let length = if is_part { complete_length(response) } else { length_of(response) };
        if !confirms && length.is_some_and(|length| length < self.min_size) {
            return false;
        }
        let headers = &response.headers;
        if headers.contains_key(CONTENT_ENCODING) || (headers.contains_key(CONTENT_RANGE) && !is_part) {
            return false;
        }
        if has_member(headers, &CACHE_CONTROL, b"no-transform")
            || has_member(&view.request.headers, &CACHE_CONTROL, b"no-transform")
        {
            return false;
        }
        match headers.get(CONTENT_TYPE) {
            // A 304 usually has no type.
            None => confirms,
            Some(value) => {
                let kind =
                    value.as_bytes().split(|byte| matches!(byte, b';' | b',')).next().unwrap_or_default().trim_ascii();
                !is_grpc(kind) && self.types.iter().any(|pattern| pattern.takes(kind))
            }
        }
    }
}

/// Returns whether a type is gRPC, whose messages have codings of their own.
fn is_grpc(kind: &[u8]) -> bool {
    kind.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
}

/// Returns the length of the body, if it is known.
fn length_of(response: &ResponseHeader) -> Option<u64> {
    response.headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Returns the length of the whole of which a response has a part, if it is known (RFC 9110, section 14.4).
fn complete_length(response: &ResponseHeader) -> Option<u64> {
    response.headers.get(CONTENT_RANGE)?.to_str().ok()?.rsplit_once('/')?.1.trim().parse().ok()
}

/// Returns whether a list has that member, in any case.
fn has_member(headers: &HeaderMap, name: &HeaderName, member: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .any(|value| value.as_bytes().split(|b| *b == b',').any(|m| m.trim_ascii().eq_ignore_ascii_case(member)))
}

/// Notes that the response depends on `Accept-Encoding` (RFC 9110, section 12.5.5).
fn add_vary(response: &mut ResponseHeader) {
    if !has_member(&response.headers, &VARY, b"accept-encoding") && !has_member(&response.headers, &VARY, b"*") {
        let _ = response.append_header(VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// The memory of all active encoders, in bytes.
static ENCODER_MEMORY: AtomicU64 = AtomicU64::new(0);

/// The memory of one encoder, which is released when it is dropped.
#[derive(Debug)]
struct Reserved {
    in_use: &'static AtomicU64,
    cost: u64,
}

impl Reserved {
    fn take(in_use: &'static AtomicU64, cost: u64, most: u64) -> Option<Self> {
        let sum = in_use.fetch_add(cost, Ordering::Relaxed) + cost;
        let reserved = Self { in_use, cost };
        // Where it is too much the guard is dropped, which releases it.
        (sum <= most).then_some(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.in_use.fetch_sub(self.cost, Ordering::Relaxed);
    }
}

/// The compression of one body.
#[derive(Debug)]
struct Compressing {
    /// The encoder; `None` where there is no body.
    encoder: Option<Encoder>,
    _reserved: Reserved,
}

impl Step for Compressing {
    fn push(&mut self, part: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Opaque> {
        self.encoder.as_mut().map_or(Ok(()), |encoder| encoder.push(part, end, out))
    }
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
