//! The facts of a request that a condition may name.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use pingora::http::RequestHeader;
use serde_json::{Map, Value as Json};

use super::addresses::CountryRules;
use crate::exchange::{Exchange, Identity};
use crate::rules::expressions::{Fact, FactKind, Facts, Members};
use crate::rules::routing::{cookies, form_decode, raw_parameters};

/// The fact that needs a database of countries.
pub const COUNTRY: &str = "client.country";

/// The names of the facts.
pub const KNOWN_FACTS: &[(&str, FactKind)] = &[
    ("request.method", FactKind::Single),
    ("request.path", FactKind::Single),
    ("request.host", FactKind::Single),
    ("request.scheme", FactKind::Single),
    ("request.headers", FactKind::Map),
    ("request.query", FactKind::Map),
    ("request.cookies", FactKind::Map),
    ("client.address", FactKind::Single),
    (COUNTRY, FactKind::Single),
    ("identity.known", FactKind::Single),
    ("identity.name", FactKind::Single),
    ("identity.consumer", FactKind::Single),
    ("identity.groups", FactKind::List),
    ("identity.scopes", FactKind::List),
    ("identity.claims", FactKind::Map),
    ("tls.version", FactKind::Single),
    ("tls.server_name", FactKind::Single),
    ("tls.client.subject", FactKind::Single),
    ("tls.client.issuer", FactKind::Single),
    ("tls.client.fingerprint", FactKind::Single),
    ("tls.client.san", FactKind::List),
    ("time.unix", FactKind::Single),
    ("time.hour", FactKind::Single),
    ("time.minute", FactKind::Single),
    ("time.weekday", FactKind::Single),
];

/// The facts of one request.
pub struct RequestFacts<'r> {
    request: &'r RequestHeader,
    exchange: &'r Exchange,
    countries: Option<&'r CountryRules>,
    headers: HeaderFacts<'r>,
    query: QueryFacts<'r>,
    cookies: CookieFacts<'r>,
    claims: ClaimFacts<'r>,
}

impl<'r> RequestFacts<'r> {
    /// Returns the facts of a request; none of them is read yet.
    pub fn new(request: &'r RequestHeader, exchange: &'r Exchange, countries: Option<&'r CountryRules>) -> Self {
        Self {
            request,
            exchange,
            countries,
            headers: HeaderFacts(&request.headers),
            query: QueryFacts(request.uri.query()),
            cookies: CookieFacts(&request.headers),
            claims: ClaimFacts(exchange.identity.as_ref().and_then(|identity| identity.claims.as_deref())),
        }
    }

    /// Returns the texts of a fact about the caller.
    fn identity(&self, name: &str) -> Option<Fact<'_>> {
        let identity = self.exchange.identity.as_ref();
        Some(match name {
            "identity.known" => Fact::Flag(identity.is_some()),
            "identity.name" => Fact::Text(identity.map_or("", |identity| &identity.name).into()),
            "identity.consumer" => {
                Fact::Text(identity.and_then(|identity| identity.consumer_name()).unwrap_or_default().into())
            }
            "identity.groups" => {
                let groups = identity.map(Identity::groups).unwrap_or_default();
                Fact::Texts(groups.iter().map(|group| Cow::Borrowed(&**group)).collect())
            }
            "identity.scopes" => Fact::Texts(identity.map(Identity::scopes).unwrap_or_default()),
            "identity.claims" => Fact::Members(&self.claims),
            _ => return None,
        })
    }
}

impl Facts for RequestFacts<'_> {
    fn fact(&self, name: &str) -> Option<Fact<'_>> {
        let tls = self.exchange.peer.tls();
        let own = tls.and_then(|tls| tls.certificate.as_deref());
        // Monday is 1 (ISO 8601); the first day of 1970 was a Thursday.
        let seconds = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
        Some(match name {
            "request.method" => Fact::Text(self.request.method.as_str().into()),
            "request.path" => Fact::Text(self.request.uri.path().into()),
            "request.host" => Fact::Text(self.exchange.host.as_str().into()),
            "request.scheme" => Fact::Text(self.exchange.scheme().into()),
            "request.headers" => Fact::Members(&self.headers),
            "request.query" => Fact::Members(&self.query),
            "request.cookies" => Fact::Members(&self.cookies),
            "client.address" => Fact::Text(self.exchange.client_text.to_str().unwrap_or_default().into()),
            COUNTRY => {
                let country = self.countries.and_then(|countries| countries.country(self.exchange.client));
                Fact::Text(country.map_or(Cow::Borrowed(""), |country| Cow::Owned(country.code().to_owned())))
            }
            "tls.version" => Fact::Text(tls.map_or("", |tls| tls.version).into()),
            "tls.server_name" => Fact::Text(tls.and_then(|tls| tls.server_name.as_deref()).unwrap_or_default().into()),
            "tls.client.subject" => Fact::Text(own.map_or("", |own| &own.subject).into()),
            "tls.client.issuer" => Fact::Text(own.map_or("", |own| &own.issuer).into()),
            "tls.client.fingerprint" => Fact::Text(own.map_or("", |own| &own.fingerprint_text).into()),
            "tls.client.san" => {
                Fact::Texts(own.iter().flat_map(|own| &own.names).map(|name| Cow::Borrowed(&**name)).collect())
            }
            "time.unix" => Fact::Number(seconds()),
            "time.hour" => Fact::Number(seconds() / 3_600 % 24),
            "time.minute" => Fact::Number(seconds() / 60 % 60),
            "time.weekday" => Fact::Number((seconds() / 86_400 + 3) % 7 + 1),
            name => return self.identity(name),
        })
    }
}

/// Returns bytes of a request as a text.
fn text(bytes: Cow<'_, [u8]>) -> Fact<'_> {
    Fact::Text(match bytes {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

/// Returns the only value of a name; with several, the target might use another than the condition saw.
fn single<'v>(mut values: impl Iterator<Item = Cow<'v, [u8]>>) -> Result<Option<Fact<'v>>, String> {
    let first = values.next();
    if values.next().is_some() {
        return Err("it is there several times".to_owned());
    }
    Ok(first.map(text))
}

/// The headers; several values of one name are joined by commas (RFC 9110, section 5.2).
#[derive(Debug)]
pub struct HeaderFacts<'r>(pub &'r HeaderMap);

impl Members for HeaderFacts<'_> {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        let mut values = self.0.get_all(name).iter().map(http::HeaderValue::as_bytes);
        let Some(first) = values.next() else { return Ok(None) };
        let mut joined = Cow::Borrowed(first);
        for value in values {
            joined.to_mut().extend_from_slice(b", ");
            joined.to_mut().extend_from_slice(value);
        }
        Ok(Some(text(joined)))
    }
}

/// The parameters of the query.
#[derive(Debug)]
struct QueryFacts<'r>(Option<&'r str>);

impl Members for QueryFacts<'_> {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        single(raw_parameters(self.0, name).map(form_decode))
    }
}

/// The cookies.
#[derive(Debug)]
struct CookieFacts<'r>(&'r HeaderMap);

impl Members for CookieFacts<'_> {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        single(cookies(self.0, name).map(Cow::Borrowed))
    }
}

/// The claims of the caller's token.
#[derive(Debug)]
struct ClaimFacts<'r>(Option<&'r Map<String, Json>>);

impl Members for ClaimFacts<'_> {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        Ok(self.0.and_then(|claims| claims.get(name)).map(Fact::Json))
    }
}
