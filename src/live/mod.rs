//! The state that a reload and an upgrade keep: targets with their health and counters, buckets of limits, keys.
//!
//! It is found by name and shape. What a new configuration uses again is the very same object; what it no longer uses
//! is dropped with the last request that uses it.

mod acme;
mod aws_keys;
mod buckets;
mod buckets_handover;
mod cache;
mod caches;
mod consumers;
mod heritable;
mod introspected;
mod jwks;
mod keys;
mod maintained;
mod nonces;
mod pacers;
mod passwords;
mod places;
mod pools;
mod provider;
mod quotas;
mod refreshed;
mod renewed;
mod secrets;
mod sessions;
mod shelf;
mod target_tokens;
mod turns;
mod verified;
mod watched;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clients::{HttpClient, HttpClientSettings};
use crate::rules::identity::{Countries, Networks};
use crate::tls::TicketKeys;
use crate::upstreams::{Pool, PoolShape, Sessions};

pub use acme::{AcmeChallenge, AcmeManager, AcmeShape};
pub use aws_keys::AwsKeysSource;
pub use buckets::Buckets;
pub use cache::{
    BodyError, Cache, CacheSettings, CacheView, DiskSettings, EntryView, Filling, Generation, HeadMemo, Purge,
    StoredBody, StoredHead, StoredKey, StoredResponse,
};
pub use consumers::{
    Account, AllowanceConfig, ChangeError, ConsumerConfig, ConsumerFile, ConsumerTable, HmacKey, KnownKey, SigningKey,
    consumer_digest, key_id,
};
pub use heritable::{HandoverPart, Heritable};
pub use introspected::{IntrospectedToken, IntrospectedTokens, IntrospectionError, IntrospectionResult};
pub use jwks::{VerifyingKey, parse_jwks};
pub use keys::{KeySet, KeyStore, KeyStoreShape};
pub use maintained::Maintained;
pub use nonces::{NonceUse, Nonces};
pub use pacers::Pacers;
pub use passwords::{PasswordVerdict, Passwords};
pub use places::{Places, TakenPlace};
pub use provider::ProviderMetadata;
pub use quotas::{QuotaCounts, QuotaOutcome, QuotaStore};
pub use refreshed::{RefreshResult, RefreshedSessions};
pub use renewed::{CredentialGuard, Renewed};
pub use target_tokens::TargetTokenSource;
pub use turns::{NoTurn, QueueBounds, Turns};
pub use verified::VerifiedTokens;
pub use watched::WatchedFile;

use caches::Caches;
use keys::KeyStores;
use pools::Pools;
use secrets::Secrets;
use shelf::Shelf;
use watched::WatchedFiles;

/// The state that outlives a configuration.
#[derive(Debug, Default)]
pub struct Live {
    pools: Pools,
    /// By the limit's name: its route and place, or a shared name. A limit that a reload changes keeps its counts.
    buckets: Shelf<String, Buckets>,
    /// Places, turns and paces by the limit's name, likewise.
    places: Shelf<String, Places>,
    turns: Shelf<String, Turns>,
    pacers: Shelf<String, Pacers>,
    /// The stores of quotas by their folders, and the counts in each by the quota's name.
    quota_stores: Shelf<PathBuf, QuotaStore>,
    quotas: Shelf<(PathBuf, String), QuotaCounts>,
    keys: KeyStores,
    /// Sessions by the upstream's name.
    sessions: Shelf<String, Sessions>,
    /// The files of consumers by their paths.
    consumers: Shelf<PathBuf, ConsumerFile>,
    secrets: Secrets,
    passwords: Arc<Passwords>,
    /// Lists of networks and databases of countries by their paths.
    networks: WatchedFiles<Networks>,
    countries: WatchedFiles<Countries>,
    /// The nonces of signatures: one memory for all filters, so that none is forgotten where a filter is moved.
    nonces: Arc<Nonces>,
    /// The clients of calls, with their connections and breakers.
    clients: Shelf<HttpClientSettings, HttpClient>,
    acme: Shelf<AcmeShape, AcmeManager>,
    /// Tokens by the identity of the settings of their filter.
    introspected: Shelf<[u8; 32], IntrospectedTokens>,
    /// Refreshed sessions by the identity of the settings of their filter.
    refreshed: Shelf<[u8; 32], RefreshedSessions>,
    /// AWS credentials by their sources.
    aws_keys: Shelf<AwsKeysSource, Renewed<AwsKeysSource>>,
    /// Tokens for targets by their sources.
    target_tokens: Shelf<TargetTokenSource, Renewed<TargetTokenSource>>,
    /// Caches by their names.
    caches: Caches,
}

impl Live {
    /// Returns the pool of that shape. A new one takes over the targets of a pool that has its name.
    pub fn pool(&self, shape: PoolShape) -> Arc<Pool> {
        self.pools.get(shape)
    }

    /// Returns the buckets of the limit of that name.
    pub fn buckets(&self, name: &str) -> Arc<Buckets> {
        self.buckets.get_or(&name.to_owned(), || Arc::new(Buckets::default()))
    }

    /// Returns the places of the limit of concurrency of that name.
    pub fn places(&self, name: &str) -> Arc<Places> {
        self.places.get_or(&name.to_owned(), Arc::default)
    }

    /// Returns the turns of the throttle of that name.
    pub fn turns(&self, name: &str) -> Arc<Turns> {
        self.turns.get_or(&name.to_owned(), Arc::default)
    }

    /// Returns the paces of the limit of bandwidth of that name.
    pub fn pacers(&self, name: &str) -> Arc<Pacers> {
        self.pacers.get_or(&name.to_owned(), Arc::default)
    }

    /// Returns the file of consumers at that path.
    pub fn consumers(&self, path: &PathBuf) -> Arc<ConsumerFile> {
        self.consumers.get_or(path, || Arc::new(ConsumerFile::new(path.clone())))
    }

    /// Returns the counts of the quota of that name, which are kept in that folder.
    pub fn quota(&self, folder: &PathBuf, name: &str) -> Arc<QuotaCounts> {
        let store = self.quota_stores.get_or(folder, || QuotaStore::new(folder));
        self.quotas.get_or(&(folder.clone(), name.to_owned()), || QuotaCounts::new(name, store))
    }

    /// Waits until all that caches have stored so far is on disk. Called at the end of the process.
    pub async fn flush_caches(&self) {
        self.caches.flush().await;
    }

    /// Gives back what this process holds of quotas, for its successors. Called at its end.
    pub async fn give_back_quotas(&self) {
        self.quotas.all().iter().for_each(|(_, counts)| counts.give_back());
        for (_, store) in self.quota_stores.all() {
            store.flush().await;
        }
    }

    /// Returns the sessions of an upstream.
    pub fn sessions(&self, upstream: &str) -> Arc<Sessions> {
        self.sessions.get_or(&upstream.to_owned(), || Arc::new(Sessions::default()))
    }

    /// Returns the key store of that shape.
    pub fn keys(&self, shape: &KeyStoreShape, fresh: impl FnOnce() -> Arc<KeyStore>) -> Arc<KeyStore> {
        self.keys.get_or(shape, fresh)
    }

    /// Returns the verification of passwords.
    pub fn passwords(&self) -> Arc<Passwords> {
        Arc::clone(&self.passwords)
    }

    /// Returns the nonces that have been used, of all filters.
    pub fn nonces(&self) -> &Arc<Nonces> {
        &self.nonces
    }

    /// Returns the list of networks in that file.
    ///
    /// # Errors
    /// Returns why it cannot be read.
    pub fn networks(&self, path: &Path) -> Result<Arc<WatchedFile<Networks>>, String> {
        self.networks.at(path)
    }

    /// Returns the database of countries in that file.
    ///
    /// # Errors
    /// Returns why it cannot be read.
    pub fn countries(&self, path: &Path) -> Result<Arc<WatchedFile<Countries>>, String> {
        self.countries.at(path)
    }

    /// Returns the client of those settings.
    ///
    /// # Errors
    /// When its CA file, certificate or key is wrong.
    pub fn http_client(&self, settings: &HttpClientSettings) -> Result<Arc<HttpClient>, String> {
        self.clients.try_get_or(settings, || HttpClient::new(settings.clone()).map(Arc::new))
    }

    /// Returns the manager of certificates of that shape.
    ///
    /// # Errors
    /// When the CA file is wrong.
    pub fn acme(&self, shape: &AcmeShape) -> Result<Arc<AcmeManager>, String> {
        self.acme.try_get_or(shape, || AcmeManager::new(shape.clone()).map(Arc::new))
    }

    /// Returns the tokens that a server was called about, by the identity of the settings of the filter.
    pub fn introspected(&self, identity: &[u8; 32]) -> Arc<IntrospectedTokens> {
        self.introspected.get_or(identity, || Arc::new(IntrospectedTokens::default()))
    }

    /// Returns the sessions that were refreshed a moment ago, by the identity of the settings of the filter.
    pub fn refreshed(&self, identity: &[u8; 32]) -> Arc<RefreshedSessions> {
        self.refreshed.get_or(identity, || Arc::new(RefreshedSessions::default()))
    }

    /// Returns the AWS credentials of that source.
    ///
    /// # Errors
    /// When its CA file is wrong.
    pub fn aws_keys(&self, source: &AwsKeysSource) -> Result<Arc<Renewed<AwsKeysSource>>, String> {
        self.aws_keys.try_get_or(source, || Renewed::new(source.clone()).map(Arc::new))
    }

    /// Returns the token for targets of that source.
    ///
    /// # Errors
    /// When its CA file is wrong.
    pub fn target_token(&self, source: &TargetTokenSource) -> Result<Arc<Renewed<TargetTokenSource>>, String> {
        self.target_tokens.try_get_or(source, || Renewed::new(source.clone()).map(Arc::new))
    }

    /// Returns the cache of that name. One that exists keeps its size until [`Cache::resize`].
    pub fn cache(&self, name: &str, settings: &CacheSettings) -> Arc<Cache> {
        self.caches.get(name, settings)
    }

    /// Returns whether a predecessor may have the folder of a cache still.
    pub fn shares_cache_folder(&self, folder: &Path) -> bool {
        self.caches.is_shared(folder)
    }

    /// Returns the key of sticky sessions for which the configuration has none.
    pub fn sticky_key(&self) -> [u8; 32] {
        self.secrets.sticky()
    }

    /// Returns the keys of TLS session tickets.
    pub fn ticket_keys(&self) -> Arc<TicketKeys> {
        Arc::clone(&self.secrets.tickets)
    }

    /// Returns every kind of state that a successor takes over.
    pub fn heritage(&self) -> [&dyn Heritable; 6] {
        [&self.secrets, &self.buckets, &self.sessions, &self.pools, &self.keys, &self.caches]
    }
}
