//! Who calls, as the configuration knows them.

use std::collections::HashMap;
use std::sync::Arc;

/// Consumers by what they are known by.
#[derive(Debug, Default)]
pub struct Consumers {
    by_key: HashMap<[u8; 32], Arc<str>, ahash::RandomState>,
    by_subject: HashMap<String, Vec<(Option<String>, Arc<str>)>, ahash::RandomState>,
}

/// The digest by which an API key is known. A lookup by it takes no time that depends on how much of
/// a wrong key is right, since the digest of a near miss is nowhere near.
pub fn consumer_digest(key: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

impl Consumers {
    /// Adds an API key. False when it belongs to someone already.
    pub fn add_key(&mut self, digest: [u8; 32], name: &Arc<str>) -> bool {
        self.by_key.insert(digest, Arc::clone(name)).is_none()
    }

    /// Adds a token's subject. False when it belongs to someone already.
    pub fn add_subject(&mut self, subject: &str, issuer: Option<&str>, name: &Arc<str>) -> bool {
        let known = self.by_subject.entry(subject.to_owned()).or_default();
        let clash = known.iter().any(|(other, _)| other.as_deref() == issuer);
        known.push((issuer.map(str::to_owned), Arc::clone(name)));
        !clash
    }

    /// Whose API key it is.
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<str>> {
        self.by_key.get(&consumer_digest(key))
    }

    /// Whose token it is: an entry for its issuer before one for any.
    pub fn by_subject(&self, subject: &str, issuer: Option<&str>) -> Option<&Arc<str>> {
        let known = self.by_subject.get(subject)?;
        let exact = known.iter().find(|(i, _)| i.is_some() && i.as_deref() == issuer);
        exact.or_else(|| known.iter().find(|(i, _)| i.is_none())).map(|(_, name)| name)
    }

    /// Whether anyone has an API key.
    pub fn has_keys(&self) -> bool {
        !self.by_key.is_empty()
    }
}
