//! The rules of an OpenAPI document.

use std::path::{Path, PathBuf};

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use pingora::http::RequestHeader;

use super::config::{OpenApiConfig, ReadOnly, RequestMode, ResponseMode, Unknown, one_mebibyte};
use super::reject::{bad_body, check_readable, content_type, missing_body, note, other_type, reader, reject_all};
use crate::exchange::{Exchange, Reason, Rejection, RelayedResponse};
use crate::filters::Verdict;
use crate::notation::{Mistakes, Place, nearest};
use crate::rules::payload::preferred_type;
use crate::rules::routing::{EntryOperation, RouteEntry};
use crate::rules::schema::openapi::{ApiDocument, BodyPlan, DocumentOptions, Operation, load, mock};

/// Marks responses that come from examples.
const X_MOCK: HeaderName = HeaderName::from_static("x-mock");

/// The header by which a client chooses an example (RFC 7240).
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// An OpenAPI document as a route uses it.
#[derive(Debug)]
pub struct ApiRules {
    /// The document.
    document: ApiDocument,
    requests: RequestMode,
    /// What happens to responses.
    pub responses: ResponseMode,
    rejects_unknown_query: bool,
    /// For each operation, whether its requests get examples.
    mocked: Vec<bool>,
    max_body: u64,
    /// The longest body of a response.
    pub max_response: usize,
}

impl ApiRules {
    /// Reads the document of a route, and returns it with the files that were read. `mocks_all` says that the action of
    /// the route is `mock`, and `with_integrations` that it is `amazon_integrations`.
    pub fn load(
        config: &OpenApiConfig,
        (mocks_all, with_integrations): (bool, bool),
        base: &Path,
        place: &Place,
        mistakes: &mut Mistakes,
    ) -> Option<(Self, Vec<PathBuf>)> {
        if let Some(path) = &config.base_path
            && (!path.starts_with('/') || path.contains(['{', '*', '?', '#']))
        {
            mistakes.add(&place.key("base_path"), format!("expected a path such as /api, found \"{path}\""));
            return None;
        }
        note_without_effect(config, place, mistakes);
        let options = DocumentOptions {
            base_path: config.base_path.as_ref().map(|path| path.trim_end_matches('/').to_owned()),
            rejects_read_only: config.read_only == ReadOnly::Reject,
            with_responses: config.responses != ResponseMode::Ignore,
            with_shapes: config.responses == ResponseMode::Filter,
            with_samples: mocks_all || !config.mock.is_empty(),
            with_integrations,
        };
        let (document, files) = match load(reader(base), &base.join(&config.file), &options) {
            Ok(loaded) => loaded,
            Err(faults) => {
                note(faults, &place.key("file"), mistakes);
                return None;
            }
        };
        let mocked = mocked(config, &document, mocks_all, place, mistakes);
        let rules = Self {
            document,
            requests: config.requests,
            responses: config.responses,
            rejects_unknown_query: config.unknown_query == Unknown::Reject,
            mocked,
            max_body: config.max_body.0,
            max_response: usize::try_from(config.max_response.0).unwrap_or(usize::MAX),
        };
        Some((rules, files))
    }

    /// Returns whether requests that are not valid are rejected, and not only counted.
    pub fn is_enforced(&self) -> bool {
        self.requests != RequestMode::Observe
    }

    /// Returns the path below which the paths of the document are, without a slash at its end.
    pub fn base_path(&self) -> &str {
        &self.document.base
    }

    /// Returns the operations.
    pub fn operations(&self) -> &[Operation] {
        &self.document.operations
    }

    /// Returns the operation of a request.
    pub fn operation(&self, exchange: &Exchange) -> Option<&Operation> {
        self.document.operations.get(usize::try_from(exchange.operation?).ok()?)
    }

    /// Returns the operation of an entry of the router.
    pub fn operation_of(&self, entry: &RouteEntry) -> Option<&Operation> {
        match entry.operation {
            EntryOperation::Known(number) => self.document.operations.get(usize::try_from(number).ok()?),
            EntryOperation::None | EntryOperation::Unknown { .. } => None,
        }
    }

    fn is_mocked(&self, exchange: &Exchange) -> bool {
        let number = exchange.operation.and_then(|number| usize::try_from(number).ok());
        number.and_then(|number| self.mocked.get(number)).is_some_and(|mocked| *mocked)
    }

    /// Returns how many bytes of a request body are held, if bodies are validated.
    pub fn max_body(&self) -> Option<u64> {
        let has_body = self.document.operations.iter().any(|operation| operation.body.is_some());
        (has_body && self.requests != RequestMode::Ignore).then_some(self.max_body)
    }

    /// Returns whether the body of a request is not looked into, so that it can be streamed.
    pub fn skips_body(&self, request: &RequestHeader, exchange: &Exchange) -> bool {
        let Some(operation) = self.operation(exchange) else { return true };
        let Some(kind) = content_type(request) else { return operation.body.is_none() };
        let is_empty = request.headers.get(CONTENT_LENGTH).is_some_and(|length| length == "0");
        !is_empty && matches!(operation.body_plan(Some(kind), false), BodyPlan::Opaque | BodyPlan::Nothing)
    }

    /// Validates the head of a request.
    pub fn on_request(&self, request: &RequestHeader, exchange: &Exchange) -> Verdict {
        let Some(operation) = self.operation(exchange) else { return Ok(()) };
        if self.requests != RequestMode::Ignore {
            let (path, query) = (request.uri.path(), request.uri.query());
            let strict = self.rejects_unknown_query;
            reject_all(operation.check_parameters(path, query, &request.headers, strict))?;
            let kind = content_type(request);
            if kind.is_some() && matches!(operation.body_plan(kind, false), BodyPlan::OtherType) {
                return Err(not_accepted(operation));
            }
        }
        // What has a body that is validated is responded to after that.
        let waits = self.max_body().is_some() && !self.skips_body(request, exchange);
        if self.is_mocked(exchange) && !waits { Err(self.mock(operation, request)) } else { Ok(()) }
    }

    /// Validates the body of a request.
    pub fn on_request_body(&self, body: &[u8], request: &RequestHeader, exchange: &Exchange) -> Verdict {
        let Some(operation) = self.operation(exchange) else { return Ok(()) };
        if self.requests != RequestMode::Ignore {
            match operation.body_plan(content_type(request), body.is_empty()) {
                BodyPlan::Nothing | BodyPlan::Opaque => {}
                BodyPlan::Missing => return Err(missing_body()),
                BodyPlan::OtherType => return Err(not_accepted(operation)),
                BodyPlan::Checked(content, form) => {
                    check_readable(request, exchange, form)?;
                    content.check(form, body).map_err(bad_body)?;
                }
            }
        }
        if self.is_mocked(exchange) { Err(self.mock(operation, request)) } else { Ok(()) }
    }

    /// Returns the example that a client gets, which says that it is one.
    pub fn mock(&self, operation: &Operation, request: &RequestHeader) -> Box<Rejection> {
        let wanted = Wanted::of(request);
        let accept = || request.headers.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
        let made =
            mock(&operation.samples, wanted.code, wanted.example.as_deref(), &|kinds| preferred_type(accept(), kinds));
        let Some(made) = made else {
            let detail = "the document has no such example, or no response at all, for this operation";
            return Rejection::new(Reason::RequestInvalid, detail).header(X_MOCK, HeaderValue::from_static("true"));
        };
        let mut rejection = Rejection::new(Reason::Mocked, "").header(X_MOCK, HeaderValue::from_static("true"));
        if let Some(kind) = made.kind.and_then(|kind| HeaderValue::try_from(kind).ok()) {
            rejection = rejection.header(CONTENT_TYPE, kind);
        }
        rejection.relayed = Some(RelayedResponse { status: made.status.max(200), body: made.body });
        rejection
    }
}

fn not_accepted(operation: &Operation) -> Box<Rejection> {
    let contents = operation.body.iter().flat_map(|body| &body.contents);
    other_type(contents.map(|content| content.range.as_str()))
}

/// Notes settings that have no effect beside others.
fn note_without_effect(config: &OpenApiConfig, place: &Place, mistakes: &mut Mistakes) {
    let of_requests = [
        ("read_only", config.read_only != ReadOnly::default()),
        ("unknown_query", config.unknown_query != Unknown::default()),
    ];
    for (key, _) in of_requests.into_iter().filter(|(_, is_set)| *is_set && config.requests == RequestMode::Ignore) {
        mistakes.add(&place.key(key), "has no effect: requests are ignored");
    }
    if config.responses == ResponseMode::Ignore && config.max_response.0 != one_mebibyte().0 {
        mistakes.add(&place.key("max_response"), "has no effect: responses are ignored");
    }
}

/// Returns for each operation whether it is mocked.
fn mocked(
    config: &OpenApiConfig,
    document: &ApiDocument,
    all: bool,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Vec<bool> {
    for (index, name) in config.mock.iter().enumerate() {
        if !document.operations.iter().any(|operation| operation.id == *name) {
            let near = nearest(name, document.operations.iter().map(|operation| operation.id.as_str()));
            let place = place.key("mock").index(index);
            mistakes.add(&place, format!("the document has no operation \"{name}\"{near}"));
        }
    }
    if all && !config.mock.is_empty() {
        mistakes.add(&place.key("mock"), "with the action mock all operations are mocked: leave this out");
    }
    document.operations.iter().map(|operation| all || config.mock.contains(&operation.id)).collect()
}

/// What a client wants of a mock: `Prefer: code=404, example=small`.
#[derive(Debug, Default, PartialEq)]
struct Wanted {
    code: Option<u16>,
    example: Option<String>,
}

impl Wanted {
    fn of(request: &RequestHeader) -> Self {
        let mut wanted = Self::default();
        let values = request.headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        for (name, value) in values.flat_map(|value| value.split([',', ';'])).filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "code" | "status" => wanted.code = value.parse().ok().filter(|code| (200..=599).contains(code)),
                "example" => wanted.example = Some(value.to_owned()),
                _ => {}
            }
        }
        wanted
    }
}
