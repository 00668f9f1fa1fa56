//! The consumers by their credentials.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::written::{ApiKeyCredential, CertificateCredential, ConsumerConfig, Credential};
use crate::exchange::{ConsumerFacts, PeerCertificate};
use crate::notation::{Mistakes, Name, Place, SecretText};
use crate::rules::identity::{PasswordHash, SignatureKey};

/// The longest name of a name and a password.
const MAX_USERNAME: usize = 255;

/// The consumers by their credentials. A look-up takes the same time however many there are.
#[derive(Debug, Default)]
pub struct ConsumerTable {
    by_name: AHashMap<Arc<str>, Arc<ConsumerFacts>>,
    by_key: AHashMap<[u8; 32], KnownKey>,
    by_subject: AHashMap<Box<str>, Vec<(Option<Box<str>>, Arc<ConsumerFacts>)>>,
    by_username: AHashMap<Box<str>, Account>,
    by_hmac_key: AHashMap<Box<str>, HmacKey>,
    by_signature_key: AHashMap<Box<str>, SigningKey>,
    by_fingerprint: AHashMap<[u8; 32], Arc<ConsumerFacts>>,
    /// By the subject or an alternative name of a certificate; the latter begins with its kind, such as `DNS:`, and a
    /// subject with a keyword and `=`.
    by_certificate_name: AHashMap<Box<str>, Arc<ConsumerFacts>>,
    /// The password hashes of all consumers, in the order in which they were added.
    hashes: Vec<Arc<PasswordHash>>,
    /// Names that consumers have in common, each kept once.
    plans: AHashSet<Arc<str>>,
}

/// An API key of a consumer.
#[derive(Clone, Debug)]
pub struct KnownKey {
    /// The consumer.
    pub consumer: Arc<ConsumerFacts>,
    /// The scopes of requests with it, if it has any.
    pub scopes: Option<Arc<[Box<str>]>>,
    /// The time from which on it is rejected, in seconds of Unix time.
    expires: u64,
}

/// The account of a name and its password.
#[derive(Clone, Debug)]
pub struct Account {
    /// The hash of the password.
    pub hash: Arc<PasswordHash>,
    /// The consumer.
    pub consumer: Arc<ConsumerFacts>,
}

/// A key for signatures of AWS's form.
#[derive(Clone, Debug)]
pub struct HmacKey {
    /// The key itself.
    pub secret: SecretText,
    /// The consumer.
    pub consumer: Arc<ConsumerFacts>,
}

/// A key for HTTP message signatures.
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// The key with its algorithm.
    pub key: Arc<SignatureKey>,
    /// The consumer.
    pub consumer: Arc<ConsumerFacts>,
}

/// The least bytes of a key for signatures of AWS's form: those of AWS have 40.
const MIN_HMAC_SECRET: usize = 16;

/// The longest id of a key.
const MAX_KEY_ID: usize = 256;

/// Returns the digest by which an API key is found. The time of a look-up by it does not depend on how much of a
/// wrong key is right, since the digest of a similar key is entirely different.
pub fn consumer_digest(key: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
    let mut out = [0; 32];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Returns the id by which operators name a key: the first digits of its digest.
pub fn key_id(digest: &[u8; 32]) -> String {
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl ConsumerTable {
    /// Adds a consumer, whose place is that in its document; notes the errors in it.
    pub fn add(&mut self, name: &str, config: &ConsumerConfig, place: &Place, mistakes: &mut Mistakes) {
        if let Err(expected) = name.parse::<Name>() {
            mistakes.add(place, format!("expected {expected}"));
        }
        let consumer = Arc::new(ConsumerFacts {
            name: name.into(),
            groups: config.groups.iter().map(|group| group.0.as_str().into()).collect(),
            plan: config.plan.as_ref().map(|plan| self.plan(&plan.0)),
            allowance: config.allowance().map(Arc::new),
        });
        for (index, credential) in config.credentials.iter().enumerate() {
            let at = || place.key("credentials").index(index);
            let fresh = match credential {
                Credential::ApiKey(key) => match (&key.sha256, &key.value) {
                    (Some(digest), None) => self.add_key(digest.0, key, &consumer),
                    (None, Some(value)) => self.add_key(consumer_digest(value.0.reveal().as_bytes()), key, &consumer),
                    _ => {
                        mistakes.add(&at().key("api_key"), "expected exactly one of sha256 and value");
                        true
                    }
                },
                Credential::Basic(basic) => {
                    if let Some(wrong) = wrong_username(&basic.username) {
                        mistakes.add(&at().key("basic").key("username"), wrong);
                    }
                    let hash = Arc::new(basic.hash.0.clone());
                    self.hashes.push(Arc::clone(&hash));
                    let account = Account { hash, consumer: Arc::clone(&consumer) };
                    self.by_username.insert(basic.username.as_str().into(), account).is_none()
                }
                Credential::Hmac(hmac) => {
                    let place = || at().key("hmac");
                    check_key_id(&hmac.key_id, &place, mistakes);
                    if hmac.secret.0.reveal().len() < MIN_HMAC_SECRET {
                        mistakes.add(&place().key("secret"), format!("expected at least {MIN_HMAC_SECRET} bytes"));
                    }
                    let key = HmacKey { secret: hmac.secret.0.clone(), consumer: Arc::clone(&consumer) };
                    self.by_hmac_key.insert(hmac.key_id.as_str().into(), key).is_none()
                }
                Credential::HttpSignature(signature) => {
                    let place = || at().key("http_signature");
                    check_key_id(&signature.key_id, &place, mistakes);
                    match signature.key() {
                        Ok(key) => {
                            let key = SigningKey { key: Arc::new(key), consumer: Arc::clone(&consumer) };
                            self.by_signature_key.insert(signature.key_id.as_str().into(), key).is_none()
                        }
                        Err((key, why)) => {
                            mistakes.add(&place().key(key), why);
                            true
                        }
                    }
                }
                Credential::Mtls(certificate) => match self.add_certificate(certificate, &consumer) {
                    Some(fresh) => fresh,
                    None => {
                        mistakes.add(&at().key("mtls"), "expected exactly one of fingerprint, subject and san");
                        true
                    }
                },
                Credential::Jwt(token) => self.add_subject(&token.subject, token.issuer.as_deref(), &consumer),
            };
            if !fresh {
                mistakes.add(&at(), "this credential is there a second time");
            }
        }
        self.by_name.insert(Arc::clone(&consumer.name), consumer);
    }

    fn plan(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.plans.get(name) {
            return Arc::clone(known);
        }
        let plan: Arc<str> = name.into();
        self.plans.insert(Arc::clone(&plan));
        plan
    }

    /// Adds an API key. Returns false when it is there already.
    fn add_key(&mut self, digest: [u8; 32], config: &ApiKeyCredential, consumer: &Arc<ConsumerFacts>) -> bool {
        let scopes = config.scopes.iter().map(|scope| scope.as_str().into()).collect::<Arc<[Box<str>]>>();
        let known = KnownKey {
            consumer: Arc::clone(consumer),
            scopes: (!scopes.is_empty()).then_some(scopes),
            expires: config.expires.as_ref().map_or(u64::MAX, |time| time.0),
        };
        self.by_key.insert(digest, known).is_none()
    }

    /// Adds a certificate. Returns whether it is new; `None` if it is not said by one property.
    fn add_certificate(&mut self, config: &CertificateCredential, consumer: &Arc<ConsumerFacts>) -> Option<bool> {
        let consumer = Arc::clone(consumer);
        let name = match (&config.fingerprint, &config.subject, &config.san) {
            (Some(fingerprint), None, None) => {
                return Some(self.by_fingerprint.insert(fingerprint.0, consumer).is_none());
            }
            (None, Some(subject), None) => subject.as_str(),
            (None, None, Some(san)) => san.0.as_str(),
            _ => return None,
        };
        Some(self.by_certificate_name.insert(name.into(), consumer).is_none())
    }

    /// Returns the consumer with that certificate: first by its fingerprint, then by its alternative names, then by its
    /// subject.
    pub fn by_certificate(&self, certificate: &PeerCertificate) -> Option<&Arc<ConsumerFacts>> {
        let by_name = |name: &str| self.by_certificate_name.get(name);
        let by_names = || certificate.names.iter().find_map(|name| by_name(name));
        let by_fingerprint = self.by_fingerprint.get(&certificate.fingerprint);
        by_fingerprint.or_else(by_names).or_else(|| by_name(&certificate.subject))
    }

    /// Returns whether any consumer has a certificate.
    pub fn has_certificates(&self) -> bool {
        !self.by_fingerprint.is_empty() || !self.by_certificate_name.is_empty()
    }

    /// Adds a token's subject. Returns false when it is there already.
    fn add_subject(&mut self, subject: &str, issuer: Option<&str>, consumer: &Arc<ConsumerFacts>) -> bool {
        let known = self.by_subject.entry(subject.into()).or_default();
        let clash = known.iter().any(|(other, _)| other.as_deref() == issuer);
        known.push((issuer.map(Into::into), Arc::clone(consumer)));
        !clash
    }

    /// Returns the consumer with that API key, unless the key has expired.
    pub fn by_key(&self, digest: &[u8; 32]) -> Option<&KnownKey> {
        self.by_key.get(digest).filter(|key| key.expires == u64::MAX || key.expires > unix_now())
    }

    /// Returns the consumer of that token: an entry for its issuer comes before one for any.
    pub fn by_subject(&self, subject: &str, issuer: Option<&str>) -> Option<&Arc<ConsumerFacts>> {
        let known = self.by_subject.get(subject)?;
        let exact = known.iter().find(|(i, _)| i.is_some() && i.as_deref() == issuer);
        exact.or_else(|| known.iter().find(|(i, _)| i.is_none())).map(|(_, consumer)| consumer)
    }

    /// Returns the account of that name.
    pub fn by_username(&self, username: &str) -> Option<&Account> {
        self.by_username.get(username)
    }

    /// Returns the key of that id for signatures of AWS's form.
    pub fn by_hmac_key(&self, id: &str) -> Option<&HmacKey> {
        self.by_hmac_key.get(id)
    }

    /// Returns the key of that id for HTTP message signatures.
    pub fn by_signature_key(&self, id: &str) -> Option<&SigningKey> {
        self.by_signature_key.get(id)
    }

    /// Returns whether any consumer has a key for signatures of AWS's form.
    pub fn has_hmac_keys(&self) -> bool {
        !self.by_hmac_key.is_empty()
    }

    /// Returns whether any consumer has a key for HTTP message signatures.
    pub fn has_signature_keys(&self) -> bool {
        !self.by_signature_key.is_empty()
    }

    /// Returns the consumer of that name.
    pub fn by_name(&self, name: &str) -> Option<&Arc<ConsumerFacts>> {
        self.by_name.get(name)
    }

    /// Returns the hashes of all passwords.
    pub fn hashes(&self) -> &[Arc<PasswordHash>] {
        &self.hashes
    }

    /// Returns whether any consumer has an API key.
    pub fn has_keys(&self) -> bool {
        !self.by_key.is_empty()
    }

    /// Returns the names of the consumers, in any order.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.by_name.keys()
    }

    /// Returns the number of consumers.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Returns the names of the plans that consumers have.
    pub fn plans(&self) -> impl Iterator<Item = &Arc<str>> {
        self.plans.iter()
    }
}

/// Notes the error of an id of a key that no signature can have.
fn check_key_id(id: &str, place: &dyn Fn() -> Place, mistakes: &mut Mistakes) {
    if id.is_empty() || id.len() > MAX_KEY_ID || id.contains(|c: char| !c.is_ascii_graphic() && c != ' ') {
        let text = format!("expected at most {MAX_KEY_ID} visible ASCII characters");
        mistakes.add(&place().key("key_id"), text);
    }
}

fn wrong_username(username: &str) -> Option<String> {
    if username.is_empty() || username.len() > MAX_USERNAME {
        Some(format!("expected a name of at most {MAX_USERNAME} bytes"))
    } else if username.contains(|c: char| c == ':' || c.is_control()) {
        Some("expected a name without colons and control characters (RFC 7617, section 2)".to_owned())
    } else {
        None
    }
}
