//! Consumers, their credentials and their limits, as they are written.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::exchange::Allowance;
use crate::notation::{
    AlternativeName, Digest, Fingerprint, HashText, Name, OneOrMany, QuotaText, RateText, Secret, Timestamp,
};
use crate::rules::identity::{SignatureAlgorithm, SignatureKey};

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
    /// A key for signatures of AWS's form (`hmac`).
    Hmac(HmacCredential),
    /// A key for HTTP message signatures (`http_signature`).
    HttpSignature(HttpSignatureCredential),
}

/// A key for signatures of AWS's form (AWS Signature Version 4).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HmacCredential {
    /// The id of the key, as it is in `Credential` of the signature. It is no secret.
    pub key_id: String,
    /// The key, of at least 16 bytes.
    pub secret: Secret,
}

/// A key for HTTP message signatures (RFC 9421), with the one algorithm that it is used with.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpSignatureCredential {
    /// The id of the key, as it is in `keyid` of the signature. It is no secret.
    pub key_id: String,
    /// The algorithm.
    pub algorithm: SignatureAlgorithmName,
    /// The public key in PEM, best as `${file:PATH}`.
    pub public_key: Option<String>,
    /// For hmac-sha256 the shared secret, of at least 32 bytes: the text itself, or in base64 after `base64:`.
    pub secret: Option<Secret>,
}

/// An algorithm of HTTP message signatures (RFC 9421, section 3.3).
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub enum SignatureAlgorithmName {
    /// EdDSA over the curve edwards25519.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA over the curve P-256 with SHA-256.
    #[serde(rename = "ecdsa-p256-sha256")]
    EcdsaP256Sha256,
    /// RSASSA-PSS with SHA-512.
    #[serde(rename = "rsa-pss-sha512")]
    RsaPssSha512,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "rsa-v1_5-sha256")]
    RsaV15Sha256,
    /// HMAC with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
}

impl HttpSignatureCredential {
    /// Returns the key.
    ///
    /// # Errors
    /// Returns the key of the credential that is wrong, and why.
    pub fn key(&self) -> Result<SignatureKey, (&'static str, String)> {
        let algorithm = match self.algorithm {
            SignatureAlgorithmName::Ed25519 => SignatureAlgorithm::Ed25519,
            SignatureAlgorithmName::EcdsaP256Sha256 => SignatureAlgorithm::EcdsaP256Sha256,
            SignatureAlgorithmName::RsaPssSha512 => SignatureAlgorithm::RsaPssSha512,
            SignatureAlgorithmName::RsaV15Sha256 => SignatureAlgorithm::RsaV15Sha256,
            SignatureAlgorithmName::HmacSha256 => SignatureAlgorithm::HmacSha256,
        };
        match (&self.public_key, &self.secret, algorithm) {
            (None, Some(secret), SignatureAlgorithm::HmacSha256) => {
                let text = secret.0.reveal();
                let decoded = text.strip_prefix("base64:").map(|base64| STANDARD.decode(base64));
                let bytes = decoded.unwrap_or_else(|| Ok(text.as_bytes().to_vec()));
                let bytes = bytes.map_err(|_| ("secret", "expected base64 after base64:".to_owned()))?;
                SignatureKey::secret(&bytes).map_err(|why| ("secret", why))
            }
            (Some(pem), None, algorithm) if algorithm != SignatureAlgorithm::HmacSha256 => {
                SignatureKey::from_pem(algorithm, pem).map_err(|why| ("public_key", why))
            }
            (_, _, SignatureAlgorithm::HmacSha256) => Err(("algorithm", "hmac-sha256 needs secret alone".to_owned())),
            (_, _, other) => Err(("algorithm", format!("{} needs public_key alone", other.name()))),
        }
    }
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
