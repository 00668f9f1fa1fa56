//! The values of a request that a text may name.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use serde_json::Value as Json;

use super::RequestView;
use crate::exchange::PeerCertificate;
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
    /// A fact about the client's certificate.
    ClientCertificate(CertificateFact),
    /// A value of the PROXY header.
    ProxyValue(u16),
    /// The status of the response.
    Status,
    /// The reason of the rejection.
    Reason,
    /// The title of the reason.
    Title,
    /// The detail of the rejection.
    Detail,
}

/// A fact about the client's verified certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateFact {
    /// The subject.
    Subject,
    /// The common name.
    CommonName,
    /// The issuer.
    Issuer,
    /// The alternative names.
    Names,
    /// The serial number.
    Serial,
    /// The SHA-256 digest.
    Fingerprint,
    /// When it expires, in seconds of Unix time.
    Expires,
    /// The certificate in Base64, as RFC 9440 has it between colons.
    Certificate,
}

/// The values that have one name each.
const NAMED: [(&str, RequestValue); 21] = [
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
    ("tls.client.subject", RequestValue::ClientCertificate(CertificateFact::Subject)),
    ("tls.client.name", RequestValue::ClientCertificate(CertificateFact::CommonName)),
    ("tls.client.issuer", RequestValue::ClientCertificate(CertificateFact::Issuer)),
    ("tls.client.san", RequestValue::ClientCertificate(CertificateFact::Names)),
    ("tls.client.serial", RequestValue::ClientCertificate(CertificateFact::Serial)),
    ("tls.client.fingerprint", RequestValue::ClientCertificate(CertificateFact::Fingerprint)),
    ("tls.client.expires", RequestValue::ClientCertificate(CertificateFact::Expires)),
    ("tls.client.certificate", RequestValue::ClientCertificate(CertificateFact::Certificate)),
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
            "proxy" => match proxy_value(rest) {
                Some(kind) => Self::ProxyValue(kind),
                None => {
                    return Some(Err(format!(
                        "{{{name}}} names no value of a PROXY header: write authority, unique_id, alpn, tls.version, \
                         tls.name, tls.cipher, or a type such as 0xEA"
                    )));
                }
            },
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
        let kinds = ["query.NAME", "header.NAME", "cookie.NAME", "claim.NAME", "proxy.NAME"];
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
            Self::TlsServerName => text(exchange.peer.tls()?.server_name.as_deref()?),
            Self::TlsVersion => text(exchange.peer.tls()?.version),
            Self::ProxyValue(kind) => plain(exchange.peer.proxy()?.value(*kind)?),
            Self::ClientCertificate(fact) => fact.of(exchange.peer.tls()?.certificate.as_deref()?)?,
            Self::Status => Cow::Owned(response?.status.to_string().into_bytes()),
            Self::Reason => text(response?.reason.code()),
            Self::Title => text(response?.reason.title()),
            Self::Detail => text(response?.detail),
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// The values of a PROXY header that have a name.
const PROXY_VALUES: [(&str, u16); 6] = [
    ("alpn", 0x01),
    ("authority", 0x02),
    ("unique_id", 0x05),
    ("tls.version", 0x2021),
    ("tls.name", 0x2022),
    ("tls.cipher", 0x2023),
];

/// Returns the type of a value of a PROXY header by its name, or as it is written: `0xEA`.
fn proxy_value(name: &str) -> Option<u16> {
    if let Some((_, kind)) = PROXY_VALUES.iter().find(|(known, _)| *known == name) {
        return Some(*kind);
    }
    let digits = name.strip_prefix("0x").filter(|digits| digits.len() == 2)?;
    u8::from_str_radix(digits, 16).ok().map(u16::from)
}

/// Returns a value as text, in hexadecimal digits where it is none.
fn plain(value: &[u8]) -> Cow<'_, [u8]> {
    if value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(value);
    }
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0') as u8;
    Cow::Owned(value.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}

impl CertificateFact {
    fn of(self, certificate: &PeerCertificate) -> Option<Cow<'_, [u8]>> {
        let text = match self {
            Self::Subject => &certificate.subject,
            Self::CommonName => certificate.common_name.as_ref()?,
            Self::Issuer => &certificate.issuer,
            Self::Serial => &certificate.serial,
            Self::Fingerprint => &certificate.fingerprint_text,
            Self::Names => return Some(Cow::Owned(certificate.names_text().into_bytes())),
            Self::Expires => return Some(Cow::Owned(certificate.not_after.to_string().into_bytes())),
            Self::Certificate => return Some(Cow::Owned(STANDARD.encode(&certificate.der).into_bytes())),
        };
        Some(Cow::Borrowed(text.as_bytes()))
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
