//! The values that templates read: of the request, of the caller, and of the response.

use std::sync::Arc;

use http::HeaderMap;
use minijinja::value::{Enumerator, Object, Value};
use percent_encoding::percent_decode_str;
use pingora::http::{RequestHeader, ResponseHeader};

use crate::exchange::Exchange;
use crate::rules::routing::{cookies, form_decode, raw_parameters};
use crate::rules::templating::{BodyTemplate, json_value, of_json};

/// The paths of the values that templates of requests may read.
pub(super) const OF_REQUESTS: &[&str] = &[
    "request.method",
    "request.path",
    "request.host",
    "request.scheme",
    "request.headers",
    "request.query",
    "request.cookies",
    "request.params",
    "request.id",
    REQUEST_BODY,
    REQUEST_JSON,
    "client.address",
    "identity.known",
    "identity.name",
    "identity.consumer",
    "identity.groups",
    "identity.scopes",
    "identity.claims",
];

/// The body of the request as a text, and as JSON.
pub(super) const REQUEST_BODY: &str = "request.body";
pub(super) const REQUEST_JSON: &str = "request.json";

/// The body of the response as a text, and as JSON.
pub(super) const RESPONSE_BODY: &str = "response.body";
pub(super) const RESPONSE_JSON: &str = "response.json";

/// The paths of the values that templates of responses may read besides those of the request's head.
const OF_RESPONSES: [&str; 4] = ["response.status", "response.headers", RESPONSE_BODY, RESPONSE_JSON];

/// Returns the paths of the values that templates of responses may read. The body of the request has been sent.
pub(super) fn of_responses() -> Vec<&'static str> {
    let of_head = OF_REQUESTS.iter().copied().filter(|name| ![REQUEST_BODY, REQUEST_JSON].contains(name));
    of_head.chain(OF_RESPONSES).collect()
}

/// The values of heads, read for those templates that need them.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadValues {
    /// The names within `request`, `client`, `identity` and `response`.
    request: Vec<(&'static str, Value)>,
    client: Vec<(&'static str, Value)>,
    identity: Vec<(&'static str, Value)>,
    response: Vec<(&'static str, Value)>,
}

impl HeadValues {
    /// Reads the values that `reads` wants.
    pub fn new(
        request: &RequestHeader,
        exchange: &Exchange,
        response: Option<&ResponseHeader>,
        reads: &dyn Fn(&str) -> bool,
    ) -> Self {
        let mut values = Self::default();
        let text = |text: &str| Value::from(text);
        let mut add = |path: &'static str, value: &dyn Fn() -> Value| {
            if !reads(path) {
                return;
            }
            let (root, name) = path.split_once('.').unwrap_or((path, ""));
            let list = match root {
                "request" => &mut values.request,
                "client" => &mut values.client,
                "identity" => &mut values.identity,
                _ => &mut values.response,
            };
            list.push((name, value()));
        };
        add("request.method", &|| text(request.method.as_str()));
        add("request.path", &|| text(request.uri.path()));
        add("request.host", &|| text(&exchange.host));
        add("request.scheme", &|| text(exchange.scheme()));
        add("request.headers", &|| Value::from_object(HeaderValues(request.headers.clone())));
        add("request.query", &|| Value::from_object(QueryValues(request.uri.query().unwrap_or_default().to_owned())));
        add("request.cookies", &|| Value::from_object(CookieValues(request.headers.clone())));
        add("request.params", &|| {
            let decoded = |value: &str| percent_decode_str(value).decode_utf8_lossy().into_owned();
            Value::from_pairs(exchange.params.iter().map(|(name, value)| (name.to_string(), decoded(value))))
        });
        add("request.id", &|| {
            let id = exchange.request_id.as_ref().and_then(|id| id.to_str().ok());
            text(id.unwrap_or_default())
        });
        add("client.address", &|| text(exchange.client_text.to_str().unwrap_or_default()));
        let identity = exchange.identity.as_ref();
        add("identity.known", &|| Value::from(identity.is_some()));
        add("identity.name", &|| text(identity.map_or("", |identity| &identity.name)));
        add("identity.consumer", &|| text(identity.and_then(|identity| identity.consumer_name()).unwrap_or_default()));
        add("identity.groups", &|| {
            Value::from_iter(identity.iter().flat_map(|identity| identity.groups()).map(|group| text(group)))
        });
        add("identity.scopes", &|| {
            Value::from_iter(identity.iter().flat_map(|identity| identity.scopes()).map(|scope| text(&scope)))
        });
        add("identity.claims", &|| {
            let claims = identity.and_then(|identity| identity.claims.as_deref()).cloned().unwrap_or_default();
            of_json(&serde_json::Value::Object(claims))
        });
        if let Some(response) = response {
            add("response.status", &|| Value::from(response.status.as_u16()));
            add("response.headers", &|| Value::from_object(HeaderValues(response.headers.clone())));
        }
        values
    }

    /// Returns the values for a template, with those of the body that it changes.
    ///
    /// # Errors
    /// When the template reads the body as JSON, and it is none.
    pub fn with_body(&self, template: &BodyTemplate, of_request: bool, body: &[u8]) -> Result<Value, String> {
        let (mut request, mut response) = (self.request.clone(), self.response.clone());
        let (list, as_text, as_json) = match of_request {
            true => (&mut request, REQUEST_BODY, REQUEST_JSON),
            false => (&mut response, RESPONSE_BODY, RESPONSE_JSON),
        };
        if template.reads(as_text) {
            list.push(("body", Value::from(&*String::from_utf8_lossy(body))));
        }
        if template.reads(as_json) {
            list.push(("json", json_value(body)?));
        }
        let group = |values: &[(&'static str, Value)]| Value::from_pairs(values.iter().cloned());
        Ok(Value::from_pairs([
            ("request", group(&request)),
            ("client", group(&self.client)),
            ("identity", group(&self.identity)),
            ("response", group(&response)),
        ]))
    }

    /// Returns the values for a template that reads no body.
    pub fn of_heads(&self) -> Value {
        let group = |values: &[(&'static str, Value)]| Value::from_pairs(values.iter().cloned());
        Value::from_pairs([
            ("request", group(&self.request)),
            ("client", group(&self.client)),
            ("identity", group(&self.identity)),
            ("response", group(&self.response)),
        ])
    }
}

/// Headers; several values of one name are joined by commas (RFC 9110, section 5.2).
#[derive(Debug)]
struct HeaderValues(HeaderMap);

impl Object for HeaderValues {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let mut values = self.0.get_all(key.as_str()?).iter();
        let mut joined = values.next()?.as_bytes().to_vec();
        for value in values {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value.as_bytes());
        }
        Some(Value::from(&*String::from_utf8_lossy(&joined)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.keys().map(|name| Value::from(name.as_str())).collect())
    }
}

/// The parameters of a query: the first value of each name.
#[derive(Debug)]
struct QueryValues(String);

impl Object for QueryValues {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let value = form_decode(raw_parameters(Some(&self.0), key.as_str()?).next()?);
        Some(Value::from(&*String::from_utf8_lossy(&value)))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let pairs = self.0.split('&').filter(|pair| !pair.is_empty());
        let mut names: Vec<Value> = Vec::new();
        for pair in pairs {
            let name = form_decode(pair.split('=').next().unwrap_or_default().as_bytes()).into_owned();
            let name = Value::from(&*String::from_utf8_lossy(&name));
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Enumerator::Values(names)
    }
}

/// The cookies of a request.
#[derive(Debug)]
struct CookieValues(HeaderMap);

impl Object for CookieValues {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let value = cookies(&self.0, key.as_str()?).next()?;
        Some(Value::from(&*String::from_utf8_lossy(value)))
    }
}
