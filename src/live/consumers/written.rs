//! Consumers, their credentials and their limits, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::Allowance;
use crate::notation::{
    AlternativeName, Digest, Fingerprint, HashText, Name, OneOrMany, QuotaText, RateText, Secret, Timestamp,
};

/// A known client.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsumerConfig {
    /// What identifies this client; any one of them is enough.
    pub credentials: Vec<Credential>,
    /// The groups that it is in.
    #[serde(default)]
    pub groups: Vec<Name>,
    /// Its plan, one of `plans`: its limits are those of filters with `from_plan: true`.
    pub plan: Option<Name>,
    /// The windows of its own rate limit, instead of its plan's.
    pub rate_limit: Option<OneOrMany<RateText>>,
    /// Its own quota, instead of its plan's.
    pub quota: Option<QuotaText>,
    /// Its own most requests at a time, instead of its plan's.
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
}

impl ConsumerConfig {
    /// Returns its own limits, if it has any.
    pub fn allowance(&self) -> Option<Allowance> {
        let own = AllowanceConfig {
            rate_limit: self.rate_limit.clone(),
            quota: self.quota.clone(),
            concurrency: self.concurrency,
        };
        Some(own.allowance()).filter(|own| *own != Allowance::default())
    }
}

/// The limits of a plan. What it does not have is limited as the filters say.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AllowanceConfig {
    /// The windows of the rate limit, one or several: `100/s`, `[10/s, 1000/h]`.
    pub rate_limit: Option<OneOrMany<RateText>>,
    /// The quota: `1000000/month`.
    pub quota: Option<QuotaText>,
    /// The most requests at a time.
    #[schemars(range(min = 1))]
    pub concurrency: Option<u32>,
}

impl AllowanceConfig {
    /// Returns the limits.
    pub fn allowance(&self) -> Allowance {
        Allowance {
            rate_limit: self.rate_limit.iter().flat_map(OneOrMany::as_slice).map(|rate| rate.0).collect(),
            quota: self.quota.as_ref().map(|quota| quota.0),
            concurrency: self.concurrency,
        }
    }
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
    /// A client certificate.
    Mtls(CertificateCredential),
}

/// A client certificate, by one of its properties.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateCredential {
    /// Its SHA-256 fingerprint: this certificate alone.
    pub fingerprint: Option<Fingerprint>,
    /// Its subject as RFC 4514 writes it, the last part first: `CN=app,O=Example`. It belongs to every certificate with
    /// that subject that the listener's CA issues.
    pub subject: Option<String>,
    /// One of its alternative names.
    pub san: Option<AlternativeName>,
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
    /// The scopes of requests with this key, for `authorize`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// The time from which on the key is rejected: `2027-01-31T00:00:00Z`. Default: never.
    pub expires: Option<Timestamp>,
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
