//! An issuer of tokens: its keys, and what its tokens have to be.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};

use super::verifier::Unverified;
use super::{AlgorithmName, Audience, Config, IssuerConfig};
use crate::exchange::Claims;
use crate::filters::CompileContext;
use crate::live::{KeySet, KeyStore, KeyStoreShape, VerifyingKey};
use crate::notation::{self, File, IssuerUrl, KeySetSource, KeySource, Place, Secret};
use crate::rules::identity::token::{StrictObject, TokenHead, media_type};
use crate::tls::{FileVersion, MAX_MATERIAL, read_file};

/// By how many seconds clocks may differ where ID tokens are verified.
const ID_TOKEN_LEEWAY: u64 = 30;

/// The source of the keys.
#[derive(Debug)]
enum TokenKeys {
    Fixed(Arc<KeySet>),
    Store(Arc<KeyStore>),
}

/// An issuer of tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The `iss` of its tokens; `None` if any is accepted.
    pub name: Option<String>,
    keys: TokenKeys,
    algorithms: Vec<Algorithm>,
    validation: Validation,
    kind: Option<String>,
}

/// The settings of one issuer, from the filter itself or from one of `issuers`.
pub struct IssuerSettings<'c> {
    place: Place,
    issuer: Option<&'c String>,
    audience: Option<&'c Audience>,
    jwks: Option<&'c KeySource>,
    secret: Option<&'c Secret>,
    public_key: Option<&'c String>,
    algorithms: Option<&'c Vec<AlgorithmName>>,
    kind: Option<&'c String>,
    ca: Option<&'c File>,
}

impl<'c> IssuerSettings<'c> {
    /// Returns the settings of the one issuer of a filter.
    pub fn of_filter(config: &'c Config, place: Place) -> Self {
        Self {
            place,
            issuer: config.issuer.as_ref(),
            audience: config.audience.as_ref(),
            jwks: config.jwks.as_ref(),
            secret: config.secret.as_ref(),
            public_key: config.public_key.as_ref(),
            algorithms: config.algorithms.as_ref(),
            kind: config.kind.as_ref(),
            ca: config.ca.as_ref(),
        }
    }

    /// Returns the settings of one of several issuers.
    pub fn of_issuer(config: &'c IssuerConfig, place: Place) -> Self {
        Self {
            place,
            issuer: Some(&config.issuer),
            audience: config.audience.as_ref(),
            jwks: config.jwks.as_ref(),
            secret: config.secret.as_ref(),
            public_key: config.public_key.as_ref(),
            algorithms: config.algorithms.as_ref(),
            kind: config.kind.as_ref(),
            ca: config.ca.as_ref(),
        }
    }

    /// Returns the first key that is given, which only one of several issuers may have.
    pub fn first_key(&self) -> Option<&'static str> {
        let given = [
            ("issuer", self.issuer.is_some()),
            ("audience", self.audience.is_some()),
            ("jwks", self.jwks.is_some()),
            ("secret", self.secret.is_some()),
            ("public_key", self.public_key.is_some()),
            ("algorithms", self.algorithms.is_some()),
            ("type", self.kind.is_some()),
            ("ca", self.ca.is_some()),
        ];
        given.into_iter().find_map(|(key, is_given)| is_given.then_some(key))
    }
}

/// Returns the algorithm of that name; the names are those of the crate.
fn algorithm(name: AlgorithmName) -> Option<Algorithm> {
    format!("{name:?}").parse().ok()
}

fn is_shared(algorithm: Algorithm) -> bool {
    matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

impl Issuer {
    /// Compiles an issuer; returns `None` when errors were noted.
    pub fn compile(settings: &IssuerSettings<'_>, config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let algorithms = settings.allowed();
        let keys = settings.keys(&algorithms, config, context)?;
        let fitting = match &keys {
            TokenKeys::Fixed(set) => set.keys.iter().any(|k| k.algorithms.iter().any(|a| algorithms.contains(a))),
            TokenKeys::Store(_) => true,
        };
        // Whoever can change what a URL leads to must not be able to choose a secret.
        let is_remote = settings.secret.is_none()
            && settings.public_key.is_none()
            && !matches!(settings.jwks, Some(KeySource(KeySetSource::File(_))));
        if !fitting || algorithms.is_empty() || (is_remote && algorithms.iter().any(|name| is_shared(*name))) {
            let text = "none of these algorithms can be used safely with the keys given";
            context.mistakes.add(&settings.place.key("algorithms"), text);
            return None;
        }
        let leeway = config.leeway.as_ref().map_or(30, |time| time.0.as_secs());
        Some(Self {
            name: settings.issuer.cloned(),
            keys,
            algorithms,
            validation: settings.validation(leeway),
            kind: settings.kind.map(|kind| media_type(kind)),
        })
    }

    /// Returns an issuer of ID tokens for one client (OpenID Connect Core, section 3.1.3.7).
    pub fn of_id_tokens(store: Arc<KeyStore>, issuer: &str, client: &str) -> Self {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = ID_TOKEN_LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[client]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let (name, keys) = (Some(issuer.to_owned()), TokenKeys::Store(store));
        Self { name, keys, algorithms: of_public_keys(), validation, kind: None }
    }

    /// Returns the present keys.
    pub fn present_keys(&self) -> Result<Arc<KeySet>, Unverified> {
        match &self.keys {
            TokenKeys::Fixed(set) => Ok(Arc::clone(set)),
            TokenKeys::Store(store) => store.keys().ok_or(Unverified::Unavailable("the issuer's keys are not there")),
        }
    }

    /// Returns the claims of a valid token, and the keys that verified it.
    pub async fn verify(&self, token: &[u8], head: &TokenHead) -> Result<(Claims, Arc<KeySet>), Unverified> {
        let set = self.present_keys()?;
        let algorithm = self.check_head(head)?;
        let set = self.keys_for(head, set).await?;
        Ok((self.check(token, head, algorithm, &set)?, set))
    }

    /// Checks a token's head against the configuration, and returns its algorithm.
    fn check_head(&self, head: &TokenHead) -> Result<Algorithm, Unverified> {
        let Some(algorithm) = head.algorithm.filter(|algorithm| self.algorithms.contains(algorithm)) else {
            return Err(Unverified::Invalid("the token's algorithm is not allowed"));
        };
        if self.kind.as_ref().is_some_and(|kind| *kind != head.kind) {
            return Err(Unverified::Invalid("the token is of another type"));
        }
        Ok(algorithm)
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

    /// Checks signature and claims with the keys that may apply: for a token that names none, all keys for its
    /// algorithm, of which a set has few (`MAX_KEYS` of `live`).
    fn check(&self, token: &[u8], head: &TokenHead, algorithm: Algorithm, set: &KeySet) -> Result<Claims, Unverified> {
        let meant = |key: &&VerifyingKey| match (&head.kid, &key.id) {
            (Some(asked), Some(id)) => asked == id,
            _ => true,
        };
        let fits = |key: &&VerifyingKey| key.algorithms.contains(&algorithm);
        let mut validation = self.validation.clone();
        validation.algorithms = vec![algorithm];
        let mut last = Unverified::Invalid("the token's key is not known");
        for key in set.keys.iter().filter(meant).filter(fits) {
            match jsonwebtoken::decode::<StrictObject>(token, &key.key, &validation) {
                Ok(data) => return Ok(data.claims.0),
                // Another key may be the right one, unless the signature is.
                Err(error) => match after_signature(error.kind()) {
                    Some(error) => return Err(error),
                    None if *error.kind() == ErrorKind::InvalidSignature => {
                        last = Unverified::Invalid("the token's signature is wrong");
                    }
                    None => last = Unverified::Invalid("the token is malformed"),
                },
            }
        }
        Err(last)
    }
}

/// Returns why a token is not accepted whose signature is right.
fn after_signature(kind: &ErrorKind) -> Option<Unverified> {
    Some(Unverified::Invalid(match kind {
        ErrorKind::ExpiredSignature => return Some(Unverified::Expired),
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks a required claim",
        _ => return None,
    }))
}

/// Returns the algorithms of public keys.
fn of_public_keys() -> Vec<Algorithm> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    vec![RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]
}

impl IssuerSettings<'_> {
    fn allowed(&self) -> Vec<Algorithm> {
        match self.algorithms {
            Some(names) => names.iter().filter_map(|name| algorithm(*name)).collect(),
            None if self.secret.is_some() => vec![Algorithm::HS256],
            None => of_public_keys(),
        }
    }

    fn validation(&self, leeway: u64) -> Validation {
        let mut validation = Validation::new(Algorithm::RS256);
        validation.leeway = leeway;
        validation.validate_nbf = true;
        let mut required = vec!["exp"];
        if let Some(issuer) = self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        match self.audience {
            Some(Audience::One(one)) => validation.set_audience(&[one]),
            Some(Audience::Several(several)) => validation.set_audience(several),
            None => validation.validate_aud = false,
        }
        if self.audience.is_some() {
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    /// Returns the keys, from the one source that is configured.
    fn keys(&self, algorithms: &[Algorithm], config: &Config, context: &mut CompileContext<'_>) -> Option<TokenKeys> {
        let fixed = |algorithms, key| {
            let keys = vec![VerifyingKey { id: None, algorithms, key }];
            TokenKeys::Fixed(Arc::new(KeySet { keys, generation: 0 }))
        };
        match (self.jwks, self.secret, self.public_key) {
            (Some(source), None, None) => self.store(source.0.clone(), config, context),
            (None, Some(secret), None) => {
                let secret = secret.0.reveal().as_bytes();
                // RFC 7518, section 3.2: no key is shorter than the output.
                let least = algorithms.iter().map(|name| match name {
                    Algorithm::HS384 => 48,
                    Algorithm::HS512 => 64,
                    _ => 32,
                });
                let least = least.max().unwrap_or(32);
                if secret.len() < least {
                    let text = format!("expected at least {least} bytes");
                    context.mistakes.add(&self.place.key("secret"), text);
                    return None;
                }
                let all = vec![Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
                Some(fixed(all, DecodingKey::from_secret(secret)))
            }
            (None, None, Some(pem)) => {
                let pem = pem.as_bytes();
                use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
                let found = DecodingKey::from_rsa_pem(pem)
                    .map(|key| fixed(vec![RS256, RS384, RS512, PS256, PS384, PS512], key))
                    .or_else(|_| DecodingKey::from_ec_pem(pem).map(|key| fixed(vec![ES256, ES384], key)))
                    .or_else(|_| DecodingKey::from_ed_pem(pem).map(|key| fixed(vec![EdDSA], key)));
                let wrong = |_| "expected a public key in PEM (RSA, EC P-256 or P-384, Ed25519)".to_owned();
                context.mistakes.take(&self.place.key("public_key"), found.map_err(wrong))
            }
            (None, None, None) if self.issuer.is_some_and(|issuer| issuer.parse::<IssuerUrl>().is_ok()) => {
                let issuer = self.issuer.cloned().unwrap_or_default();
                self.store(KeySetSource::Issuer(issuer), config, context)
            }
            _ => {
                let text = "expected exactly one of jwks, secret and public_key, or an issuer that is a URL";
                context.mistakes.add(&self.place, text);
                None
            }
        }
    }

    fn store(&self, source: KeySetSource, config: &Config, context: &mut CompileContext<'_>) -> Option<TokenKeys> {
        let place = self.place.key(if self.jwks.is_some() { "jwks" } else { "issuer" });
        let source = match source {
            KeySetSource::File(path) => {
                let path = context.base.join(path);
                let text = read_file(&path, MAX_MATERIAL).map_err(|e| format!("cannot read {}: {e}", path.display()));
                let keys =
                    text.and_then(|t| crate::live::parse_jwks(&t).map_err(|e| format!("{}: {e}", path.display())));
                context.mistakes.take(&place, keys)?;
                KeySetSource::File(path)
            }
            remote @ (KeySetSource::Url(_) | KeySetSource::Issuer(_)) => remote,
        };
        let time = |given: &Option<notation::Duration>, default| {
            given.as_ref().map_or(Duration::from_secs(default), |time| time.0)
        };
        let shape = KeyStoreShape {
            source,
            // Watched before it is read for use: a change in between is a change at the next reload.
            ca: self.ca.map(|ca| FileVersion::of(context.base.join(ca))),
            refresh: time(&config.refresh, 300),
            refetch_after: time(&config.refetch_after, 10),
            max_stale: time(&config.max_stale, 86_400),
        };
        let fresh = context.mistakes.take(&place, KeyStore::new(shape.clone()))?;
        let store = context.live.keys(&shape, || Arc::new(fresh));
        context.keep(store.clone());
        Some(TokenKeys::Store(store))
    }
}
