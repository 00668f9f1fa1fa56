//! Credentials that are fetched, and renewed in the background before they end.

use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwapOption;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::maintained::Maintained;
use crate::clients::{HttpClient, HttpClientSettings};
use crate::telemetry::metrics::KeySetState;

/// A credential is renewed this long before it ends, or in the last third of its life.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// It is not used in the last moments of its life: it is on its way, and clocks differ.
const UNUSED_BEFORE_END: Duration = Duration::from_secs(5);

/// The time after which a credential without an end is fetched anew.
const RENEW_ENDLESS: Duration = Duration::from_secs(3_600);

/// The time between fetches that fail: from the first to the last.
const FAILED_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The source of a credential.
pub trait CredentialSource: Debug + Send + Sync + 'static {
    /// The credential.
    type Credential: Send + Sync;

    /// Returns its kind, for operators.
    fn kind(&self) -> &'static str;

    /// Returns its name, without secrets.
    fn describe(&self) -> String;

    /// Returns the settings of the client that it needs, if it makes calls.
    fn client(&self) -> Option<HttpClientSettings>;

    /// Fetches the credential. The text of an error names no secret.
    fn fetch<'s>(&'s self, client: Option<&'s HttpClient>) -> FetchResult<'s, Self::Credential>;
}

/// The result of a fetch.
pub type FetchResult<'s, C> = BoxFuture<'s, Result<Fetched<C>, String>>;

/// A credential that was fetched.
pub struct Fetched<C> {
    /// The credential.
    pub credential: C,
    /// When it ends, if it does.
    pub ends: Option<SystemTime>,
    /// When to fetch it anew at the latest; `None` means shortly before it ends.
    pub renew_after: Option<Duration>,
}

/// A credential, kept fresh in the background.
pub struct Renewed<S: CredentialSource> {
    source: S,
    client: Option<HttpClient>,
    current: ArcSwapOption<Current<S::Credential>>,
    error: Mutex<Option<String>>,
    wanted: Notify,
    rounds: watch::Sender<u64>,
    started: AtomicBool,
}

struct Current<C> {
    credential: C,
    fetched: Instant,
    ends: Option<Instant>,
}

impl<S: CredentialSource> Debug for Renewed<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewed").field("source", &self.source).finish_non_exhaustive()
    }
}

/// A credential for as long as a request uses it.
pub struct CredentialGuard<S: CredentialSource>(Arc<Current<S::Credential>>);

impl<S: CredentialSource> std::ops::Deref for CredentialGuard<S> {
    type Target = S::Credential;

    fn deref(&self) -> &S::Credential {
        &self.0.credential
    }
}

impl<S: CredentialSource> Renewed<S> {
    /// Returns a credential that has not been fetched.
    ///
    /// # Errors
    /// Returns the error in the CA file.
    pub fn new(source: S) -> Result<Self, String> {
        Ok(Self {
            client: source.client().map(HttpClient::new).transpose()?,
            source,
            current: ArcSwapOption::empty(),
            error: Mutex::default(),
            wanted: Notify::new(),
            rounds: watch::channel(0).0,
            started: AtomicBool::new(false),
        })
    }

    /// Returns the credential, if there is one that has not ended.
    pub fn get(&self) -> Option<CredentialGuard<S>> {
        let current = self.current.load_full()?;
        let is_over = current.ends.is_some_and(|ends| Instant::now() >= ends);
        if is_over {
            self.wanted.notify_one();
            return None;
        }
        Some(CredentialGuard(current))
    }

    /// Returns why there is no credential, for the log.
    pub fn error(&self) -> String {
        self.error.lock().clone().unwrap_or_else(|| "it has not been fetched, or has ended".to_owned())
    }

    /// Fetches the credential soon, since a server does not accept it.
    pub fn renew_soon(&self) {
        self.wanted.notify_one();
    }

    /// Fetches the credential once, and returns how long to wait before the next fetch.
    async fn fetch(&self, failed: u32) -> Duration {
        let result = self.source.fetch(self.client.as_ref()).await;
        let pause = match result {
            Ok(Fetched { credential, ends, renew_after }) => {
                let life = ends.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
                let now = Instant::now();
                let ends = life.and_then(|life| now.checked_add(life.saturating_sub(UNUSED_BEFORE_END)));
                self.current.store(Some(Arc::new(Current { credential, fetched: now, ends })));
                *self.error.lock() = None;
                let before_end = life.map(|life| life.saturating_sub(RENEW_BEFORE.min(life / 3)));
                renew_after.into_iter().chain(before_end).min().unwrap_or(RENEW_ENDLESS).max(FAILED_PAUSE.0)
            }
            Err(error) => {
                if failed == 0 {
                    log::warn!("{} could not be fetched: {error}", self.source.describe());
                }
                *self.error.lock() = Some(error);
                FAILED_PAUSE.0.saturating_mul(1 << failed.min(5)).min(FAILED_PAUSE.1)
            }
        };
        self.rounds.send_modify(|round| *round += 1);
        pause
    }

    /// Keeps it fresh until it is dropped.
    async fn keep_fresh(renewed: Weak<Self>) {
        let mut failed = 0;
        loop {
            let Some(this) = renewed.upgrade() else { return };
            let pause = this.fetch(failed).await;
            failed = if this.error.lock().is_some() { failed + 1 } else { 0 };
            // It must be droppable while this waits, so it is not held meanwhile.
            let (begun, until) = (Instant::now(), Instant::now() + pause);
            drop(this);
            while Instant::now() < until {
                let Some(this) = renewed.upgrade() else { return };
                let step = until.saturating_duration_since(Instant::now()).min(Duration::from_secs(1));
                let is_wanted = tokio::time::timeout(step, this.wanted.notified()).await.is_ok();
                if is_wanted && begun.elapsed() >= FAILED_PAUSE.0 {
                    break;
                }
            }
        }
    }
}

impl<S: CredentialSource> Maintained for Renewed<S> {
    fn kind(&self) -> &'static str {
        self.source.kind()
    }

    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            if self.started.swap(true, Ordering::AcqRel) {
                self.wanted.notify_one();
                return;
            }
            tokio::spawn(Self::keep_fresh(Arc::downgrade(&self)));
            // The start goes on from here, whether it succeeded or not.
            let _ = self.rounds.subscribe().wait_for(|round| *round > 0).await;
        }
        .boxed()
    }

    fn view(&self) -> serde_json::Value {
        let current = self.current.load_full();
        serde_json::json!({
            "source": self.source.describe(),
            "usable": self.get().is_some(),
            "age_seconds": current.as_ref().map(|current| current.fetched.elapsed().as_secs()),
            "error": *self.error.lock(),
        })
    }

    fn key_set(&self) -> Option<KeySetState> {
        None
    }

    fn name_for_operators(&self, _label: &dyn Fn(&str) -> String) {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Debug, Default)]
    struct Counting(AtomicU32);

    impl CredentialSource for Counting {
        type Credential = u32;

        fn kind(&self) -> &'static str {
            "test"
        }

        fn describe(&self) -> String {
            "a test".to_owned()
        }

        fn client(&self) -> Option<HttpClientSettings> {
            None
        }

        fn fetch<'s>(&'s self, _client: Option<&'s HttpClient>) -> FetchResult<'s, u32> {
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let life = Duration::from_secs(if number == 1 { 1 } else { 900 });
            let ends = Some(SystemTime::now() + life);
            let fetched = Fetched { credential: number, ends, renew_after: None };
            std::future::ready(if number == 0 { Err("no".to_owned()) } else { Ok(fetched) }).boxed()
        }
    }

    #[tokio::test]
    async fn a_credential_that_ends_is_not_used() {
        let renewed = Renewed::new(Counting::default()).expect("no client");
        assert!(renewed.get().is_none());
        assert_eq!(renewed.fetch(3).await, Duration::from_secs(8));
        assert_eq!(renewed.error(), "no");
        // Its life is shorter than the time before its end in which it is not used.
        assert_eq!(renewed.fetch(0).await, Duration::from_secs(1));
        assert!(renewed.get().is_none());
        let pause = renewed.fetch(0).await;
        assert!(pause > Duration::from_secs(590) && pause <= Duration::from_secs(600), "{pause:?}");
        assert_eq!(renewed.get().map(|credential| *credential), Some(2));
    }
}
