//! The membership of an upstream: targets from the configuration, from a file or a name server, and changes of
//! operators at run time.
//!
//! A [`TargetSource`] is queried again when its result expires. A source that fails keeps the targets that it had: a
//! broken resolver does not remove working targets. Kubernetes and Consul are further sources.

mod changes;
mod configured;
mod file;
mod lookup;
mod srv;

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

pub use changes::{TargetChange, TargetChanges};
pub use configured::TargetText;
pub use lookup::Lookup;

/// The source of further targets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DiscoveryShape {
    /// A file with a list of targets.
    File(PathBuf),
    /// A service's SRV records.
    Srv(String),
}

/// The result of a source.
#[derive(Clone, Debug, Default)]
pub struct Discovered {
    /// The targets.
    pub targets: Vec<(SocketAddr, TargetSpec)>,
    /// The time for which the result is valid.
    pub fresh_for: Duration,
}

/// A source of targets.
#[async_trait]
pub trait TargetSource: Send + Sync {
    /// Returns a description for logs.
    fn describe(&self) -> String;

    /// Returns the present targets.
    ///
    /// # Errors
    /// When the targets cannot be determined; the previous ones are kept.
    async fn discover(&self) -> Result<Discovered, String>;
}

struct CachedSource {
    source: Box<dyn TargetSource>,
    last: Mutex<(Discovered, Instant)>,
}

/// All sources of one upstream.
pub struct TargetDiscovery {
    sources: Vec<CachedSource>,
    changes: Arc<TargetChanges>,
}

/// The time after which a failed source is queried again, at the latest.
const FAILED_SOURCE_RETRY: Duration = Duration::from_secs(5);

impl TargetDiscovery {
    /// Returns the sources: the configured targets, the source of `shape`, and the changes.
    pub fn new(
        targets: Vec<TargetSpec>,
        shape: Option<&DiscoveryShape>,
        resolver: Option<&Resolver>,
        interval: Duration,
        changes: Arc<TargetChanges>,
    ) -> Self {
        let lookup = Arc::new(Lookup::new(resolver.cloned(), interval));
        let mut sources: Vec<Box<dyn TargetSource>> =
            vec![Box::new(configured::ConfiguredTargets::new(targets, Arc::clone(&lookup)))];
        match shape {
            Some(DiscoveryShape::File(path)) => sources.push(Box::new(file::TargetFile::new(path.clone(), lookup))),
            Some(DiscoveryShape::Srv(name)) => sources.push(Box::new(srv::Services::new(name.clone(), lookup))),
            None => {}
        }
        let cached = |source| CachedSource { source, last: Mutex::new((Discovered::default(), Instant::now())) };
        Self { sources: sources.into_iter().map(cached).collect(), changes }
    }

    /// Returns whether the result of a source has expired.
    pub fn is_due(&self) -> bool {
        let now = Instant::now();
        self.sources.iter().any(|s| s.last.lock().1 <= now)
    }

    /// Returns the changes of operators.
    pub fn changes(&self) -> &TargetChanges {
        &self.changes
    }

    async fn query(&self) -> BTreeMap<SocketAddr, TargetSpec> {
        let mut all = BTreeMap::new();
        for cached in &self.sources {
            if cached.last.lock().1 <= Instant::now() {
                cached.renew().await;
            }
            for (address, spec) in &cached.last.lock().0.targets {
                // Configured targets come first, and take precedence.
                all.entry(*address).or_insert_with(|| spec.clone());
            }
        }
        self.changes.apply(&mut all);
        all
    }
}

impl CachedSource {
    async fn renew(&self) {
        let result = self.source.discover().await;
        let mut last = self.last.lock();
        match result {
            Ok(found) => *last = (found.clone(), Instant::now() + found.fresh_for),
            Err(error) => {
                let kept = last.0.targets.len();
                log::warn!("{}: {error}; {kept} known targets are kept", self.source.describe());
                last.1 = Instant::now() + FAILED_SOURCE_RETRY;
            }
        }
    }
}

/// The adapter to Pingora's `Backends`.
pub struct PingoraDiscovery(pub Arc<TargetDiscovery>);

#[async_trait]
impl ServiceDiscovery for PingoraDiscovery {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let backend = |(address, spec)| {
            // Pingora compares only the address and weight of a backend, and skips what has not changed. So the
            // weight here is a fingerprint of the whole specification, which is in the extension.
            let weight = ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(&spec) as usize;
            let mut ext = Extensions::new();
            ext.insert::<TargetSpec>(spec);
            Backend { addr: PingoraAddr::Inet(address), weight, ext }
        };
        Ok((self.0.query().await.into_iter().map(backend).collect(), HashMap::new()))
    }
}
