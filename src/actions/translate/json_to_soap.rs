//! `json_to_soap`: JSON, to targets that speak SOAP (1.1 or 1.2).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::soap_terms::{EmptyElement, check_element, collect, conversion, is_json, version};
use super::{
    ClientResponse, IncomingRequest, Protocols, SoapVersionName, Translate, TranslateResponse, TranslatedRequest,
};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::notation::{MethodName, Path, Size};
use crate::rules::payload::XmlToJson;
use crate::rules::routing::{PathPattern, form_decode};
use crate::rules::schema::parse_json;
use crate::rules::soap::{
    Content, Fault, NameRules, Naming, SoapVersion, TypedPaths, envelope, parse_envelope, value_at,
};

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

/// JSON, to targets that speak SOAP.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JsonToSoap")]
pub struct Config {
    /// The version of SOAP that the targets speak. Default `1.1`.
    #[serde(default)]
    pub version: SoapVersionName,
    /// The path at the targets.
    pub path: String,
    /// The operations.
    pub operations: Vec<OperationConfig>,
    /// The namespace of operations that have none.
    #[serde(default)]
    pub namespace: String,
    /// The prefixes that names of members may have, with their namespaces: `{ord: "urn:orders"}` for `ord:id`.
    #[serde(default)]
    pub namespaces: BTreeMap<String, String>,
    /// What an element without content is in JSON. Default the empty text.
    #[serde(default)]
    pub empty: EmptyElement,
    /// The status by the code of a fault, without its prefix: `{Client: 400, Server: 502, OutOfStock: 409}`. The
    /// innermost code of several counts. Default: 400 for `Client` and `Sender`, and 502 for all others.
    #[serde(default)]
    pub fault_status: BTreeMap<String, u16>,
    /// Whether the detail of a fault is in the response. Default false.
    #[serde(default)]
    pub fault_detail: bool,
    /// The longest body of a request. Default 1MiB.
    #[serde(default)]
    pub max_body: Option<Size>,
    /// The longest response of a target. Default 4MiB.
    #[serde(default)]
    pub max_response: Option<Size>,
}

/// An operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JsonToSoapOperation")]
pub struct OperationConfig {
    /// The method of its requests.
    pub method: MethodName,
    /// Their path, as the client sends it.
    pub path: Path,
    /// The action (`SOAPAction`). Default: none, an empty one.
    pub action: Option<String>,
    /// The element of the request.
    pub element: String,
    /// Its namespace. Default: that of all.
    pub namespace: Option<String>,
    /// Whether the elements within it are in its namespace (`elementFormDefault="qualified"`). Default true.
    #[serde(default = "default_true")]
    pub qualified: bool,
    /// The elements within it, in the order of the target's schema. Default: the parameters of the path, those of the
    /// query, and the members of the body.
    #[serde(default)]
    pub fields: Vec<FieldConfig>,
    /// The element of the response. Another one is an error (502). Default: any.
    pub response_element: Option<String>,
    /// The member of the response's element that is the response, as `AddResult`. Default: all of it.
    pub result: Option<String>,
    /// Elements of the response that are lists even where there is one alone, as paths: `orders.order`.
    #[serde(default)]
    pub arrays: Vec<String>,
    /// Elements of the response that are numbers.
    #[serde(default)]
    pub numbers: Vec<String>,
    /// Elements of the response that are truth values.
    #[serde(default)]
    pub booleans: Vec<String>,
}

/// An element within that of an operation.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "JsonToSoapField")]
pub struct FieldConfig {
    /// Its name.
    pub name: String,
    /// Where its value is: `path.NAME`, `query.NAME`, `body` or `body.a.b`. Default: the member of its name in the
    /// body.
    pub from: Option<String>,
    /// The value where there is none. Default: the element is left out.
    pub default: Option<String>,
}

fn default_true() -> bool {
    true
}

/// The compiled translation.
#[derive(Debug)]
pub struct JsonToSoap {
    version: SoapVersion,
    path: String,
    operations: Vec<Arc<Operation>>,
    prefixes: Vec<(String, String)>,
    faults: Arc<FaultRules>,
    max_body: u64,
    max_response: usize,
}

#[derive(Debug)]
struct FaultRules {
    status: BTreeMap<String, u16>,
    with_detail: bool,
}

#[derive(Debug)]
struct Operation {
    method: Method,
    path: PathPattern,
    action: String,
    naming: Naming,
    fields: Vec<Field>,
    response_element: Option<String>,
    result: Option<String>,
    convert: XmlToJson,
    types: TypedPaths,
}

#[derive(Debug)]
struct Field {
    name: String,
    from: Source,
    default: Option<String>,
}

#[derive(Debug)]
enum Source {
    Path(String),
    Query(String),
    Body,
    Member(String),
}

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> JsonToSoap {
    let place = context.place.clone();
    if !config.path.starts_with('/') || config.path.contains(['#', ' ']) {
        context.mistakes.add(&place.key("path"), format!("expected a path such as /soap, found \"{}\"", config.path));
    }
    if config.operations.is_empty() {
        context.mistakes.add(&place.key("operations"), "expected at least one operation");
    }
    for prefix in config.namespaces.keys() {
        let fine = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !prefix.is_empty();
        if !fine || matches!(prefix.as_str(), "soap" | "op" | "xml" | "xmlns") || prefix.as_bytes()[0].is_ascii_digit()
        {
            let text = "expected a prefix of letters and digits, other than soap, op, xml and xmlns";
            context.mistakes.add(&place.key("namespaces").name(prefix.clone()), text);
        }
    }
    for (code, _) in config.fault_status.iter().filter(|(_, status)| !(400..=599).contains(*status)) {
        context.mistakes.add(&place.key("fault_status").key(code.clone()), "expected a status of 400 to 599");
    }
    let operations = config.operations.iter().enumerate().filter_map(|(index, operation)| {
        context.place = place.key("operations").index(index);
        let compiled = compile_operation(operation, config, context);
        context.place = place.clone();
        compiled.map(Arc::new)
    });
    JsonToSoap {
        version: version(config.version),
        path: config.path.clone(),
        operations: operations.collect(),
        prefixes: config.namespaces.iter().map(|(prefix, uri)| (prefix.clone(), uri.clone())).collect(),
        faults: Arc::new(FaultRules { status: config.fault_status.clone(), with_detail: config.fault_detail }),
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
    context: &mut ActionContext<'_>,
) -> Option<Operation> {
    let place = context.place.clone();
    check_element(&operation.element, &place.key("element"), context);
    let action = operation.action.clone().unwrap_or_default();
    if action.contains(['"', '\\']) || HeaderValue::from_str(&action).is_err() {
        context.mistakes.add(&place.key("action"), "expected an action without quotes and backslashes");
    }
    let params = operation.path.0.param_names();
    let fields = operation.fields.iter().enumerate().map(|(index, field)| {
        let place = place.key("fields").index(index);
        check_element(&field.name, &place.key("name"), context);
        let from = field.from.clone().unwrap_or_else(|| format!("body.{}", field.name));
        let from = match from.split_once('.') {
            Some(("path", name)) => {
                if !params.iter().any(|param| param == name) {
                    context.mistakes.add(&place.key("from"), format!("the path has no parameter {{{name}}}"));
                }
                Source::Path(name.to_owned())
            }
            Some(("query", name)) => Source::Query(name.to_owned()),
            Some(("body", path)) => Source::Member(path.to_owned()),
            None if from == "body" => Source::Body,
            _ => {
                let text = format!("expected path.NAME, query.NAME, body or body.NAME, found \"{from}\"");
                context.mistakes.add(&place.key("from"), text);
                Source::Body
            }
        };
        Field { name: field.name.clone(), from, default: field.default.clone() }
    });
    let fields = fields.collect();
    let convert = conversion(&operation.arrays, config.empty, &place.key("arrays"), context)?;
    Some(Operation {
        method: operation.method.0.clone(),
        path: operation.path.0.clone(),
        action,
        naming: Naming {
            element: operation.element.clone(),
            namespace: operation.namespace.clone().unwrap_or_else(|| config.namespace.clone()),
            qualified: operation.qualified,
        },
        fields,
        response_element: operation.response_element.clone(),
        result: operation.result.clone(),
        convert,
        types: TypedPaths::new(&operation.numbers, &operation.booleans),
    })
}

impl Operation {
    fn takes(&self, view: &RequestView<'_>) -> bool {
        view.request.method == self.method && self.path.matches(view.request.uri.path())
    }

    /// Returns the content of the element for a request.
    fn content(&self, request: &IncomingRequest<'_>, body: Value) -> Result<Value, Box<Rejection>> {
        let path = request.view.request.uri.path();
        let query = request.view.request.uri.query();
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        let text = |part: &str| String::from_utf8_lossy(&form_decode(part.as_bytes())).into_owned();
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(n, v)| (text(n), text(v)));
        let mut content = Map::new();
        if self.fields.is_empty() {
            for (name, value) in self.path.params(path) {
                content.insert(name.to_owned(), decoded(value).into());
            }
            pairs.for_each(|(name, value)| _ = content.insert(name, value.into()));
            match body {
                Value::Object(members) => content.extend(members),
                Value::Null => {}
                _ => return Err(untranslatable("the body is not an object")),
            }
            return Ok(content.into());
        }
        let pairs: Vec<(String, String)> = pairs.collect();
        for field in &self.fields {
            let found = match &field.from {
                Source::Path(name) => self.path.value(path, name).map(|value| decoded(value).into()),
                Source::Query(name) => {
                    let mut values: Vec<Value> =
                        pairs.iter().filter(|(known, _)| known == name).map(|(_, v)| v.clone().into()).collect();
                    if values.len() > 1 { Some(values.into()) } else { values.pop() }
                }
                Source::Body => Some(body.clone()),
                Source::Member(path) => value_at(&body, path).cloned(),
            };
            let found = found.filter(|value| !value.is_null()).or_else(|| field.default.clone().map(Value::from));
            if let Some(value) = found {
                content.insert(field.name.clone(), value);
            }
        }
        Ok(content.into())
    }
}

fn untranslatable(detail: impl Into<std::borrow::Cow<'static, str>>) -> Box<Rejection> {
    Rejection::new(Reason::RequestUntranslatable, detail)
}

impl Translate for JsonToSoap {
    fn protocols(&self) -> Protocols {
        Protocols { from: "json", to: "soap" }
    }

    fn takes(&self, view: &RequestView<'_>) -> bool {
        self.operations.iter().any(|operation| operation.takes(view))
    }

    fn max_request_body(&self) -> u64 {
        self.max_body
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let operation = self.operations.iter().find(|operation| operation.takes(&request.view));
        let operation = operation.ok_or_else(|| untranslatable("there is no such operation"))?;
        let body = if request.body.is_empty() {
            Value::Null
        } else {
            if !is_json(&request.view.request.headers) {
                return Err(Rejection::new(Reason::MediaType, "accepted here: application/json"));
            }
            parse_json(&request.body).map_err(|bad| untranslatable(bad.to_string()))?
        };
        let content = operation.content(request, body)?;
        let text = envelope(self.version, &operation.naming, NameRules(&self.prefixes), &content)
            .map_err(|why| untranslatable(format!("the body cannot be XML: {why}")))?;
        let value = |text: String| HeaderValue::try_from(text).map_err(|_| untranslatable("its action"));
        let media = self.version.media_type();
        let mut headers = vec![(ACCEPT, HeaderValue::from_static(media))];
        match self.version {
            SoapVersion::V11 => {
                headers.push((CONTENT_TYPE, HeaderValue::from_static("text/xml; charset=utf-8")));
                headers.push((SOAP_ACTION, value(format!("\"{}\"", operation.action))?));
            }
            SoapVersion::V12 if operation.action.is_empty() => {
                headers.push((CONTENT_TYPE, HeaderValue::from_static("application/soap+xml; charset=utf-8")));
            }
            SoapVersion::V12 => {
                let kind = format!("application/soap+xml; charset=utf-8; action=\"{}\"", operation.action);
                headers.push((CONTENT_TYPE, value(kind)?));
            }
        }
        Ok(TranslatedRequest {
            method: Method::POST,
            target: self.path.clone(),
            headers,
            removed: vec![SOAP_ACTION],
            body: text.into(),
            is_safe: request.view.request.method.is_idempotent(),
            is_grpc: false,
            wait: None,
            operation: Some(operation.naming.element.as_str().into()),
            response: Box::new(SoapResponse {
                operation: Arc::clone(operation),
                faults: Arc::clone(&self.faults),
                status: StatusCode::OK,
                body: BytesMut::new(),
                most: self.max_response,
            }),
        })
    }

    fn describe(&self) -> Vec<String> {
        let line = |operation: &Arc<Operation>| {
            let Operation { method, path, naming, .. } = &**operation;
            format!("json_to_soap: {method} {path} as {} to POST {}", naming.element, self.path)
        };
        self.operations.iter().map(line).collect()
    }
}

/// The response of a target that speaks SOAP.
#[derive(Debug)]
struct SoapResponse {
    operation: Arc<Operation>,
    faults: Arc<FaultRules>,
    status: StatusCode,
    body: BytesMut,
    most: usize,
}

impl TranslateResponse for SoapResponse {
    fn head(&mut self, head: &ResponseHeader, out: &mut ClientResponse) -> Result<(), Box<Rejection>> {
        self.status = head.status;
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
        if self.body.is_empty() {
            // A one-way operation (Basic Profile 1.1, section 3.4.5).
            return match status {
                200..=299 => {
                    out.decide(StatusCode::NO_CONTENT, HeaderMap::new());
                    Ok(())
                }
                _ => Err(wrong("there is no envelope".to_owned())),
            };
        }
        let parsed = parse_envelope(&self.body, &self.operation.convert, &[]).map_err(|error| wrong(error.text))?;
        match parsed.content {
            Content::Fault(fault) => {
                self.faults.respond(&fault, out);
                Ok(())
            }
            _ if !self.status.is_success() => Err(wrong("its envelope has no fault".to_owned())),
            Content::Empty => {
                out.decide(StatusCode::NO_CONTENT, HeaderMap::new());
                Ok(())
            }
            Content::Element { name, value, .. } => {
                if self.operation.response_element.as_ref().is_some_and(|wanted| *wanted != name) {
                    return Err(wrong("its envelope has another element".to_owned()));
                }
                let value = self.result(value).ok_or_else(|| wrong("its envelope has no result".to_owned()))?;
                write_json(out, StatusCode::OK, "application/json", &value);
                Ok(())
            }
        }
    }
}

impl SoapResponse {
    /// Returns the part of a response that is its result.
    fn result(&self, mut value: Value) -> Option<Value> {
        if let Value::Object(members) = &mut value {
            members.retain(|name, _| !name.starts_with("@xmlns"));
        }
        if matches!(&value, Value::String(text) if text.is_empty()) || value.is_null() {
            // An element without content is a response without members.
            value = json!({});
        }
        self.operation.types.apply(&mut value);
        match &self.operation.result {
            Some(name) => value.as_object_mut()?.get_mut(name).map(Value::take),
            None => Some(value),
        }
    }
}

impl FaultRules {
    fn respond(&self, fault: &Fault, out: &mut ClientResponse) {
        let codes = fault.subcodes.iter().rev().chain(std::iter::once(&fault.code));
        let status = codes.filter_map(|code| self.status.get(code)).next().copied();
        let status = status.unwrap_or(if fault.is_of_client() { 400 } else { 502 });
        let mut problem = json!({
            "type": "urn:portcullis:soap_fault",
            "title": "The service reported a fault",
            "status": status,
            "detail": fault.text,
            "faultcode": fault.codes(),
            "faultstring": fault.text,
        });
        if let Some(actor) = &fault.actor {
            problem["faultactor"] = actor.clone().into();
        }
        if let (true, Some(detail)) = (self.with_detail, &fault.detail) {
            problem["faultdetail"] = detail.clone();
        }
        out.target_status =
            Some(fault.codes().chars().take(100).filter(char::is_ascii_graphic).collect::<String>().into());
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
        write_json(out, status, "application/problem+json", &problem);
    }
}

fn write_json(out: &mut ClientResponse, status: StatusCode, kind: &'static str, value: &Value) {
    out.decide(status, HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]));
    out.body.extend_from_slice(value.to_string().as_bytes());
}
