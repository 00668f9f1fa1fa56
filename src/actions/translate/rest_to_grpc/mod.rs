//! `rest_to_grpc`: JSON over HTTP, to targets that speak gRPC (google/api/http.proto).

mod protos;
mod response;
mod source;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Deserialize;

use super::grpc_target::{GRPC_ACCEPT_ENCODING, request_fields};
use super::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::actions::ActionContext;
use crate::exchange::{Reason, Rejection, RelayedResponse, RequestView};
use crate::notation::{File, Folder, Size};
use crate::rules::grpc::{
    Api, ApiScope, BadCall, BindLimits, JsonStyle, Matched, MethodPlan, RequestParts, RulePlan, method_word,
    parse_timeout,
};
use response::{JsonResponse, ResponsePlan, StreamForm};
use source::{ApiSource, Reflection, Serving};

/// The time that a client of gRPC waits.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// JSON over HTTP, to targets that speak gRPC. Which request calls which method is in the `google.api.http` options of
/// the `.proto` files.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "RestToGrpc")]
pub struct Config {
    /// The `.proto` files of the services. Files of `google/protobuf`, `google/api` and `google/rpc` need not be there.
    pub protos: Vec<File>,
    /// The folders in which imports are looked up, besides those of `protos`.
    pub import_paths: Vec<Folder>,
    /// Compiled descriptors in place of, or besides, `protos`: `protoc --include_imports --descriptor_set_out=FILE`.
    pub descriptor_sets: Vec<File>,
    /// Asks the target for the descriptors in place of files (gRPC server reflection), when the configuration is loaded
    /// and every minute. Default false.
    pub reflection: bool,
    /// The services, as `package.Service`. Default: all of `protos` and `descriptor_sets`, without those of imports.
    pub services: Vec<String>,
    /// What happens to a key of the query that names no field: `reject` (400) or `ignore`. Default `reject`.
    pub unknown_query: UnknownQuery,
    /// How messages are written.
    pub json: JsonConfig,
    /// The longest message, either way. A request body may be twice as long. Default 4MiB.
    pub max_message: Size,
    /// Whether methods without a rule are called by `POST /package.Service/Method`. Default false.
    pub routes_without_rules: bool,
    /// The path of an OpenAPI document of all methods: `/openapi.json`. Default: there is none.
    pub openapi: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            protos: Vec::new(),
            import_paths: Vec::new(),
            descriptor_sets: Vec::new(),
            reflection: false,
            services: Vec::new(),
            unknown_query: UnknownQuery::Reject,
            json: JsonConfig::default(),
            max_message: Size(4 << 20),
            routes_without_rules: false,
            openapi: None,
        }
    }
}

/// What happens to a key of the query that names no field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownQuery {
    /// The request is rejected.
    #[default]
    Reject,
    /// The key is ignored.
    Ignore,
}

/// How messages are written as JSON.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "GrpcJson")]
pub struct JsonConfig {
    /// Whether fields with their default are written. Default true.
    pub defaults: bool,
    /// Whether fields have the names of the `.proto` file (`display_name`) in place of those of JSON (`displayName`).
    /// Default false.
    pub proto_names: bool,
    /// Whether enums are numbers in place of names. Default false.
    pub enum_numbers: bool,
}

impl Default for JsonConfig {
    fn default() -> Self {
        Self { defaults: true, proto_names: false, enum_numbers: false }
    }
}

/// The compiled translation.
#[derive(Debug)]
pub struct RestToGrpc {
    source: Arc<ApiSource>,
    limits: BindLimits,
    style: JsonStyle,
    /// The path of the OpenAPI document.
    document: Option<String>,
}

/// Compiles the translation, and notes errors.
pub fn compile(config: &Config, context: &mut ActionContext<'_>) -> RestToGrpc {
    let max_message = config.max_message.0;
    if !(1024..=256 << 20).contains(&max_message) {
        context.mistakes.add(&context.place.key("max_message"), "expected a size from 1KiB to 256MiB");
    }
    let style = JsonStyle {
        defaults: config.json.defaults,
        proto_names: config.json.proto_names,
        enum_numbers: config.json.enum_numbers,
    };
    check_document_path(config, context);
    let wanted = config.openapi.as_ref().map(|_| style);
    let source = match reflection(config, wanted, context) {
        Some(source) => source,
        None => {
            let api = api(config, context);
            api.iter().for_each(|api| check_document_rule(config, api, context));
            Arc::new(ApiSource::of_files(api.map(|api| Serving::new(api, wanted))))
        }
    };
    let limits = BindLimits {
        ignores_unknown: config.unknown_query == UnknownQuery::Ignore,
        max_message: u32::try_from(max_message).unwrap_or(u32::MAX),
    };
    RestToGrpc { source, limits, style, document: config.openapi.clone() }
}

/// Returns the source of an API that the target describes, if it is to do that.
fn reflection(config: &Config, document: Option<JsonStyle>, context: &mut ActionContext<'_>) -> Option<Arc<ApiSource>> {
    if !config.reflection {
        return None;
    }
    if !config.protos.is_empty() || !config.descriptor_sets.is_empty() {
        let text = "expected either reflection or files: the target describes all of its methods";
        context.mistakes.add(&context.place.key("reflection"), text);
    }
    let reflection = Reflection {
        upstream: context.upstream.clone()?,
        services: config.services.clone(),
        unruled: config.routes_without_rules,
        document,
        state: Mutex::default(),
        started: AtomicBool::new(false),
    };
    let source = Arc::new(ApiSource::of_reflection(reflection));
    context.shared.keep(source.clone());
    Some(source)
}

fn api(config: &Config, context: &mut ActionContext<'_>) -> Option<Api> {
    if config.reflection {
        return None;
    }
    if config.protos.is_empty() && config.descriptor_sets.is_empty() {
        let text = "expected protos, descriptor_sets or reflection: the methods and messages are described there";
        context.mistakes.add(&context.place, text);
        return None;
    }
    let described = protos::describe(config, context)?;
    let scope = ApiScope { files: &described.named, services: &config.services, unruled: config.routes_without_rules };
    match Api::new(&described.pool, &scope) {
        Ok(api) => Some(api),
        Err(errors) => {
            errors.into_iter().for_each(|text| context.mistakes.add(&context.place, text));
            None
        }
    }
}

fn check_document_path(config: &Config, context: &mut ActionContext<'_>) {
    let Some(path) = &config.openapi else { return };
    if !path.starts_with('/') || path.contains(['*', '{', '?', '#', '%']) {
        let text = format!("expected a path such as /openapi.json, found \"{path}\"");
        context.mistakes.add(&context.place.key("openapi"), text);
    }
}

/// Notes a method whose path is that of the document.
fn check_document_rule(config: &Config, api: &Api, context: &mut ActionContext<'_>) {
    let Some(path) = &config.openapi else { return };
    if let Matched::Rule { rule, .. } = api.find(&Method::GET, path)
        && api.rules[rule].template.literals() == path.split('/').count() - 1
    {
        let text = format!("is the path of a method: {}", api.methods[api.rules[rule].method].name);
        context.mistakes.add(&context.place.key("openapi"), text);
    }
}

impl Translate for RestToGrpc {
    fn protocols(&self) -> Protocols {
        Protocols { from: "rest", to: "grpc" }
    }

    fn takes(&self, view: &RequestView<'_>, _path: &str) -> bool {
        // That of gRPC-Web begins so, too.
        let content_type = view.request.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        !content_type.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(b"application/grpc"))
    }

    fn needs_http2(&self) -> bool {
        true
    }

    fn max_request_body(&self) -> u64 {
        u64::from(self.limits.max_message) * 2
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let serving = self.source.current();
        let Some(serving) = serving.as_ref() else {
            return Err(Rejection::new(Reason::NoHealthyTarget, "").log(self.source.error()));
        };
        let api = &serving.api;
        let head = request.view.request;
        self.check_document(&head.method, request.path, serving)?;
        let (rule, has_verb) = find(api, &head.method, request.path)?;
        let plan = &api.rules[rule];
        let method = &api.methods[plan.method];
        let parts = RequestParts {
            path: request.path,
            query: request.query,
            content_type: head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()),
            body: &request.body,
        };
        let frames = api.bind((plan, has_verb), &parts, &self.limits).map_err(|bad| self.rejection(bad))?;
        let response = ResponsePlan {
            api: Arc::clone(api),
            output: method.output,
            field: plan.response,
            stream: method.returns_stream.then(|| StreamForm::of(&head.headers)),
            style: self.style,
            max_message: self.limits.max_message,
        };
        Ok(TranslatedRequest {
            method: Method::POST,
            target: method.target.to_string(),
            headers: headers(),
            removed: removed(&head.headers),
            body: frames.freeze(),
            is_safe: head.method.is_idempotent() || method.is_repeatable,
            is_grpc: true,
            wait: head.headers.get(GRPC_TIMEOUT).and_then(|value| parse_timeout(value.as_bytes())),
            operation: Some(method.name.clone()),
            response: Box::new(JsonResponse::new(response)),
        })
    }

    fn call(&self, view: &RequestView<'_>, path: &str) -> Vec<String> {
        let serving = self.source.current();
        let Some(serving) = serving.as_ref() else { return Vec::new() };
        let (api, method) = (&serving.api, &view.request.method);
        if let Err(response) = self.check_document(method, path, serving) {
            return vec![match response.relayed {
                Some(relayed) => format!("response: {} the OpenAPI document of all methods", relayed.status),
                None => format!("response: {} {}", response.http_status(), response.reason.code()),
            }];
        }
        match find(api, method, path) {
            Ok((rule, _)) => {
                let plan = &api.rules[rule];
                vec![format!("call: POST {} by {}", api.methods[plan.method].target, plan.text)]
            }
            Err(rejection) => vec![format!("response: {} {}", rejection.http_status(), rejection.reason.code())],
        }
    }

    fn describe(&self) -> Vec<String> {
        let serving = self.source.current();
        let Some(api) = serving.as_ref().map(|serving| &serving.api) else {
            return vec!["rest_to_grpc: the methods that the target describes".to_owned()];
        };
        let line = |rule: &RulePlan| {
            let MethodPlan { name, .. } = &api.methods[rule.method];
            format!("rest_to_grpc: {} {} calls {name}", method_word(&rule.http_method), rule.text)
        };
        let shown = api.rules.iter().take(MAX_DESCRIBED).map(line);
        let more = api.rules.len().saturating_sub(MAX_DESCRIBED);
        shown.chain((more > 0).then(|| format!("rest_to_grpc: {more} more rules"))).collect()
    }
}

/// The most rules that are described.
const MAX_DESCRIBED: usize = 100;

impl RestToGrpc {
    /// Returns the document in place of a call, if the path is its own.
    fn check_document(&self, method: &Method, path: &str, serving: &Serving) -> Result<(), Box<Rejection>> {
        let is_own = self.document.as_ref().is_some_and(|own| own == path);
        let Some(document) = serving.document.as_ref().filter(|_| is_own) else { return Ok(()) };
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Err(
                Rejection::new(Reason::MethodNotAllowed, "").header(ALLOW, HeaderValue::from_static("GET, HEAD"))
            );
        }
        let mut response = Rejection::new(Reason::Responded, "")
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response.relayed = Some(RelayedResponse { status: 200, body: document.clone() });
        Err(response)
    }

    fn rejection(&self, bad: BadCall) -> Box<Rejection> {
        match bad {
            BadCall::Invalid(violation) => Rejection::violating(Reason::RequestUntranslatable, vec![violation]),
            BadCall::MediaType(text) => Rejection::new(Reason::MediaType, text),
            BadCall::TooLong => {
                let most = self.limits.max_message;
                Rejection::new(Reason::BodyTooLarge, format!("a message has at most {most} bytes (max_message)"))
            }
        }
    }
}

/// Returns the rule for a request, and whether its path ends with a verb.
fn find(api: &Api, method: &Method, path: &str) -> Result<(usize, bool), Box<Rejection>> {
    match api.find(method, path) {
        Matched::Rule { rule, has_verb } => Ok((rule, has_verb)),
        Matched::OtherMethods(methods) => {
            let list: Vec<&str> = methods.iter().map(Method::as_str).collect();
            let allow = HeaderValue::try_from(list.join(", ")).unwrap_or(HeaderValue::from_static(""));
            Err(Rejection::new(Reason::MethodNotAllowed, "").header(ALLOW, allow))
        }
        Matched::None => Err(Rejection::new(Reason::RouteNotFound, "no method has this path")),
    }
}

fn headers() -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = request_fields("");
    // What is compressed would have to be read again.
    headers.push((GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    headers
}

/// Returns the fields of the client that are not for a target of gRPC.
fn removed(headers: &HeaderMap) -> Vec<HeaderName> {
    let of_grpc = headers.keys().filter(|name| name.as_str().starts_with("grpc-")).cloned();
    of_grpc.chain([ACCEPT]).collect()
}
