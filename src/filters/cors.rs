//! `cors`: lets pages of other origins read responses (the Fetch standard, section 3.2).

use http::HeaderMap;
use http::Method;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};
use pingora::http::{RequestHeader, ResponseHeader};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, ResponseView, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::notation::{Duration, Header, MethodName};

/// Who may read responses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Origins such as `https://app.example.com`, `https://*.example.com`, or `*` alone for any.
    #[schemars(length(min = 1))]
    pub origins: Vec<String>,
    /// Methods that a page may use. Default: those of the route, or GET, HEAD, POST, PUT, PATCH, DELETE.
    pub methods: Option<Vec<MethodName>>,
    /// Headers that a page may send. Default: those that it asks for.
    pub headers: Option<Vec<Header>>,
    /// Headers of a response that a page may read.
    #[serde(default)]
    pub expose: Vec<Header>,
    /// Whether a page may send cookies and credentials; not with `*`. Default false.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser may remember a preflight. Default 10m.
    pub max_age: Option<Duration>,
}

#[derive(Debug)]
enum Origin {
    Exact(String),
    /// The text before and after the `*`.
    Below(String, String),
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    any: bool,
    origins: Vec<Origin>,
    methods: HeaderValue,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: HeaderValue,
}

fn join_list<T: AsRef<str>>(items: impl Iterator<Item = T>) -> HeaderValue {
    let joined: Vec<String> = items.map(|i| i.as_ref().to_owned()).collect();
    // Names of methods and headers are always valid in a value.
    HeaderValue::try_from(joined.join(", ")).unwrap_or_else(|_| HeaderValue::from_static(""))
}

impl HttpFilter for Filter {
    type Config = Config;
    /// The `Origin` that may read the response.
    type Memory = Option<HeaderValue>;
    const STAGE: Stage = Stage::Cors;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let mut origins = Vec::new();
        let any = config.origins.iter().any(|o| o == "*");
        let place = context.place.key("origins");
        if any && config.origins.len() > 1 {
            context.mistakes.add(&place, "expected * alone, or origins without it");
        }
        if any && config.credentials {
            context.mistakes.add(
                &context.place.key("credentials").clone(),
                "credentials cannot be allowed to every origin: name the origins",
            );
        }
        for (index, text) in config.origins.iter().enumerate().filter(|(_, o)| *o != "*") {
            match origin(text) {
                Some(origin) => origins.push(origin),
                None => context.mistakes.add(
                    &place.index(index),
                    format!("expected an origin such as https://app.example.com, found \"{text}\""),
                ),
            }
        }
        let methods = match &config.methods {
            Some(methods) => join_list(methods.iter().map(|m| m.0.as_str())),
            // A preflight for other methods matches another route.
            None if !context.route.methods().is_empty() => {
                join_list(context.route.methods().iter().map(|m| m.0.as_str()))
            }
            None => HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE"),
        };
        let seconds = config.max_age.as_ref().map_or(600, |d| d.0.as_secs());
        Some(Self {
            any,
            origins,
            methods,
            headers: config.headers.as_ref().map(|h| join_list(h.iter().map(|h| h.0.as_str()))),
            expose: (!config.expose.is_empty()).then(|| join_list(config.expose.iter().map(|h| h.0.as_str()))),
            credentials: config.credentials,
            max_age: HeaderValue::from(seconds),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        config.headers.iter().flatten().map(|name| (name.0.clone(), vec!["headers".to_owned()])).collect()
    }

    /// Responds to a preflight; otherwise remembers which origin may read the response.
    async fn on_request(
        &self,
        request: &RequestHeader,
        _exchange: &mut Exchange,
        allowed: &mut Self::Memory,
    ) -> Verdict {
        let Some(origin) = request.headers.get(ORIGIN) else { return Ok(()) };
        if self.allows(origin.as_bytes()) {
            *allowed = Some(if self.any { HeaderValue::from_static("*") } else { origin.clone() });
        }
        if is_preflight(&request.method, &request.headers) {
            Err(self.preflight(request, allowed.is_some()))
        } else {
            Ok(())
        }
    }

    /// Writes which origin may read the response. The gateway decides that: the target's own fields are replaced.
    fn on_response(&self, response: &mut ResponseHeader, _view: &ResponseView<'_>, allowed: &Self::Memory) {
        response.remove_header(&ACCESS_CONTROL_ALLOW_ORIGIN);
        response.remove_header(&ACCESS_CONTROL_ALLOW_CREDENTIALS);
        if !self.any && !varies_on_origin(response) {
            let _ = response.append_header(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = allowed else { return };
        let mut set = |name: HeaderName, value: HeaderValue| {
            let _ = response.insert_header(name, value);
        };
        set(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            set(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(expose) = &self.expose {
            set(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }
}

impl Filter {
    fn allows(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return false };
        self.any
            || self.origins.iter().any(|known| match known {
                Origin::Exact(text) => text.eq_ignore_ascii_case(origin),
                Origin::Below(before, behind) => {
                    let origin = origin.to_ascii_lowercase();
                    let middle = origin.strip_prefix(before.as_str()).and_then(|o| o.strip_suffix(behind.as_str()));
                    middle.is_some_and(|m| {
                        !m.is_empty() && m.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
                    })
                }
            })
    }

    fn preflight(&self, request: &RequestHeader, is_allowed: bool) -> Box<Rejection> {
        const VARY_ON: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        let mut rejection = Rejection::new(Reason::Preflight, "").header(VARY, HeaderValue::from_static(VARY_ON));
        if !is_allowed {
            // Without Access-Control-Allow-Origin the browser blocks the request.
            return rejection.log("the origin is not allowed");
        }
        rejection = rejection.header(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        let requested = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(headers) = self.headers.as_ref().or(requested) {
            rejection = rejection.header(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        rejection.header(ACCESS_CONTROL_MAX_AGE, self.max_age.clone())
    }
}

fn varies_on_origin(response: &ResponseHeader) -> bool {
    let has = |value: &HeaderValue| {
        value.to_str().is_ok_and(|v| v.split(',').any(|n| n.trim().eq_ignore_ascii_case("origin")))
    };
    response.headers.get_all(VARY).iter().any(has)
}

/// Returns whether the request is a preflight.
fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    *method == Method::OPTIONS && headers.contains_key(ORIGIN) && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// Returns the method that a preflight announces, if this is one.
pub fn announced_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    let name = headers.get(ACCESS_CONTROL_REQUEST_METHOD).filter(|_| is_preflight(method, headers))?;
    Method::from_bytes(name.as_bytes()).ok()
}

fn origin(text: &str) -> Option<Origin> {
    let text = text.to_ascii_lowercase();
    let (scheme, host) = text.split_once("://")?;
    let fine = |h: &str| {
        !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']'))
    };
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    match host.strip_prefix('*') {
        Some(behind) if behind.starts_with('.') && fine(behind) => {
            Some(Origin::Below(format!("{scheme}://"), behind.to_owned()))
        }
        None if fine(host) => Some(Origin::Exact(text.clone())),
        _ => None,
    }
}
