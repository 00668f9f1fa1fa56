//! The pools of upstreams, and their state from a predecessor.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::heritable::{HandoverPart, Heritable};
use super::shelf::Shelf;
use crate::upstreams::{Pool, PoolShape, SavedPool, TargetChanges};

/// All upstreams.
#[derive(Debug, Default)]
pub struct Pools {
    shelf: Shelf<PoolShape, Pool>,
    /// The pools by name; several may have one name while a reload is prepared.
    by_name: Mutex<HashMap<String, Vec<Weak<Pool>>>>,
    /// The changes by operators, by the upstream's name.
    changes: Mutex<HashMap<String, Arc<TargetChanges>>>,
    /// The state from a predecessor, by the upstream's name.
    waiting: Mutex<HashMap<String, SavedPool>>,
}

impl Pools {
    /// Returns the pool of that shape. A new one takes over the targets of a pool that has its name.
    pub fn get(&self, shape: PoolShape) -> Arc<Pool> {
        let name = shape.name.clone();
        let before = self.serving_pool(&name).filter(|pool| pool.is_wanted());
        let changes = Arc::clone(self.changes.lock().entry(name.clone()).or_default());
        let left = self.waiting.lock().remove(&name);
        let pool = self.shelf.get_or(&shape.clone(), || Pool::new(shape, before.as_deref(), changes));
        self.note(name, &pool);
        if let Some(left) = left {
            pool.restore(left);
        }
        pool
    }

    fn note(&self, name: String, pool: &Arc<Pool>) {
        let mut by_name = self.by_name.lock();
        // Cleared now and then, as on the shelf.
        if by_name.len() == by_name.capacity() {
            by_name.retain(|_, pools| pools.iter().any(|pool| pool.strong_count() > 0));
        }
        let pools = by_name.entry(name).or_default();
        if !pools.iter().any(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(pool))) {
            pools.push(Arc::downgrade(pool));
        }
    }

    /// Returns the pool of that name that serves, or else the last one of that name.
    fn serving_pool(&self, name: &str) -> Option<Arc<Pool>> {
        let mut by_name = self.by_name.lock();
        let pools = by_name.get_mut(name)?;
        pools.retain(|pool| pool.strong_count() > 0);
        let alive: Vec<_> = pools.iter().filter_map(Weak::upgrade).collect();
        alive.iter().find(|pool| pool.is_wanted()).or(alive.last()).cloned()
    }
}

impl Heritable for Pools {
    fn kind(&self) -> &'static str {
        "upstreams"
    }

    fn version(&self) -> u32 {
        1
    }

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        // Once the successor serves it knows its targets better than a process without traffic.
        if part == HandoverPart::Late {
            return Ok(None);
        }
        let wanted = self.shelf.all().into_iter().filter(|(_, pool)| pool.is_wanted());
        serde_json::to_vec(&wanted.map(|(_, pool)| pool.save()).collect::<Vec<_>>()).map(Some)
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<SavedPool> = serde_json::from_slice(form)?;
        let count = given.len();
        for left in given {
            match self.serving_pool(&left.upstream) {
                Some(pool) => pool.restore(left),
                None => _ = self.waiting.lock().insert(left.upstream.clone(), left),
            }
        }
        Ok(count)
    }

    fn drop_unused(&self) {
        self.waiting.lock().clear();
    }
}
