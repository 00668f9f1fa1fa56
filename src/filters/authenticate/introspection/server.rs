//! The calls to an authorization server about tokens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use serde_json::Value;

use super::super::client_auth::{ClientCredentials, form_encoded};
use super::{Config, unix_now};
use crate::clients::{HttpClient, HttpClientSettings, Repeatable};
use crate::exchange::Claims;
use crate::filters::CompileContext;
use crate::live::{IntrospectedToken, IntrospectedTokens, IntrospectionError, IntrospectionResult};
use crate::notation;
use crate::telemetry::metrics::CallKind;

/// The maximum size of a response.
const MAX_RESPONSE: usize = 16 * 1024;

/// The longest time for which a response can be kept.
const MAX_CACHED: Duration = Duration::from_secs(3_600);

/// An authorization server.
#[derive(Debug)]
pub struct IntrospectionServer {
    client: Arc<HttpClient>,
    url: Uri,
    credentials: ClientCredentials,
    cache: Duration,
    cache_inactive: Duration,
}

impl IntrospectionServer {
    /// Compiles the calls.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        let mut time = |key: &'static str, given: &Option<notation::Duration>, default: u64| {
            let time = given.as_ref().map_or(Duration::from_secs(default), |time| time.0);
            if time > MAX_CACHED {
                context.mistakes.add(&place.key(key), "expected at most 1h");
            }
            time
        };
        let cache = time("cache", &config.cache, 30);
        let cache_inactive = time("cache_inactive", &config.cache_inactive, 5);
        let credentials = credentials(config, context);
        let defaults = HttpClientSettings {
            max_response: MAX_RESPONSE,
            ..HttpClientSettings::new(CallKind::Introspection, config.url.origin())
        };
        let call = place.key("call");
        let settings = config.call.settings(context.base, defaults, config.url.is_secure(), &call, context.mistakes)?;
        let client = context.mistakes.take(&call.key("tls"), context.live.http_client(&settings))?;
        Some(Self { client, url: config.url.0.clone(), credentials: credentials?, cache, cache_inactive })
    }

    /// Calls the server about a token, and remembers its response.
    pub async fn introspect(
        &self,
        token: &[u8],
        digest: &[u8; 32],
        tokens: &IntrospectedTokens,
    ) -> IntrospectionResult {
        let response = self.client.send(self.request(token)).await.map_err(IntrospectionError::Call)?;
        let claims = read(&response).map_err(IntrospectionError::Response)?;
        let now = unix_now();
        let Some(claims) = claims.filter(|claims| is_current(claims, now)) else {
            let until = now.saturating_add(self.cache_inactive.as_secs());
            tokens.inactive.insert(*digest, Arc::new(()), 0, until, now);
            return Ok(IntrospectedToken::Inactive);
        };
        let expires = claims.get("exp").and_then(Value::as_f64).map_or(u64::MAX, |expires| expires as u64);
        let until = now.saturating_add(self.cache.as_secs()).min(expires);
        let claims = Arc::new(claims);
        if until > now {
            tokens.active.insert(*digest, Arc::clone(&claims), 0, until, now);
        }
        Ok(IntrospectedToken::Active(claims))
    }

    /// Returns the request of RFC 7662, section 2.1.
    fn request(&self, token: &[u8]) -> Request<Bytes> {
        let token = form_encoded(&String::from_utf8_lossy(token));
        let body = format!("token={token}&token_type_hint=access_token{}", self.credentials.in_body);
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.url.clone();
        // Such a request changes nothing.
        request.extensions_mut().insert(Repeatable);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.credentials.header.iter().for_each(|value| _ = headers.insert(AUTHORIZATION, value.clone()));
        request
    }
}

/// Returns the claims of an active token, or `None` of one that is not (RFC 7662, section 2.2).
///
/// # Errors
/// When the response is anything else.
fn read(response: &Response<Bytes>) -> Result<Option<Claims>, String> {
    if response.status() != StatusCode::OK {
        return Err(format!("the server responded with {}", response.status().as_u16()));
    }
    let Ok(Value::Object(claims)) = serde_json::from_slice(response.body()) else {
        return Err("the response is no JSON object".to_owned());
    };
    match claims.get("active") {
        Some(Value::Bool(true)) => {}
        Some(Value::Bool(false)) => return Ok(None),
        _ => return Err("the response does not say whether the token is active".to_owned()),
    }
    for name in ["exp", "nbf", "iat"] {
        if claims.get(name).is_some_and(|time| !time.is_null() && !time.is_number()) {
            return Err(format!("{name} in the response is no number"));
        }
    }
    Ok(Some(claims))
}

/// Returns whether a token that is called active is within its times.
fn is_current(claims: &Claims, now: u64) -> bool {
    let time = |name: &str| claims.get(name).and_then(Value::as_f64);
    time("exp").is_none_or(|expires| now < expires as u64) && time("nbf").is_none_or(|from| from as u64 <= now + 30)
}

/// Returns how the gateway authenticates.
fn credentials(config: &Config, context: &mut CompileContext<'_>) -> Option<ClientCredentials> {
    let place = context.place.clone();
    match (&config.client_id, &config.client_secret, &config.bearer) {
        (None, None, Some(_)) if config.client_auth.is_some() => {
            context.mistakes.add(&place.key("client_auth"), "is for client_id and client_secret");
            None
        }
        (None, None, Some(bearer)) => {
            context.mistakes.take(&place.key("bearer"), ClientCredentials::of_bearer(bearer.0.reveal()))
        }
        (Some(id), Some(secret), None) => {
            let way = config.client_auth.unwrap_or_default();
            let made = ClientCredentials::of_client(id, Some(secret.0.reveal()), way);
            context.mistakes.take(&place.key("client_secret"), made)
        }
        (None, None, None) if config.call.tls.cert.is_some() => Some(ClientCredentials::default()),
        _ => {
            let text = "expected client_id with client_secret, or bearer, or call.tls with a certificate";
            context.mistakes.add(&place, text);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_rfc_describes_is_a_response() {
        let response = |status: u16, body: &'static str| {
            read(&Response::builder().status(status).body(Bytes::from(body)).expect("a response"))
        };
        assert!(matches!(response(200, r#"{"active":false,"exp":"x"}"#), Ok(None)));
        let claims = response(200, r#"{"active":true,"sub":"a","exp":9}"#).expect("a response").expect("claims");
        assert_eq!(claims["sub"], "a");
        let wrong = [
            "",
            "[]",
            "true",
            "{}",
            r#"{"active":"true"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            "<html>",
            r#"{"active":true,"exp":"9"}"#,
            r#"{"active":true} x"#,
        ];
        assert!(wrong.iter().all(|body| response(200, body).is_err()));
        for status in [201, 204, 302, 400, 401, 403, 500, 503] {
            assert!(response(status, r#"{"active":true}"#).is_err(), "{status}");
        }
    }

    #[test]
    fn times_are_checked_although_the_server_says_active() {
        let claims = |text: &str| serde_json::from_str::<Claims>(text).expect("claims");
        assert!(is_current(&claims(r#"{"exp":101,"nbf":100}"#), 100) && is_current(&claims("{}"), 100));
        assert!(!is_current(&claims(r#"{"exp":100}"#), 100) && !is_current(&claims(r#"{"nbf":131}"#), 100));
    }
}
