//! `consumers`: the known clients and their credentials.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Digest, HashText, Secret};

/// A known client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consumer {
    /// What identifies this client; any one of them is enough.
    #[schemars(length(min = 1))]
    pub credentials: Vec<Credential>,
}

/// One credential.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// An API key.
    ApiKey(ApiKeyCredential),
    /// A token with a claim of this value.
    Jwt(TokenCredential),
    /// A name and a password.
    Basic(BasicCredential),
}

/// A name and a password (RFC 7617).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BasicCredential {
    /// The name, without a colon.
    pub username: String,
    /// The hash of the password.
    pub hash: HashText,
}

/// An API key, as its digest or (less well) as itself.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyCredential {
    /// The SHA-256 digest of the key: `printf %s KEY | sha256sum`.
    pub sha256: Option<Digest>,
    /// The key itself; only its digest is kept.
    pub value: Option<Secret>,
}

/// Which tokens belong to this consumer.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCredential {
    /// The value of the claim that the `jwt` filter names under `consumer_claim` (`sub` by default).
    pub subject: String,
    /// The issuer that the token has to be from. Default: any that a `jwt` filter accepts.
    pub issuer: Option<String>,
}
