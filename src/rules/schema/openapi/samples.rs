//! Responses from the examples of a document, for mocks.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::document::Spot;
use super::StatusRange;
use super::media::{BodyForm, form_of};
use super::rewrite::SchemaBuilder;

/// How deep a generated value is.
const MAX_DEPTH: usize = 16;

/// The depth below which members that are not required are left out.
const FULL_DEPTH: usize = 5;

/// The most members of all objects of a generated value.
const MAX_MEMBERS: usize = 2_000;

/// The longest generated text.
const MAX_TEXT: u64 = 1_000;

/// The examples of a response.
#[derive(Clone, Debug)]
pub struct ResponseSamples {
    /// Its statuses.
    pub status: StatusRange,
    /// Its bodies by media type.
    pub bodies: Vec<SampleBody>,
}

/// The examples of a body.
#[derive(Clone, Debug)]
pub struct SampleBody {
    /// The media type.
    pub kind: String,
    /// The examples, each with its name; the first is the usual one.
    pub examples: Vec<(String, Bytes)>,
}

/// A response from an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MockResponse {
    /// The status.
    pub status: u16,
    /// The media type, if it has a body.
    pub kind: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl ResponseSamples {
    fn status_code(&self) -> u16 {
        match self.status {
            StatusRange::Exact(status) => status,
            StatusRange::Class(class) => class * 100,
            StatusRange::Default => 200,
        }
    }
}

/// Returns the response of a mock: that of the wanted status, or the first success; the example of the wanted name, or
/// the first; in the media type that `prefers` chooses of those that there are.
pub fn mock(
    samples: &[ResponseSamples],
    code: Option<u16>,
    example: Option<&str>,
    prefers: &dyn Fn(&[&str]) -> usize,
) -> Option<MockResponse> {
    let of_code = |code: u16| samples.iter().filter(|one| one.status.has(code)).max_by_key(|one| one.status);
    let success = || {
        let successes = samples.iter().filter(|one| (200..300).contains(&one.status_code()));
        successes.min_by_key(|one| (one.status == StatusRange::Default, one.status_code()))
    };
    let chosen = match code {
        Some(code) => of_code(code)?,
        None => success().or_else(|| samples.first())?,
    };
    let status = code.unwrap_or_else(|| chosen.status_code());
    let fitting: Vec<&SampleBody> = match example {
        // The example of that name may be that of one media type alone.
        Some(name) => chosen.bodies.iter().filter(|body| body.examples.iter().any(|(n, _)| n == name)).collect(),
        None => chosen.bodies.iter().collect(),
    };
    if example.is_some() && fitting.is_empty() {
        return None;
    }
    let kinds: Vec<&str> = fitting.iter().map(|body| body.kind.as_str()).collect();
    let Some(body) = (!kinds.is_empty()).then(|| fitting.get(prefers(&kinds)).copied()).flatten() else {
        return Some(MockResponse { status, kind: None, body: Bytes::new() });
    };
    let found = match example {
        Some(name) => body.examples.iter().find(|(known, _)| known == name),
        None => body.examples.first(),
    };
    let body_bytes = found.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
    Some(MockResponse { status, kind: Some(body.kind.clone()), body: body_bytes })
}

/// Reads the examples of an operation's responses.
pub fn samples(schemas: &mut SchemaBuilder, spot: &Spot, value: Option<&Value>) -> Vec<ResponseSamples> {
    let mut all = Vec::new();
    for (status, _) in value.and_then(Value::as_object).into_iter().flatten() {
        let Some(range) = StatusRange::parse(status) else { continue };
        let Some(at) = schemas.follow(&spot.below(status)) else { continue };
        let source = schemas.reader.file(at.file);
        let content = source.value.pointer(&at.pointer).and_then(|response| response.get("content"));
        let content = content.and_then(Value::as_object).into_iter().flatten();
        let bodies = content.filter(|(kind, _)| !kind.contains('*')).filter_map(|(kind, media)| {
            let at = at.below("content").below(kind);
            let examples = examples(schemas, &at, media);
            let bytes = examples.into_iter().filter_map(|(name, value)| Some((name, bytes_of(kind, &value)?)));
            let examples: Vec<(String, Bytes)> = bytes.collect();
            (!examples.is_empty()).then(|| SampleBody { kind: kind.clone(), examples })
        });
        all.push(ResponseSamples { status: range, bodies: bodies.collect() });
    }
    all
}

fn bytes_of(kind: &str, value: &Value) -> Option<Bytes> {
    match (form_of(kind), value) {
        (BodyForm::Json, value) => serde_json::to_vec(value).ok().map(Bytes::from),
        (_, Value::String(text)) => Some(Bytes::copy_from_slice(text.as_bytes())),
        _ => None,
    }
}

/// Returns the examples of a media type; without any, one that is generated from its schema.
fn examples(schemas: &mut SchemaBuilder, spot: &Spot, media: &Value) -> Vec<(String, Value)> {
    let mut all: Vec<(String, Value)> = Vec::new();
    all.extend(media.get("example").map(|value| (String::new(), value.clone())));
    for (name, _) in media.get("examples").and_then(Value::as_object).into_iter().flatten() {
        let Some(at) = schemas.follow(&spot.below("examples").below(name)) else { continue };
        let source = schemas.reader.file(at.file);
        let value = source.value.pointer(&at.pointer).and_then(|example| example.get("value"));
        all.extend(value.map(|value| (name.clone(), value.clone())));
    }
    if all.is_empty() && media.get("schema").is_some() {
        let mut members = 0;
        let value = generate(schemas, &spot.below("schema"), 0, &mut members);
        all.extend(value.map(|value| (String::new(), value)));
    }
    all
}

/// Generates a value from a schema: its example, its default, or one of its type. `None` where it is too deep.
fn generate(schemas: &mut SchemaBuilder, spot: &Spot, depth: usize, members: &mut usize) -> Option<Value> {
    *members += 1;
    if depth > MAX_DEPTH || *members > MAX_MEMBERS {
        return None;
    }
    let at = schemas.follow(spot)?;
    let source = schemas.reader.file(at.file);
    let schema = source.value.pointer(&at.pointer)?;
    let given = schema.get("example").or_else(|| schema.pointer("/examples/0"));
    let given = given.or_else(|| schema.get("const")).or_else(|| schema.get("default"));
    if let Some(value) = given.or_else(|| schema.pointer("/enum/0")) {
        return Some(value.clone());
    }
    if schema.get("allOf").is_some() || schema.get("properties").is_some() {
        let mut object = Map::new();
        let all = schema.get("allOf").and_then(Value::as_array).map_or(0, Vec::len);
        for index in 0..all {
            let part = generate(schemas, &at.below("allOf").below(&index.to_string()), depth + 1, members);
            match part {
                Some(Value::Object(part)) => object.extend(part),
                // A single schema is wrapped to stand beside other keywords.
                Some(other) if all == 1 && schema.get("properties").is_none() => return Some(other),
                _ => {}
            }
        }
        for (name, member) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let required = schema.get("required").and_then(Value::as_array);
            let is_required = required.is_some_and(|names| names.iter().any(|one| one == name));
            if member.get("writeOnly") == Some(&Value::Bool(true)) || depth > FULL_DEPTH && !is_required {
                continue;
            }
            if let Some(value) = generate(schemas, &at.below("properties").below(name), depth + 1, members) {
                object.insert(name.clone(), value);
            }
        }
        return Some(Value::Object(object));
    }
    for key in ["oneOf", "anyOf"] {
        if schema.get(key).and_then(Value::as_array).is_some_and(|all| !all.is_empty()) {
            return generate(schemas, &at.below(key).below("0"), depth + 1, members);
        }
    }
    let kind = match schema.get("type") {
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).find(|one| *one != "null"),
        Some(Value::String(one)) => Some(one.as_str()),
        _ => None,
    };
    Some(match kind {
        Some("array") => {
            let least = schema.get("minItems").and_then(Value::as_u64).unwrap_or(1).clamp(1, 10);
            let item = schema.get("items").and_then(|_| generate(schemas, &at.below("items"), depth + 1, members));
            item.map_or_else(|| json!([]), |item| Value::Array(vec![item; usize::try_from(least).unwrap_or(1)]))
        }
        Some("string") => Value::String(text(schema)),
        Some("integer") => bound(schema).unwrap_or_else(|| json!(0)),
        Some("number") => bound(schema).unwrap_or_else(|| json!(0.0)),
        Some("boolean") => Value::Bool(true),
        Some("null") => Value::Null,
        _ => Value::Object(Map::new()),
    })
}

/// Returns a number within the bounds of a schema.
fn bound(schema: &Value) -> Option<Value> {
    let given = |key: &str| schema.get(key).filter(|value| value.is_number());
    match (given("minimum"), given("maximum")) {
        (Some(least), _) => Some(least.clone()),
        (None, Some(most)) if most.as_f64().is_some_and(|most| most < 0.0) => Some(most.clone()),
        _ => None,
    }
}

/// Returns a text of a schema's format and length.
fn text(schema: &Value) -> String {
    let text = match schema.get("format").and_then(Value::as_str) {
        Some("date-time") => "2024-01-01T00:00:00Z",
        Some("date") => "2024-01-01",
        Some("time") => "00:00:00Z",
        Some("duration") => "P1D",
        Some("email" | "idn-email") => "user@example.com",
        Some("hostname" | "idn-hostname") => "example.com",
        Some("ipv4") => "192.0.2.1",
        Some("ipv6") => "2001:db8::1",
        Some("uri" | "url" | "iri" | "uri-reference") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        Some("byte") => "AA==",
        _ => "string",
    };
    let length = |key: &str| schema.get(key).and_then(Value::as_u64);
    let (least, most) = (length("minLength").unwrap_or(0).min(MAX_TEXT), length("maxLength"));
    let mut text = text.to_owned();
    while (text.chars().count() as u64) < least {
        text.push('x');
    }
    match most {
        Some(most) => text.chars().take(usize::try_from(most).unwrap_or(usize::MAX)).collect(),
        None => text,
    }
}
