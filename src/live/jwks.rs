//! JSON Web Key Sets (RFC 7517).

use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

/// A key that may verify a token.
#[derive(Clone)]
pub struct VerifyingKey {
    /// The `kid`, if it has one.
    pub id: Option<String>,
    /// The algorithms that it can be used with.
    pub algorithms: Vec<Algorithm>,
    /// The key.
    pub key: DecodingKey,
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The error of an unusable key set. It may be logged.
pub type KeyError = String;

/// The most keys of a set: a token that names none is tried with all of them.
pub const MAX_KEYS: usize = 256;

/// Reads a JSON Web Key Set (RFC 7517). Keys for encryption and of unknown kinds are ignored.
///
/// # Errors
/// Fails when the text is no key set, or no key in it can verify anything.
pub fn parse_jwks(text: &[u8]) -> Result<Vec<VerifyingKey>, KeyError> {
    let document: serde_json::Value = serde_json::from_slice(text).map_err(|e| format!("no JSON: {e}"))?;
    let items = document.get("keys").and_then(|k| k.as_array()).ok_or("no JWKS: it has no \"keys\"")?;
    let mut keys = Vec::new();
    for item in items {
        let one = serde_json::json!({ "keys": [item] });
        let Ok(set) = serde_json::from_value::<JwkSet>(one) else { continue };
        keys.extend(set.keys.iter().filter_map(verifying_key));
    }
    match keys.len() {
        0 => Err("no key in the set can verify a token".to_owned()),
        count if count > MAX_KEYS => Err(format!("{count} keys are too many: at most {MAX_KEYS} are allowed")),
        _ => Ok(keys),
    }
}

fn verifying_key(jwk: &jsonwebtoken::jwk::Jwk) -> Option<VerifyingKey> {
    use jsonwebtoken::jwk::{EllipticCurve, PublicKeyUse};
    if jwk.common.public_key_use.as_ref().is_some_and(|u| *u != PublicKeyUse::Signature) {
        return None;
    }
    let by_kind: Vec<Algorithm> = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(p) => match p.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
        AlgorithmParameters::OctetKey(_) => AlgorithmFamily::Hmac.algorithms().to_vec(),
        _ => return None,
    };
    let named = jwk.common.key_algorithm.and_then(|a| a.to_string().parse::<Algorithm>().ok());
    let algorithms = match (named, jwk.common.key_algorithm) {
        (Some(one), _) if by_kind.contains(&one) => vec![one],
        (None, None) => by_kind,
        _ => return None,
    };
    Some(VerifyingKey { id: jwk.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(jwk).ok()? })
}
