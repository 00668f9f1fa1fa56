//! Targets in the notation of the configuration and of files.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Discovered, Lookup, TargetSource};
use crate::notation::{Address, Name};
use crate::upstreams::TargetSpec;

/// A target: `address`, or `{address, weight}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetText {
    /// An address alone.
    Short(Address),
    /// An address with settings.
    Full(WrittenTarget),
}

/// A target with its settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WrittenTarget {
    /// An address or a host name, with a port. Every address of a name becomes a target.
    pub address: Address,
    /// Its share relative to the others. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
    /// 0 is asked first; higher numbers as far as too few of the lower ones are healthy. Default 0.
    #[serde(default)]
    #[schemars(range(max = 127))]
    pub priority: u32,
    /// Where it is; see `zones` of the upstream. Default: nowhere.
    pub zone: Option<Name>,
}

fn one() -> u32 {
    1
}

impl TargetText {
    /// Returns the specification of either form.
    pub fn spec(&self) -> TargetSpec {
        match self {
            Self::Short(Address((host, port))) => TargetSpec::new(host.clone(), *port),
            Self::Full(target) => TargetSpec {
                weight: target.weight.clamp(1, 1_000),
                priority: target.priority.min(127),
                zone: target.zone.as_ref().map(|z| z.0.clone()),
                ..TargetSpec::new(target.address.0.0.clone(), target.address.0.1)
            },
        }
    }
}

/// The number of concurrent look-ups.
const CONCURRENT_LOOKUPS: usize = 16;

/// Looks up the names of targets: every address of a name is a target. A name without a known address is omitted
/// until it has one.
pub async fn specs(specs: &[TargetSpec], lookup: &Lookup) -> Discovered {
    let one = |spec: TargetSpec| async move {
        let (addresses, fresh_for) = lookup.known(&spec.host).await;
        (spec, addresses, fresh_for)
    };
    let mut looked_up: Vec<_> =
        futures::stream::iter(specs.iter().cloned()).map(one).buffered(CONCURRENT_LOOKUPS).collect().await;
    let mut found = Discovered { targets: Vec::new(), fresh_for: Duration::from_secs(3600) };
    for (spec, addresses, fresh_for) in looked_up.drain(..) {
        found.targets.extend(addresses.into_iter().map(|ip| ((ip, spec.port).into(), spec.clone())));
        found.fresh_for = found.fresh_for.min(fresh_for);
    }
    found
}

/// The targets in the configuration.
pub struct ConfiguredTargets {
    specs: Vec<TargetSpec>,
    lookup: Arc<Lookup>,
}

impl ConfiguredTargets {
    /// Returns the source for these targets.
    pub fn new(specs: Vec<TargetSpec>, lookup: Arc<Lookup>) -> Self {
        Self { specs, lookup }
    }
}

#[async_trait]
impl TargetSource for ConfiguredTargets {
    fn describe(&self) -> String {
        "targets".to_owned()
    }

    async fn discover(&self) -> Result<Discovered, String> {
        Ok(specs(&self.specs, &self.lookup).await)
    }
}
