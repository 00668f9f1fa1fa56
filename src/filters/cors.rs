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
use crate::rules::grpc::{GRPC_MESSAGE, GRPC_STATUS, GRPC_STATUS_DETAILS};

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Who may read responses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Origins such as `https://app.example.com`, `https://*.example.com`, `null`, an expression for whole origins such
    /// as `~https://pr-[0-9]+\.example\.com`, or `*` alone for any.
    #[schemars(length(min = 1))]
    pub origins: Vec<String>,
    /// Methods that a page may use; `*` for any. Default: those of the route, or GET, HEAD, POST, PUT, PATCH, DELETE.
    pub methods: Option<Vec<String>>,
    /// Headers that a page may send; `*` for any. Default: any.
    pub headers: Option<Vec<Header>>,
    /// Headers of a response that a page may read; `*` for all, if no credentials are allowed.
    #[serde(default)]
    pub expose: Vec<Header>,
    /// Whether a page may send cookies and credentials; with `*` only beside `any_origin_with_credentials`. Default
    /// false.
    #[serde(default)]
    pub credentials: bool,
    /// Whether pages of any origin may send credentials: every site can then act for its visitors. Default false.
    #[serde(default)]
    pub any_origin_with_credentials: bool,
    /// Whether pages of public sites may send requests to a private network (Private Network Access). Default false.
    #[serde(default)]
    pub private_network: bool,
    /// How long a browser may remember a preflight. Default 10m.
    pub max_age: Option<Duration>,
}

#[derive(Debug)]
enum Origin {
    Exact(String),
    /// The text before and after the `*`.
    Below(String, String),
    /// An expression that matches the whole origin.
    Matching(Box<regex::Regex>),
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    any: bool,
    origins: Vec<Origin>,
    /// The methods; `None` for any.
    methods: Option<HeaderValue>,
    headers: Option<HeaderValue>,
    expose: Option<HeaderValue>,
    /// The headers to expose to clients of gRPC-Web, which read the status in them.
    expose_grpc: HeaderValue,
    credentials: bool,
    private_network: bool,
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
        check_credentials(config, any, context);
        for (index, text) in config.origins.iter().enumerate().filter(|(_, o)| *o != "*") {
            origins.extend(context.mistakes.take(&place.index(index), origin(text)));
        }
        let methods = match &config.methods {
            Some(methods) if methods.iter().any(|method| method == "*") => None,
            Some(methods) => Some(methods_of(methods, context)),
            // A preflight for other methods matches another route.
            None if !context.route.methods().is_empty() => {
                Some(join_list(context.route.methods().iter().map(|m| m.0.as_str())))
            }
            None => Some(HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE")),
        };
        let named = config.headers.as_ref().filter(|headers| !headers.iter().any(|header| header.0 == "*"));
        let seconds = config.max_age.as_ref().map_or(600, |d| d.0.as_secs());
        Some(Self {
            any,
            origins,
            methods,
            headers: named.map(|h| join_list(h.iter().map(|h| h.0.as_str()))),
            expose: (!config.expose.is_empty()).then(|| join_list(config.expose.iter().map(|h| h.0.as_str()))),
            expose_grpc: exposed_to_grpc(config),
            credentials: config.credentials,
            private_network: config.private_network,
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
            // With credentials, browsers accept only their own origin (the Fetch standard, section 3.2.5).
            let is_any = self.any && !self.credentials;
            *allowed = Some(if is_any { HeaderValue::from_static("*") } else { origin.clone() });
        }
        if is_preflight(&request.method, &request.headers) {
            Err(self.preflight(request, allowed.is_some()))
        } else {
            Ok(())
        }
    }

    /// Writes which origin may read the response. The gateway decides that: the target's own fields are replaced.
    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, allowed: &Self::Memory) {
        response.remove_header(&ACCESS_CONTROL_ALLOW_ORIGIN);
        response.remove_header(&ACCESS_CONTROL_ALLOW_CREDENTIALS);
        response.remove_header(&ACCESS_CONTROL_EXPOSE_HEADERS);
        if (!self.any || self.credentials) && !varies_on_origin(response) {
            let _ = response.append_header(VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = allowed else { return };
        let _ = response.insert_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.credentials {
            let _ = response.insert_header(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let is_connect = view.exchange.translation.as_ref().is_some_and(|translation| translation.from == "connect");
        let expose = match view.exchange.grpc_web {
            Some(_) => Some(self.expose_grpc.clone()),
            None => self.expose.clone(),
        };
        if let Some(expose) = if is_connect { with_trailers(expose, response) } else { expose } {
            let _ = response.insert_header(ACCESS_CONTROL_EXPOSE_HEADERS, expose);
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
                Origin::Matching(expression) => expression.is_match(origin),
            })
    }

    fn preflight(&self, request: &RequestHeader, is_allowed: bool) -> Box<Rejection> {
        const VARY_ON: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        let mut rejection = Rejection::new(Reason::Preflight, "").header(VARY, HeaderValue::from_static(VARY_ON));
        if !is_allowed {
            // Without Access-Control-Allow-Origin the browser blocks the request.
            return rejection.log("the origin is not allowed");
        }
        // A wildcard is not one in requests with credentials, so the requested method is named in its place.
        let method = request.headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        if let Some(methods) = self.methods.as_ref().or(method) {
            rejection = rejection.header(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        }
        let requested = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(headers) = self.headers.as_ref().or(requested) {
            rejection = rejection.header(ACCESS_CONTROL_ALLOW_HEADERS, headers.clone());
        }
        if self.private_network && request.headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
            rejection = rejection.header(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        rejection.header(ACCESS_CONTROL_MAX_AGE, self.max_age.clone())
    }
}

/// Returns the headers that are exposed to clients of gRPC-Web: those of the configuration and those of the status, which
/// a response without messages has in its head.
fn exposed_to_grpc(config: &Config) -> HeaderValue {
    let named = config.expose.iter().map(|name| name.0.as_str());
    let own = [GRPC_STATUS, GRPC_MESSAGE, GRPC_STATUS_DETAILS];
    let missing = own.iter().filter(|name| !config.expose.iter().any(|named| named.0 == **name || named.0 == "*"));
    join_list(named.chain(missing.map(HeaderName::as_str)))
}

/// Adds the trailers, which a unary response of the Connect protocol has in its head, to the headers that are exposed.
fn with_trailers(expose: Option<HeaderValue>, response: &ResponseHeader) -> Option<HeaderValue> {
    let trailers = response.headers.keys().map(HeaderName::as_str).filter(|name| name.starts_with("trailer-"));
    let named = expose.as_ref().and_then(|expose| expose.to_str().ok()).filter(|expose| !expose.is_empty());
    let all: Vec<&str> = named.into_iter().chain(trailers).collect();
    if all.is_empty() { None } else { Some(join_list(all.into_iter())) }
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

/// Returns the methods as a list, and notes errors in them.
fn methods_of(methods: &[String], context: &mut CompileContext<'_>) -> HeaderValue {
    for (index, method) in methods.iter().enumerate() {
        let parsed = method.parse::<MethodName>().map_err(|wanted| format!("expected {wanted}, or *"));
        context.mistakes.take(&context.place.key("methods").index(index), parsed);
    }
    join_list(methods.iter())
}

/// Notes credentials that browsers or safety forbid.
fn check_credentials(config: &Config, any: bool, context: &mut CompileContext<'_>) {
    let place = context.place.clone();
    let (credentials, expose) = (place.key("credentials"), place.key("expose"));
    if any && config.credentials && !config.any_origin_with_credentials {
        context.mistakes.add(
            &credentials,
            "credentials are not allowed to every origin: name the origins, or write any_origin_with_credentials: true \
             if every site may act for its visitors",
        );
    }
    if config.any_origin_with_credentials && !(any && config.credentials) {
        context
            .mistakes
            .add(&place.key("any_origin_with_credentials"), "is only for origins: ['*'] with credentials: true");
    }
    if config.credentials && config.expose.iter().any(|name| name.0 == "*") {
        context.mistakes.add(&expose, "with credentials * exposes nothing: name the headers");
    }
}

/// Returns the origin that a text of the configuration stands for.
fn origin(text: &str) -> Result<Origin, String> {
    if let Some(expression) = text.strip_prefix('~') {
        let whole = regex::RegexBuilder::new(&format!("^(?:{expression})$")).size_limit(1 << 20).build();
        // The error of the parser repeats the expression, which may be a secret by mistake.
        let wrong = |_| "expected an expression for whole origins behind the ~".to_owned();
        return whole.map(|regex| Origin::Matching(Box::new(regex))).map_err(wrong);
    }
    let wrong = || format!("expected an origin such as https://app.example.com, found \"{text}\"");
    let text = text.to_ascii_lowercase();
    if text == "null" {
        return Ok(Origin::Exact(text));
    }
    let (scheme, host) = text.split_once("://").ok_or_else(wrong)?;
    let fine = |h: &str| {
        !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b':' | b'[' | b']'))
    };
    if !matches!(scheme, "http" | "https") {
        return Err(wrong());
    }
    match host.strip_prefix('*') {
        Some(behind) if behind.starts_with('.') && fine(behind) => {
            Ok(Origin::Below(format!("{scheme}://"), behind.to_owned()))
        }
        None if fine(host) => Ok(Origin::Exact(text.clone())),
        _ => Err(wrong()),
    }
}
