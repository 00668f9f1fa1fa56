//! Who belongs to an upstream: what is written down, what a file or a name server says, and what
//! operators changed at run time.
//!
//! A [`Source`] is asked again when its answer is no longer fresh. One that fails keeps the targets
//! that it had: a broken resolver does not take working targets away. Kubernetes and Consul are
//! further sources.

mod changes;
mod file;
mod lookup;
mod srv;
mod written;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::lb::{Backend, Extensions};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;
use tokio::time::Instant;

use super::target::TargetSpec;
use crate::clients::Resolver;

pub use changes::{Change, Changes};
pub use lookup::Lookup;
pub use written::TargetText;

/// Where further targets come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DiscoveryShape {
    /// A file with a list of targets.
    File(PathBuf),
    /// A service's SRV records.
    Srv(String),
}

/// What a source found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The targets.
    pub targets: Vec<(SocketAddr, TargetSpec)>,
    /// For how long that holds.
    pub fresh_for: Duration,
}

/// Where targets come from.
#[async_trait]
pub trait Source: Send + Sync {
    /// What it is, for logs.
    fn describe(&self) -> String;

    /// The targets at this moment.
    ///
    /// # Errors
    /// Says why nothing is known; what was known before goes on.
    async fn discover(&self) -> Result<Found, String>;
}

struct Asked {
    source: Box<dyn Source>,
    last: Mutex<(Found, Instant)>,
}

/// All sources of one upstream.
pub struct Discovery {
    sources: Vec<Asked>,
    changes: Arc<Changes>,
}

/// A failed source is asked again after this time, or sooner.
const AGAIN: Duration = Duration::from_secs(5);

impl Discovery {
    /// The targets that are written down, those of `shape`, and what was changed.
    pub fn new(
        targets: Vec<TargetSpec>,
        shape: Option<&DiscoveryShape>,
        resolver: Option<&Resolver>,
        interval: Duration,
        changes: Arc<Changes>,
    ) -> Self {
        let lookup = Arc::new(Lookup::new(resolver.cloned(), interval));
        let mut sources: Vec<Box<dyn Source>> = vec![Box::new(written::Written::new(targets, Arc::clone(&lookup)))];
        match shape {
            Some(DiscoveryShape::File(path)) => sources.push(Box::new(file::TargetFile::new(path.clone(), lookup))),
            Some(DiscoveryShape::Srv(name)) => sources.push(Box::new(srv::Services::new(name.clone(), lookup))),
            None => {}
        }
        let asked = |source| Asked { source, last: Mutex::new((Found::default(), Instant::now())) };
        Self { sources: sources.into_iter().map(asked).collect(), changes }
    }

    /// Whether a source's answer is no longer fresh.
    pub fn is_due(&self) -> bool {
        let now = Instant::now();
        self.sources.iter().any(|s| s.last.lock().1 <= now)
    }

    /// What was changed at run time.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    async fn ask(&self) -> BTreeMap<SocketAddr, TargetSpec> {
        let mut all = BTreeMap::new();
        for asked in &self.sources {
            if asked.last.lock().1 <= Instant::now() {
                asked.renew().await;
            }
            for (address, spec) in &asked.last.lock().0.targets {
                // What is written down comes first, and counts.
                all.entry(*address).or_insert_with(|| spec.clone());
            }
        }
        self.changes.apply(&mut all);
        all
    }
}

impl Asked {
    async fn renew(&self) {
        let result = self.source.discover().await;
        let mut last = self.last.lock();
        match result {
            Ok(found) => *last = (found.clone(), Instant::now() + found.fresh_for),
            Err(error) => {
                let kept = last.0.targets.len();
                log::warn!("{}: {error}; {kept} known targets are kept", self.source.describe());
                last.1 = Instant::now() + AGAIN;
            }
        }
    }
}

/// The discovery as Pingora's `Backends` ask it.
pub struct Shared(pub Arc<Discovery>);

#[async_trait]
impl ServiceDiscovery for Shared {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let backend = |(address, spec)| {
            // Of a backend only address and weight are compared, and what has not changed is not told on.
            // So its weight is a fingerprint here of all that is known; what is known is in the extension.
            let weight = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&spec) as usize;
            let mut ext = Extensions::new();
            ext.insert::<TargetSpec>(spec);
            Backend { addr: PingoraAddr::Inet(address), weight, ext }
        };
        Ok((self.0.ask().await.into_iter().map(backend).collect(), HashMap::new()))
    }
}
