//! A call of a function: the event that it gets, and the signed request to AWS.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Version};

use super::config::Invocation;
use super::credentials::AwsCredentials;
use super::response::FunctionCall;
use crate::actions::translate::{IncomingRequest, Protocols, Translate, TranslatedRequest};
use crate::exchange::{Reason, Rejection, RequestView};
use crate::rules::aws::{
    BodyText, EventCaller, EventFacts, EventFormat, FunctionName, RequestToSign, SigningScope, event, sign,
};
use crate::rules::routing::PathPattern;
use crate::rules::schema::openapi::{MediaRange, best, essence};

/// The longest event of a call whose response is waited for, and of one that is queued (AWS's quotas).
const MAX_EVENT: usize = 6 * 1024 * 1024;
const MAX_QUEUED_EVENT: usize = 1024 * 1024;

const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");

/// The calls of one function.
#[derive(Debug)]
pub struct LambdaCall {
    /// The path and the query of calls.
    pub path: String,
    /// The function, for logs.
    pub name: Box<str>,
    /// Its account; empty if it is not known.
    pub account: String,
    /// The region.
    pub region: String,
    /// `Host`.
    pub host: HeaderValue,
    /// The credentials.
    pub credentials: AwsCredentials,
    /// The form of events.
    pub format: EventFormat,
    /// How it is called.
    pub invocation: Invocation,
    /// Whether its response is streamed.
    pub streaming: bool,
    /// The media types of bodies that are sent as base64.
    pub binary_types: Vec<MediaRange>,
    /// The stage in events.
    pub stage: String,
    /// The variables of the stage in events.
    pub stage_variables: Vec<(String, String)>,
    /// The path as a template of the route's OpenAPI document.
    pub resource: Option<String>,
}

/// Returns the path and the query of the calls of a function.
pub fn path(function: &FunctionName, streaming: bool) -> String {
    let (version, operation) =
        if streaming { ("2021-11-15", "response-streaming-invocations") } else { ("2015-03-31", "invocations") };
    let path = format!("/{version}/functions/{}/{operation}", function.segment());
    match &function.qualifier {
        Some(qualifier) => format!("{path}?Qualifier={}", qualifier.replace('$', "%24")),
        None => path,
    }
}

/// Returns a function as logs show it.
pub fn shown(function: &FunctionName) -> Box<str> {
    let name = function.name.rsplit(':').next().unwrap_or_default();
    match &function.qualifier {
        Some(qualifier) => format!("{name}:{qualifier}").into(),
        None => name.into(),
    }
}

impl LambdaCall {
    /// Returns `Host`.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Returns the payload of a call.
    fn payload(&self, request: &IncomingRequest<'_>) -> Result<Bytes, Box<Rejection>> {
        let most = if self.invocation == Invocation::Event { MAX_QUEUED_EVENT } else { MAX_EVENT };
        let payload = if self.format == EventFormat::Raw {
            let is_json =
                request.body.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(&request.body).is_ok();
            if !is_json {
                return Err(Rejection::new(Reason::RequestUntranslatable, "the body is not JSON"));
            }
            request.body.clone()
        } else {
            Bytes::from(event(&self.facts(request), self.format).to_string())
        };
        if payload.len() > most {
            let text = format!("the event of the function would exceed {most} bytes");
            return Err(Rejection::new(Reason::BodyTooLarge, text));
        }
        Ok(payload)
    }

    fn facts<'r>(&'r self, request: &'r IncomingRequest<'_>) -> EventFacts<'r> {
        let RequestView { request: came, exchange, pattern, .. } = request.view;
        let is_binary = |kind: &str| best(&self.binary_types, |range| range, essence(kind)).is_some();
        let (mut resource, mut path_parameters) = resource(pattern, came.uri.path());
        if let Some(template) = &self.resource {
            resource.clone_from(template);
            let greedy = template.rsplit_once('{').and_then(|(_, name)| name.strip_suffix("+}"));
            if let (Some(name), Some((last, _))) = (greedy, path_parameters.last_mut()) {
                name.clone_into(last);
            }
        }
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        EventFacts {
            method: came.method.as_str(),
            path: request.path,
            query: request.query,
            headers: request.headers,
            protocol: match came.version {
                Version::HTTP_10 => "HTTP/1.0",
                Version::HTTP_2 => "HTTP/2.0",
                _ => "HTTP/1.1",
            },
            host: &exchange.host,
            source: exchange.client.to_string(),
            request_id: exchange.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default(),
            time: u64::try_from(time.as_millis()).unwrap_or_default(),
            resource,
            path_parameters,
            stage: &self.stage,
            stage_variables: &self.stage_variables,
            account: if self.account.is_empty() { "anonymous" } else { &self.account },
            caller: exchange.identity.as_ref().map(|identity| EventCaller {
                name: &identity.name,
                claims: identity.claims.as_deref(),
                scopes: identity.scopes().into_iter().map(std::borrow::Cow::into_owned).collect(),
            }),
            body: BodyText::of(&request.body, request.headers, is_binary),
        }
    }
}

/// Returns the path of a route as a template of API Gateway, and the values of its parameters in a path.
fn resource<'r>(pattern: Option<&PathPattern>, path: &'r str) -> (String, Vec<(String, &'r str)>) {
    let Some(pattern @ PathPattern::Segments { rest, .. }) = pattern else {
        return ("/{proxy+}".to_owned(), Vec::new());
    };
    let mut params: Vec<(String, &str)> = pattern.params(path).map(|(name, value)| (name.to_owned(), value)).collect();
    let text = pattern.to_string();
    if !rest {
        return (text, params);
    }
    params.push(("proxy".to_owned(), pattern.rest(path)));
    (format!("{}/{{proxy+}}", text.trim_end_matches('*').trim_end_matches('/')), params)
}

impl Translate for LambdaCall {
    fn protocols(&self) -> Protocols {
        Protocols { from: "http", to: "lambda" }
    }

    fn takes(&self, _view: &RequestView<'_>, _path: &str) -> bool {
        true
    }

    fn replaces_head(&self) -> bool {
        true
    }

    fn max_request_body(&self) -> u64 {
        MAX_EVENT as u64
    }

    fn translate(&self, request: &IncomingRequest<'_>) -> Result<TranslatedRequest, Box<Rejection>> {
        let keys = self.credentials.present()?;
        let body = self.payload(request)?;
        let invocation = match self.invocation {
            Invocation::RequestResponse => "RequestResponse",
            Invocation::Event => "Event",
            Invocation::DryRun => "DryRun",
        };
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (INVOCATION_TYPE, HeaderValue::from_static(invocation)),
        ];
        let (path, query) = self.path.split_once('?').map_or((&*self.path, None), |(path, query)| (path, Some(query)));
        let to_sign =
            RequestToSign { method: &Method::POST, path, query, host: &self.host, headers: &headers, body: &body };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let scope = SigningScope { region: &self.region, service: "lambda", time: now.as_secs() };
        let signed = sign(&to_sign, &keys, scope);
        let signed = signed.ok_or_else(|| {
            Rejection::new(Reason::CredentialsUnavailable, "").log("the AWS credentials cannot be sent")
        })?;
        headers.extend(signed);
        headers.push((HOST, self.host.clone()));
        headers.push((USER_AGENT, HeaderValue::from_static("portcullis")));
        if body.is_empty() {
            headers.push((CONTENT_LENGTH, 0.into()));
        }
        Ok(TranslatedRequest {
            method: Method::POST,
            target: self.path.clone(),
            headers,
            removed: Vec::new(),
            body,
            is_safe: request.view.request.method.is_idempotent(),
            is_grpc: false,
            wait: None::<Duration>,
            operation: Some(self.name.clone()),
            response: Box::new(FunctionCall::new(self)),
        })
    }

    fn call(&self, _view: &RequestView<'_>, _path: &str) -> Vec<String> {
        let host = String::from_utf8_lossy(self.host.as_bytes());
        vec![
            format!("operation: {}", self.name),
            format!("request to the target: POST {}", self.path),
            format!("host for the target: {host}"),
        ]
    }

    fn describe(&self) -> Vec<String> {
        let how = match self.invocation {
            Invocation::RequestResponse if self.streaming => ", streamed",
            Invocation::RequestResponse => "",
            Invocation::Event => ", queued",
            Invocation::DryRun => ", as a dry run",
        };
        vec![format!("lambda: POST {} ({}{how})", self.path, self.region)]
    }
}
