//! `soap_to_json`: SOAP (1.1 and 1.2), to targets that speak JSON.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::soap_terms::{EmptyElement, check_element, collect, conversion, is_json, media_type};
use super::{ClientResponse, IncomingRequest, Protocols, Translate, TranslateResponse, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RelayedResponse, RequestView};
use crate::notation::{MethodName, Place, Size};
use crate::rules::payload::XmlToJson;
use crate::rules::schema::parse_json;
use crate::rules::soap::{
    Content, Envelope, ErrorKind, NameRules, Naming, SoapVersion, TypedPaths, envelope, fault_envelope, parse_envelope,
};

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// Bytes of a path or a query that are written as they are (RFC 3986, section 2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// SOAP, to targets that speak JSON.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SoapToJson")]
pub struct Config {
    /// The operations.
    pub operations: Vec<OperationConfig>,
    /// The namespace of operations that have none.
    #[serde(default)]
    pub namespace: String,
    /// The namespaces of headers that clients may require to be understood, and that are ignored.
    #[serde(default)]
    pub understood: Vec<String>,
    /// What an element without content is in JSON. Default the empty text.
    #[serde(default)]
    pub empty: EmptyElement,
    /// The longest request. Default 1MiB.
    #[serde(default)]
    pub max_body: Option<Size>,
    /// The longest response of a target. Default 4MiB.
    #[serde(default)]
    pub max_response: Option<Size>,
}

/// An operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SoapToJsonOperation")]
pub struct OperationConfig {
    /// The element of the request.
    pub element: String,
    /// Its namespace, and that of the response. Default: that of all.
    pub namespace: Option<String>,
    /// The action of the request (`SOAPAction`). Default: any.
    pub action: Option<String>,
    /// The method at the target.
    pub method: MethodName,
    /// The path at the target, with values of the element in braces: `/orders/{id}`. What is not in the path is the
    /// query with GET, HEAD and DELETE, and the body with other methods.
    pub path: String,
    /// The element of the response. Default: that of the request with `Response`.
    pub response_element: Option<String>,
    /// The element within it that the response becomes, as `AddResult`. Default: the members of the response.
    pub result: Option<String>,
    /// The element for each value of a response that is a list. Default `item`.
    pub item: Option<String>,
    /// Whether the elements of the response are in its namespace (`elementFormDefault="qualified"`). Default true.
    #[serde(default = "default_true")]
    pub qualified: bool,
    /// Elements of the request that are lists even where there is one alone, as paths: `lines.line`.
    #[serde(default)]
    pub arrays: Vec<String>,
    /// Elements of the request that are numbers.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Elements of the request that are truth values.
    #[serde(default)]
    pub booleans: Vec<String>,
}

fn default_true() -> bool {
    true
}

/// The compiled translation.
#[derive(Debug)]
pub struct SoapToJson {
    operations: Vec<Arc<Operation>>,
    /// The conversion by which the operation is found.
    plain: XmlToJson,
    understood: Vec<String>,
    max_body: u64,
    max_response: usize,
}

#[derive(Debug)]
struct Operation {
    element: String,
    namespace: String,
    action: Option<String>,
    method: Method,
    /// The texts before the values of the path, each with the value's name, and the text behind the last.
    path: (Vec<(String, String)>, String),
    naming: Naming,
    result: Option<String>,
    item: String,
    convert: XmlToJson,
    types: TypedPaths,
}

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> SoapToJson {
    let place = context.place.clone();
    if config.operations.is_empty() {
        context.mistakes.add(&place.key("operations"), "expected at least one operation");
    }
    let mut operations: Vec<Arc<Operation>> = Vec::with_capacity(config.operations.len());
    for (index, operation) in config.operations.iter().enumerate() {
        let place = place.key("operations").index(index);
        let Some(operation) = compile_operation(operation, config, &place, context) else { continue };
        let is_same = |other: &Arc<Operation>| {
            other.element == operation.element
                && other.namespace == operation.namespace
                && (other.action.is_none() || other.action == operation.action)
        };
        if operations.iter().any(is_same) {
            context.mistakes.add(&place.key("element"), "an earlier operation has this element: it is never reached");
        }
        operations.push(Arc::new(operation));
    }
    SoapToJson {
        operations,
        plain: conversion(&[], config.empty, &place, context).unwrap_or_default(),
        understood: config.understood.clone(),
        max_body: config.max_body.as_ref().map_or(1 << 20, |size| size.0),
        max_response: config
            .max_response
            .as_ref()
            .map_or(4 << 20, |size| usize::try_from(size.0).unwrap_or(usize::MAX)),
    }
}

fn compile_operation(
    operation: &OperationConfig,
    config: &Config,
    place: &Place,
    context: &mut ActionContext<'_>,
) -> Option<Operation> {
    check_element(&operation.element, &place.key("element"), context);
    let response = operation.response_element.clone().unwrap_or_else(|| format!("{}Response", operation.element));
    check_element(&response, &place.key("response_element"), context);
    for (key, name) in [("result", &operation.result), ("item", &operation.item)] {
        name.iter().for_each(|name| check_element(name, &place.key(key), context));
    }
    let path = context.mistakes.take(&place.key("path"), parse_path(&operation.path))?;
    let namespace = operation.namespace.clone().unwrap_or_else(|| config.namespace.clone());
    Some(Operation {
        element: operation.element.clone(),
        action: operation.action.clone(),
        method: operation.method.0.clone(),
        path,
        naming: Naming { element: response, namespace: namespace.clone(), qualified: operation.qualified },
        namespace,
        result: operation.result.clone(),
        item: operation.item.clone().unwrap_or_else(|| "item".to_owned()),
        convert: conversion(&operation.arrays, config.empty, &place.key("arrays"), context)?,
        types: TypedPaths::new(&operation.numbers, &operation.booleans),
    })
}

/// Parses the path of an operation.
fn parse_path(text: &str) -> Result<(Vec<(String, String)>, String), String> {
    if !text.starts_with('/') || text.contains(['?', '#', ' ']) {
        return Err(format!("expected a path such as /orders/{{id}}, found \"{text}\""));
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((before, behind)) = rest.split_once('{') {
        let Some((name, after)) = behind.split_once('}').filter(|(name, _)| !name.is_empty()) else {
            return Err("expected a name and a } behind {".to_owned());
        };
        parts.push((before.to_owned(), name.to_owned()));
        rest = after;
    }
    Ok((parts, rest.to_owned()))
}

impl Operation {
    /// Returns the method and the path at the target, for an operator.
    fn call(&self) -> String {
        let path: String = self.path.0.iter().map(|(before, name)| format!("{before}{{{name}}}")).collect();
        format!("{} {path}{}", self.method, self.path.1)
    }

    /// Returns the target of a request, and its body.
    fn request(&self, value: Value) -> Result<(String, Bytes), String> {
        let mut members = match value {
            Value::Object(members) => members,
            Value::String(text) if text.is_empty() => Map::new(),
            Value::Null => Map::new(),
            _ => return Err("the element has no elements".to_owned()),
        };
        members.retain(|name, _| !name.starts_with('@'));
        let mut target = String::new();
        for (before, name) in &self.path.0 {
            target.push_str(before);
            let value = members.shift_remove(name).as_ref().and_then(scalar_text).filter(|text| !text.is_empty());
            let value = value.ok_or_else(|| format!("the element {name} is missing"))?;
            if matches!(value.as_str(), "." | "..") {
                return Err(format!("the element {name} would lead to another path"));
            }
            target.extend(utf8_percent_encode(&value, COMPONENT));
        }
        target.push_str(&self.path.1);
        if !matches!(self.method, Method::GET | Method::HEAD | Method::DELETE) {
            return Ok((target, Value::from(members).to_string().into()));
        }
        let mut separator = '?';
        for (name, value) in &members {
            let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for item in items.iter().filter(|item| !item.is_null()) {
                let text = scalar_text(item).ok_or_else(|| format!("the element {name} has elements"))?;
                target.push(separator);
                target.extend(utf8_percent_encode(name, COMPONENT));
                target.push('=');
                target.extend(utf8_percent_encode(&text, COMPONENT));
                separator = '&';
            }
        }
        Ok((target, Bytes::new()))
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Returns the version of a request by its media type.
fn version_of(view: &RequestView<'_>) -> SoapVersion {
    if media_type(&view.request.headers) == SoapVersion::V12.media_type() { SoapVersion::V12 } else { SoapVersion::V11 }
}

/// Returns the action of a request.
fn action_of(view: &RequestView<'_>) -> Option<String> {
    let headers = &view.request.headers;
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let action = match version_of(view) {
        SoapVersion::V11 => text(&SOAP_ACTION)?,
        SoapVersion::V12 => {
            let mut parameters = text(&CONTENT_TYPE)?.split(';').skip(1).filter_map(|one| one.split_once('='));
            parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("action"))?.1
        }
    };
    Some(action.trim().trim_matches('"').to_owned())
}

impl Translate for SoapToJson {
    fn protocols(&self) -> Protocols {
        Protocols { from: "soap", to: "json" }
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        let kind = media_type(&view.request.headers);
        let is_soap = matches!(kind.as_str(), "text/xml" | "application/soap+xml" | "application/xml");
        view.request.method == Method::POST && (is_soap || kind == "multipart/related")
    }

    fn max_request_body(&self) -> u64 {
        self.max_body
    }

    fn rejection(&self, rejection: Box<Rejection>, view: &RequestView<'_>) -> Box<Rejection> {
        if rejection.relayed.is_some() || rejection.http_status() < 400 {
            return rejection;
        }
        let code = match rejection.http_status() {
            400..=499 => "Client",
            _ => "Server",
        };
        let title = rejection.reason.title();
        let text =
            if rejection.detail.is_empty() { title.to_owned() } else { format!("{title}: {}", rejection.detail) };
        as_fault(rejection, version_of(view), code, &text)
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let named = version_of(&request.view);
        let client = |version: SoapVersion, code: &str, text: String| {
            let rejection = Rejection::new(Reason::RequestUntranslatable, "").log(text.clone());
            as_fault(rejection, version, code, &text)
        };
        if media_type(&request.view.request.headers) == "multipart/related" {
            let text = "messages with attachments are not accepted";
            return Err(as_fault(Rejection::new(Reason::MediaType, ""), named, "Client", text));
        }
        let parse = |convert: &XmlToJson| {
            parse_envelope(&request.body, convert, &self.understood).map_err(|error| {
                let code = match error.kind {
                    ErrorKind::Malformed => "Client",
                    ErrorKind::Version => "VersionMismatch",
                    ErrorKind::MustUnderstand => "MustUnderstand",
                };
                client(error.version.unwrap_or(named), code, error.text)
            })
        };
        let Envelope { version, content } = parse(&self.plain)?;
        let Content::Element { namespace, name, .. } = &content else {
            return Err(client(version, "Client", "the body has no element".to_owned()));
        };
        let action = action_of(&request.view);
        let is_it = |operation: &&Arc<Operation>| {
            operation.element == *name
                && operation.namespace == *namespace
                && (operation.action.is_none() || operation.action == action)
        };
        let operation = self.operations.iter().find(is_it);
        let operation = operation.ok_or_else(|| client(version, "Client", "there is no such operation".to_owned()))?;
        let Content::Element { mut value, .. } = parse(&operation.convert)?.content else {
            return Err(client(version, "Client", "the body has no element".to_owned()));
        };
        operation.types.apply(&mut value);
        let (target, body) = operation.request(value).map_err(|why| client(version, "Client", why))?;
        let mut headers = vec![(ACCEPT, HeaderValue::from_static("application/json"))];
        let mut removed = vec![SOAP_ACTION];
        if body.is_empty() {
            removed.push(CONTENT_TYPE);
        } else {
            headers.push((CONTENT_TYPE, HeaderValue::from_static("application/json")));
        }
        Ok(TranslatedRequest {
            method: operation.method.clone(),
            target,
            headers,
            removed,
            body,
            is_safe: operation.method.is_idempotent(),
            is_grpc: false,
            wait: None,
            operation: Some(operation.element.as_str().into()),
            response: Box::new(JsonResponse {
                operation: Arc::clone(operation),
                version,
                status: StatusCode::OK,
                is_json: false,
                body: BytesMut::new(),
                most: self.max_response,
            }),
        })
    }

    fn call(&self, view: &RequestView<'_>, _path: &str) -> Vec<String> {
        let action = action_of(view);
        let is_it = |operation: &&Arc<Operation>| operation.action.is_none() || operation.action == action;
        let line =
            |operation: &Arc<Operation>| format!("call: {}, if the body has {}", operation.call(), operation.element);
        let mut lines: Vec<String> = self.operations.iter().filter(is_it).map(line).collect();
        if lines.is_empty() {
            lines.push("response: a fault, since no operation has this action".to_owned());
        }
        lines
    }

    fn describe(&self) -> Vec<String> {
        let line = |operation: &Arc<Operation>| format!("soap_to_json: {} as {}", operation.element, operation.call());
        self.operations.iter().map(line).collect()
    }
}

/// Makes a rejection a fault. That of 1.1 has the status 500, and one of the client in 1.2 400 (SOAP 1.2 part 2, table
/// 20), but for statuses that say more.
fn as_fault(mut rejection: Box<Rejection>, version: SoapVersion, code: &str, text: &str) -> Box<Rejection> {
    let status = rejection.http_status();
    let body = fault_envelope(version, code, text, &[]);
    let status = match (version, status) {
        (_, 401 | 403 | 413 | 415 | 429 | 503 | 504) => status,
        (SoapVersion::V12, 400..=499) if code == "Client" => 400,
        (_, 400) if code == "Client" => 400,
        _ => 500,
    };
    rejection.relayed = Some(RelayedResponse { status, body: body.into() });
    rejection.header(CONTENT_TYPE, content_type(version))
}

fn content_type(version: SoapVersion) -> HeaderValue {
    HeaderValue::from_static(match version {
        SoapVersion::V11 => "text/xml; charset=utf-8",
        SoapVersion::V12 => "application/soap+xml; charset=utf-8",
    })
}

/// The response of a target that speaks JSON.
#[derive(Debug)]
struct JsonResponse {
    operation: Arc<Operation>,
    version: SoapVersion,
    status: StatusCode,
    is_json: bool,
    body: BytesMut,
    most: usize,
}

impl TranslateResponse for JsonResponse {
    fn head(&mut self, head: &ResponseHeader, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        (self.status, self.is_json) = (head.status, is_json(&head.headers));
        out.target_status = Some(head.status.as_str().into());
        Ok(())
    }

    fn part(&mut self, part: &Bytes, _out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        collect(&mut self.body, part, self.most)
    }

    fn end(&mut self, _trailers: Option<&HeaderMap>, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        let status = self.status.as_u16();
        let wrong = |why: String| {
            Rejection::new(Reason::ResponseUntranslatable, "").log(format!("the target responded with {status}: {why}"))
        };
        if !self.status.is_success() {
            self.fault(out);
            return Ok(());
        }
        let value = match self.body.is_empty() {
            true => Value::Null,
            false if !self.is_json => return Err(wrong("its body is not JSON".to_owned())),
            false => parse_json(&self.body).map_err(|bad| wrong(bad.to_string()))?,
        };
        let Operation { naming, result, item, .. } = &*self.operation;
        let value = match value {
            Value::Array(items) => Value::from(Map::from_iter([(item.clone(), items.into())])),
            other => other,
        };
        let value = match result {
            Some(name) => Value::from(Map::from_iter([(name.clone(), value)])),
            None => value,
        };
        let text = envelope(self.version, naming, NameRules(&[]), &value).map_err(wrong)?;
        self.respond(200, text, out);
        Ok(())
    }
}

impl JsonResponse {
    /// Sends a fault for an error of the target.
    fn fault(&self, out: &mut ClientResponse) {
        let status = self.status.as_u16();
        let problem = if self.is_json { parse_json(&self.body).unwrap_or_default() } else { Value::Null };
        let member = |name: &str| problem.get(name).and_then(scalar_text);
        let text = member("detail").or_else(|| member("title")).or_else(|| member("message"));
        let text = text.unwrap_or_else(|| format!("the service responded with {status}"));
        let mut detail = vec![("status", status.to_string())];
        for name in ["type", "title", "detail", "instance"] {
            detail.extend(member(name).map(|value| (name, value)));
        }
        let is_of_client = self.status.is_client_error();
        let body = fault_envelope(self.version, if is_of_client { "Client" } else { "Server" }, &text, &detail);
        self.respond(if is_of_client && self.version == SoapVersion::V12 { 400 } else { 500 }, body, out);
    }

    fn respond(&self, status: u16, body: String, out: &mut ClientResponse) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        out.decide(status, HeaderMap::from_iter([(CONTENT_TYPE, content_type(self.version))]));
        out.body.extend_from_slice(body.as_bytes());
    }
}
