//! The verification of tokens, whose results are cached.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;

use super::{AlgorithmName, Audience, Config};
use crate::exchange::Claims;
use crate::filters::CompileContext;
use crate::filters::authenticate::claims::{ClaimRules, Verified};
use crate::live::{KeySet, KeyStore, KeyStoreShape, VerifiedTokens, VerifyingKey, consumer_digest};
use crate::notation::{KeySetSource, KeySource};
use crate::tls::{FileVersion, MAX_MATERIAL, read_file};

/// The longest token; longer ones are rejected unread.
const MAX_TOKEN: usize = 8 * 1024;

/// The longest ID token, which comes from the provider itself.
const MAX_ID_TOKEN: usize = 32 * 1024;

/// By how many seconds clocks may differ where ID tokens are verified.
const ID_TOKEN_LEEWAY: u64 = 30;

/// The reason why a token was not accepted. The texts are sent to the client.
#[derive(Debug)]
pub enum Unverified {
    /// The token cannot be verified at present.
    Unavailable(&'static str),
    /// The token has expired.
    Expired,
    /// The token is not acceptable.
    Invalid(&'static str),
}

/// The source of the keys.
#[derive(Debug)]
enum TokenKeys {
    Fixed(Arc<KeySet>),
    Store(Arc<KeyStore>),
}

/// Verifies tokens by one configuration.
#[derive(Debug)]
pub struct Verifier {
    keys: TokenKeys,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    kind: Option<String>,
    claims: ClaimRules,
    max_token: usize,
    cached: VerifiedTokens<Verified>,
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Returns the algorithm of that name; the names are those of the crate.
fn algorithm(name: AlgorithmName) -> Option<Algorithm> {
    format!("{name:?}").parse().ok()
}

impl Verifier {
    /// Compiles the verifier, or returns that of another route with the same settings.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Arc<Self>> {
        let identity = context.identity();
        context.shared(&identity, |context| Self::build(config, context))
    }

    fn build(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        let leeway = config.leeway.as_ref().map_or(30, |d| d.0.as_secs());
        if leeway > 60 {
            context.mistakes.add(&place.key("leeway"), "expected at most 60s");
        }
        let keys = keys(config, context)?;
        let algorithms = allowed(config);
        let fitting = match &keys {
            TokenKeys::Fixed(set) => set.keys.iter().any(|k| k.algorithms.iter().any(|a| algorithms.contains(a))),
            TokenKeys::Store(_) => true,
        };
        let shared = algorithms.iter().any(|a| matches!(a, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512));
        if !fitting
            || algorithms.is_empty()
            || (shared
                && config.secret.is_none()
                && matches!(config.jwks, Some(KeySource(KeySetSource::Url(_) | KeySetSource::Issuer(_)))))
        {
            context
                .mistakes
                .add(&place.key("algorithms"), "none of these algorithms can be used safely with the keys given");
            return None;
        }
        Some(Self {
            keys,
            validation: validation(config, leeway),
            algorithms,
            kind: config.kind.as_ref().map(|k| k.to_ascii_lowercase()),
            claims: ClaimRules {
                consumer_claim: config.consumer_claim.clone(),
                known_consumers: config.known_consumers,
                required: config.required_claims.clone(),
                forward: ClaimRules::forwarded(&config.forward_claims),
                consumers: Arc::clone(context.consumers),
            },
            max_token: MAX_TOKEN,
            cached: VerifiedTokens::default(),
        })
    }

    /// Returns a verifier of the ID tokens of an issuer for one client (OpenID Connect Core, section 3.1.3.7).
    pub fn of_id_tokens(store: Arc<KeyStore>, issuer: &str, client: &str, claims: ClaimRules) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = ID_TOKEN_LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[client]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            keys: TokenKeys::Store(store),
            algorithms: of_public_keys(),
            validation,
            kind: None,
            claims,
            max_token: MAX_ID_TOKEN,
            cached: VerifiedTokens::default(),
        }
    }

    /// Returns the cached result of a token that was verified recently.
    pub fn cached(&self, token: &[u8]) -> Option<Arc<Verified>> {
        if token.len() > self.max_token {
            return None;
        }
        let set = self.present_keys().ok()?;
        self.cached.get(&consumer_digest(token), self.generation(&set), unix_now())
    }

    /// Returns the claims of a valid token, and the keys that verified it.
    pub async fn verified_claims(&self, token: &[u8]) -> Result<(Claims, Arc<KeySet>), Unverified> {
        if token.len() > self.max_token {
            return Err(Unverified::Invalid("the token is too long"));
        }
        let set = self.present_keys()?;
        let head = self.head(token)?;
        let set = self.keys_for(&head, set).await?;
        Ok((self.check(token, &head, &set)?, set))
    }

    /// Returns what the gateway needs of claims that were verified before.
    pub fn accept(&self, claims: Arc<Claims>) -> Result<Verified, &'static str> {
        self.claims.accept(claims)
    }

    /// Verifies a token.
    pub async fn verify(&self, token: &[u8]) -> Result<Arc<Verified>, Unverified> {
        let (claims, set) = self.verified_claims(token).await?;
        // Taken before the consumer is looked up: a change in between is seen by the next request.
        let generation = self.generation(&set);
        let expires = claims.get("exp").and_then(Value::as_f64);
        let verified = Arc::new(self.claims.accept(Arc::new(claims)).map_err(Unverified::Invalid)?);
        if let Some(expires) = expires {
            self.cached.insert(consumer_digest(token), Arc::clone(&verified), generation, expires as u64, unix_now());
        }
        Ok(verified)
    }

    /// Returns the number with which verdicts are cached: another one when keys or consumers have changed.
    fn generation(&self, set: &KeySet) -> u64 {
        set.generation.wrapping_add(self.claims.consumers.generation() << 32)
    }

    fn present_keys(&self) -> Result<Arc<KeySet>, Unverified> {
        match &self.keys {
            TokenKeys::Fixed(set) => Ok(Arc::clone(set)),
            TokenKeys::Store(store) => store.keys().ok_or(Unverified::Unavailable("the issuer's keys are not there")),
        }
    }

    /// Returns the keys among which the token's is, after one more fetch if it names an unknown one.
    async fn keys_for(&self, head: &TokenHead, set: Arc<KeySet>) -> Result<Arc<KeySet>, Unverified> {
        match (&self.keys, &head.kid) {
            (TokenKeys::Store(store), Some(kid)) if !set.keys.iter().any(|k| k.id.as_ref() == Some(kid)) => {
                store.refetch().await;
                self.present_keys()
            }
            _ => Ok(set),
        }
    }

    /// Reads the token's head and checks it against the configuration.
    fn head(&self, token: &[u8]) -> Result<TokenHead, Unverified> {
        let wrong = Unverified::Invalid("the token is malformed");
        let end = token.iter().position(|b| *b == b'.');
        let Some(json) = end.and_then(|end| URL_SAFE_NO_PAD.decode(&token[..end]).ok()) else { return Err(wrong) };
        let Ok(Value::Object(head)) = serde_json::from_slice(&json) else { return Err(wrong) };
        let text = |name: &str| head.get(name).and_then(Value::as_str);
        let algorithm = text("alg").and_then(|a| a.parse::<Algorithm>().ok());
        let Some(algorithm) = algorithm.filter(|a| self.algorithms.contains(a)) else {
            return Err(Unverified::Invalid("the token's algorithm is not allowed"));
        };
        if head.contains_key("crit") {
            return Err(Unverified::Invalid("the token has a critical extension that is not known"));
        }
        if let Some(kind) = &self.kind {
            let came = text("typ").unwrap_or_default().to_ascii_lowercase();
            if came.trim_start_matches("application/") != kind.trim_start_matches("application/") {
                return Err(Unverified::Invalid("the token is of another type"));
            }
        }
        Ok(TokenHead { algorithm, kid: text("kid").map(str::to_owned) })
    }

    /// Checks signature and claims with the keys that may apply: for a token that names none, all keys for its
    /// algorithm, of which a set has few ([`crate::live::MAX_KEYS`]).
    fn check(&self, token: &[u8], head: &TokenHead, set: &KeySet) -> Result<Claims, Unverified> {
        use jsonwebtoken::errors::ErrorKind;
        let meant = |key: &&VerifyingKey| match (&head.kid, &key.id) {
            (Some(asked), Some(id)) => asked == id,
            _ => true,
        };
        let fits = |key: &&VerifyingKey| key.algorithms.contains(&head.algorithm);
        let mut validation = self.validation.clone();
        validation.algorithms = vec![head.algorithm];
        let mut last = Unverified::Invalid("the token's key is not known");
        for key in set.keys.iter().filter(meant).filter(fits) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => {
                    last = match error.kind() {
                        ErrorKind::ExpiredSignature => return Err(Unverified::Expired),
                        ErrorKind::ImmatureSignature => return Err(Unverified::Invalid("the token is not valid yet")),
                        ErrorKind::InvalidIssuer => {
                            return Err(Unverified::Invalid("the token is from another issuer"));
                        }
                        ErrorKind::InvalidAudience => {
                            return Err(Unverified::Invalid("the token is for another audience"));
                        }
                        ErrorKind::MissingRequiredClaim(_) => {
                            return Err(Unverified::Invalid("the token lacks a required claim"));
                        }
                        ErrorKind::InvalidSignature => Unverified::Invalid("the token's signature is wrong"),
                        _ => Unverified::Invalid("the token is malformed"),
                    };
                }
            }
        }
        Err(last)
    }
}

struct TokenHead {
    algorithm: Algorithm,
    kid: Option<String>,
}

fn allowed(config: &Config) -> Vec<Algorithm> {
    if let Some(names) = &config.algorithms {
        return names.iter().filter_map(|n| algorithm(*n)).collect();
    }
    if config.secret.is_some() {
        return vec![Algorithm::HS256];
    }
    of_public_keys()
}

/// Returns the algorithms of public keys.
fn of_public_keys() -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    vec![RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]
}

fn validation(config: &Config, leeway: u64) -> Validation {
    let mut validation = Validation::new(Algorithm::RS256);
    validation.leeway = leeway;
    validation.validate_nbf = true;
    let mut required = vec!["exp".to_owned()];
    required.extend(config.required_claims.iter().cloned());
    if let Some(issuer) = &config.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss".to_owned());
    }
    match &config.audience {
        Some(Audience::One(one)) => validation.set_audience(&[one]),
        Some(Audience::Several(several)) => validation.set_audience(several),
        None => validation.validate_aud = false,
    }
    if config.audience.is_some() {
        required.push("aud".to_owned());
    }
    validation.set_required_spec_claims(&required);
    validation
}

/// Returns the keys, from the one source that is configured.
fn keys(config: &Config, context: &mut CompileContext<'_>) -> Option<TokenKeys> {
    let place = context.place.clone();
    let given = [config.jwks.is_some(), config.secret.is_some(), config.public_key.is_some()];
    if given.iter().filter(|g| **g).count() != 1 {
        context.mistakes.add(&place, "expected exactly one of jwks, secret and public_key");
        return None;
    }
    if let Some(source) = &config.jwks {
        return store(config, source.0.clone(), context);
    }
    let fixed = |algorithms, key| {
        let keys = vec![VerifyingKey { id: None, algorithms, key }];
        TokenKeys::Fixed(Arc::new(KeySet { keys, generation: 0 }))
    };
    if let Some(secret) = &config.secret {
        let secret = secret.0.reveal().as_bytes();
        if secret.len() < 32 {
            // RFC 7518, section 3.2.
            context.mistakes.add(&place.key("secret"), "expected at least 32 bytes");
            return None;
        }
        let all = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
        return Some(fixed(all, DecodingKey::from_secret(secret)));
    }
    let pem = config.public_key.as_deref().unwrap_or_default().as_bytes();
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let found = DecodingKey::from_rsa_pem(pem)
        .map(|key| fixed(vec![RS256, RS384, RS512, PS256, PS384, PS512], key))
        .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| fixed(vec![ES256, ES384], key)))
        .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| fixed(vec![EdDSA], key)));
    let wrong = |_| "expected a public key in PEM (RSA, EC P-256 or P-384, Ed25519)".to_owned();
    context.mistakes.take(&place.key("public_key"), found.map_err(wrong))
}

fn store(config: &Config, source: KeySetSource, context: &mut CompileContext<'_>) -> Option<TokenKeys> {
    let place = context.place.key("jwks");
    let source = match source {
        KeySetSource::File(path) => {
            let path = context.base.join(path);
            let text = read_file(&path, MAX_MATERIAL).map_err(|e| format!("cannot read {}: {e}", path.display()));
            let keys = text.and_then(|t| crate::live::parse_jwks(&t).map_err(|e| format!("{}: {e}", path.display())));
            context.mistakes.take(&place, keys)?;
            KeySetSource::File(path)
        }
        remote @ (KeySetSource::Url(_) | KeySetSource::Issuer(_)) => remote,
    };
    let time = |given: &Option<crate::notation::Duration>, default| {
        given.as_ref().map_or(Duration::from_secs(default), |d| d.0)
    };
    let shape = KeyStoreShape {
        source,
        // Watched before it is read for use: a change in between is a change at the next reload.
        ca: config.ca.as_ref().map(|ca| FileVersion::of(context.base.join(ca))),
        refresh: time(&config.refresh, 300),
        refetch_after: time(&config.refetch_after, 10),
        max_stale: time(&config.max_stale, 86_400),
    };
    let fresh = context.mistakes.take(&place, KeyStore::new(shape.clone()))?;
    let store = context.live.keys(&shape, || Arc::new(fresh));
    context.keep(store.clone());
    Some(TokenKeys::Store(store))
}
