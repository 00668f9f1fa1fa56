//! `jwt`: requires a JSON Web Token (RFC 7519) and verifies it as RFC 8725 recommends.
//!
//! Algorithms come from the configuration and never from the token. A head with `crit` is rejected; `jku`, `jwk`, `x5u`
//! and `x5c` have no effect. When there are no keys to verify with, every request is rejected.

mod issuer;
mod verifier;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::smallvec;

use super::token_places::{TokenPlaces, challenge};
use super::{Authenticated, Unauthenticated, challenges_of};
use crate::exchange::{Edit, Exchange, Reason};
use crate::filters::claim_value::ClaimValue;
use crate::filters::{CompileContext, HttpFilter, Stage};
use crate::notation::{Duration, File, Header, KeySource, OneOrMany, Secret, SecretParameter};

pub(super) use verifier::{Unverified, Verifier};

/// Which tokens are accepted, and from where.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The `iss` that a token has to have. Default: any. If it is a URL and none of `jwks`, `secret` and `public_key`
    /// is given, the keys are those that its metadata name (OpenID Connect Discovery).
    pub issuer: Option<String>,
    /// Several issuers, each with keys of its own. A token is verified with those of the issuer that it names. Instead
    /// of `issuer`, `audience`, `jwks`, `secret`, `public_key`, `algorithms`, `type` and `ca`.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// The `aud` of which a token has to have one. Default: not checked.
    pub audience: Option<Audience>,
    /// The keys as a JWKS: `file:PATH` (read again when it changes) or a URL (fetched in the background).
    pub jwks: Option<KeySource>,
    /// A shared secret, for HS256, HS384 and HS512.
    pub secret: Option<Secret>,
    /// A public key in PEM, best as `${file:PATH}`.
    pub public_key: Option<String>,
    /// The algorithms. Default: those of public keys with `jwks` and `public_key`, HS256 with `secret`.
    pub algorithms: Option<Vec<AlgorithmName>>,
    /// The header that holds the token, after `Bearer` if it is `authorization`. Default `authorization`.
    #[serde(default = "authorization")]
    pub header: Header,
    /// A cookie that may hold it instead.
    pub cookie: Option<String>,
    /// A query parameter that may hold it instead (for WebSockets of browsers; RFC 6750 advises against it).
    pub query: Option<SecretParameter>,
    /// By how much clocks may differ, at most 60s. Default 30s.
    pub leeway: Option<Duration>,
    /// The `typ` that a token has to have, such as `at+jwt` (RFC 9068). Default: any.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Claims that a token has to have, besides `exp`: their names, or each with a value or with values of which it has
    /// one, such as `{tenant: acme}`.
    #[serde(default)]
    pub required_claims: RequiredClaims,
    /// The claim that identifies the client. Default `sub`.
    #[serde(default = "sub")]
    pub consumer_claim: String,
    /// Whether only tokens of configured consumers are accepted. Default false.
    #[serde(default)]
    pub known_consumers: bool,
    /// Headers for the target with the values of claims: `{sub: x-user-id}`. What the client sent under these names
    /// is removed.
    #[serde(default)]
    pub forward_claims: BTreeMap<String, Header>,
    /// Whether the target sees the token. Default true.
    #[serde(default = "default_true")]
    pub forward_token: bool,
    /// CA file (PEM) for the TLS of `jwks`. Default: the system's.
    pub ca: Option<File>,
    /// Time between two fetches of `jwks`. Default 5m.
    pub refresh: Option<Duration>,
    /// The least time between two fetches that an unknown key id causes. Default 10s.
    pub refetch_after: Option<Duration>,
    /// How long the last keys are used when they cannot be fetched again. Default 1d.
    pub max_stale: Option<Duration>,
}

fn authorization() -> Header {
    Header(AUTHORIZATION)
}

fn sub() -> String {
    "sub".to_owned()
}

fn default_true() -> bool {
    true
}

/// One issuer of several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The `iss` of its tokens. If it is a URL and none of `jwks`, `secret` and `public_key` is given, the keys are
    /// those that its metadata name (OpenID Connect Discovery).
    pub issuer: String,
    /// The `aud` of which a token has to have one. Default: not checked.
    pub audience: Option<Audience>,
    /// The keys as a JWKS: `file:PATH` (read again when it changes) or a URL (fetched in the background).
    pub jwks: Option<KeySource>,
    /// A shared secret, for HS256, HS384 and HS512.
    pub secret: Option<Secret>,
    /// A public key in PEM, best as `${file:PATH}`.
    pub public_key: Option<String>,
    /// The algorithms. Default: those of public keys, HS256 with `secret`.
    pub algorithms: Option<Vec<AlgorithmName>>,
    /// The `typ` that a token has to have. Default: any.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// CA file (PEM) for the TLS of fetches. Default: the system's.
    pub ca: Option<File>,
}

/// Claims that a token has to have.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum RequiredClaims {
    /// Their names.
    Names(Vec<String>),
    /// Their names, each with a value or with values of which it has one.
    Values(BTreeMap<String, OneOrMany<ClaimValue>>),
}

impl Default for RequiredClaims {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

/// One audience or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Audience {
    /// One audience.
    One(String),
    /// Any of several.
    Several(Vec<String>),
}

/// An algorithm (RFC 7518, RFC 8037).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum AlgorithmName {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    verifier: Arc<Verifier>,
    places: TokenPlaces,
    /// The fields that no target is to see: claims that the client sends itself, and possibly the token.
    edits: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    /// Routes with the same settings share one verifier, and so the tokens that it has verified.
    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let verifier = Verifier::compile(config, context)?;
        let query = config.query.as_ref().map(|query| query.0.as_str());
        let places = TokenPlaces::new(&config.header.0, config.cookie.as_deref(), query);
        let mut edits: Vec<Edit> =
            config.forward_claims.values().map(|header| Edit::Remove(header.0.clone())).collect();
        if !config.forward_token {
            edits.extend(places.removal());
        }
        Some(Self { verifier, places, edits: edits.into() })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        vec![(config.header.0.clone(), vec!["header".to_owned()])]
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        config.forward_claims.values().map(|name| name.0.clone()).collect()
    }

    fn credentials(&self) -> Vec<Edit> {
        self.places.credentials()
    }

    fn challenges(&self) -> Vec<HeaderValue> {
        challenges_of(&challenge(Reason::TokenMissing, None))
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.edits)
    }

    async fn authenticate(
        &self,
        request: &RequestHeader,
        _exchange: &Exchange,
    ) -> Result<Authenticated, Unauthenticated> {
        let found = match self.places.find(request) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Unauthenticated::missing(challenge(Reason::TokenMissing, None))),
            Err(why) => return Err(Unauthenticated::invalid(challenge(Reason::TokenInvalid, Some(why)))),
        };
        let verified = match self.verifier.cached(&found.token) {
            Some(verified) => Ok(verified),
            None => Box::pin(self.verifier.verify(&found.token)).await,
        };
        match verified {
            Ok(verified) => Ok(Authenticated {
                identity: verified.identity.clone(),
                edits: smallvec![Arc::clone(&verified.edits), self.places.unread(&found)],
                ..Authenticated::default()
            }),
            Err(Unverified::Unavailable(why)) => Err(Unauthenticated::unavailable(why)),
            Err(Unverified::Expired) => {
                Err(Unauthenticated::invalid(challenge(Reason::TokenExpired, Some("the token has expired"))))
            }
            Err(Unverified::Invalid(why)) => Err(Unauthenticated::invalid(challenge(Reason::TokenInvalid, Some(why)))),
        }
    }
}

#[cfg(test)]
mod tests;
