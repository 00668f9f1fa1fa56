//! The compilation of operations, and the values of their variables.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};

use super::config::{OperationConfig, Partial, Source, VariableConfig};
use crate::actions::{ActionContext, IncomingRequest};
use crate::exchange::{Reason, Rejection, claim};
use crate::notation::{File, nearest};
use crate::rules::graphql::{FixedOperation, KnownSchema, VariableType};
use crate::rules::routing::{PathPattern, form_decode, raw_parameters};
use crate::tls::read_file;

/// The largest file of a document or a schema.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// An operation, compiled.
#[derive(Debug)]
pub(super) struct Operation {
    pub method: Method,
    pub path: PathPattern,
    pub fixed: FixedOperation,
    variables: Vec<Variable>,
    pub data: Vec<String>,
    pub rejects_partial: bool,
    pub null_status: u16,
    pub response_headers: Vec<HeaderName>,
}

#[derive(Debug)]
struct Variable {
    name: String,
    declared: VariableType,
    required: bool,
    source: Source,
    key: String,
}

/// Reads a file that the configuration names.
pub(super) fn read(file: &File, key: &'static str, context: &mut ActionContext<'_>) -> Option<String> {
    let path = context.base.join(file);
    let cannot = |why: String| format!("cannot read {}: {why}", path.display());
    let read = read_file(&path, MAX_FILE).map_err(cannot);
    let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8".to_owned())));
    context.mistakes.take(&context.place.key(key), text)
}

impl Operation {
    /// Compiles an operation at the context's place, and notes errors.
    pub fn compile(
        config: &OperationConfig,
        schema: Option<&KnownSchema>,
        context: &mut ActionContext<'_>,
    ) -> Option<Self> {
        let place = context.place.clone();
        let (text, key) = match (&config.query, &config.file) {
            (Some(query), None) => (query.clone(), "query"),
            (None, Some(file)) => (read(file, "file", context)?, "file"),
            _ => {
                context.mistakes.add(&place, "expected exactly one of query and file");
                return None;
            }
        };
        let fixed = FixedOperation::new(&text, config.operation.as_deref(), schema);
        let fixed = context.mistakes.take(&place.key(key), fixed)?;
        if config.method.0 == Method::GET && !fixed.is_query {
            context.mistakes.add(&place.key("method"), "a mutation has an effect, and GET has none");
        }
        let variables = variables(config, &fixed, context);
        let own = || vec![CACHE_CONTROL, RETRY_AFTER];
        let named = config.response_headers.as_ref();
        Some(Self {
            method: config.method.0.clone(),
            path: config.path.0.clone(),
            variables,
            data: config.data.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect(),
            rejects_partial: config.partial == Partial::Reject,
            null_status: config.null_status,
            response_headers: named.map_or_else(own, |names| names.iter().map(|name| name.0.clone()).collect()),
            fixed,
        })
    }

    /// Returns whether requests of a method call it.
    pub fn is_called_by(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }

    /// Returns the values of the variables.
    ///
    /// # Errors
    /// Returns the rejection of a request that lacks a value, or has one of another type.
    pub fn values(&self, request: &IncomingRequest<'_>) -> Result<Map<String, Value>, Box<Rejection>> {
        let reads_body = self.variables.iter().any(|variable| variable.source == Source::Body);
        let body = if reads_body { json_body(request)? } else { Value::Null };
        let mut values = Map::new();
        for variable in &self.variables {
            let found = variable.find(self, request, &body);
            let value = found.map_err(|why| invalid(format!("{} {why}", variable.place())))?;
            match value {
                Some(value) => _ = values.insert(variable.name.clone(), value),
                None if variable.required => return Err(invalid(format!("{} is missing", variable.place()))),
                None => {}
            }
        }
        Ok(values)
    }
}

impl Variable {
    /// Returns where the value is, for the client.
    fn place(&self) -> String {
        match self.source {
            Source::Path => format!("the parameter {} of the path", self.key),
            Source::Query => format!("the query parameter {}", self.key),
            Source::Header => format!("the header {}", self.key),
            Source::Body if self.key == "*" => "the body".to_owned(),
            Source::Body => format!("{} of the body", self.key),
            Source::Claim => format!("the claim {} of the token", self.key),
        }
    }

    fn find(
        &self,
        operation: &Operation,
        request: &IncomingRequest<'_>,
        body: &Value,
    ) -> Result<Option<Value>, String> {
        let head = request.view.request;
        let of_text = |text: Option<Cow<'_, str>>| text.map(|text| self.declared.of_texts(&[text])).transpose();
        match self.source {
            Source::Path => {
                let raw = operation.path.value(request.path, &self.key);
                of_text(raw.map(decoded).transpose()?)
            }
            Source::Query => {
                let texts: Result<Vec<_>, String> = raw_parameters(request.query, &self.key).map(query_text).collect();
                let texts = texts?;
                if texts.is_empty() { Ok(None) } else { self.declared.of_texts(&texts).map(Some) }
            }
            Source::Header => {
                let mut lines = head.headers.get_all(self.key.as_str()).iter().map(HeaderValue::as_bytes);
                let line = lines.next().map(|line| std::str::from_utf8(line).map_err(|_| "is not UTF-8".to_owned()));
                of_text(line.transpose()?.map(Cow::Borrowed))
            }
            Source::Claim => {
                let claims = request.view.exchange.identity.as_ref().and_then(|identity| identity.claims.as_deref());
                let value = claims.and_then(|claims| claim(claims, &self.key));
                value.map(|value| self.declared.of_json(value.clone())).transpose()
            }
            Source::Body => {
                let value =
                    if self.key == "*" { Some(body).filter(|body| !body.is_null()) } else { member(body, &self.key) };
                value.map(|value| self.declared.of_json(value.clone())).transpose()
            }
        }
    }
}

fn decoded(text: &str) -> Result<Cow<'_, str>, String> {
    percent_encoding::percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8".to_owned())
}

fn query_text(raw: &[u8]) -> Result<Cow<'_, str>, String> {
    String::from_utf8(form_decode(raw).into_owned()).map(Cow::Owned).map_err(|_| "is not UTF-8".to_owned())
}

/// Returns the member of a document at a path of dots.
fn member<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').try_fold(value, |value, step| value.as_object()?.get(step))
}

fn invalid(why: String) -> Box<Rejection> {
    Rejection::new(Reason::RequestUntranslatable, why.clone()).log(why)
}

/// Returns the body, which is JSON; null where there is none.
fn json_body(request: &IncomingRequest<'_>) -> Result<Value, Box<Rejection>> {
    if request.body.is_empty() {
        return Ok(Value::Null);
    }
    let kind = request.view.request.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !essence.ends_with("+json") {
        return Err(Rejection::new(Reason::MediaType, "accepted here: application/json"));
    }
    serde_json::from_slice(&request.body).map_err(|error| invalid(format!("the body is not JSON: {error}")))
}

/// Returns the variables that are given a value, and notes those that cannot have one.
fn variables(config: &OperationConfig, fixed: &FixedOperation, context: &mut ActionContext<'_>) -> Vec<Variable> {
    let place = context.place.clone();
    let declared = |wanted: &str| fixed.variables.iter().find(|(name, _, _)| name == wanted);
    for (name, _, _) in
        fixed.variables.iter().filter(|(name, _, required)| *required && !config.variables.contains_key(name))
    {
        context.mistakes.add(&place, format!("the operation needs a value for ${name}: add it to `variables`"));
    }
    let mut variables = Vec::new();
    for (name, source) in &config.variables {
        let place = place.key("variables").key(name.clone());
        let Some((_, declared, required)) = declared(name) else {
            let near = nearest(name, fixed.variables.iter().map(|(name, _, _)| name.as_str()));
            context.mistakes.add(&place, format!("the operation declares no variable ${name}{near}"));
            continue;
        };
        let key = source.name.clone().unwrap_or_else(|| name.clone());
        if let Some(why) = unusable(source, &key, declared, config) {
            context.mistakes.add(&place, why);
        }
        let (declared, required) = (declared.clone(), *required);
        variables.push(Variable { name: name.clone(), declared, required, source: source.from, key });
    }
    variables
}

/// Returns why a source has no value for a variable.
fn unusable(source: &VariableConfig, key: &str, declared: &VariableType, config: &OperationConfig) -> Option<String> {
    let names = config.path.0.param_names();
    match source.from {
        Source::Path if !names.iter().any(|name| name == key) => {
            let near = nearest(key, names.iter().map(AsRef::as_ref));
            Some(format!("the path has no parameter {{{key}}}{near}"))
        }
        Source::Header if key.parse::<HeaderName>().is_err() => Some(format!("\"{key}\" is no name of a header")),
        Source::Body if config.method.0 == Method::GET => Some("a request by GET has no body".to_owned()),
        Source::Path | Source::Query | Source::Header if !declared.is_of_texts() => {
            Some("its type is not one of texts: take it from the body".to_owned())
        }
        _ => None,
    }
}

/// Compiles the statuses of errors, and notes those that are none.
pub(super) fn statuses(errors: &BTreeMap<String, u16>, context: &mut ActionContext<'_>) -> BTreeMap<String, u16> {
    for (code, status) in errors.iter().filter(|(_, status)| !(400..=599).contains(*status)) {
        let place = context.place.key("errors").key(code.clone());
        context.mistakes.add(&place, format!("expected a status from 400 to 599, found {status}"));
    }
    errors.clone()
}
