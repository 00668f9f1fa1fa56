//! The keys of a token issuer: from the configuration, a file or a URL, and their rotation.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use futures::future::{BoxFuture, FutureExt};
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::heritage::{Heritable, Part};
use super::kept::Kept;
use super::shelf::Shelf;
use crate::clients::Fetcher;
use crate::notation::Source;
use crate::tls::{FileVersion, MAX_MATERIAL, read_file};

/// A key that may verify a token.
#[derive(Clone)]
pub struct VerifyingKey {
    /// Its `kid`, if it has one.
    pub id: Option<String>,
    /// The algorithms it can be used with.
    pub algorithms: Vec<Algorithm>,
    /// The key.
    pub key: DecodingKey,
}

impl std::fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerifyingKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// All keys of an issuer at one time.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// The keys.
    pub keys: Vec<VerifyingKey>,
    /// Grows with every change, so that what was verified by older keys can be told.
    pub generation: u64,
}

/// Why a key set is not usable. Fit for a log.
pub type KeyError = String;

/// What makes two key stores the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct KeyStoreShape {
    /// Where the keys come from.
    pub source: Source,
    /// Authorities for its TLS.
    pub ca: Option<FileVersion>,
    /// Time between two fetches.
    pub refresh: Duration,
    /// The least time between two fetches that an unknown key causes.
    pub refetch_after: Duration,
    /// How long keys are used after the last fetch that succeeded.
    pub max_stale: Duration,
}

impl KeyStoreShape {
    /// Returns the shape in the form in which a successor knows it again.
    fn form(&self) -> String {
        // A path that is no text has no form; its keys are fetched anew.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// An issuer's keys, kept fresh in the background.
#[derive(Debug)]
pub struct KeyStore {
    shape: KeyStoreShape,
    fetcher: Option<Fetcher>,
    set: ArcSwapOption<KeySet>,
    generation: AtomicU64,
    state: Mutex<FetchState>,
    wanted: Notify,
    rounds: watch::Sender<u64>,
    started: AtomicBool,
    /// What it is called for operators.
    label: Mutex<String>,
    /// Held by who fetches: what was asked for earlier never replaces what was asked for later.
    fetching: tokio::sync::Mutex<()>,
}

/// A key set as operators see it.
#[derive(Clone, Debug, Serialize)]
pub struct KeyStoreView {
    /// The file, or the URL without its query.
    pub source: String,
    /// Whether tokens are verified with it; not before the first fetch, nor once it is too old.
    pub usable: bool,
    /// Its keys.
    pub keys: usize,
    /// Seconds since it was last fetched or read.
    pub age_seconds: Option<f64>,
    /// Why the last fetch failed, if it did.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct FetchState {
    /// Why the last fetch failed, if it did.
    error: Option<String>,
    /// When a token asked for a fetch, and the round before it.
    asked: Option<(Instant, u64)>,
    succeeded: Option<Instant>,
    last_text: Vec<u8>,
}

impl KeyStore {
    /// A store without keys yet.
    ///
    /// # Errors
    /// Says what is wrong with the authorities' file.
    pub fn new(shape: KeyStoreShape) -> Result<Self, String> {
        let remote = matches!(shape.source, Source::Url(_));
        let fetcher = if remote { Some(Fetcher::new(shape.ca.as_ref().map(|ca| ca.path.as_path()))?) } else { None };
        Ok(Self {
            label: Mutex::new(describe(&shape.source)),
            fetching: tokio::sync::Mutex::default(),
            shape,
            fetcher,
            set: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            state: Mutex::default(),
            wanted: Notify::new(),
            rounds: watch::channel(0).0,
            started: AtomicBool::new(false),
        })
    }

    /// Takes a key set that a predecessor fetched so long ago.
    fn inherit(&self, text: Vec<u8>, age: Duration) {
        if age > self.shape.max_stale || self.set.load().is_some() || self.store(text).is_err() {
            return;
        }
        self.state.lock().succeeded = Instant::now().checked_sub(age);
        // A start need not wait for a fetch: there are keys.
        self.rounds.send_modify(|round| *round += 1);
    }

    /// Takes the keys of a store of the same source whose other settings were others, until there is a fetch with its own:
    /// should that fail, they hold for as long as they would have.
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

    /// True for the first who asks: that one is to look after it.
    fn start(&self) -> bool {
        !self.started.swap(true, Ordering::AcqRel)
    }

    /// The present keys; `None` before the first fetch, and when they are too old to trust.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.set.load_full()
    }

    fn operators_view(&self) -> KeyStoreView {
        let set = self.keys();
        let state = self.state.lock();
        KeyStoreView {
            source: self.label.lock().clone(),
            usable: set.is_some(),
            keys: set.map_or(0, |set| set.keys.len()),
            age_seconds: state.succeeded.map(|at| (at.elapsed().as_secs_f64() * 1e3).round() / 1e3),
            error: state.error.clone(),
        }
    }

    /// Fetches the keys now, because an operator asks for it: a key that was withdrawn is taken no longer. Where that
    /// fails, the old ones stay for as long as they would have.
    async fn fetch_anew(&self) {
        if let Err(error) = self.refresh().await {
            log::warn!("the keys of {} could not be fetched anew, the old ones stay: {error}", self.describe());
        }
    }

    /// Fetches the keys once.
    ///
    /// # Errors
    /// Says why there are no new keys; the old ones stay.
    async fn refresh(&self) -> Result<(), KeyError> {
        let _turn = self.fetching.lock().await;
        let text = match (&self.shape.source, &self.fetcher) {
            (Source::Url(url), Some(fetcher)) => fetcher.get(url).await.map(|b| b.to_vec()),
            (Source::File(path), _) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path, MAX_MATERIAL)).await;
                read.unwrap_or_else(|e| Err(e.to_string()))
            }
            (Source::Url(_), None) => Err("no client".to_owned()),
        };
        let result = text.and_then(|text| self.store(text));
        self.state.lock().error = result.as_ref().err().cloned();
        if result.is_err() {
            self.forget_when_stale();
        }
        self.rounds.send_modify(|round| *round += 1);
        result
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

    /// Waits until keys have been asked for once.
    async fn first_round(&self) {
        let _ = self.rounds.subscribe().wait_for(|round| *round > 0).await;
    }

    /// Asks for a fetch because a token names an unknown key, and waits for it for at most two
    /// seconds. At most one such fetch is made in `refetch_after`: whoever comes while it is under way
    /// waits for it too, later ones return at once.
    pub async fn refetch(&self) {
        let mut rounds = self.rounds.subscribe();
        {
            let mut state = self.state.lock();
            let round = *rounds.borrow_and_update();
            match state.asked {
                Some((at, asked)) if at.elapsed() < self.shape.refetch_after => {
                    if asked != round {
                        return;
                    }
                }
                _ => {
                    state.asked = Some((Instant::now(), round));
                    self.wanted.notify_one();
                }
            }
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), rounds.changed()).await;
    }

    /// Keeps a store fresh until it is dropped. A file is looked at every second, a URL fetched
    /// every `refresh`, sooner after a failure and when [`KeyStore::refetch`] asks.
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
                (Source::File(_), _) => Duration::from_secs(1),
                (Source::Url(_), Ok(())) => this.shape.refresh,
                (Source::Url(_), Err(_)) => this.shape.refresh.min(Duration::from_secs(2)),
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

impl Kept for KeyStore {
    fn kind(&self) -> &'static str {
        "key_set"
    }

    fn look_after(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            if self.start() {
                tokio::spawn(Self::keep_fresh(Arc::downgrade(&self)));
                // Whether it succeeds or not, the start goes on from here; without keys nobody passes.
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

    fn age(&self) -> Option<(String, f64)> {
        let view = self.operators_view();
        Some((view.source, view.age_seconds?))
    }

    fn name_for_operators(&self, label: &dyn Fn(&str) -> String) {
        *self.label.lock() = label(&describe(&self.shape.source));
    }
}

fn describe(source: &Source) -> String {
    match source {
        Source::File(path) => path.display().to_string(),
        Source::Url(url) => {
            // A query and what stands before an @ may be secrets.
            let url = url.split('?').next().unwrap_or_default();
            let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
            let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
    }
}

/// The most keys of a set: a token that names none is tried with all of them.
pub const MAX_KEYS: usize = 256;

/// All key stores, and what a predecessor left of them.
#[derive(Debug, Default)]
pub struct KeyStores {
    shelf: Shelf<KeyStoreShape, KeyStore>,
    waiting: Mutex<HashMap<String, (Vec<u8>, Duration)>>,
}

/// A key set in a hand-over: its shape as JSON, its text, its age in milliseconds.
type GivenKeys = (String, String, u64);

impl KeyStores {
    /// The key store of that shape.
    pub fn get_or(&self, shape: &KeyStoreShape, fresh: impl FnOnce() -> Arc<KeyStore>) -> Arc<KeyStore> {
        // Before it is on the shelf itself.
        let others = self.shelf.all().into_iter().filter(|(known, _)| known != shape && known.source == shape.source);
        // A configuration of before may still be there besides the one that serves.
        let earlier = others.map(|(_, store)| store).max_by_key(|store| store.state.lock().succeeded);
        let store = self.shelf.get_or(shape, || {
            let store = fresh();
            if let Some(earlier) = earlier {
                store.follow(&earlier);
            }
            store
        });
        if let Some((text, age)) = self.waiting.lock().remove(&shape.form()) {
            store.inherit(text, age);
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

    fn give(&self, part: Part) -> serde_json::Result<Option<Vec<u8>>> {
        if part != Part::Whole {
            return Ok(None);
        }
        let given = self.shelf.all().into_iter().filter_map(|(shape, store)| {
            store.keys()?;
            let state = store.state.lock();
            let age = state.succeeded?.elapsed().as_millis().try_into().ok()?;
            Some((shape.form(), String::from_utf8(state.last_text.clone()).ok()?, age))
        });
        serde_json::to_vec(&given.collect::<Vec<GivenKeys>>()).map(Some)
    }

    fn take(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<GivenKeys> = serde_json::from_slice(form)?;
        let count = given.len();
        let entry = |(shape, text, age): GivenKeys| (shape, (text.into_bytes(), Duration::from_millis(age)));
        self.waiting.lock().extend(given.into_iter().map(entry));
        Ok(count)
    }

    fn settle(&self) {
        self.waiting.lock().clear();
    }
}

/// Reads a JSON Web Key Set (RFC 7517). Keys for encryption and of unknown kinds are passed over.
///
/// # Errors
/// When the text is no key set, or no key in it can verify anything.
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
        count if count > MAX_KEYS => Err(format!("{count} keys are too many: at most {MAX_KEYS} are taken")),
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
