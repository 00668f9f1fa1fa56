//! `acme`: certificates from an ACME server (RFC 8555).

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{File, Folder, OneOrMany};

/// The account at an ACME server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeConfig {
    /// The URL of the server's directory. Default: that of Let's Encrypt.
    pub directory: Option<String>,
    /// Whether you agree to the terms of service of the server, which it requires.
    pub terms_of_service_agreed: bool,
    /// The addresses for mail to which the server may write. Default: none.
    pub contact: Option<OneOrMany<String>>,
    /// The folder with the account's key, the certificates and their keys. It outlives the process.
    pub state: Folder,
    /// How control over names is proved. Default `tls_alpn_01`.
    #[serde(default)]
    pub challenge: AcmeChallengeConfig,
    /// A CA file (PEM) to verify the server with. Default: the system's CA certificates.
    pub ca: Option<File>,
}

/// How control over names is proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum AcmeChallengeConfig {
    /// By a handshake on the listener itself, which the server reaches on port 443 (RFC 8737).
    #[default]
    #[serde(rename = "tls_alpn_01")]
    TlsAlpn01,
    /// By a request over HTTP to a listener without TLS, which the server reaches on port 80 (RFC 8555, section 8.3).
    #[serde(rename = "http_01")]
    Http01,
}
