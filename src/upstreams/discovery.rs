//! Who belongs to an upstream: configured targets, with host names looked up.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::lb::discovery::ServiceDiscovery;
use pingora::lb::{Backend, Extensions};
use pingora::protocols::l4::socket::SocketAddr as PingoraAddr;

use super::target::TargetSpec;

/// Looks up the names of configured targets, off the request path.
///
/// A name that cannot be resolved keeps the addresses that it had: a broken resolver does not take
/// working targets away.
#[derive(Debug)]
pub struct Names {
    specs: Vec<TargetSpec>,
    known: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Names {
    /// For these targets.
    pub fn new(specs: Vec<TargetSpec>) -> Self {
        Self { specs, known: Mutex::default() }
    }

    async fn addresses(&self, spec: &TargetSpec) -> Vec<IpAddr> {
        if let Ok(address) = spec.host.parse::<IpAddr>() {
            return vec![address];
        }
        match tokio::net::lookup_host((spec.host.as_str(), spec.port)).await {
            Ok(found) => {
                let mut addresses: Vec<IpAddr> = found.map(|a| a.ip()).collect();
                addresses.sort();
                addresses.dedup();
                self.known.lock().insert(spec.host.clone(), addresses.clone());
                addresses
            }
            Err(error) => {
                let kept = self.known.lock().get(&spec.host).cloned().unwrap_or_default();
                log::warn!("{} cannot be resolved, {} known addresses are kept: {error}", spec.host, kept.len());
                kept
            }
        }
    }
}

#[async_trait]
impl ServiceDiscovery for Names {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut backends = BTreeSet::new();
        for spec in &self.specs {
            for ip in self.addresses(spec).await {
                let mut ext = Extensions::new();
                ext.insert(spec.clone());
                let addr = PingoraAddr::Inet(SocketAddr::new(ip, spec.port));
                // The weight stays 1 here: it would be part of the identity, and a change of it
                // would start health anew. The real one is in the extension.
                backends.insert(Backend { addr, weight: 1, ext });
            }
        }
        Ok((backends, HashMap::new()))
    }
}
