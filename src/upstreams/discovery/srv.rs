//! Targets from the SRV records of a service (RFC 2782).

use std::sync::Arc;

use async_trait::async_trait;

use super::configured::specs;
use super::{Discovered, Lookup, TargetSource};
use crate::upstreams::TargetSpec;

/// A service such as `_http._tcp.users.internal`.
pub struct Services {
    name: String,
    lookup: Arc<Lookup>,
}

impl Services {
    /// Returns the source for that service.
    pub fn new(name: String, lookup: Arc<Lookup>) -> Self {
        Self { name, lookup }
    }
}

#[async_trait]
impl TargetSource for Services {
    fn describe(&self) -> String {
        self.name.clone()
    }

    async fn discover(&self) -> Result<Discovered, String> {
        let (services, ttl) = self.lookup.resolver().srv_records(&self.name).await.map_err(|e| e.to_string())?;
        let mut levels: Vec<u16> = services.iter().map(|s| s.priority).collect();
        levels.sort_unstable();
        levels.dedup();
        // Only the order of priorities matters; a weight of 0 becomes the minimum.
        let spec = |service: &crate::clients::SrvRecord| TargetSpec {
            weight: u32::from(service.weight).clamp(1, 1_000),
            priority: levels.iter().position(|l| *l == service.priority).unwrap_or(0) as u32,
            ..TargetSpec::new(service.target.clone(), service.port)
        };
        let targets: Vec<TargetSpec> = services.iter().map(spec).collect();
        let found = specs(&targets, &self.lookup).await;
        Ok(Discovered { fresh_for: found.fresh_for.min(Lookup::fresh_for(ttl)), ..found })
    }
}
