//! `jwt`: requires a JSON Web Token (RFC 7519) and verifies it as RFC 8725 recommends.
//!
//! Algorithms come from the configuration and never from the token; `crit`, `jku` and `x5u` in a token's head have no
//! effect. When there are no keys to verify with, every request is rejected.

mod verifier;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use smallvec::smallvec;

use super::{Authenticated, Unauthenticated, challenges_of};
use crate::exchange::{Edit, Exchange, Reason, Rejection};
use crate::filters::{CompileContext, HttpFilter, Stage};
use crate::notation::{Duration, File, Header, KeySource, Secret, SecretParameter};
use crate::rules::routing::{cookies, form_decode, raw_parameters};

use verifier::{Unverified, Verifier};

/// Which tokens are accepted, and from where.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The `iss` that a token has to have. Default: any.
    pub issuer: Option<String>,
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
    /// Claims that a token has to have, besides `exp`.
    #[serde(default)]
    pub required_claims: Vec<String>,
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

/// Where a token may stand, in the order in which it is looked for.
#[derive(Clone, Copy, Debug)]
enum TokenPlace {
    Header,
    Cookie,
    Query,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    verifier: Arc<Verifier>,
    header: HeaderName,
    cookie: Option<String>,
    query: Option<String>,
    /// The fields that no target is to see: claims that the client sends itself, and possibly the token.
    edits: Arc<[Edit]>,
    /// For each place of a token, the edits that remove what stands in the places after it, which was not verified.
    unread: [Arc<[Edit]>; 3],
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    /// Routes with the same settings share one verifier, and so the tokens that it has verified.
    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let verifier = Verifier::compile(config, context)?;
        let mut edits: Vec<Edit> =
            config.forward_claims.values().map(|header| Edit::Remove(header.0.clone())).collect();
        if !config.forward_token {
            edits.push(Edit::Remove(config.header.0.clone()));
            edits.extend(config.query.iter().map(|name| Edit::RemoveParameter(name.0.as_str().into())));
            edits.extend(config.cookie.iter().map(|name| Edit::RemoveCookie(name.as_str().into())));
        }
        let cookie = config.cookie.iter().map(|name| Edit::RemoveCookie(name.as_str().into()));
        let query: Vec<Edit> = config.query.iter().map(|name| Edit::RemoveParameter(name.0.as_str().into())).collect();
        let behind_header = cookie.chain(query.clone()).collect();
        Some(Self {
            unread: [behind_header, query.into(), Arc::default()],
            verifier,
            header: config.header.0.clone(),
            cookie: config.cookie.clone(),
            query: config.query.as_ref().map(|query| query.0.clone()),
            edits: edits.into(),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        vec![(config.header.0.clone(), vec!["header".to_owned()])]
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        config.forward_claims.values().map(|name| name.0.clone()).collect()
    }

    fn credentials(&self) -> Vec<Edit> {
        let header = match self.header == AUTHORIZATION {
            true => Edit::RemoveScheme(AUTHORIZATION, "Bearer"),
            false => Edit::Remove(self.header.clone()),
        };
        [header].into_iter().chain(self.unread[TokenPlace::Header as usize].iter().cloned()).collect()
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
        let (token, place) = match self.token(request) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Unauthenticated::missing(challenge(Reason::TokenMissing, None))),
            Err(why) => return Err(Unauthenticated::invalid(challenge(Reason::TokenInvalid, Some(why)))),
        };
        let verified = match self.verifier.cached(&token) {
            Some(verified) => Ok(verified),
            None => Box::pin(self.verifier.verify(&token)).await,
        };
        match verified {
            Ok(verified) => Ok(Authenticated {
                identity: verified.identity.clone(),
                edits: smallvec![Arc::clone(&verified.edits), Arc::clone(&self.unread[place as usize])],
            }),
            Err(Unverified::Unavailable(why)) => Err(Unauthenticated::unavailable(why)),
            Err(Unverified::Expired) => {
                Err(Unauthenticated::invalid(challenge(Reason::TokenExpired, Some("the token has expired"))))
            }
            Err(Unverified::Invalid(why)) => Err(Unauthenticated::invalid(challenge(Reason::TokenInvalid, Some(why)))),
        }
    }
}

impl Filter {
    /// Returns the token, from the first place that has one.
    fn token(&self, request: &RequestHeader) -> Result<Option<(Vec<u8>, TokenPlace)>, &'static str> {
        // The target might use the other one.
        const SEVERAL: &str = "there are several tokens";
        let mut values = request.headers.get_all(&self.header).iter();
        if let Some(value) = values.next() {
            if values.next().is_some() {
                return Err(SEVERAL);
            }
            let bytes = value.as_bytes();
            let token = match self.header == AUTHORIZATION {
                true => bearer(bytes),
                false => Some(bearer(bytes).unwrap_or(bytes)),
            };
            if let Some(token) = token {
                return Ok(Some((token.to_vec(), TokenPlace::Header)));
            }
        }
        let mut cookies = self.cookie.iter().flat_map(|name| cookies(&request.headers, name));
        let mut queries = self.query.iter().flat_map(|name| raw_parameters(request.uri.query(), name));
        let (token, place, another) = match cookies.next() {
            Some(token) => (token.to_vec(), TokenPlace::Cookie, cookies.next().is_some()),
            None => match queries.next() {
                Some(raw) => (form_decode(raw).into_owned(), TokenPlace::Query, queries.next().is_some()),
                None => return Ok(None),
            },
        };
        if another { Err(SEVERAL) } else { Ok(Some((token, place)).filter(|(token, _)| !token.is_empty())) }
    }
}

/// Returns what follows `Bearer` (RFC 6750, section 2.1; the scheme's case does not matter).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

/// Returns a rejection with the challenge of RFC 6750, section 3.
fn challenge(reason: Reason, why: Option<&'static str>) -> Box<Rejection> {
    let text = match why {
        None => "Bearer realm=\"portcullis\"".to_owned(),
        Some(why) => format!("Bearer realm=\"portcullis\", error=\"invalid_token\", error_description=\"{why}\""),
    };
    let rejection = Rejection::new(reason, why.unwrap_or("send a token as Authorization: Bearer"));
    match HeaderValue::try_from(text) {
        Ok(value) => rejection.header(WWW_AUTHENTICATE, value),
        Err(_) => rejection,
    }
}
