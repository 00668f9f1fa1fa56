//! Certificates from an ACME server (RFC 8555): when they are due, and what operators learn of them.
//!
//! One process at a time works in a state folder, which it locks; others that have the same folder, such as a
//! successor, read what it has obtained.

mod folder;
mod order;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ahash::AHashMap;
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::maintained::Maintained;
use crate::clients::{HttpClient, HttpClientSettings};
use crate::telemetry::metrics::{CallKind, KeySetState};
use crate::tls::{AcmeCertificate, FileVersion, validity};

use folder::Folder;

/// The longest pause between two rounds.
const MAX_PAUSE: Duration = Duration::from_secs(6 * 3600);

/// The pause of a process that does not have the lock.
const FOLLOWER_PAUSE: Duration = Duration::from_secs(30);

/// The pauses after failures: the first one, and the longest. Servers count failed validations by the hour.
const FIRST_RETRY: i64 = 60;
const LAST_RETRY: i64 = 6 * 3600;

/// The time-out of one call to the server.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// How control over a name is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AcmeChallenge {
    /// By a response over HTTP on port 80 (RFC 8555, section 8.3).
    Http01,
    /// By a certificate in a handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

/// The identity of a manager.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AcmeShape {
    /// The URL of the server's directory.
    pub directory: String,
    /// The CA file to verify the server with.
    pub ca: Option<FileVersion>,
    /// The contacts of the account: `mailto:…`.
    pub contact: Vec<String>,
    /// The folder with the account's key and the certificates.
    pub state: PathBuf,
    /// How control over names is proved.
    pub challenge: AcmeChallenge,
}

/// The progress with one certificate.
#[derive(Debug, Default)]
struct Progress {
    failures: u32,
    /// When it is tried again after a failure.
    retry_at: i64,
    /// When the server suggests to renew it, and when the server is called about that again (RFC 9773).
    suggested: Option<i64>,
    suggested_until: i64,
}

/// The certificates of one account.
#[derive(Debug)]
pub struct AcmeManager {
    shape: AcmeShape,
    client: Arc<HttpClient>,
    folder: Folder,
    certificates: Mutex<Vec<Weak<AcmeCertificate>>>,
    /// The key authorizations of challenges over HTTP by their tokens.
    tokens: Mutex<AHashMap<String, String>>,
    progress: Mutex<AHashMap<Vec<String>, Progress>>,
    wanted: Arc<Notify>,
    started: AtomicBool,
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

impl AcmeManager {
    /// Returns a manager that has not started yet.
    ///
    /// # Errors
    /// When the CA file is wrong.
    pub fn new(shape: AcmeShape) -> Result<Self, String> {
        let settings = HttpClientSettings {
            ca: shape.ca.clone(),
            timeout: CALL_TIMEOUT,
            breaker: None,
            ..HttpClientSettings::new(CallKind::Acme, shape.directory.clone())
        };
        Ok(Self {
            client: Arc::new(HttpClient::new(settings)?),
            folder: Folder::new(shape.state.clone()),
            certificates: Mutex::default(),
            tokens: Mutex::default(),
            progress: Mutex::default(),
            wanted: Arc::default(),
            started: AtomicBool::new(false),
            shape,
        })
    }

    /// Returns the certificate of those names, with what has been obtained before.
    ///
    /// # Errors
    /// When a name is none of the DNS.
    pub fn certificate(&self, names: &[String]) -> Result<Arc<AcmeCertificate>, String> {
        let mut certificates = self.certificates.lock();
        certificates.retain(|known| known.strong_count() > 0);
        if let Some(known) = certificates.iter().filter_map(Weak::upgrade).find(|known| known.names == names) {
            return Ok(known);
        }
        let certificate = Arc::new(AcmeCertificate::new(names.to_vec())?);
        if let Some(obtained) = self.folder.certificate(names) {
            certificate.store(obtained);
        }
        certificates.push(Arc::downgrade(&certificate));
        Ok(certificate)
    }

    /// Returns the response to the challenge of that token, if there is one under way.
    pub fn response(&self, token: &str) -> Option<String> {
        self.tokens.lock().get(token).cloned()
    }

    fn in_use(&self) -> Vec<Arc<AcmeCertificate>> {
        self.certificates.lock().iter().filter_map(Weak::upgrade).collect()
    }

    /// Obtains what is due, and returns the time until the next round.
    async fn round(&self) -> Duration {
        let certificates = self.in_use();
        let _lock = match self.folder.lock() {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                certificates.iter().for_each(|certificate| self.read_again(certificate));
                return FOLLOWER_PAUSE;
            }
            Err(error) => {
                log::error!("ACME: {error}");
                return FOLLOWER_PAUSE;
            }
        };
        let mut next = now() + MAX_PAUSE.as_secs() as i64;
        for certificate in &certificates {
            self.read_again(certificate);
            let mut due = self.due(certificate).await;
            if due <= now() {
                due = self.obtain_and_note(certificate).await;
            }
            next = next.min(due);
        }
        Duration::from_secs(u64::try_from(next - now()).unwrap_or(0).max(1))
    }

    fn read_again(&self, certificate: &AcmeCertificate) {
        if let Some(obtained) = self.folder.certificate(&certificate.names)
            && obtained.cert != certificate.current().cert
        {
            certificate.store(obtained);
        }
    }

    /// Obtains a certificate, and returns when it is due again.
    async fn obtain_and_note(&self, certificate: &AcmeCertificate) -> i64 {
        let result = self.obtain(certificate).await;
        certificate.clear_challenges();
        self.tokens.lock().clear();
        let names = certificate.names.join(", ");
        match result {
            Ok(()) => {
                self.progress.lock().insert(certificate.names.clone(), Progress::default());
                log::info!("ACME: the certificate of {names} has been obtained");
                self.due(certificate).await
            }
            Err(error) => {
                let mut all = self.progress.lock();
                let progress = all.entry(certificate.names.clone()).or_default();
                let pause = (FIRST_RETRY << progress.failures.min(16)).min(LAST_RETRY);
                progress.failures += 1;
                progress.retry_at = now() + pause + fastrand::i64(0..=pause / 8);
                let kept = if certificate.is_obtained() { "; the present one stays" } else { "" };
                log::warn!("ACME: no certificate of {names}: {error}; tried again in {pause} s{kept}");
                progress.retry_at
            }
        }
    }

    /// Returns when a certificate is to be obtained: at once, or at the time that the server suggests, or after two
    /// thirds of its life and a part that differs between certificates, so that they do not all come at once.
    async fn due(&self, certificate: &AcmeCertificate) -> i64 {
        let retry_at = self.progress.lock().get(&certificate.names).map_or(0, |progress| progress.retry_at);
        let current = certificate.current();
        let times = validity(&current).filter(|_| certificate.is_obtained());
        let Some((from, to)) = times else { return retry_at };
        let life = to - from;
        let spread = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&certificate.names) % 1_000;
        let usual = from + life * 2 / 3 + life / 24 * spread as i64 / 1_000;
        self.suggested(certificate, &current).await.unwrap_or(usual).max(retry_at)
    }
}

impl Maintained for AcmeManager {
    fn kind(&self) -> &'static str {
        "acme"
    }

    /// Resolves at once: a certificate is obtained while its listener serves already.
    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()> {
        if self.started.swap(true, Ordering::AcqRel) {
            self.wanted.notify_one();
        } else {
            tokio::spawn(run(Arc::downgrade(&self)));
        }
        std::future::ready(()).boxed()
    }

    fn view(&self) -> serde_json::Value {
        let certificates = self.in_use();
        let view = |certificate: &Arc<AcmeCertificate>| {
            let expires = validity(&certificate.current()).map(|(_, to)| to).filter(|_| certificate.is_obtained());
            serde_json::json!({"names": certificate.names, "obtained": certificate.is_obtained(), "expires": expires})
        };
        serde_json::json!({"certificates": certificates.iter().map(view).collect::<Vec<_>>()})
    }

    fn key_set(&self) -> Option<KeySetState> {
        None
    }

    fn name_for_operators(&self, _label: &dyn Fn(&str) -> String) {}
}

async fn run(manager: Weak<AcmeManager>) {
    loop {
        let Some(working) = manager.upgrade() else { return };
        let pause = working.round().await;
        let wanted = Arc::clone(&working.wanted);
        drop(working);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = wanted.notified() => {}
        }
    }
}
