//! The calls to an OpenID provider for tokens.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, Uri};
use serde_json::Value;

use super::super::client_auth::{ClientCredentials, form_encoded};
use crate::clients::HttpClient;

/// The tokens of a response (RFC 6749, section 5.1; OpenID Connect Core, section 3.1.3.3).
#[derive(Clone, Debug)]
pub struct Tokens {
    /// The access token.
    pub access_token: String,
    /// The ID token.
    pub id_token: Option<String>,
    /// The refresh token.
    pub refresh_token: Option<String>,
    /// The seconds for which the access token is valid.
    pub expires_in: Option<u64>,
}

/// The reason why there are no tokens. The texts are for the log.
#[derive(Clone, Debug)]
pub enum TokenError {
    /// The provider does not accept the code or the refresh token.
    Rejected(String),
    /// The provider cannot be reached, or its response is of no use.
    Unavailable(String),
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rejected(why) | Self::Unavailable(why) => f.write_str(why),
        }
    }
}

/// The token endpoint of a provider.
#[derive(Debug)]
pub struct TokenEndpoint {
    /// The client for the calls.
    pub client: Arc<HttpClient>,
    /// How the gateway authenticates.
    pub credentials: ClientCredentials,
}

impl TokenEndpoint {
    /// Requests tokens with these parameters.
    ///
    /// # Errors
    /// When there are none.
    pub async fn request(&self, url: &Uri, parameters: &[(&str, &str)]) -> Result<Tokens, TokenError> {
        let pairs: Vec<String> =
            parameters.iter().map(|(name, value)| format!("{name}={}", form_encoded(value))).collect();
        let mut request = Request::new(Bytes::from(format!("{}{}", pairs.join("&"), self.credentials.in_body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.credentials.header.iter().for_each(|value| _ = headers.insert(AUTHORIZATION, value.clone()));
        let response = self.client.send(request).await;
        read(&response.map_err(|error| TokenError::Unavailable(format!("the token endpoint: {error}")))?)
    }
}

/// Reads the response of a token endpoint.
fn read(response: &Response<Bytes>) -> Result<Tokens, TokenError> {
    let unavailable = |why: String| TokenError::Unavailable(format!("the token endpoint: {why}"));
    let document: Option<serde_json::Map<String, Value>> = serde_json::from_slice(response.body()).ok();
    let text = |name: &str| document.as_ref().and_then(|d| d.get(name)).and_then(Value::as_str);
    match response.status().as_u16() {
        200 => {}
        400 if text("error") == Some("invalid_grant") => {
            return Err(TokenError::Rejected("the provider does not accept the grant".to_owned()));
        }
        status => return Err(unavailable(format!("responded with {status} {}", printable(text("error"))))),
    }
    let is_bearer = text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    let Some(access_token) = text("access_token").filter(|_| is_bearer) else {
        return Err(unavailable("the response has no bearer token".to_owned()));
    };
    let expires_in = document.as_ref().and_then(|d| d.get("expires_in")).and_then(Value::as_f64);
    Ok(Tokens {
        access_token: access_token.to_owned(),
        id_token: text("id_token").map(str::to_owned),
        refresh_token: text("refresh_token").map(str::to_owned),
        expires_in: expires_in.filter(|time| *time >= 0.0).map(|time| time as u64),
    })
}

/// Returns the code of an error for the log: a few printable characters (RFC 6749, section 5.2).
pub fn printable(code: Option<&str>) -> String {
    code.unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_grant_that_is_not_accepted_is_the_users_matter() {
        let read = |status: u16, body: &'static str| {
            read(&Response::builder().status(status).body(Bytes::from(body)).expect("a response"))
        };
        let good = r#"{"access_token":"a","token_type":"bearer","id_token":"i","expires_in":60}"#;
        let tokens = read(200, good).expect("tokens");
        assert_eq!((tokens.id_token.as_deref(), tokens.expires_in), (Some("i"), Some(60)));
        assert!(matches!(read(400, r#"{"error":"invalid_grant"}"#), Err(TokenError::Rejected(_))));
        let unavailable = [
            (200, "{}"),
            (200, "<html>"),
            (200, r#"{"access_token":"a","token_type":"DPoP"}"#),
            (400, r#"{"error":"invalid_client"}"#),
            (401, r#"{"error":"invalid_grant"}"#),
            (302, good),
            (500, ""),
        ];
        for (status, body) in unavailable {
            assert!(matches!(read(status, body), Err(TokenError::Unavailable(_))), "{status} {body}");
        }
        assert_eq!(printable(Some("access_denied\r\nx: y")), "access_deniedxy");
    }
}
