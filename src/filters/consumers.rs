//! The consumers of the configuration.

use std::collections::HashMap;
use std::sync::Arc;

use crate::rules::identity::PasswordHash;

/// The consumers by their credentials.
#[derive(Debug, Default)]
pub struct Consumers {
    by_key: HashMap<[u8; 32], Arc<str>, ahash::RandomState>,
    by_subject: HashMap<String, Vec<(Option<String>, Arc<str>)>, ahash::RandomState>,
    by_username: HashMap<String, Account, ahash::RandomState>,
    /// The password hashes of all consumers, in the order of the configuration.
    hashes: Vec<Arc<PasswordHash>>,
}

/// The account of a name and its password.
#[derive(Debug)]
pub struct Account {
    /// The hash of the password.
    pub hash: Arc<PasswordHash>,
    /// The consumer.
    pub name: Arc<str>,
}

/// Returns the digest by which an API key is found. The time of a look-up by it does not depend on how much of a
/// wrong key is right, since the digest of a similar key is entirely different.
pub fn consumer_digest(key: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

impl Consumers {
    /// Adds an API key. Returns false when it belongs to another consumer already.
    pub fn add_key(&mut self, digest: [u8; 32], name: &Arc<str>) -> bool {
        self.by_key.insert(digest, Arc::clone(name)).is_none()
    }

    /// Adds a token's subject. Returns false when it belongs to another consumer already.
    pub fn add_subject(&mut self, subject: &str, issuer: Option<&str>, name: &Arc<str>) -> bool {
        let known = self.by_subject.entry(subject.to_owned()).or_default();
        let clash = known.iter().any(|(other, _)| other.as_deref() == issuer);
        known.push((issuer.map(str::to_owned), Arc::clone(name)));
        !clash
    }

    /// Returns the consumer with that API key.
    pub fn by_key(&self, key: &[u8]) -> Option<&Arc<str>> {
        self.by_key.get(&consumer_digest(key))
    }

    /// Returns the consumer of that token: an entry for its issuer comes before one for any.
    pub fn by_subject(&self, subject: &str, issuer: Option<&str>) -> Option<&Arc<str>> {
        let known = self.by_subject.get(subject)?;
        let exact = known.iter().find(|(i, _)| i.is_some() && i.as_deref() == issuer);
        exact.or_else(|| known.iter().find(|(i, _)| i.is_none())).map(|(_, name)| name)
    }

    /// Adds a name with the hash of its password. Returns false when the name belongs to another consumer already.
    pub fn add_username(&mut self, username: &str, hash: PasswordHash, name: &Arc<str>) -> bool {
        let hash = Arc::new(hash);
        self.hashes.push(Arc::clone(&hash));
        self.by_username.insert(username.to_owned(), Account { hash, name: Arc::clone(name) }).is_none()
    }

    /// Returns the account of that name.
    pub fn by_username(&self, username: &str) -> Option<&Account> {
        self.by_username.get(username)
    }

    /// Returns the hashes of all passwords.
    pub fn hashes(&self) -> &[Arc<PasswordHash>] {
        &self.hashes
    }

    /// Returns whether any consumer has an API key.
    pub fn has_keys(&self) -> bool {
        !self.by_key.is_empty()
    }
}
