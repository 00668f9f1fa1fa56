//! `json_to_soap`: JSON, to targets that speak SOAP (1.1 or 1.2).

mod config;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pingora::http::ResponseHeader;
use serde_json::{Map, Value, json};

pub use self::config::Config;
use self::config::OperationConfig;
use super::soap_terms::{check_element, collect, conversion, is_json, version};
use super::{ClientResponse, IncomingRequest, Protocols, Translate, TranslateResponse, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RequestView};
use crate::rules::payload::XmlToJson;
use crate::rules::routing::{PathPattern, form_decode};
use crate::rules::schema::parse_json;
use crate::rules::soap::{
    Content, Fault, NameRules, Naming, SoapVersion, TypedPaths, XSI, envelope, parse_envelope, value_at,
};

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

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
    for (prefix, namespace) in &config.namespaces {
        let fine = prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !prefix.is_empty();
        let place = place.key("namespaces").name(prefix.clone());
        if !fine || matches!(prefix.as_str(), "soap" | "op" | "xml" | "xmlns") || prefix.as_bytes()[0].is_ascii_digit()
        {
            let text = "expected a prefix of letters and digits, other than soap, op, xml and xmlns";
            context.mistakes.add(&place, text);
        } else if prefix == "xsi" && namespace != XSI {
            context.mistakes.add(&place, format!("the prefix xsi is that of {XSI}"));
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
    fn takes(&self, view: &RequestView<'_>, path: &str) -> bool {
        view.request.method == self.method && self.path.matches(path)
    }

    /// Returns the content of the element for a request.
    fn content(
        &self,
        request: &IncomingRequest<'_>,
        body: Value,
        prefixes: &[(String, String)],
    ) -> Result<Value, Box<Rejection>> {
        let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        let pairs = request.query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty());
        let text = |part: &str| String::from_utf8_lossy(&form_decode(part.as_bytes())).into_owned();
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(n, v)| (text(n), text(v)));
        let mut content = Map::new();
        if self.fields.is_empty() {
            let mut members = Members { operation: self, prefixes, names: HashSet::new(), content };
            for (name, value) in self.path.params(request.path) {
                members.add(name.to_owned(), decoded(value).into())?;
            }
            for (name, value) in pairs {
                if name.starts_with(['@', '#']) {
                    let text = format!("the key {} of the query is no element", shown(&name));
                    return Err(untranslatable(text));
                }
                members.add(name, value.into())?;
            }
            match body {
                Value::Object(own) => own.into_iter().try_for_each(|(name, value)| members.add(name, value))?,
                Value::Null => {}
                _ => return Err(untranslatable("the body is not an object")),
            }
            return Ok(members.content.into());
        }
        let pairs: Vec<(String, String)> = pairs.collect();
        for field in &self.fields {
            let found = match &field.from {
                Source::Path(name) => self.path.value(request.path, name).map(|value| decoded(value).into()),
                Source::Query(name) => {
                    let mut values: Vec<Value> =
                        pairs.iter().filter(|(known, _)| known == name).map(|(_, v)| v.clone().into()).collect();
                    if values.len() > 1 { Some(values.into()) } else { values.pop() }
                }
                Source::Body => Some(body.clone()),
                Source::Member(path) => value_at(&body, path).cloned(),
            };
            let value = match (found, &field.default) {
                (None | Some(Value::Null), Some(default)) => Some(default.clone().into()),
                // There is no body.
                (Some(Value::Null), None) if matches!(field.from, Source::Body) => None,
                (found, _) => found,
            };
            content.extend(value.map(|value| (field.name.clone(), value)));
        }
        Ok(content.into())
    }
}

/// The members of a request of which no two may become elements of one name: the target could read another one than
/// the gateway has matched.
struct Members<'o> {
    operation: &'o Operation,
    prefixes: &'o [(String, String)],
    /// The names so far, without a prefix that stands for the namespace of the operation.
    names: HashSet<String>,
    content: Map<String, Value>,
}

impl Members<'_> {
    fn add(&mut self, name: String, value: Value) -> Result<(), Box<Rejection>> {
        let Naming { namespace, qualified, .. } = &self.operation.naming;
        let is_own =
            |prefix: &str| *qualified && self.prefixes.iter().any(|(known, uri)| known == prefix && uri == namespace);
        let plain = name.split_once(':').filter(|(prefix, _)| is_own(prefix)).map_or(name.as_str(), |(_, local)| local);
        if !self.names.insert(plain.to_owned()) {
            return Err(untranslatable(format!("{} is there more than once", shown(plain))));
        }
        self.content.insert(name, value);
        Ok(())
    }
}

/// Returns a name of the client's for a message.
fn shown(name: &str) -> String {
    name.chars().take(100).collect()
}

fn untranslatable(detail: impl Into<std::borrow::Cow<'static, str>>) -> Box<Rejection> {
    Rejection::new(Reason::RequestUntranslatable, detail)
}

impl Translate for JsonToSoap {
    fn protocols(&self) -> Protocols {
        Protocols { from: "json", to: "soap" }
    }

    fn takes(&self, view: &RequestView<'_>, path: &str) -> bool {
        self.operations.iter().any(|operation| operation.takes(view, path))
    }

    fn max_request_body(&self) -> u64 {
        self.max_body
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let operation = self.operations.iter().find(|operation| operation.takes(&request.view, request.path));
        let operation = operation.ok_or_else(|| untranslatable("there is no such operation"))?;
        let body = if request.body.is_empty() {
            Value::Null
        } else {
            if !is_json(&request.view.request.headers) {
                return Err(Rejection::new(Reason::MediaType, "accepted here: application/json"));
            }
            parse_json(&request.body).map_err(|bad| untranslatable(bad.to_string()))?
        };
        let content = operation.content(request, body, &self.prefixes)?;
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
