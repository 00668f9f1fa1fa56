//! The metadata of an OpenID provider (OpenID Connect Discovery 1.0) or an authorization server (RFC 8414).

use http::Uri;
use serde_json::Value;

use crate::clients::HttpClient;

/// What is known of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderMetadata {
    /// The issuer, as it is in its tokens.
    pub issuer: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where users log in.
    pub authorization_endpoint: Option<Uri>,
    /// Where codes are exchanged for tokens.
    pub token_endpoint: Option<Uri>,
    /// Where users log out (OpenID Connect RP-Initiated Logout 1.0).
    pub end_session_endpoint: Option<Uri>,
    /// Whether responses to authorization requests have `iss` (RFC 9207).
    pub responds_with_issuer: bool,
}

impl ProviderMetadata {
    /// Returns the URL of the metadata of an issuer (section 4 of Discovery: the path is kept, without its last slash).
    pub fn url(issuer: &str) -> String {
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
    }

    /// Fetches the metadata of an issuer.
    ///
    /// # Errors
    /// When it cannot be fetched, or is not that of the issuer.
    pub async fn fetch(client: &HttpClient, issuer: &str) -> Result<Self, String> {
        let text = client.get(&Self::url(issuer)).await.map_err(|error| format!("the metadata {error}"))?;
        Self::parse(&text, issuer).map_err(|error| format!("the metadata is wrong: {error}"))
    }

    /// Reads the metadata of an issuer.
    ///
    /// # Errors
    /// When it is malformed, or that of another issuer (section 4.3), or leads from TLS to a URL without it.
    pub fn parse(text: &[u8], issuer: &str) -> Result<Self, String> {
        let Ok(Value::Object(document)) = serde_json::from_slice(text) else {
            return Err("no JSON object".to_owned());
        };
        let found = document.get("issuer").and_then(Value::as_str).ok_or("it has no issuer")?;
        if found != issuer {
            return Err(format!("its issuer is {found}, and not {issuer}"));
        }
        let url = |name: &str| -> Result<Option<Uri>, String> {
            let Some(value) = document.get(name).filter(|value| !value.is_null()) else { return Ok(None) };
            let wrong = || format!("{name} is no URL");
            let url = value.as_str().and_then(|text| text.parse::<Uri>().ok()).ok_or_else(wrong)?;
            let has_host = url.host().is_some_and(|host| !host.is_empty());
            match url.scheme_str() {
                Some("https") if has_host => Ok(Some(url)),
                Some("http") if has_host && issuer.starts_with("http://") => Ok(Some(url)),
                Some("http") if has_host => Err(format!("{name} has no TLS")),
                _ => Err(wrong()),
            }
        };
        Ok(Self {
            issuer: found.to_owned(),
            jwks_uri: url("jwks_uri")?.ok_or("it has no jwks_uri")?.to_string(),
            authorization_endpoint: url("authorization_endpoint")?,
            token_endpoint: url("token_endpoint")?,
            end_session_endpoint: url("end_session_endpoint")?,
            responds_with_issuer: document
                .get("authorization_response_iss_parameter_supported")
                .is_some_and(|value| *value == Value::Bool(true)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_metadata_of_the_issuer_itself_is_taken() {
        let parse = |text: &str, issuer: &str| ProviderMetadata::parse(text.as_bytes(), issuer);
        let text = r#"{"issuer":"https://id.test","jwks_uri":"https://keys.test/a","token_endpoint":"https://id.test/t",
            "authorization_response_iss_parameter_supported":true}"#;
        let metadata = parse(text, "https://id.test").expect("metadata");
        assert_eq!(metadata.jwks_uri, "https://keys.test/a");
        assert!(metadata.responds_with_issuer && metadata.end_session_endpoint.is_none());
        for issuer in ["https://id.test/", "http://id.test", "https://evil.test"] {
            assert!(parse(text, issuer).is_err_and(|e| e.contains("issuer")), "{issuer}");
        }
        let wrong = [
            "",
            "[]",
            "{}",
            r#"{"issuer":"https://id.test"}"#,
            r#"{"issuer":7,"jwks_uri":"https://id.test"}"#,
            r#"{"issuer":"https://id.test","jwks_uri":"http://id.test/keys"}"#,
            r#"{"issuer":"https://id.test","jwks_uri":"/keys"}"#,
            r#"{"issuer":"https://id.test","jwks_uri":"https://id.test/","token_endpoint":"ftp://a/"}"#,
        ];
        assert!(wrong.iter().all(|text| parse(text, "https://id.test").is_err()));
        let plain = r#"{"issuer":"http://127.0.0.1:1/a/","jwks_uri":"http://127.0.0.1:1/keys"}"#;
        assert!(parse(plain, "http://127.0.0.1:1/a/").is_ok());
        assert_eq!(ProviderMetadata::url("http://a/b/"), "http://a/b/.well-known/openid-configuration");
    }
}
