//! The consumers as filters see them: those of the configuration, and behind them those of the file.

use std::sync::Arc;

use ahash::AHashMap;

use crate::exchange::{Allowance, ConsumerFacts, Identity, PeerCertificate};
use crate::live::{Account, ConsumerFile, ConsumerTable, HmacKey, KnownKey, SigningKey, consumer_digest};
use crate::rules::identity::PasswordHash;

/// The consumers and the plans. What the file has may change at any time.
#[derive(Debug, Default)]
pub struct Consumers {
    configured: ConsumerTable,
    file: Option<Arc<ConsumerFile>>,
    plans: AHashMap<Box<str>, Arc<Allowance>>,
}

impl Consumers {
    /// Returns the consumers of the configuration and of the file. A credential that both have belongs to that of the
    /// configuration.
    pub fn new(
        configured: ConsumerTable,
        file: Option<Arc<ConsumerFile>>,
        plans: AHashMap<Box<str>, Arc<Allowance>>,
    ) -> Self {
        Self { configured, file, plans }
    }

    /// Returns what `find` finds in the configuration's table, or else in the file's.
    fn find<T>(&self, find: impl Fn(&ConsumerTable) -> Option<T>) -> Option<T> {
        find(&self.configured).or_else(|| self.file.as_ref().and_then(|file| find(&file.table())))
    }

    /// Returns the consumer with that API key.
    pub fn by_key(&self, key: &[u8]) -> Option<KnownKey> {
        let digest = consumer_digest(key);
        self.find(|table| table.by_key(&digest).cloned())
    }

    /// Returns the consumer of that token: an entry for its issuer comes before one for any.
    pub fn by_subject(&self, subject: &str, issuer: Option<&str>) -> Option<Arc<ConsumerFacts>> {
        self.find(|table| table.by_subject(subject, issuer).cloned())
    }

    /// Returns the account of that name.
    pub fn by_username(&self, username: &str) -> Option<Account> {
        self.find(|table| table.by_username(username).cloned())
    }

    /// Returns the key of that id for signatures of AWS's form.
    pub fn by_hmac_key(&self, id: &str) -> Option<HmacKey> {
        self.find(|table| table.by_hmac_key(id).cloned())
    }

    /// Returns the key of that id for HTTP message signatures.
    pub fn by_signature_key(&self, id: &str) -> Option<SigningKey> {
        self.find(|table| table.by_signature_key(id).cloned())
    }

    /// Returns whether a consumer may have a key for signatures of AWS's form; those of a file may get one at any time.
    pub fn has_hmac_keys(&self) -> bool {
        self.file.is_some() || self.configured.has_hmac_keys()
    }

    /// Returns whether a consumer may have a key for HTTP message signatures; those of a file may get one at any time.
    pub fn has_signature_keys(&self) -> bool {
        self.file.is_some() || self.configured.has_signature_keys()
    }

    /// Returns the consumer with that certificate.
    pub fn by_certificate(&self, certificate: &PeerCertificate) -> Option<Arc<ConsumerFacts>> {
        self.find(|table| table.by_certificate(certificate).cloned())
    }

    /// Returns whether a consumer may have a certificate; those of a file may get one at any time.
    pub fn has_certificates(&self) -> bool {
        self.file.is_some() || self.configured.has_certificates()
    }

    /// Returns the consumer of that name.
    pub fn by_name(&self, name: &str) -> Option<Arc<ConsumerFacts>> {
        self.find(|table| table.by_name(name).cloned())
    }

    /// Returns the names after `after`, in their order, at most 1001 of them, and the number of all consumers.
    pub fn names(&self, after: &str) -> (Vec<Arc<str>>, usize) {
        const MOST: usize = 1_001;
        let mut first = std::collections::BTreeSet::new();
        let mut count = self.configured.len();
        let mut add = |name: &Arc<str>| {
            if **name > *after {
                first.insert(Arc::clone(name));
                if first.len() > MOST {
                    first.pop_last();
                }
            }
        };
        self.configured.names().for_each(&mut add);
        if let Some(file) = &self.file {
            let table = file.table();
            count += table.names().filter(|name| self.configured.by_name(name).is_none()).count();
            table.names().for_each(&mut add);
        }
        (first.into_iter().collect(), count)
    }

    /// Returns one of the hashes of passwords, to verify the password of an unknown name with; `choose` chooses a
    /// number below that of the hashes.
    pub fn decoy(&self, choose: impl Fn(usize) -> Option<usize>) -> Option<Arc<PasswordHash>> {
        let file = self.file.as_ref().map(|file| file.table());
        let of_file = file.as_ref().map_or(&[][..], |table| table.hashes());
        let all = self.configured.hashes();
        let place = choose(all.len() + of_file.len())?;
        all.get(place).or_else(|| of_file.get(place - all.len())).cloned()
    }

    /// Returns a number that differs once a consumer or a credential has changed: verdicts that depend on them are
    /// cached with it.
    pub fn generation(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.generation())
    }

    /// Returns one of the sender's limits, which `pick` takes from its own limits, or else from those of its plan.
    pub fn limit_of<T>(&self, identity: &Identity, pick: impl Fn(&Allowance) -> Option<T>) -> Option<T> {
        let consumer = identity.consumer.as_ref()?;
        let own = consumer.allowance.as_deref().and_then(&pick);
        own.or_else(|| pick(self.plans.get(&**consumer.plan.as_ref()?)?))
    }

    /// Returns the file of consumers, if there is one.
    pub fn file(&self) -> Option<&Arc<ConsumerFile>> {
        self.file.as_ref()
    }

    /// Returns the consumers of the configuration.
    pub fn configured(&self) -> &ConsumerTable {
        &self.configured
    }

    /// Returns the limits of the plan of that name.
    pub fn plan(&self, name: &str) -> Option<&Arc<Allowance>> {
        self.plans.get(name)
    }

    /// Returns whether a consumer may have an API key; those of a file may get one at any time.
    pub fn has_keys(&self) -> bool {
        self.file.is_some() || self.configured.has_keys()
    }

    /// Returns whether a consumer may have a password; those of a file may get one at any time.
    pub fn has_passwords(&self) -> bool {
        self.file.is_some() || !self.configured.hashes().is_empty()
    }
}
