//! `introspection`: requires a token that its authorization server knows to be active (RFC 7662).
//!
//! A response is kept for a short time, and never beyond the token's expiry. While the server cannot be reached or
//! responds with something else, every request whose token is not known is rejected with 503.

mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use smallvec::smallvec;

use super::claims::ClaimRules;
use super::client_auth::ClientAuth;
use super::token_places::{TokenPlaces, challenge, scope_challenge};
use super::{Authenticated, Unauthenticated, challenges_of};
use crate::clients::CallConfig;
use crate::exchange::{Claims, Edit, Exchange, Reason};
use crate::filters::{CompileContext, HttpFilter, Stage};
use crate::live::consumer_digest;
use crate::live::{IntrospectedToken, IntrospectedTokens};
use crate::notation::{CallUrl, Duration, Header, OneOrMany, Secret, SecretParameter};

use server::IntrospectionServer;

/// The longest token; longer ones are rejected unread.
const MAX_TOKEN: usize = 8 * 1024;

/// Which server is called, and which tokens are accepted.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The introspection endpoint of the authorization server.
    pub url: CallUrl,
    /// The client id with which the gateway authenticates at the server.
    pub client_id: Option<String>,
    /// The secret of that client.
    pub client_secret: Option<Secret>,
    /// How the id and the secret are sent. Default `basic`.
    pub client_auth: Option<ClientAuth>,
    /// A bearer token with which the gateway authenticates instead.
    pub bearer: Option<Secret>,
    /// The header that holds the token, after `Bearer` if it is `authorization`. Default `authorization`.
    #[serde(default = "authorization")]
    pub header: Header,
    /// A cookie that may hold it instead.
    pub cookie: Option<String>,
    /// A query parameter that may hold it instead.
    pub query: Option<SecretParameter>,
    /// The `iss` that the response has to have. Default: any.
    pub issuer: Option<String>,
    /// The `aud` of which the response has to have one. Default: not checked.
    pub audience: Option<OneOrMany<String>>,
    /// Scopes that the token has to have. Without one of them the response is 403.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Claims that the response has to have.
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
    /// How long an active token is not asked about again, at most 1h; `0s` calls the server for every request. A token
    /// that is revoked is accepted for as long. Default 30s.
    pub cache: Option<Duration>,
    /// How long a token that is not active is not asked about again, at most 1h. Default 5s.
    pub cache_inactive: Option<Duration>,
    /// The calls to the server.
    #[serde(default)]
    pub call: CallConfig,
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

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    server: Arc<IntrospectionServer>,
    tokens: Arc<IntrospectedTokens>,
    places: TokenPlaces,
    rules: TokenRules,
    claims: ClaimRules,
    /// The fields that no target is to see: claims that the client sends itself, and possibly the token.
    edits: Arc<[Edit]>,
}

/// What an active token has to have beyond its claims.
#[derive(Debug)]
struct TokenRules {
    issuer: Option<String>,
    audience: Vec<String>,
    scopes: Vec<String>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Authenticate;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let server = IntrospectionServer::compile(config, context);
        let query = config.query.as_ref().map(|query| query.0.as_str());
        let places = TokenPlaces::new(&config.header.0, config.cookie.as_deref(), query);
        let mut edits: Vec<Edit> =
            config.forward_claims.values().map(|header| Edit::Remove(header.0.clone())).collect();
        if !config.forward_token {
            edits.extend(places.removal());
        }
        let audience = config.audience.as_ref().map(|audience| audience.as_slice().to_vec()).unwrap_or_default();
        Some(Self {
            server: Arc::new(server?),
            // Filters with the same settings share what they know, before and after a reload.
            tokens: context.live.introspected(&context.identity()),
            places,
            rules: TokenRules { issuer: config.issuer.clone(), audience, scopes: config.scopes.clone() },
            claims: ClaimRules {
                consumer_claim: config.consumer_claim.clone(),
                known_consumers: config.known_consumers,
                required: config.required_claims.clone(),
                forward: ClaimRules::forwarded(&config.forward_claims),
                consumers: Arc::clone(context.consumers),
            },
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
        let invalid = |why| Unauthenticated::invalid(challenge(Reason::TokenInvalid, Some(why)));
        let found = match self.places.find(request) {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Unauthenticated::missing(challenge(Reason::TokenMissing, None))),
            Err(why) => return Err(invalid(why)),
        };
        if !is_token(&found.token) {
            return Err(invalid("the token is malformed"));
        }
        let digest = consumer_digest(&found.token);
        let known = match self.tokens.get(&digest, unix_now()) {
            Some(known) => known,
            None => Box::pin(self.introspect(digest, &found.token)).await?,
        };
        let IntrospectedToken::Active(claims) = known else {
            return Err(invalid("the token is not active"));
        };
        if let Some(scope) = self.rules.check(&claims).map_err(invalid)? {
            return Err(Unauthenticated::invalid(scope_challenge(scope, &self.rules.scopes)));
        }
        let verified = self.claims.accept(claims).map_err(invalid)?;
        Ok(Authenticated {
            identity: verified.identity,
            edits: smallvec![verified.edits, self.places.unread(&found)],
            ..Authenticated::default()
        })
    }
}

impl Filter {
    /// Calls the server about a token, once for all requests that have it now.
    async fn introspect(&self, digest: [u8; 32], token: &[u8]) -> Result<IntrospectedToken, Unauthenticated> {
        let work = || {
            let (server, tokens, token) = (Arc::clone(&self.server), Arc::clone(&self.tokens), token.to_vec());
            async move {
                // An earlier call may have ended since it was looked for.
                match tokens.get(&digest, unix_now()) {
                    Some(known) => Ok(known),
                    None => server.introspect(&token, &digest, &tokens).await,
                }
            }
        };
        match self.tokens.calls.run(digest, work).await {
            Some(Ok(known)) => Ok(known),
            Some(Err(error)) => Err(Unauthenticated::unavailable(format!("introspection: {error}"))),
            None => Err(Unauthenticated::unavailable("introspection panicked")),
        }
    }
}

impl TokenRules {
    /// Checks the claims of an active token. Returns a scope that it does not have.
    fn check(&self, claims: &Claims) -> Result<Option<&str>, &'static str> {
        // The holder of such a token has to prove that it has a key, which nobody has verified here (RFC 7800).
        if claims.contains_key("cnf") {
            return Err("the token is bound to a key");
        }
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        if self.issuer.is_some() && text("iss") != self.issuer.as_deref() {
            return Err("the token is from another issuer");
        }
        let has_audience = |wanted: &String| match claims.get("aud") {
            Some(Value::String(one)) => one == wanted,
            Some(Value::Array(several)) => several.iter().any(|one| one.as_str() == Some(wanted)),
            _ => false,
        };
        if !self.audience.is_empty() && !self.audience.iter().any(has_audience) {
            return Err("the token is for another audience");
        }
        let scope = text("scope").unwrap_or_default();
        let lacks = |wanted: &&String| !scope.split(' ').any(|one| one == wanted.as_str());
        Ok(self.scopes.iter().find(lacks).map(String::as_str))
    }
}

/// Returns whether a text may be a token (RFC 6750, section 2.1; `b64token`).
fn is_token(text: &[u8]) -> bool {
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    !text.is_empty() && text.len() <= MAX_TOKEN && text.iter().all(fine)
}

/// Returns the present second of Unix time.
fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
