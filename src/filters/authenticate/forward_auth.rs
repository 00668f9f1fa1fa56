//! `forward_auth`: asks another server about each request, as nginx's `auth_request` and Traefik's `forwardAuth` do.
//!
//! A status of 2xx accepts the request. Other statuses below 500 are the response to the client, with their headers
//! and their body. Without a response, or with 502, 503 or 504, the request is rejected with 503, unless
//! `when_unavailable` says otherwise; with any other status of 5xx it is always rejected with 503, since a request may
//! cause it: a method that the server does not know gets 501.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, DATE, HeaderMap, HeaderName,
    HeaderValue, ORIGIN, REFERER, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{Method, Request, Response, StatusCode, Uri};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::public_url::PublicUrl;
use super::{Authenticated, Unauthenticated};
use crate::clients::{CallConfig, CallError, HttpClient, HttpClientSettings};
use crate::exchange::{Edit, Exchange, Identity, Reason, Rejection, RelayedResponse};
use crate::filters::{CompileContext, Consumers, HttpFilter, Stage, parse_editable_name};
use crate::notation::{CallUrl, Header};
use crate::telemetry::metrics::CallKind;

/// The headers of a request that the server gets where the configuration names none.
const USUAL_HEADERS: [HeaderName; 11] = [
    COOKIE,
    AUTHORIZATION,
    ACCEPT,
    ACCEPT_LANGUAGE,
    USER_AGENT,
    ORIGIN,
    REFERER,
    HeaderName::from_static("x-requested-with"),
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-dest"),
    HeaderName::from_static("sec-fetch-site"),
];

/// The headers of the server's response that do not belong to the client's: those of the connection, of the framing,
/// and the date, which is that of the gateway's response.
const NOT_RELAYED: [HeaderName; 10] = [
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("x-request-id"),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
const X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
const X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The headers that only the gateway and trusted proxies set. `X-Forwarded-Proto`, `-Host` and `-For` are set for every
/// target.
const NOT_OF_CLIENTS: [HeaderName; 4] = [X_FORWARDED_METHOD, X_FORWARDED_URI, X_ORIGINAL_METHOD, X_ORIGINAL_URL];

/// Which server is called, and what it gets and gives.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL that is called for each request.
    pub url: CallUrl,
    /// The method of the call. Default `get`.
    #[serde(default)]
    pub method: CallMethod,
    /// The headers of the request that the server gets besides `X-Forwarded-*` and `X-Original-*`. Default: cookie,
    /// authorization, accept, accept-language, user-agent, origin, referer, x-requested-with and sec-fetch-*.
    pub headers: Option<Vec<Header>>,
    /// Headers of a response that accepts the request, which are set for the target. What the client sent under these
    /// names is removed.
    #[serde(default)]
    pub copy: Vec<Header>,
    /// Whether the cookies of a response that accepts the request are set at the client. Default false.
    #[serde(default)]
    pub set_cookies: bool,
    /// The header of such a response that identifies the client: the consumer with a `jwt` credential of this subject.
    /// Without one the client is known as the origin of `url`, `#` and the value: `http://auth.internal#zoe`. What the
    /// client sent under this name is removed.
    pub consumer_header: Option<Header>,
    /// Whether only configured consumers are accepted. Default false.
    #[serde(default)]
    pub known_consumers: bool,
    /// What is done while the server cannot be reached, is too slow, or responds with 502, 503 or 504: `reject` with
    /// 503, or `accept` without an identity. Default `reject`.
    #[serde(default)]
    pub when_unavailable: WhenUnavailable,
    /// The calls to the server.
    #[serde(default)]
    pub call: CallConfig,
}

/// The method of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallMethod {
    /// `GET`.
    #[default]
    Get,
    /// That of the request.
    Original,
}

/// What is done without a verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnavailable {
    /// The request is rejected.
    #[default]
    Reject,
    /// The request is accepted.
    Accept,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    client: Arc<HttpClient>,
    url: Uri,
    issuer: String,
    method: CallMethod,
    headers: Vec<HeaderName>,
    copy: Vec<HeaderName>,
    set_cookies: bool,
    consumer_header: Option<HeaderName>,
    known_consumers: bool,
    when_unavailable: WhenUnavailable,
    consumers: Arc<Consumers>,
    /// The headers that no client may send, since the server sets them.
    edits: Arc<[Edit]>,
    /// Those that only a trusted proxy may send.
    untrusted_edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        let mut names = |key: &'static str, headers: &[Header]| -> Vec<HeaderName> {
            let named = headers.iter().enumerate();
            let place = |index| place.key(key).index(index);
            named
                .filter_map(|(i, header)| parse_editable_name(header.0.as_str(), &place(i), context.mistakes))
                .collect()
        };
        let copy = names("copy", &config.copy);
        let headers = config.headers.as_ref().map_or_else(|| USUAL_HEADERS.to_vec(), |own| names("headers", own));
        let consumer_header = names("consumer_header", config.consumer_header.as_slice()).into_iter().next();
        if config.known_consumers && config.consumer_header.is_none() {
            context.mistakes.add(&place.key("known_consumers"), "needs consumer_header");
        }
        let call = place.key("call");
        let defaults = HttpClientSettings::new(CallKind::ForwardAuth, config.url.origin());
        let settings = config.call.settings(context.base, defaults, config.url.is_secure(), &call, context.mistakes)?;
        let client = context.mistakes.take(&call.key("tls"), context.live.http_client(&settings))?;
        Some(Self {
            client,
            url: config.url.0.clone(),
            issuer: config.url.origin(),
            method: config.method,
            headers,
            edits: copy.iter().chain(&consumer_header).cloned().map(Edit::Remove).collect(),
            untrusted_edits: NOT_OF_CLIENTS.into_iter().map(Edit::Remove).collect(),
            copy,
            set_cookies: config.set_cookies,
            consumer_header,
            known_consumers: config.known_consumers,
            when_unavailable: config.when_unavailable,
            consumers: Arc::clone(context.consumers),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let named = config.headers.iter().flatten().enumerate();
        named.map(|(index, header)| (header.0.clone(), vec!["headers".to_owned(), index.to_string()])).collect()
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        config.copy.iter().map(|name| name.0.clone()).collect()
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let call = self.call(request, exchange);
        let (why, is_outage) = match Box::pin(self.client.send(call)).await {
            Ok(response) if response.status().is_success() => return self.accept(&response, exchange),
            Ok(response) if response.status().as_u16() < 500 => return Err(relay(response)),
            Ok(response) => {
                let status = response.status().as_u16();
                (format!("the authentication server responded with {status}"), matches!(status, 502..=504))
            }
            // A client could cause the others: a response that is too large, or too many calls at a time.
            Err(error) => {
                (format!("the authentication server: {error}"), error.is_failure() || error == CallError::Open)
            }
        };
        match self.when_unavailable {
            WhenUnavailable::Accept if is_outage => {
                let edits = self.edits_of_client(exchange).into_iter().collect();
                Ok(Authenticated { edits, ..Authenticated::default() })
            }
            WhenUnavailable::Accept | WhenUnavailable::Reject => Err(Unauthenticated::unavailable(why)),
        }
    }
}

impl Filter {
    /// Returns the request to the server.
    fn call(&self, request: &RequestHeader, exchange: &Exchange) -> Request<Bytes> {
        let mut call = Request::new(Bytes::new());
        *call.uri_mut() = self.url.clone();
        if self.method == CallMethod::Original && request.method != Method::CONNECT {
            *call.method_mut() = request.method.clone();
        }
        let headers = call.headers_mut();
        for name in &self.headers {
            request.headers.get_all(name).iter().for_each(|value| _ = headers.append(name.clone(), value.clone()));
        }
        // After the client's own headers, so that it cannot set any of these.
        let url = PublicUrl::of(request, exchange);
        let mut set = |name: HeaderName, text: &str| match HeaderValue::from_str(text) {
            Ok(value) => _ = headers.insert(name, value),
            Err(_) => _ = headers.remove(name),
        };
        set(X_FORWARDED_METHOD, request.method.as_str());
        set(X_ORIGINAL_METHOD, request.method.as_str());
        set(X_FORWARDED_PROTO, url.scheme);
        set(X_FORWARDED_HOST, url.host);
        set(X_FORWARDED_URI, url.target);
        set(X_ORIGINAL_URL, &url.to_string());
        headers.insert(X_FORWARDED_FOR, exchange.client_text.clone());
        exchange.request_id.iter().for_each(|id| _ = headers.insert(X_REQUEST_ID, id.clone()));
        call
    }

    /// Returns the edits that remove what the client itself says of the request.
    fn edits_of_client(&self, exchange: &Exchange) -> Option<Arc<[Edit]>> {
        (!exchange.peer_trusted).then(|| Arc::clone(&self.untrusted_edits))
    }

    /// Returns what an accepting response says of the client.
    fn accept(&self, response: &Response<Bytes>, exchange: &Exchange) -> Result<Authenticated, Unauthenticated> {
        let headers = response.headers();
        let mut edits = Vec::new();
        for name in &self.copy {
            for (index, value) in headers.get_all(name).iter().enumerate() {
                let edit = if index == 0 { Edit::Set } else { Edit::Add };
                edits.push(edit(name.clone(), value.clone()));
            }
        }
        let identity = self.identity(headers);
        if identity.is_none() && self.known_consumers {
            let rejection = Rejection::new(Reason::ForwardAuthRejected, "").log("the client is no known consumer");
            return Err(Unauthenticated::invalid(rejection));
        }
        let set_cookies =
            if self.set_cookies { headers.get_all(SET_COOKIE).iter().cloned().collect() } else { Vec::new() };
        // The server may set the same headers.
        let edits = self.edits_of_client(exchange).into_iter().chain([edits.into()]).collect();
        Ok(Authenticated { identity, edits, set_cookies })
    }

    fn identity(&self, headers: &HeaderMap) -> Option<Identity> {
        let value = headers.get(self.consumer_header.as_ref()?)?.to_str().ok().filter(|value| !value.is_empty())?;
        let known = self.consumers.by_subject(value, Some(&self.issuer));
        if known.is_none() && self.known_consumers {
            return None;
        }
        // A client without a consumer is distinct from all consumers: no consumer's name has a #.
        let stranger = || Identity {
            name: Arc::from(format!("{}#{value}", self.issuer)),
            consumer: None,
            claims: None,
            scopes: None,
        };
        Some(known.map_or_else(stranger, |consumer| Identity::of(consumer, None)))
    }
}

/// Returns the rejection with which the client gets the server's response.
fn relay(response: Response<Bytes>) -> Unauthenticated {
    let (head, body) = response.into_parts();
    let mut rejection = Rejection::new(Reason::ForwardAuthRejected, "");
    let relayed = head.headers.iter().filter(|(name, _)| !NOT_RELAYED.contains(name));
    rejection.headers.extend(relayed.map(|(name, value)| (name.clone(), value.clone())));
    let body = if head.status == StatusCode::NOT_MODIFIED { Bytes::new() } else { body };
    rejection.relayed = Some(RelayedResponse { status: head.status.as_u16(), body });
    Unauthenticated::invalid(rejection)
}
