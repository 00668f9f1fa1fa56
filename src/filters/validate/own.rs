//! The rules of the filter `validate`.

use http::HeaderMap;
use pingora::http::RequestHeader;
use serde_json::Value;

use super::config::{BodyConfig, Config, ResponseMode, one_mebibyte};
use super::reject::{bad_body, check_readable, content_type, missing_body, note, other_type, reader, reject_all};
use crate::exchange::Exchange;
use crate::filters::{CompileContext, Verdict};
use crate::notation::{File, FreeForm, Place};
use crate::rules::routing::PathPattern;
use crate::rules::schema::openapi::{
    BodyForm, Content, Direction, MediaRange, TextTypes, check_value, essence, form_of, load_schema, query_pairs,
    read_body,
};
use crate::rules::schema::{CompiledSchema, DocumentReader, Violation, ViolationPlace};

/// The rules of one filter.
#[derive(Debug)]
pub struct OwnRules {
    body: Option<OwnBody>,
    query: Option<PartRules>,
    headers: Option<PartRules>,
    path: Option<(PartRules, Vec<PathPattern>)>,
    max_body: u64,
    /// The rules for successful responses.
    pub response: Option<(Content, ResponseMode)>,
    /// The longest body of a response.
    pub max_response: usize,
}

/// The rules for the body of a request.
#[derive(Debug)]
struct OwnBody {
    schema: CompiledSchema,
    types: TextTypes,
    content_types: Vec<MediaRange>,
    required: bool,
}

/// The rules for a part of a request that is text.
#[derive(Debug)]
struct PartRules {
    schema: CompiledSchema,
    types: TextTypes,
}

/// Reads a schema that stands here or in a file.
fn open(
    schema: Option<&FreeForm>,
    file: Option<&File>,
    place: &Place,
    context: &mut CompileContext<'_>,
) -> Option<(DocumentReader, usize, Place)> {
    let mut reader = reader(context.base);
    match (schema, file) {
        (Some(schema), None) => {
            let number = reader.add_inline(&context.base.join("inline"), schema.0.clone());
            Some((reader, number, place.key("schema")))
        }
        (None, Some(file)) => {
            let place = place.key("file");
            match reader.open_first(&context.base.join(file)) {
                Ok(number) => Some((reader, number, place)),
                Err(fault) => {
                    note(vec![fault], &place, context.mistakes);
                    None
                }
            }
        }
        _ => {
            context.mistakes.add(place, "expected one of schema and file");
            None
        }
    }
}

/// Compiles a schema, and returns the types of texts by it.
fn compiled(
    schema: Option<&FreeForm>,
    file: Option<&File>,
    place: &Place,
    context: &mut CompileContext<'_>,
) -> Option<PartRules> {
    let (reader, number, place) = open(schema, file, place, context)?;
    let root = reader.file(number);
    let resolve = |schema: &Value| {
        let pointer = schema.get("$ref").and_then(Value::as_str)?.strip_prefix('#')?;
        root.value.pointer(pointer)
    };
    let types = TextTypes::of(&root.value, &resolve);
    match CompiledSchema::standalone(reader, number) {
        Ok((schema, files)) => {
            context.shared.files.extend(files);
            Some(PartRules { schema, types })
        }
        Err(fault) => {
            note(vec![fault], &place, context.mistakes);
            None
        }
    }
}

impl OwnRules {
    /// Compiles the rules; `None` when errors were noted.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        let has_request_part =
            config.body.is_some() || config.query.is_some() || config.headers.is_some() || config.path.is_some();
        if !has_request_part && config.response.is_none() {
            context.mistakes.add(&place, "expected at least one of body, query, headers, path and response");
        }
        let before = context.mistakes.0.len();
        match &config.response {
            Some(response) if response.mode == ResponseMode::Ignore => {
                context.mistakes.add(&place.key("response"), "has no effect: its mode is ignore");
            }
            None if config.max_response.0 != one_mebibyte().0 => {
                context.mistakes.add(&place.key("max_response"), "has no effect without response");
            }
            _ => {}
        }
        let mut part = |part: &Option<super::config::SchemaConfig>, key: &'static str| {
            let config = part.as_ref()?;
            compiled(config.schema.as_ref(), config.file.as_ref(), &place.key(key), context)
        };
        let (query, headers, path) =
            (part(&config.query, "query"), part(&config.headers, "headers"), part(&config.path, "path"));
        let path = path.map(|rules| (rules, context.route.paths()));
        let body = config.body.as_ref().and_then(|body| OwnBody::compile(body, &place.key("body"), context));
        let response = config.response.as_ref().and_then(|response| {
            let place = place.key("response");
            let (reader, number, place) = open(response.schema.as_ref(), response.file.as_ref(), &place, context)?;
            match load_schema(reader, number, Direction::Response) {
                Ok((content, files)) => {
                    context.shared.files.extend(files);
                    Some((content, response.mode))
                }
                Err(faults) => {
                    note(faults, &place, context.mistakes);
                    None
                }
            }
        });
        let max_response = usize::try_from(config.max_response.0).unwrap_or(usize::MAX);
        (context.mistakes.0.len() == before).then_some(Self {
            body,
            query,
            headers,
            path,
            max_body: config.max_body.0,
            response,
            max_response,
        })
    }

    /// Returns how many bytes of a request body are held, if its body is validated.
    pub fn max_body(&self) -> Option<u64> {
        self.body.as_ref().map(|_| self.max_body)
    }

    /// Returns what happens to responses.
    pub fn response_mode(&self) -> ResponseMode {
        self.response.as_ref().map_or(ResponseMode::Ignore, |(_, mode)| *mode)
    }

    /// Validates the head of a request.
    pub fn on_request(&self, request: &RequestHeader, _exchange: &Exchange) -> Verdict {
        let mut all = Vec::new();
        if let Some(rules) = &self.query {
            rules.check_query(request.uri.query(), &mut all);
        }
        if let Some((rules, patterns)) = &self.path {
            let path = request.uri.path();
            let params = patterns.iter().find(|pattern| pattern.matches(path)).into_iter().flat_map(|p| p.params(path));
            let texts = params.map(|(name, value)| (name.to_owned(), percent_decoded(value)));
            rules.check_object(rules.types.object(texts), ViolationPlace::Path, &mut all);
        }
        if let Some(rules) = &self.headers {
            rules.check_headers(&request.headers, &mut all);
        }
        reject_all(all)
    }

    /// Validates the body of a request.
    pub fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &Exchange) -> Verdict {
        let Some(rules) = &self.body else { return Ok(()) };
        if body.is_empty() {
            return if rules.required { Err(missing_body()) } else { Ok(()) };
        }
        let kind = essence(content_type(request).unwrap_or_default());
        let form = form_of(kind);
        if !rules.accepts(kind, form) {
            let named = rules.content_types.iter().map(MediaRange::as_str);
            return Err(if rules.content_types.is_empty() {
                other_type(["application/json"].into_iter())
            } else {
                other_type(named)
            });
        }
        check_readable(request, exchange, form)?;
        if form == BodyForm::Opaque {
            return Ok(());
        }
        let value = read_body(form, &rules.types, body).map_err(bad_body)?;
        check_value(&rules.schema, &value).map_err(bad_body)
    }
}

impl OwnBody {
    fn compile(config: &BodyConfig, place: &Place, context: &mut CompileContext<'_>) -> Option<Self> {
        let PartRules { schema, types } = compiled(config.schema.as_ref(), config.file.as_ref(), place, context)?;
        for (index, kind) in config.content_types.iter().enumerate() {
            let is_type = kind.split_once('/').is_some_and(|(first, second)| !first.is_empty() && !second.is_empty());
            if !is_type {
                let place = place.key("content_types").index(index);
                context
                    .mistakes
                    .add(&place, format!("expected a media type such as application/json, found \"{kind}\""));
            }
        }
        let content_types = config.content_types.iter().map(|kind| MediaRange::new(kind)).collect();
        Some(Self { schema, types, content_types, required: config.required.unwrap_or(true) })
    }

    fn accepts(&self, kind: &str, form: BodyForm) -> bool {
        match self.content_types.as_slice() {
            [] => form == BodyForm::Json,
            some => some.iter().any(|range| range.precision(kind) > 0),
        }
    }
}

impl PartRules {
    fn check_object(&self, value: Value, place: ViolationPlace, all: &mut Vec<Violation>) {
        if !self.schema.is_valid(&value) {
            self.schema.collect(&value, place, "", all);
        }
    }

    fn check_query(&self, query: Option<&str>, all: &mut Vec<Violation>) {
        let pairs = query_pairs(query);
        for (index, (name, _)) in pairs.iter().enumerate() {
            let is_list = self.types.member(name).is_some_and(TextTypes::is_list);
            // Which of them counts differs between targets.
            if !is_list && self.types.member(name).is_some() && pairs[..index].iter().any(|(other, _)| other == name) {
                let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                return all.push(Violation::new(ViolationPlace::Query, pointer, "style", "is there more than once"));
            }
        }
        let texts = pairs.iter().map(|(name, value)| (name.clone().into_owned(), form_decoded(value)));
        self.check_object(self.types.object(texts), ViolationPlace::Query, all);
    }

    fn check_headers(&self, headers: &HeaderMap, all: &mut Vec<Violation>) {
        let named = self.types.members.iter().flatten().filter_map(|(name, _)| {
            let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
            // Fields of one name are one list (RFC 9110, section 5.3).
            (!values.is_empty()).then(|| (name.clone(), values.join(", ")))
        });
        self.check_object(self.types.object(named), ViolationPlace::Header, all);
    }
}

fn percent_decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn form_decoded(text: &str) -> String {
    String::from_utf8_lossy(&crate::rules::routing::form_decode(text.as_bytes())).into_owned()
}
