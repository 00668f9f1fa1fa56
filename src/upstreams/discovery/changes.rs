//! Changes of operators at run time, which outlive reloads and upgrades.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use parking_lot::Mutex;

use crate::upstreams::TargetSpec;

/// A change to one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TargetChange {
    /// Whether it is added although no source has it.
    pub added: bool,
    /// Whether it is removed although a source has it.
    pub removed: bool,
    /// Its weight instead of the configured one.
    pub weight: Option<u32>,
    /// Whether it takes no new sessions.
    pub draining: Option<bool>,
}

/// The changes of one upstream, by address.
#[derive(Debug, Default)]
pub struct TargetChanges(Mutex<HashMap<SocketAddr, TargetChange>>);

impl TargetChanges {
    /// Changes what was changed before about that target.
    pub fn change(&self, address: SocketAddr, change: impl FnOnce(&mut TargetChange)) {
        let mut changes = self.0.lock();
        change(changes.entry(address).or_default());
        changes.retain(|_, change| *change != TargetChange::default());
    }

    /// Returns all changes.
    pub fn all(&self) -> Vec<(SocketAddr, TargetChange)> {
        self.0.lock().iter().map(|(address, change)| (*address, change.clone())).collect()
    }

    /// Applies the changes to the targets of the sources.
    pub fn apply(&self, targets: &mut BTreeMap<SocketAddr, TargetSpec>) {
        for (address, change) in &*self.0.lock() {
            if change.removed {
                targets.remove(address);
                continue;
            }
            if change.added {
                targets.entry(*address).or_insert_with(|| TargetSpec::new(address.ip().to_string(), address.port()));
            }
            // A change to a target that its source no longer has is kept until the target returns.
            if let Some(spec) = targets.get_mut(address) {
                spec.weight = change.weight.unwrap_or(spec.weight);
                spec.draining = change.draining.unwrap_or(spec.draining);
            }
        }
    }
}
