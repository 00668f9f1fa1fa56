//! Targets as people write them, in the configuration and in files.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Found, Lookup, Source};
use crate::notation::{Address, Name};
use crate::upstreams::TargetSpec;

/// A target: `address`, or `{address, weight}`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum TargetText {
    /// Just its address.
    Short(Address),
    /// With its weight.
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
    /// Where it is; those in the gateway's own zone (`process.zone`) are preferred.
    pub zone: Option<Name>,
}

fn one() -> u32 {
    1
}

impl TargetText {
    /// Both forms as one.
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

/// Looks up the names of targets: every address of a name is a target. Fails when no name of all could
/// be looked up; a single one that cannot be is left out until it can.
pub async fn specs(specs: &[TargetSpec], lookup: &Lookup) -> Result<Found, String> {
    let mut found = Found { targets: Vec::new(), fresh_for: Duration::from_secs(3600) };
    for spec in specs {
        let (addresses, fresh_for) = lookup.addresses(&spec.host).await?;
        found.targets.extend(addresses.into_iter().map(|ip| ((ip, spec.port).into(), spec.clone())));
        found.fresh_for = found.fresh_for.min(fresh_for);
    }
    Ok(found)
}

/// The targets that stand in the configuration. Each name keeps its own last addresses, so that one
/// that fails does not keep the others from changing.
pub struct Written {
    names: Vec<(TargetSpec, parking_lot::Mutex<Found>)>,
    lookup: Arc<Lookup>,
}

impl Written {
    /// These.
    pub fn new(targets: Vec<TargetSpec>, lookup: Arc<Lookup>) -> Self {
        Self { names: targets.into_iter().map(|spec| (spec, parking_lot::Mutex::default())).collect(), lookup }
    }
}

#[async_trait]
impl Source for Written {
    fn describe(&self) -> String {
        "targets".to_owned()
    }

    async fn discover(&self) -> Result<Found, String> {
        let mut all = Found { targets: Vec::new(), fresh_for: Duration::from_secs(3600) };
        for (spec, last) in &self.names {
            let result = specs(std::slice::from_ref(spec), &self.lookup).await;
            let mut last = last.lock();
            match result {
                Ok(found) => *last = found,
                Err(error) => {
                    log::warn!("{error}; {} known addresses are kept", last.targets.len());
                    last.fresh_for = super::AGAIN;
                }
            }
            all.targets.extend(last.targets.iter().cloned());
            all.fresh_for = all.fresh_for.min(last.fresh_for);
        }
        Ok(all)
    }
}
