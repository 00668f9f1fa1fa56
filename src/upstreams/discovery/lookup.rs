//! The addresses of a host name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clients::{DnsError, ResolvedAddresses, Resolver};

/// The bounds for the time to live of a record: 0 does not cause constant look-ups, and a week is checked every hour.
const TTL_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Looks names up: in the hosts file, at name servers, and with the system's resolver when those do not know the name
/// (search domains, link-local names).
#[derive(Debug)]
pub struct Lookup {
    resolver: Resolver,
    /// The time for which a result of the system's resolver, which has none, is valid.
    interval: Duration,
    /// The last addresses of each name, which are kept when a look-up fails.
    last: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Lookup {
    /// Returns a look-up at these servers, or at those of the system.
    pub fn new(resolver: Option<Resolver>, interval: Duration) -> Self {
        Self { resolver: resolver.unwrap_or_else(Resolver::of_system), interval, last: Mutex::default() }
    }

    /// Returns its resolver.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Returns the time for which records with this time to live are valid.
    pub fn fresh_for(ttl: Duration) -> Duration {
        ttl.clamp(TTL_BOUNDS.0, TTL_BOUNDS.1)
    }

    /// Returns the addresses of a host, and the time for which they are valid: the last known ones when the look-up
    /// fails, none when it never succeeded.
    pub async fn known(&self, host: &str) -> (Vec<IpAddr>, Duration) {
        match self.addresses(host).await {
            Ok(ResolvedAddresses { mut found, fresh_for, unknown }) => {
                let mut last = self.last.lock();
                if let (Some(family), Some(before)) = (unknown, last.get(host)) {
                    found.extend(before.iter().filter(|address| family.has(address)));
                    found.sort_unstable();
                }
                last.insert(host.to_owned(), found.clone());
                (found, fresh_for)
            }
            Err(error) => {
                let kept = self.last.lock().get(host).cloned().unwrap_or_default();
                log::warn!("{error}; {} known addresses are kept", kept.len());
                (kept, super::FAILED_SOURCE_RETRY)
            }
        }
    }

    async fn addresses(&self, host: &str) -> Result<ResolvedAddresses, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(ResolvedAddresses { found: vec![address], fresh_for: TTL_BOUNDS.1, unknown: None });
        }
        if in_hosts_file(host).await {
            return self.by_system(host).await;
        }
        match self.resolver.addresses(host).await {
            Ok(found) => Ok(ResolvedAddresses { fresh_for: Self::fresh_for(found.fresh_for), ..found }),
            Err(error) => match self.by_system(host).await {
                Ok(found) => Ok(found),
                Err(_) if error == DnsError::NoName => Err(format!("{host}: {error}")),
                Err(system) => Err(format!("{host}: {error}; {system}")),
            },
        }
    }

    async fn by_system(&self, host: &str) -> Result<ResolvedAddresses, String> {
        let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| e.to_string())?;
        let mut found: Vec<IpAddr> = found.map(|a| a.ip()).collect();
        found.sort_unstable();
        found.dedup();
        Ok(ResolvedAddresses { found, fresh_for: self.interval, unknown: None })
    }
}

async fn in_hosts_file(host: &str) -> bool {
    let text = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let names = |line: &str| {
        line.split('#').next().unwrap_or_default().split_whitespace().skip(1).any(|n| n.eq_ignore_ascii_case(host))
    };
    text.lines().any(names)
}
