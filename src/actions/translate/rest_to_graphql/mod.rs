//! `rest_to_graphql`: paths and methods, to targets that speak GraphQL. Each calls an operation that is fixed in the
//! configuration; values of the request are its variables, and never a part of its text.

mod compiled;
mod config;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use pingora::http::ResponseHeader;

use self::compiled::{Operation, read, statuses};
pub use self::config::Config;
use super::{ClientResponse, IncomingRequest, Protocols, Translate, TranslateResponse, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::rules::graphql::{FoundResult, GraphqlFault, KnownSchema, find_result};
use crate::rules::routing::allow;

/// Marks a result of which a part is missing.
const X_PARTIAL: HeaderName = HeaderName::from_static("x-partial");

/// The types of responses (GraphQL over HTTP, "Media types").
const ACCEPTED: &str = "application/graphql-response+json, application/json;q=0.9";

/// Conditions and ranges are about the client's resource, and not about the target's.
const CONDITIONS: [HeaderName; 6] = [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE];

/// The longest message of an error that is passed on.
const MAX_MESSAGE: usize = 500;

/// The compiled translation.
#[derive(Debug)]
pub struct RestToGraphql {
    path: String,
    /// The most precise paths come first.
    operations: Vec<Arc<Operation>>,
    errors: Arc<Faults>,
    max_request_body: u64,
    max_response: u64,
}

/// How errors are shown.
#[derive(Debug)]
struct Faults {
    statuses: BTreeMap<String, u16>,
    show_messages: bool,
}

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> RestToGraphql {
    let place = context.place.clone();
    if !config.path.starts_with('/') || config.path.contains(['?', '#', ' ']) {
        let text = format!("expected a path that starts with /, found \"{}\"", config.path);
        context.mistakes.add(&place.key("path"), text);
    }
    let schema = config.schema.as_ref().and_then(|file| {
        let text = read(file, "schema", context)?;
        context.mistakes.take(&place.key("schema"), KnownSchema::new(&text))
    });
    let mut operations = Vec::new();
    for (index, operation) in config.operations.iter().enumerate() {
        context.place = place.key("operations").index(index);
        operations.extend(Operation::compile(operation, schema.as_ref(), context).map(Arc::new));
    }
    context.place = place;
    operations.sort_by(|one: &Arc<Operation>, other| other.path.cmp(&one.path));
    RestToGraphql {
        path: config.path.clone(),
        operations,
        errors: Arc::new(Faults { statuses: statuses(&config.errors, context), show_messages: config.show_messages }),
        max_request_body: config.max_request_body.0,
        max_response: config.max_response.0,
    }
}

impl RestToGraphql {
    /// Returns the operations of the most precise path that matches.
    fn of_path(&self, path: &str) -> impl Iterator<Item = &Arc<Operation>> {
        let first = self.operations.iter().find(|operation| operation.path.matches(path));
        self.operations.iter().filter(move |operation| first.is_some_and(|first| operation.path == first.path))
    }
}

impl Translate for RestToGraphql {
    fn protocols(&self) -> Protocols {
        Protocols { from: "rest", to: "graphql" }
    }

    fn takes(&self, _view: &RequestView<'_>, path: &str) -> bool {
        self.of_path(path).next().is_some()
    }

    fn max_request_body(&self) -> u64 {
        self.max_request_body
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let came = request.view.request;
        let path = request.path;
        let Some(operation) = self.of_path(path).find(|operation| operation.is_called_by(&came.method)) else {
            let methods: Vec<Method> = self.of_path(path).map(|operation| operation.method.clone()).collect();
            let allowed = allow(&methods);
            let rejection = Rejection::new(Reason::MethodNotAllowed, format!("allowed here: {allowed}"));
            return Err(match HeaderValue::try_from(allowed) {
                Ok(allowed) => rejection.header(ALLOW, allowed),
                Err(_) => rejection,
            });
        };
        let values = operation.values(request)?;
        let wrong = |why: String| Rejection::new(Reason::RequestUntranslatable, why.clone()).log(why);
        let body = operation.fixed.body(values).map_err(wrong)?;
        let headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT, HeaderValue::from_static(ACCEPTED)),
        ];
        Ok(TranslatedRequest {
            method: Method::POST,
            target: self.path.clone(),
            headers,
            removed: CONDITIONS.to_vec(),
            body: body.into(),
            is_safe: operation.fixed.is_query,
            is_grpc: false,
            wait: None,
            operation: Some(operation.fixed.name.as_deref().unwrap_or("unnamed").into()),
            response: Box::new(GraphqlResponse {
                operation: Arc::clone(operation),
                errors: Arc::clone(&self.errors),
                most: self.max_response,
                body: BytesMut::new(),
                fields: HeaderMap::new(),
                status: 0,
            }),
        })
    }

    fn describe(&self) -> Vec<String> {
        let name = |operation: &Operation| operation.fixed.name.clone().unwrap_or_else(|| "unnamed".to_owned());
        let line =
            |o: &Arc<Operation>| format!("{} {} calls the operation {} of {}", o.method, o.path, name(o), self.path);
        self.operations.iter().map(line).collect()
    }
}

/// The translation of one response, which is held whole.
#[derive(Debug)]
struct GraphqlResponse {
    operation: Arc<Operation>,
    errors: Arc<Faults>,
    most: u64,
    body: BytesMut,
    fields: HeaderMap,
    /// The HTTP status of the target.
    status: u16,
}

impl TranslateResponse for GraphqlResponse {
    fn head(&mut self, head: &ResponseHeader, _out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        self.status = head.status.as_u16();
        for name in &self.operation.response_headers {
            head.headers.get_all(name).iter().for_each(|value| _ = self.fields.append(name.clone(), value.clone()));
        }
        Ok(())
    }

    fn part(&mut self, part: &Bytes, _out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        if (self.body.len() + part.len()) as u64 > self.most {
            let text = format!("the response of the target is longer than {} bytes", self.most);
            return Err(Rejection::new(Reason::ResponseUntranslatable, "").log(text));
        }
        self.body.extend_from_slice(part);
        Ok(())
    }

    fn end(&mut self, _trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        let no_graphql = |why| {
            let text = format!("the target responded with the status {}: {why}", self.status);
            Rejection::new(Reason::ResponseUntranslatable, "").log(text)
        };
        match find_result(&self.body, &self.operation.data).map_err(no_graphql)? {
            FoundResult::Data { is_partial: true, .. } if self.operation.rejects_partial => {
                out.target_status = Some("partial".into());
                Err(Rejection::new(Reason::NoResult, "a part of it is missing").log("a part of it is missing"))
            }
            FoundResult::Data { value, is_partial } => {
                out.target_status = Some(if is_partial { "partial" } else { "data" }.into());
                out.body.extend_from_slice(value.as_bytes());
                let mut fields = std::mem::take(&mut self.fields);
                fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                if is_partial {
                    fields.insert(X_PARTIAL, HeaderValue::from_static("true"));
                    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                }
                out.decide(StatusCode::OK, fields);
                Ok(())
            }
            FoundResult::Nothing if self.operation.null_status < 400 => {
                out.target_status = Some("null".into());
                let status = StatusCode::from_u16(self.operation.null_status).unwrap_or(StatusCode::OK);
                let mut fields = std::mem::take(&mut self.fields);
                if status != StatusCode::NO_CONTENT {
                    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    out.body.extend_from_slice(b"null");
                }
                out.decide(status, fields);
                Ok(())
            }
            FoundResult::Nothing => {
                out.target_status = Some("null".into());
                Err(Rejection::new(Reason::NoResult, "").status(self.operation.null_status))
            }
            FoundResult::Failed(fault) => {
                out.target_status = Some("errors".into());
                Err(self.failed(fault))
            }
        }
    }
}

impl GraphqlResponse {
    /// Returns the rejection for errors without a result.
    fn failed(&self, fault: GraphqlFault) -> Box<Rejection> {
        let status = fault.code.as_ref().and_then(|code| self.errors.statuses.get(code)).copied();
        let message: String = fault.message.unwrap_or_default().chars().take(MAX_MESSAGE).collect();
        let code = fault.code.unwrap_or_else(|| "no code".to_owned());
        let log = format!("{code}: {message}");
        let detail = if self.errors.show_messages { message } else { String::new() };
        let mut rejection = Rejection::new(Reason::NoResult, detail).log(log);
        let retry = self.fields.get(http::header::RETRY_AFTER);
        rejection.headers.extend(retry.map(|value| (http::header::RETRY_AFTER, value.clone())));
        match status {
            Some(status) => rejection.status(status),
            None => rejection,
        }
    }
}
