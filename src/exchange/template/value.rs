//! The values of a request that a text may name.

use std::borrow::Cow;

use http::HeaderName;
use serde_json::Value as Json;

use super::RequestView;
use crate::rules::routing::{cookies, parameter};

/// A value of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestValue {
    /// The client's address.
    Client,
    /// The requested host, without a port.
    Host,
    /// The method.
    Method,
    /// `http` or `https`.
    Scheme,
    /// The path in its normal form.
    Path,
    /// The query with its `?`; nothing without one.
    Query,
    /// A query parameter, decoded.
    QueryParameter(String),
    /// A header; several of one name are joined by commas.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A parameter of the path, or a group of its expression.
    Param(String),
    /// What `*` at the end of the path matches.
    Rest,
    /// The consumer.
    Consumer,
    /// A claim of the token; a dot leads into an object.
    Claim(String),
    /// The request's id.
    RequestId,
    /// The id of the request's trace.
    TraceId,
    /// The port of the listener.
    ListenerPort,
    /// The name that the client requested in TLS.
    TlsServerName,
    /// The version of TLS.
    TlsVersion,
    /// The status of the response.
    Status,
    /// The reason of the rejection.
    Reason,
    /// The title of the reason.
    Title,
    /// The detail of the rejection.
    Detail,
}

/// The values that have one name each.
const NAMED: [(&str, RequestValue); 13] = [
    ("client", RequestValue::Client),
    ("host", RequestValue::Host),
    ("method", RequestValue::Method),
    ("scheme", RequestValue::Scheme),
    ("path", RequestValue::Path),
    ("query", RequestValue::Query),
    ("*", RequestValue::Rest),
    ("consumer", RequestValue::Consumer),
    ("request_id", RequestValue::RequestId),
    ("trace_id", RequestValue::TraceId),
    ("listener.port", RequestValue::ListenerPort),
    ("tls.sni", RequestValue::TlsServerName),
    ("tls.version", RequestValue::TlsVersion),
];

/// The values that only an error page has.
const OF_ERRORS: [(&str, RequestValue); 4] = [
    ("status", RequestValue::Status),
    ("reason", RequestValue::Reason),
    ("title", RequestValue::Title),
    ("detail", RequestValue::Detail),
];

impl RequestValue {
    /// Returns the value of that name, unless it is a parameter of the path.
    ///
    /// # Errors
    /// Returns what is wrong with a name that begins as that of a value.
    pub fn of(name: &str, errors: bool) -> Option<Result<Self, String>> {
        let of_errors = if errors { OF_ERRORS.as_slice() } else { &[] };
        if let Some((_, value)) = NAMED.iter().chain(of_errors).find(|(known, _)| *known == name) {
            return Some(Ok(value.clone()));
        }
        let (kind, rest) = name.split_once('.')?;
        let value = match kind {
            _ if rest.is_empty() => return None,
            "query" => Self::QueryParameter(rest.to_owned()),
            "cookie" => Self::Cookie(rest.to_owned()),
            "claim" => Self::Claim(rest.to_owned()),
            "header" => match rest.to_ascii_lowercase().parse() {
                Ok(name) => Self::Header(name),
                Err(_) => return Some(Err(format!("{{{name}}} names no header"))),
            },
            _ => return None,
        };
        Some(Ok(value))
    }

    /// Returns the names of all values, for messages.
    pub fn names(errors: bool) -> impl Iterator<Item = &'static str> {
        let of_errors = if errors { OF_ERRORS.as_slice() } else { &[] };
        let kinds = ["query.NAME", "header.NAME", "cookie.NAME", "claim.NAME"];
        NAMED.iter().chain(of_errors).map(|(name, _)| *name).chain(kinds)
    }

    /// Returns whether the value is a part of the request target as it came, and so is encoded as that is.
    pub(super) fn is_encoded(&self) -> bool {
        matches!(self, Self::Host | Self::Path | Self::Query | Self::Param(_) | Self::Rest | Self::Scheme)
    }

    /// Returns the value in a request; `None` where it has none.
    pub(super) fn read<'r>(&self, view: &RequestView<'r>) -> Option<Cow<'r, [u8]>> {
        let (request, exchange) = (view.request, view.exchange);
        let text = |text: &'r str| Cow::Borrowed(text.as_bytes());
        let response = view.response.as_ref();
        let value = match self {
            Self::Client => Cow::Borrowed(exchange.client_text.as_bytes()),
            Self::Host => text(&exchange.host),
            Self::Method => text(request.method.as_str()),
            Self::Scheme => text(exchange.scheme()),
            Self::Path => text(request.uri.path()),
            Self::Query => Cow::Owned(format!("?{}", request.uri.query()?).into_bytes()),
            Self::QueryParameter(name) => parameter(request.uri.query(), name)?,
            Self::Header(name) => return header(view, name),
            Self::Cookie(name) => Cow::Borrowed(cookies(&request.headers, name).next()?),
            Self::Param(name) => text(view.pattern?.value(request.uri.path(), name)?),
            Self::Rest => text(view.pattern?.rest(request.uri.path())),
            Self::Consumer => text(&exchange.identity.as_ref()?.name),
            Self::Claim(name) => {
                let claims = exchange.identity.as_ref()?.claims.as_deref()?;
                return claim(claims, name).map(|claim| claim_text(claim)).map(|text| match text {
                    Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                    Cow::Owned(text) => Cow::Owned(text.into_bytes()),
                });
            }
            Self::RequestId => Cow::Borrowed(exchange.request_id.as_ref()?.as_bytes()),
            Self::TraceId => Cow::Owned(format!("{:032x}", exchange.trace.trace_id).into_bytes()),
            Self::ListenerPort => Cow::Owned(exchange.listener_port.to_string().into_bytes()),
            Self::TlsServerName => text(exchange.peer.tls.as_deref()?.server_name.as_deref()?),
            Self::TlsVersion => text(exchange.peer.tls.as_deref()?.version),
            Self::Status => Cow::Owned(response?.status.to_string().into_bytes()),
            Self::Reason => text(response?.reason.code()),
            Self::Title => text(response?.reason.title()),
            Self::Detail => text(response?.detail),
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// Returns a header's values, joined by commas (RFC 9110, section 5.2).
fn header<'r>(view: &RequestView<'r>, name: &HeaderName) -> Option<Cow<'r, [u8]>> {
    let mut values = view.request.headers.get_all(name).iter().map(http::HeaderValue::as_bytes);
    let first = values.next()?;
    let mut joined = Cow::Borrowed(first);
    for value in values {
        joined.to_mut().extend_from_slice(b", ");
        joined.to_mut().extend_from_slice(value);
    }
    Some(joined).filter(|value| !value.is_empty())
}

/// Returns a claim by its name, or by the path to it: `realm_access.roles`.
pub fn claim<'c>(claims: &'c serde_json::Map<String, Json>, name: &str) -> Option<&'c Json> {
    if let Some(claim) = claims.get(name) {
        return Some(claim);
    }
    let (first, rest) = name.split_once('.')?;
    claim(claims.get(first)?.as_object()?, rest)
}

/// Returns a claim as text: a string as it is, a list joined by commas.
pub fn claim_text(claim: &Json) -> Cow<'_, str> {
    match claim {
        Json::Null => Cow::Borrowed(""),
        Json::String(text) => Cow::Borrowed(text),
        Json::Array(items) => Cow::Owned(items.iter().map(claim_text).collect::<Vec<_>>().join(",")),
        other => Cow::Owned(other.to_string()),
    }
}
