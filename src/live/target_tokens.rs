//! The sources of tokens with which the gateway identifies itself to targets: the metadata of a cloud, or an
//! authorization server.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::future::FutureExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request};
use serde_json::Value;

use super::renewed::{CredentialSource, FetchResult, Fetched};
use crate::clients::{CallError, HttpClient, HttpClientSettings, Repeatable};
use crate::exchange::Edit;

/// A source of tokens, and the header that they are sent in.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TargetTokenSource {
    /// The provider, for operators.
    pub provider: &'static str,
    /// The URL.
    pub url: String,
    /// The fields of the request, which may be secret.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// The form that is posted, which may be secret; without one it is a GET.
    pub form: Option<String>,
    /// Whether the response is the token itself, a JWT, and not JSON with `access_token`.
    pub is_bare: bool,
    /// The header that the target gets.
    pub header: HeaderName,
    /// The client.
    pub client: HttpClientSettings,
}

impl std::fmt::Debug for TargetTokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TargetTokenSource").field("provider", &self.provider).finish_non_exhaustive()
    }
}

impl CredentialSource for TargetTokenSource {
    type Credential = Arc<[Edit]>;

    fn kind(&self) -> &'static str {
        "target_token"
    }

    fn describe(&self) -> String {
        format!("the token of {} ({})", self.provider, self.client.dependency)
    }

    fn client(&self) -> Option<HttpClientSettings> {
        Some(self.client.clone())
    }

    fn fetch<'s>(&'s self, client: Option<&'s HttpClient>) -> FetchResult<'s, Arc<[Edit]>> {
        async move {
            let client = client.ok_or("there is no client")?;
            let response = client.send(self.request()?).await.map_err(|error| error.to_string())?;
            if !response.status().is_success() {
                return Err(CallError::Status(response.status().as_u16()).to_string());
            }
            let (token, ends) = parse(response.body(), self.is_bare, SystemTime::now())?;
            let token = if self.header == AUTHORIZATION || self.header.as_str().ends_with("-authorization") {
                format!("Bearer {token}")
            } else {
                token
            };
            let mut value = HeaderValue::try_from(token).map_err(|_| "the token cannot be sent".to_owned())?;
            value.set_sensitive(true);
            let credential = Arc::from([Edit::Set(self.header.clone(), value)]);
            Ok(Fetched { credential, ends, renew_after: None })
        }
        .boxed()
    }
}

impl TargetTokenSource {
    fn request(&self) -> Result<Request<Bytes>, String> {
        let method = if self.form.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method).uri(&self.url);
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        if self.form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = self.form.clone().map(Bytes::from).unwrap_or_default();
        let mut request = request.body(body).map_err(|_| "its URL is malformed".to_owned())?;
        request.extensions_mut().insert(Repeatable);
        Ok(request)
    }
}

/// Returns the token of a response, and when it ends.
fn parse(body: &[u8], is_bare: bool, now: SystemTime) -> Result<(String, Option<SystemTime>), String> {
    let at = |seconds: u64| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    if is_bare {
        let text = std::str::from_utf8(body).map_err(|_| "the token is not UTF-8")?.trim();
        let claims = text.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Value = claims.and_then(|claims| serde_json::from_slice(&claims).ok()).ok_or("it is no JWT")?;
        return Ok((text.to_owned(), claims.get("exp").and_then(Value::as_u64).and_then(at)));
    }
    let document: Value = serde_json::from_slice(body).map_err(|_| "the response is not JSON")?;
    let token = document.get("access_token").and_then(Value::as_str).filter(|token| !token.is_empty());
    let token = token.ok_or("the response has no access_token")?;
    // Azure writes numbers as texts.
    let number = |name: &str| match document.get(name)? {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64(),
    };
    let ends = match (number("expires_on"), number("expires_in")) {
        (Some(on), _) => at(on),
        (None, Some(within)) => now.checked_add(Duration::from_secs(within)),
        (None, None) => None,
    };
    Ok((token.to_owned(), ends))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_and_their_ends_are_read() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let seconds = |ends: Option<SystemTime>| {
            ends.map(|at| at.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs())
        };
        let read = |text: &str, is_bare| parse(text.as_bytes(), is_bare, now).map(|(t, ends)| (t, seconds(ends)));
        let jwt = format!("e30.{}.s", URL_SAFE_NO_PAD.encode(r#"{"exp":2000}"#));
        assert_eq!(read(&format!("{jwt}\n"), true), Ok((jwt, Some(2_000))));
        let azure = r#"{"access_token":"a","expires_on":"3000","expires_in":"9"}"#;
        assert_eq!(read(azure, false), Ok(("a".to_owned(), Some(3_000))));
        assert_eq!(read(r#"{"access_token":"a","expires_in":60}"#, false), Ok(("a".to_owned(), Some(1_060))));
        assert_eq!(read(r#"{"access_token":"a"}"#, false), Ok(("a".to_owned(), None)));
        for (wrong, is_bare) in [("x", true), ("{}", false), (r#"{"access_token":""}"#, false), ("", false)] {
            assert!(read(wrong, is_bare).is_err(), "{wrong}");
        }
    }
}
