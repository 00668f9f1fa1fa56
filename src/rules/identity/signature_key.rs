//! The keys of HTTP message signatures, each with the one algorithm that it is used with (RFC 9421, section 3.3).

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA512,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// An algorithm by its name in IANA's registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// `ed25519`
    Ed25519,
    /// `ecdsa-p256-sha256`
    EcdsaP256Sha256,
    /// `rsa-pss-sha512`
    RsaPssSha512,
    /// `rsa-v1_5-sha256`
    RsaV15Sha256,
    /// `hmac-sha256`
    HmacSha256,
}

impl SignatureAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 5] =
        [Self::Ed25519, Self::EcdsaP256Sha256, Self::RsaPssSha512, Self::RsaV15Sha256, Self::HmacSha256];

    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::RsaV15Sha256 => "rsa-v1_5-sha256",
            Self::HmacSha256 => "hmac-sha256",
        }
    }
}

/// The least bytes of a shared secret (RFC 2104, section 3: no less than the output).
const MIN_SECRET: usize = 32;

/// A key with its algorithm.
pub struct SignatureKey {
    algorithm: SignatureAlgorithm,
    key: KeyMaterial,
}

enum KeyMaterial {
    Public(Box<ParsedPublicKey>),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for SignatureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignatureKey({})", self.algorithm.name())
    }
}

impl SignatureKey {
    /// Returns a public key in DER (`SubjectPublicKeyInfo`, RFC 5280).
    ///
    /// # Errors
    /// When it is no key for that algorithm.
    pub fn public(algorithm: SignatureAlgorithm, der: &[u8]) -> Result<Self, String> {
        let parsed = match algorithm {
            SignatureAlgorithm::Ed25519 => ParsedPublicKey::new(&ED25519, der),
            SignatureAlgorithm::EcdsaP256Sha256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der),
            SignatureAlgorithm::RsaPssSha512 => ParsedPublicKey::new(&RSA_PSS_2048_8192_SHA512, der),
            SignatureAlgorithm::RsaV15Sha256 => ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der),
            SignatureAlgorithm::HmacSha256 => return Err("hmac-sha256 needs a shared secret".to_owned()),
        };
        let wrong = |_| format!("it is no public key for {}", algorithm.name());
        Ok(Self { algorithm, key: KeyMaterial::Public(Box::new(parsed.map_err(wrong)?)) })
    }

    /// Returns a public key in PEM (RFC 7468, section 13), or for RSA in the form of PKCS #1.
    ///
    /// # Errors
    /// When it is no key for that algorithm.
    pub fn from_pem(algorithm: SignatureAlgorithm, pem: &str) -> Result<Self, String> {
        let wanted = || "expected a public key in PEM (-----BEGIN PUBLIC KEY-----)".to_owned();
        let inner = ["PUBLIC KEY", "RSA PUBLIC KEY"].iter().find_map(|label| {
            let (_, rest) = pem.split_once(&format!("-----BEGIN {label}-----"))?;
            rest.split_once(&format!("-----END {label}-----")).map(|(inner, _)| inner)
        });
        let text: String = inner.ok_or_else(wanted)?.split_ascii_whitespace().collect();
        Self::public(algorithm, &STANDARD.decode(text).map_err(|_| wanted())?)
    }

    /// Returns a shared secret, for `hmac-sha256`.
    ///
    /// # Errors
    /// When it is too short.
    pub fn secret(secret: &[u8]) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!("expected at least {MIN_SECRET} bytes"));
        }
        let key = KeyMaterial::Secret(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)));
        Ok(Self { algorithm: SignatureAlgorithm::HmacSha256, key })
    }

    /// Returns its algorithm.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Returns whether this is a signature of `message` with the key. Secrets are compared in constant time.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            KeyMaterial::Public(key) => key.verify_sig(message, signature).is_ok(),
            KeyMaterial::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}
