//! The verification of tokens, whose results are cached.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::issuer::{Issuer, IssuerSettings};
use super::{Config, RequiredClaims};
use crate::exchange::{Claims, claim};
use crate::filters::CompileContext;
use crate::filters::authenticate::claims::{ClaimRules, Verified};
use crate::filters::claim_value::ClaimValue;
use crate::live::{KeySet, KeyStore, VerifiedTokens, consumer_digest};
use crate::notation::OneOrMany;
use crate::rules::identity::token::{TokenHead, unverified_issuer};

/// The longest token; longer ones are rejected unread.
const MAX_TOKEN: usize = 8 * 1024;

/// The longest ID token, which comes from the provider itself.
const MAX_ID_TOKEN: usize = 32 * 1024;

/// The most issuers of a filter.
const MAX_ISSUERS: usize = 64;

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

/// Verifies tokens by one configuration.
#[derive(Debug)]
pub struct Verifier {
    /// One, or several with names.
    issuers: Vec<Issuer>,
    max_token: usize,
    required: BTreeMap<String, OneOrMany<ClaimValue>>,
    claims: ClaimRules,
    cached: VerifiedTokens<CachedResult>,
}

/// The result for a verified token, and the keys that it depends on.
#[derive(Debug)]
struct CachedResult {
    /// The place of its issuer.
    issuer: usize,
    /// The number of changes of the issuer's keys.
    generation: u64,
    verified: Arc<Verified>,
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

impl Verifier {
    /// Compiles the verifier, or returns that of another route with the same settings.
    pub fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Arc<Self>> {
        let identity = context.identity();
        context.shared(&identity, |context| Self::build(config, context))
    }

    fn build(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let place = context.place.clone();
        if config.leeway.as_ref().is_some_and(|time| time.0.as_secs() > 60) {
            context.mistakes.add(&place.key("leeway"), "expected at most 60s");
        }
        let issuers = issuers(config, context)?;
        let (names, required) = match &config.required_claims {
            RequiredClaims::Names(names) => (names.clone(), BTreeMap::new()),
            RequiredClaims::Values(values) => (Vec::new(), values.clone()),
        };
        for (name, _) in required.iter().filter(|(_, values)| values.as_slice().is_empty()) {
            let place = place.key("required_claims").key(name.clone());
            context.mistakes.add(&place, "expected a value, or a list of values of which the claim has one");
        }
        Some(Self {
            issuers,
            max_token: MAX_TOKEN,
            required,
            claims: ClaimRules {
                consumer_claim: config.consumer_claim.clone(),
                known_consumers: config.known_consumers,
                required: names,
                forward: ClaimRules::forwarded(&config.forward_claims),
                consumers: Arc::clone(context.consumers),
            },
            cached: VerifiedTokens::default(),
        })
    }

    /// Returns a verifier of the ID tokens of an issuer for one client (OpenID Connect Core, section 3.1.3.7).
    pub fn of_id_tokens(store: Arc<KeyStore>, issuer: &str, client: &str, claims: ClaimRules) -> Self {
        let issuers = vec![Issuer::of_id_tokens(store, issuer, client)];
        Self { max_token: MAX_ID_TOKEN, issuers, required: BTreeMap::new(), claims, cached: VerifiedTokens::default() }
    }

    /// Returns the cached result of a token that was verified recently.
    pub fn cached(&self, token: &[u8]) -> Option<Arc<Verified>> {
        if token.len() > self.max_token {
            return None;
        }
        let known = self.cached.get(&consumer_digest(token), self.claims.consumers.generation(), unix_now())?;
        // Keys that have changed, or are too old to trust, verify nothing any more.
        let keys = self.issuers.get(known.issuer)?.present_keys().ok()?;
        (keys.generation == known.generation).then(|| Arc::clone(&known.verified))
    }

    /// Returns what the gateway needs of claims that have been verified.
    ///
    /// # Errors
    /// When the client is not acceptable.
    pub fn accept(&self, claims: Arc<Claims>) -> Result<Verified, &'static str> {
        self.claims.accept(claims)
    }

    /// Returns the claims of a valid token, and the keys that verified it.
    pub async fn verified_claims(&self, token: &[u8]) -> Result<(Claims, Arc<KeySet>), Unverified> {
        let (claims, set, _) = self.verify_signature(token).await?;
        Ok((claims, set))
    }

    /// Verifies a token.
    pub async fn verify(&self, token: &[u8]) -> Result<Arc<Verified>, Unverified> {
        let (claims, set, issuer) = self.verify_signature(token).await?;
        // Taken before the consumer is looked up: a change in between is seen by the next request.
        let consumers = self.claims.consumers.generation();
        for (name, values) in &self.required {
            let is_right = |claim: &Value| values.as_slice().iter().any(|value| value.is_in(claim));
            if !claim(&claims, name).is_some_and(is_right) {
                return Err(Unverified::Invalid("a required claim has another value"));
            }
        }
        let expires = claims.get("exp").and_then(Value::as_f64);
        let verified = Arc::new(self.claims.accept(Arc::new(claims)).map_err(Unverified::Invalid)?);
        if let Some(expires) = expires {
            let result = CachedResult { issuer, generation: set.generation, verified: Arc::clone(&verified) };
            self.cached.insert(consumer_digest(token), Arc::new(result), consumers, expires as u64, unix_now());
        }
        Ok(verified)
    }

    /// Returns the claims of a valid token, the keys that verified it, and the place of its issuer.
    async fn verify_signature(&self, token: &[u8]) -> Result<(Claims, Arc<KeySet>, usize), Unverified> {
        if token.len() > self.max_token {
            return Err(Unverified::Invalid("the token is too long"));
        }
        let head = TokenHead::parse(token).map_err(Unverified::Invalid)?;
        let place = self.issuer_of(token)?;
        let (claims, set) = self.issuers[place].verify(token, &head).await?;
        Ok((claims, set, place))
    }

    /// Returns the place of the issuer whose token this claims to be.
    fn issuer_of(&self, token: &[u8]) -> Result<usize, Unverified> {
        if self.issuers.len() == 1 {
            return Ok(0);
        }
        let named = unverified_issuer(token);
        let found = self.issuers.iter().position(|issuer| named.is_some() && issuer.name == named);
        found.ok_or(Unverified::Invalid("the token is from another issuer"))
    }
}

/// Compiles the issuers: the one of the filter itself, or several.
fn issuers(config: &Config, context: &mut CompileContext<'_>) -> Option<Vec<Issuer>> {
    let place = context.place.clone();
    let own = IssuerSettings::of_filter(config, place.clone());
    if config.issuers.is_empty() {
        return Issuer::compile(&own, config, context).map(|issuer| vec![issuer]);
    }
    if let Some(key) = own.first_key() {
        context.mistakes.add(&place.name(key), "belongs to each of issuers, and not beside them");
    }
    if config.issuers.len() > MAX_ISSUERS {
        context.mistakes.add(&place.key("issuers"), format!("at most {MAX_ISSUERS} issuers are allowed"));
        return None;
    }
    let mut compiled: Vec<Issuer> = Vec::with_capacity(config.issuers.len());
    for (index, one) in config.issuers.iter().enumerate() {
        let place = place.key("issuers").index(index);
        if config.issuers[..index].iter().any(|earlier| earlier.issuer == one.issuer) {
            context.mistakes.add(&place.key("issuer"), "this issuer is there a second time");
        }
        compiled.extend(Issuer::compile(&IssuerSettings::of_issuer(one, place), config, context));
    }
    (compiled.len() == config.issuers.len()).then_some(compiled)
}
