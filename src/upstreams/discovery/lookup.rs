//! The addresses of a host name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use crate::clients::{Addresses, DnsError, Resolver};

/// The bounds of a record's time: what says 0 is not asked for all the time, what says a week is
/// looked at every hour.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));

/// Looks names up: in the hosts file, at name servers, and in the system's own way when those do not
/// know the name (search domains, names of the local link).
#[derive(Debug)]
pub struct Lookup {
    resolver: Resolver,
    /// How long an answer of the system's holds, which does not say it.
    interval: Duration,
    /// What each name was last: one that cannot be looked up keeps that.
    last: Mutex<HashMap<String, Vec<IpAddr>>>,
}

impl Lookup {
    /// At these servers, or at those of the system.
    pub fn new(resolver: Option<Resolver>, interval: Duration) -> Self {
        Self { resolver: resolver.unwrap_or_else(Resolver::of_system), interval, last: Mutex::default() }
    }

    /// Its name servers.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// For how long an answer holds whose records have this time.
    pub fn fresh_for(ttl: Duration) -> Duration {
        ttl.clamp(BOUNDS.0, BOUNDS.1)
    }

    /// The addresses of a host, and for how long they hold; the last known ones when it cannot be looked
    /// up, none when it never could.
    pub async fn known(&self, host: &str) -> (Vec<IpAddr>, Duration) {
        match self.addresses(host).await {
            Ok(Addresses { mut found, fresh_for, unknown }) => {
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
                (kept, super::AGAIN)
            }
        }
    }

    async fn addresses(&self, host: &str) -> Result<Addresses, String> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Addresses { found: vec![address], fresh_for: BOUNDS.1, unknown: None });
        }
        if in_hosts_file(host).await {
            return self.by_system(host).await;
        }
        match self.resolver.addresses(host).await {
            Ok(found) => Ok(Addresses { fresh_for: Self::fresh_for(found.fresh_for), ..found }),
            Err(error) => match self.by_system(host).await {
                Ok(found) => Ok(found),
                Err(_) if error == DnsError::NoName => Err(format!("{host}: {error}")),
                Err(system) => Err(format!("{host}: {error}; {system}")),
            },
        }
    }

    async fn by_system(&self, host: &str) -> Result<Addresses, String> {
        let found = tokio::net::lookup_host((host, 0)).await.map_err(|e| e.to_string())?;
        let mut found: Vec<IpAddr> = found.map(|a| a.ip()).collect();
        found.sort_unstable();
        found.dedup();
        Ok(Addresses { found, fresh_for: self.interval, unknown: None })
    }
}

async fn in_hosts_file(host: &str) -> bool {
    let text = tokio::fs::read_to_string("/etc/hosts").await.unwrap_or_default();
    let names = |line: &str| line.split('#').next().unwrap_or_default().split_whitespace().skip(1).any(|n| n.eq_ignore_ascii_case(host));
    text.lines().any(names)
}
