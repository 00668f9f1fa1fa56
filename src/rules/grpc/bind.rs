//! The messages of a call from a request: first its body, then its path, then its query (google/api/http.proto, "HTTP
//! rule").

use std::borrow::Cow;

use bytes::BytesMut;
use http::Method;
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;

use super::api::{Api, BodyRule, MethodPlan, RulePlan, http_body};
use super::bound::Bound;
use super::frames::write_frame;
use super::read::{BadJson, JsonReader};
use super::scalar::{put_bytes, put_text};
use super::tree::Matched;
use super::types::{Field, Label};
use super::wire::{close_record, put_tag};
use crate::rules::schema::{Violation, ViolationPlace};

/// The characters that are reserved in a path (RFC 3986, section 2.2): in a value of several segments they stay
/// encoded, since they would not be the same.
const RESERVED: &[u8] = b":/?#[]@!$&'()*+,;=";

/// The longest message of an upload that is sent as a stream.
const UPLOAD_PART: usize = 64 * 1024;

/// Why no call can be made of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadCall {
    /// A part of it is wrong.
    Invalid(Violation),
    /// Its body is of another type.
    MediaType(&'static str),
    /// A message is too long.
    TooLong,
}

/// How requests are bound.
#[derive(Clone, Copy, Debug)]
pub struct BindLimits {
    /// Whether keys of the query that name no field are ignored.
    pub ignores_unknown: bool,
    /// The longest message in bytes.
    pub max_message: u32,
}

/// The parts of a request that are bound.
#[derive(Clone, Copy, Debug)]
pub struct RequestParts<'r> {
    /// The path.
    pub path: &'r str,
    /// The query.
    pub query: Option<&'r str>,
    /// The media type of the body.
    pub content_type: Option<&'r str>,
    /// The body.
    pub body: &'r [u8],
}

type Bind<T = ()> = Result<T, BadCall>;

fn invalid(place: ViolationPlace, pointer: String, keyword: &'static str, message: impl Into<String>) -> BadCall {
    BadCall::Invalid(Violation { place, pointer, keyword: keyword.into(), message: message.into() })
}

fn of_key(key: &str, keyword: &'static str, message: impl Into<String>) -> BadCall {
    invalid(ViolationPlace::Query, format!("/{}", key.replace('~', "~0").replace('/', "~1")), keyword, message)
}

fn of_body(bad: BadJson) -> BadCall {
    invalid(ViolationPlace::Body, bad.pointer(), bad.keyword, bad.text)
}

/// Returns the segments of a path as they are written.
fn segments(path: &str) -> SmallVec<[&str; 16]> {
    let path = path.strip_prefix('/').unwrap_or(path);
    if path.is_empty() { SmallVec::new() } else { path.split('/').collect() }
}

fn decoded(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text))
}

/// Decodes all but reserved characters.
fn decode_unreserved(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(octet) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).filter(|_| *octet == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if !RESERVED.contains(&value) => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(*octet);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

impl Api {
    /// Returns the rule for a method and a path.
    pub fn find(&self, method: &Method, path: &str) -> Matched {
        let written = segments(path);
        let all: SmallVec<[Cow<'_, str>; 16]> = written.iter().map(|segment| decoded(segment)).collect();
        let texts: SmallVec<[&str; 16]> = all.iter().map(|segment| &**segment).collect();
        let split = written.last().and_then(|last| last.rsplit_once(':')).map(|(last, verb)| (decoded(last), verb));
        self.tree.find(method, &texts, split.as_ref().map(|(last, verb)| (&**last, *verb)))
    }

    /// Returns the frames of the messages of a call.
    ///
    /// # Errors
    /// Returns why the request is none.
    pub fn bind(
        &self,
        (rule, has_verb): (&RulePlan, bool),
        parts: &RequestParts<'_>,
        limits: &BindLimits,
    ) -> Result<BytesMut, BadCall> {
        let method = &self.methods[rule.method];
        let mut bound = Bound::default();
        self.bind_path((rule, has_verb), parts.path, &mut bound)?;
        self.bind_query(rule, method, parts.query, (&mut bound, limits.ignores_unknown))?;
        let mut frames = BytesMut::new();
        let mut binding = BodyBinding { api: self, rule, method, limits, frames: &mut frames };
        binding.body(parts, &bound)?;
        Ok(frames)
    }

    fn bind_path<'t>(&'t self, (rule, has_verb): (&RulePlan, bool), path: &str, bound: &mut Bound<'t>) -> Bind {
        let mut written = segments(path);
        if let (true, Some(last)) = (has_verb, written.last_mut()) {
            *last = last.rsplit_once(':').map_or(*last, |(last, _)| last);
        }
        let has_rest = rule.template.segments.last() == Some(&super::template::Segment::Rest);
        for (variable, path) in rule.template.variables.iter().zip(&rule.variables) {
            let is_to_the_end = has_rest && variable.end == rule.template.segments.len();
            let end = if is_to_the_end { written.len() } else { variable.end.min(written.len()) };
            let captured = written.get(variable.start..end).unwrap_or_default();
            let wrong = |keyword, message: String| {
                invalid(ViolationPlace::Path, format!("/{}", variable.field.join(".")), keyword, message)
            };
            let not_utf8 = || wrong("encoding", "its encoding is not UTF-8".to_owned());
            let text = if variable.is_multiple {
                decode_unreserved(&captured.join("/")).ok_or_else(not_utf8)?
            } else {
                let text = captured.first().copied().unwrap_or_default();
                percent_decode_str(text).decode_utf8().map_err(|_| not_utf8())?.into_owned()
            };
            let Some(field) = self.types.last(path) else { continue };
            let Some(records) = bound.records(&self.types, path) else {
                return Err(wrong("oneof", "another field of the same oneof is set".to_owned()));
            };
            put_tag(field.number, field.kind.wire_type(), records);
            put_text(&self.types, field.kind, &text, false, records)
                .map_err(|expected| wrong("type", format!("expected {expected}")))?;
        }
        Ok(())
    }

    fn bind_query<'t>(
        &'t self,
        rule: &RulePlan,
        method: &MethodPlan,
        query: Option<&str>,
        (bound, ignores_unknown): (&mut Bound<'t>, bool),
    ) -> Bind {
        let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(()) };
        if percent_decode_str(query).decode_utf8().is_err() {
            return Err(invalid(ViolationPlace::Query, String::new(), "encoding", "its encoding is not UTF-8"));
        }
        // The paths of fields that have one value.
        let mut seen: SmallVec<[super::types::FieldPath; 8]> = SmallVec::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let names: SmallVec<[&str; 8]> = key.split('.').collect();
            let path = match self.types.resolve(method.input, &names) {
                Ok(path) => path,
                Err(_) if ignores_unknown => continue,
                Err(why) => return Err(of_key(&key, "unknown", why)),
            };
            let Some(field) = self.types.last(&path) else { continue };
            self.check_key(&key, (rule, &path.0), field)?;
            if field.label == Label::Single {
                if seen.contains(&path) {
                    return Err(of_key(&key, "duplicate", "has one value"));
                }
                seen.push(path.clone());
            }
            let Some(records) = bound.records(&self.types, &path) else {
                return Err(of_key(&key, "oneof", "another field of the same oneof is set"));
            };
            put_tag(field.number, field.kind.wire_type(), records);
            put_text(&self.types, field.kind, &value, false, records)
                .map_err(|expected| of_key(&key, "type", format!("expected {expected}")))?;
        }
        Ok(())
    }

    /// Checks that a field may be set by the query.
    fn check_key(&self, key: &str, (rule, path): (&RulePlan, &[(u32, u32)]), field: &Field) -> Bind {
        let starts = |one: &[(u32, u32)], other: &[(u32, u32)]| one.starts_with(other) || other.starts_with(one);
        if rule.variables.iter().any(|variable| starts(&variable.0, path)) {
            return Err(of_key(key, "bound", "is set by the path"));
        }
        let first = path.first().map(|(_, index)| *index);
        let is_of_body = match rule.body {
            BodyRule::None => false,
            BodyRule::All => true,
            BodyRule::Field(index) => {
                let body = &self.types.message(self.methods[rule.method].input).fields[index as usize];
                let same_oneof = path.first().is_some_and(|step| {
                    let of = self.types.step(*step);
                    of.oneof.is_some() && of.oneof == body.oneof
                });
                first == Some(index) || same_oneof
            }
        };
        if is_of_body {
            return Err(of_key(key, "bound", "is set by the body"));
        }
        match (field.label, self.types.is_text(field.kind)) {
            (Label::Map, _) => Err(of_key(key, "type", "is a map, which a query cannot set")),
            (Label::Repeated { .. }, false) => {
                Err(of_key(key, "type", "is a list of messages, which a query cannot set"))
            }
            (Label::Single, false) => {
                Err(of_key(key, "type", "is a message: a query sets its fields, with their names behind a dot"))
            }
            (_, true) => Ok(()),
        }
    }
}

/// The messages of a body that are being written.
struct BodyBinding<'b> {
    api: &'b Api,
    rule: &'b RulePlan,
    method: &'b MethodPlan,
    limits: &'b BindLimits,
    frames: &'b mut BytesMut,
}

impl BodyBinding<'_> {
    fn body(&mut self, parts: &RequestParts<'_>, bound: &Bound<'_>) -> Bind {
        if http_body(&self.api.types, self.method, self.rule.body).is_some() {
            return self.data(parts, bound);
        }
        let mut message = Vec::with_capacity(parts.body.len() + 64);
        if self.rule.body == BodyRule::None && !parts.body.is_empty() {
            return Err(invalid(ViolationPlace::Body, String::new(), "unknown", "the method takes no body"));
        }
        if parts.body.iter().all(u8::is_ascii_whitespace) {
            if !(self.method.takes_stream && bound.is_empty()) {
                bound.write(&[], &mut message);
                self.frame(&message)?;
            }
            return Ok(());
        }
        let essence = parts.content_type.map(|text| text.split(';').next().unwrap_or_default().trim());
        let is = |wanted: &str| essence.is_some_and(|essence| essence.eq_ignore_ascii_case(wanted));
        let is_lines = is("application/x-ndjson") || is("application/jsonl");
        let is_json = essence.is_none_or(is_json) || is_lines && self.method.takes_stream;
        if !is_json {
            return Err(BadCall::MediaType("the body has to be application/json"));
        }
        let text = std::str::from_utf8(parts.body)
            .map_err(|_| invalid(ViolationPlace::Body, String::new(), "encoding", "it is not UTF-8"))?;
        let mut reader = JsonReader::new(&self.api.types, text);
        if self.method.takes_stream {
            return self.stream(reader, is_lines, bound);
        }
        match self.rule.body {
            BodyRule::Field(index) => {
                let field = &self.api.types.message(self.method.input).fields[index as usize];
                let within = bound.within(field.number);
                reader.field(field, within, &mut message).map_err(of_body)?;
                let written: &[u32] = if message.is_empty() { &[] } else { &[field.number] };
                bound.write(written, &mut message);
            }
            _ => reader.message(self.method.input, Some(bound), &mut message).map_err(of_body)?,
        }
        reader.end().map_err(of_body)?;
        self.frame(&message)
    }

    /// Writes the messages of a list, or of lines. The first has the fields of the path and the query.
    fn stream(&mut self, mut reader: JsonReader<'_, '_>, is_lines: bool, bound: &Bound<'_>) -> Bind {
        if !is_lines {
            reader.open_list().map_err(of_body)?;
        }
        let (mut message, mut count) = (Vec::new(), 0_usize);
        loop {
            let more = if is_lines { !reader.is_at_end() } else { reader.has_next(count == 0).map_err(of_body)? };
            if !more {
                break;
            }
            message.clear();
            let bound = Some(bound).filter(|_| count == 0);
            reader.message(self.method.input, bound, &mut message).map_err(of_body)?;
            self.frame(&message)?;
            count += 1;
        }
        if count == 0 && !bound.is_empty() {
            bound.write(&[], &mut message);
            self.frame(&message)?;
        }
        reader.end().map_err(of_body)
    }

    /// Writes the body as `google.api.HttpBody`, as it is.
    fn data(&mut self, parts: &RequestParts<'_>, bound: &Bound<'_>) -> Bind {
        let types = &self.api.types;
        let field = match self.rule.body {
            BodyRule::Field(index) => Some(&types.message(self.method.input).fields[index as usize]),
            _ => None,
        };
        let size = if self.method.takes_stream { UPLOAD_PART } else { parts.body.len().max(1) };
        let mut data = parts.body.chunks(size);
        let mut is_first = true;
        let mut message = Vec::new();
        loop {
            let part = data.next();
            if part.is_none() && !is_first {
                return Ok(());
            }
            message.clear();
            let start = field.map(|field| {
                put_tag(field.number, 2, &mut message);
                message.push(0);
                message.len() - 1
            });
            if let (true, Some(content_type)) = (is_first, parts.content_type) {
                put_tag(1, 2, &mut message);
                put_bytes(content_type.as_bytes(), &mut message);
            }
            if let Some(part) = part.filter(|part| !part.is_empty()) {
                put_tag(2, 2, &mut message);
                put_bytes(part, &mut message);
            }
            start.iter().for_each(|start| close_record(*start, &mut message));
            if is_first {
                // Fields of the body itself are merged: its records come first.
                bound.write(&[], &mut message);
            }
            self.frame(&message)?;
            is_first = false;
        }
    }

    fn frame(&mut self, message: &[u8]) -> Bind {
        if message.len() > self.limits.max_message as usize {
            return Err(BadCall::TooLong);
        }
        write_frame(0, message, self.frames);
        Ok(())
    }
}

fn is_json(essence: &str) -> bool {
    let essence = essence.to_ascii_lowercase();
    essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json")
}
