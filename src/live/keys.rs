//! The keys of a token issuer, from the configuration, a file or a URL, and their rotation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::heritable::{HandoverPart, Heritable};
use super::jwks::{KeyError, VerifyingKey, parse_jwks};
use super::maintained::Maintained;
use super::provider::ProviderMetadata;
use super::shelf::Shelf;
use crate::clients::{HttpClient, HttpClientSettings};
use crate::notation::KeySetSource;
use crate::telemetry::metrics::{CallKind, KeySetState};
use crate::telemetry::rfc3339;
use crate::tls::{FileVersion, MAX_MATERIAL, read_file};

/// All keys of an issuer at one time.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<VerifyingKey>,
    /// A number that grows with every change, by which tokens that older keys verified are recognised.
    pub generation: u64,
}

/// The identity of a key store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct KeyStoreShape {
    /// The source of the keys.
    pub source: KeySetSource,
    /// The CA file for the TLS of the source.
    pub ca: Option<FileVersion>,
    /// Time between two fetches.
    pub refresh: Duration,
    /// The least time between two fetches that an unknown key causes.
    pub refetch_after: Duration,
    /// How long keys are used after the last fetch that succeeded.
    pub max_stale: Duration,
}

impl KeyStoreShape {
    /// Returns the shape in the form by which a successor recognises it.
    fn form(&self) -> String {
        // A path that is no text has no form; its keys are fetched again.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An issuer's keys, kept fresh in the background.
#[derive(Debug)]
pub struct KeyStore {
    shape: KeyStoreShape,
    client: Option<HttpClient>,
    set: ArcSwapOption<KeySet>,
    /// The metadata of the provider, where its keys are found by that.
    provider: ArcSwapOption<ProviderMetadata>,
    generation: AtomicU64,
    state: Mutex<FetchState>,
    wanted: Notify,
    rounds: watch::Sender<u64>,
    started: AtomicBool,
    /// The name for operators.
    label: Mutex<String>,
    /// Held during a fetch: the result of an earlier fetch never replaces that of a later one.
    fetching: tokio::sync::Mutex<()>,
}

/// A key set as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct KeyStoreView {
    /// The file, or the URL without its query.
    pub source: String,
    /// Whether tokens are verified with it; not before the first fetch, nor once it is too old.
    pub usable: bool,
    /// The number of keys.
    pub keys: usize,
    /// Seconds since it was last fetched or read.
    pub age_seconds: Option<f64>,
    /// The time at which it was last fetched or read.
    pub updated: Option<String>,
    /// The error of the last fetch, if it failed.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct FetchState {
    /// The error of the last fetch, if it failed.
    error: Option<String>,
    /// When a token requested a fetch, and the round before it.
    requested: Option<(Instant, u64)>,
    succeeded: Option<Instant>,
    last_text: Vec<u8>,
}

impl KeyStore {
    /// Returns a store without keys.
    ///
    /// # Errors
    /// Returns the error in the CA file.
    pub fn new(shape: KeyStoreShape) -> Result<Self, String> {
        let remote = !matches!(shape.source, KeySetSource::File(_));
        let settings = HttpClientSettings {
            ca: shape.ca.clone(),
            // It is called once in a while, and waited for.
            breaker: None,
            ..HttpClientSettings::new(CallKind::KeySet, describe(&shape.source))
        };
        let client = if remote { Some(HttpClient::new(settings)?) } else { None };
        Ok(Self {
            label: Mutex::new(describe(&shape.source)),
            fetching: tokio::sync::Mutex::default(),
            shape,
            client,
            set: ArcSwapOption::empty(),
            provider: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            state: Mutex::default(),
            wanted: Notify::new(),
            rounds: watch::channel(0).0,
            started: AtomicBool::new(false),
        })
    }

    /// Takes over a key set that a predecessor fetched `age` ago.
    fn take_over(&self, text: Vec<u8>, age: Duration) {
        if age > self.shape.max_stale || self.set.load().is_some() || self.store(text).is_err() {
            return;
        }
        self.state.lock().succeeded = Instant::now().checked_sub(age);
        // The start need not wait for a fetch, since there are keys; the metadata of a provider are not there.
        if !matches!(self.shape.source, KeySetSource::Issuer(_)) {
            self.rounds.send_modify(|round| *round += 1);
        }
    }

    /// Takes over the keys of a store with the same source and other settings, until there is a fetch with its own:
    /// if that fails, they hold as long as they would have.
    fn follow(&self, earlier: &Self) {
        let (text, succeeded) = {
            let state = earlier.state.lock();
            (state.last_text.clone(), state.succeeded)
        };
        let is_fresh = succeeded.is_some_and(|at| at.elapsed() <= self.shape.max_stale);
        if earlier.set.load().is_some() && is_fresh && self.store(text).is_ok() {
            self.state.lock().succeeded = succeeded;
        }
    }

    /// Returns true for the first caller, which is to keep it up to date.
    fn start(&self) -> bool {
        !self.started.swap(true, Ordering::AcqRel)
    }

    /// Returns the present keys; `None` before the first fetch, and when they are too old to trust.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.set.load_full()
    }

    /// Returns the metadata of the provider, if the source is an issuer and they have been fetched. They are used
    /// until there are others: what they lead to is verified anyway.
    pub fn provider(&self) -> Option<Arc<ProviderMetadata>> {
        self.provider.load_full()
    }

    fn operators_view(&self) -> KeyStoreView {
        let set = self.keys();
        let state = self.state.lock();
        KeyStoreView {
            source: self.label.lock().clone(),
            usable: set.is_some(),
            keys: set.map_or(0, |set| set.keys.len()),
            age_seconds: state.succeeded.map(|at| (at.elapsed().as_secs_f64() * 1e3).round() / 1e3),
            updated: state.succeeded.and_then(|at| SystemTime::now().checked_sub(at.elapsed())).map(rfc3339),
            error: state.error.clone(),
        }
    }

    /// Fetches the keys now for an operator: a key that was withdrawn is no longer accepted. If that fails, the old
    /// ones stay as long as they would have.
    async fn fetch_anew(&self) {
        if let Err(error) = self.refresh().await {
            log::warn!("the keys of {} could not be fetched anew, the old ones stay: {error}", self.describe());
        }
    }

    /// Fetches the keys once.
    ///
    /// # Errors
    /// Returns why there are no new keys; the old ones stay.
    async fn refresh(&self) -> Result<(), KeyError> {
        let _turn = self.fetching.lock().await;
        let text = match (&self.shape.source, &self.client) {
            (KeySetSource::Url(url), Some(client)) => {
                client.get(url).await.map(|b| b.to_vec()).map_err(|error| error.to_string())
            }
            (KeySetSource::File(path), _) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path, MAX_MATERIAL)).await;
                read.unwrap_or_else(|e| Err(e.to_string()))
            }
            (KeySetSource::Issuer(issuer), Some(client)) => self.fetch_by_metadata(client, issuer).await,
            (KeySetSource::Url(_) | KeySetSource::Issuer(_), None) => Err("no client".to_owned()),
        };
        let result = text.and_then(|text| self.store(text));
        self.state.lock().error = result.as_ref().err().cloned();
        if result.is_err() {
            self.forget_when_stale();
        }
        self.rounds.send_modify(|round| *round += 1);
        result
    }

    /// Fetches the metadata of an issuer, and the keys to which they lead.
    async fn fetch_by_metadata(&self, client: &HttpClient, issuer: &str) -> Result<Vec<u8>, KeyError> {
        let metadata = ProviderMetadata::fetch(client, issuer).await?;
        let keys = client.get(&metadata.jwks_uri).await.map_err(|error| error.to_string())?;
        self.provider.store(Some(Arc::new(metadata)));
        Ok(keys.to_vec())
    }

    fn store(&self, text: Vec<u8>) -> Result<(), KeyError> {
        let mut state = self.state.lock();
        if state.last_text != text || self.set.load().is_none() {
            let keys = parse_jwks(&text)?;
            let generation = self.generation.fetch_add(1, Ordering::Relaxed) + 1;
            self.set.store(Some(Arc::new(KeySet { keys, generation })));
            state.last_text = text;
        }
        state.succeeded = Some(Instant::now());
        Ok(())
    }

    fn forget_when_stale(&self) {
        let succeeded = self.state.lock().succeeded;
        if succeeded.is_some_and(|at| at.elapsed() > self.shape.max_stale) {
            self.set.store(None);
        }
    }

    /// Waits for the first round.
    async fn first_round(&self) {
        let _ = self.rounds.subscribe().wait_for(|round| *round > 0).await;
    }

    /// Requests a fetch because a token names an unknown key, and waits for it for at most two seconds. At most one
    /// such fetch is made in `refetch_after`: callers that come meanwhile wait for it too, later ones return at once.
    pub async fn refetch(&self) {
        let mut rounds = self.rounds.subscribe();
        {
            let mut state = self.state.lock();
            let round = *rounds.borrow_and_update();
            match state.requested {
                Some((at, requested)) if at.elapsed() < self.shape.refetch_after => {
                    if requested != round {
                        return;
                    }
                }
                _ => {
                    state.requested = Some((Instant::now(), round));
                    self.wanted.notify_one();
                }
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), rounds.changed()).await;
    }

    /// Keeps a store up to date until it is dropped. A file is checked every second, a URL fetched every `refresh`,
    /// sooner after a failure and when [`KeyStore::refetch`] requests it.
    async fn keep_fresh(store: std::sync::Weak<Self>) {
        let mut failed_before = false;
        loop {
            let Some(this) = store.upgrade() else { return };
            let result = this.refresh().await;
            if let Err(error) = &result
                && !failed_before
            {
                log::warn!("the keys of {} are not fresh: {error}", this.describe());
            }
            failed_before = result.is_err();
            let pause = match (&this.shape.source, &result) {
                (KeySetSource::File(_), _) => Duration::from_secs(1),
                (_, Ok(())) => this.shape.refresh,
                (_, Err(_)) => this.shape.refresh.min(Duration::from_secs(2)),
            };
            // The store must be droppable while this waits, so it is not held meanwhile.
            let deadline = Instant::now() + pause;
            drop(this);
            while Instant::now() < deadline {
                let Some(this) = store.upgrade() else { return };
                let step = (deadline - Instant::now()).min(Duration::from_secs(1));
                if tokio::time::timeout(step, this.wanted.notified()).await.is_ok() {
                    break;
                }
            }
        }
    }

    fn describe(&self) -> String {
        self.label.lock().clone()
    }
}

impl Maintained for KeyStore {
    fn kind(&self) -> &'static str {
        "key_set"
    }

    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            if self.start() {
                tokio::spawn(Self::keep_fresh(Arc::downgrade(&self)));
                // The start goes on from here, whether it succeeded or not; without keys every token is rejected.
                self.first_round().await;
            } else {
                self.fetch_anew().await;
            }
        }
        .boxed()
    }

    fn view(&self) -> serde_json::Value {
        serde_json::json!(self.operators_view())
    }

    fn key_set(&self) -> Option<KeySetState> {
        let view = self.operators_view();
        Some(KeySetState { source: view.source, usable: view.usable, age: view.age_seconds })
    }

    fn name_for_operators(&self, label: &dyn Fn(&str) -> String) {
        *self.label.lock() = label(&describe(&self.shape.source));
    }
}

fn describe(source: &KeySetSource) -> String {
    match source {
        KeySetSource::File(path) => path.display().to_string(),
        KeySetSource::Url(url) | KeySetSource::Issuer(url) => {
            // A query and what stands before an @ may be secrets.
            let url = url.split('?').next().unwrap_or_default();
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
    }
}

/// All key stores, and the key sets of a predecessor.
#[derive(Debug, Default)]
pub struct KeyStores {
    shelf: Shelf<KeyStoreShape, KeyStore>,
    waiting: Mutex<HashMap<String, (Vec<u8>, Duration)>>,
}

/// A key set in a hand-over: its shape as JSON, its text, its age in milliseconds.
type SavedKeySet = (String, String, u64);

impl KeyStores {
    /// Returns the key store of that shape.
    pub fn get_or(&self, shape: &KeyStoreShape, fresh: impl FnOnce() -> Arc<KeyStore>) -> Arc<KeyStore> {
        // Searched before it is on the shelf itself.
        let others = self.shelf.all().into_iter().filter(|(known, _)| known != shape && known.source == shape.source);
        // An earlier configuration may still exist besides the one that serves.
        let earlier = others.map(|(_, store)| store).max_by_key(|store| store.state.lock().succeeded);
        let store = self.shelf.get_or(shape, || {
            let store = fresh();
            if let Some(earlier) = earlier {
                store.follow(&earlier);
            }
            store
        });
        if let Some((text, age)) = self.waiting.lock().remove(&shape.form()) {
            store.take_over(text, age);
        }
        store
    }
}

impl Heritable for KeyStores {
    fn kind(&self) -> &'static str {
        "key_sets"
    }

    fn version(&self) -> u32 {
        2
    }

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        if part != HandoverPart::Whole {
            return Ok(None);
        }
        let given = self.shelf.all().into_iter().filter_map(|(shape, store)| {
            store.keys()?;
            let state = store.state.lock();
            let age = state.succeeded?.elapsed().as_millis().try_into().ok()?;
            Some((shape.form(), String::from_utf8(state.last_text.clone()).ok()?, age))
        });
        serde_json::to_vec(&given.collect::<Vec<SavedKeySet>>()).map(Some)
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<SavedKeySet> = serde_json::from_slice(form)?;
        let count = given.len();
        let entry = |(shape, text, age): SavedKeySet| (shape, (text.into_bytes(), Duration::from_millis(age)));
        self.waiting.lock().extend(given.into_iter().map(entry));
        Ok(count)
    }

    fn drop_unused(&self) {
        self.waiting.lock().clear();
    }
}
