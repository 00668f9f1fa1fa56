//! How the gateway authenticates as a client of an authorization server (RFC 6749, section 2.3.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;

/// How a client authenticates at an authorization server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// By the header `Authorization: Basic`.
    #[default]
    Basic,
    /// By parameters in the body.
    Body,
}

/// What a request to an authorization server has to authenticate the gateway.
#[derive(Clone, Default)]
pub struct ClientCredentials {
    /// The value of `Authorization`.
    pub header: Option<HeaderValue>,
    /// Parameters in the body, each behind a `&`.
    pub in_body: String,
}

impl std::fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCredentials(secret)")
    }
}

impl ClientCredentials {
    /// Returns the credentials of a client with a secret, or of one without (RFC 6749, section 3.2.1).
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn of_client(id: &str, secret: Option<&str>, way: ClientAuth) -> Result<Self, String> {
        let (id, secret) = (form_encoded(id), secret.map(form_encoded));
        match (secret, way) {
            (Some(secret), ClientAuth::Basic) => Ok(Self {
                header: Some(header(format!("Basic {}", STANDARD.encode(format!("{id}:{secret}"))))?),
                ..Self::default()
            }),
            (Some(secret), ClientAuth::Body) => {
                Ok(Self { in_body: format!("&client_id={id}&client_secret={secret}"), ..Self::default() })
            }
            (None, _) => Ok(Self { in_body: format!("&client_id={id}"), ..Self::default() }),
        }
    }

    /// Returns a bearer token as credentials.
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn of_bearer(token: &str) -> Result<Self, String> {
        Ok(Self { header: Some(header(format!("Bearer {token}"))?), ..Self::default() })
    }
}

fn header(text: String) -> Result<HeaderValue, String> {
    let mut value =
        HeaderValue::try_from(text).map_err(|_| "expected a text of visible ASCII characters".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Returns a text for a form (RFC 6749, appendix B).
pub fn form_encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
