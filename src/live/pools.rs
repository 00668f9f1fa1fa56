//! Upstreams at work, and what a predecessor left of them.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::heritage::{Heritable, Part};
use super::shelf::Shelf;
use crate::upstreams::{Bequest, Changes, Pool, PoolShape};

/// All upstreams.
#[derive(Debug, Default)]
pub struct Pools {
    shelf: Shelf<PoolShape, Pool>,
    /// What operators changed, by the upstream's name.
    changes: Mutex<HashMap<String, Arc<Changes>>>,
    /// What a predecessor left, by the upstream's name.
    waiting: Mutex<HashMap<String, Bequest>>,
}

impl Pools {
    /// The pool of that shape. A new one takes over the targets of a pool that has its name.
    pub fn get(&self, shape: PoolShape) -> Arc<Pool> {
        let before = self.shelf.find(|known, pool| known.name == shape.name && pool.is_wanted());
        let changes = Arc::clone(self.changes.lock().entry(shape.name.clone()).or_default());
        let left = self.waiting.lock().remove(&shape.name);
        let pool = self.shelf.get_or(&shape.clone(), || Pool::new(shape, before.as_deref(), changes));
        if let Some(left) = left {
            pool.inherit(left);
        }
        pool
    }
}

impl Heritable for Pools {
    fn kind(&self) -> &'static str {
        "upstreams"
    }

    fn version(&self) -> u32 {
        1
    }

    fn give(&self, _: Part) -> serde_json::Result<Vec<u8>> {
        let wanted = self.shelf.all().into_iter().filter(|(_, pool)| pool.is_wanted());
        serde_json::to_vec(&wanted.map(|(_, pool)| pool.bequeath()).collect::<Vec<_>>())
    }

    fn take(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<Bequest> = serde_json::from_slice(form)?;
        let count = given.len();
        let pools: HashMap<String, Arc<Pool>> = self.shelf.all().into_iter().map(|(shape, pool)| (shape.name, pool)).collect();
        for left in given {
            match pools.get(&left.upstream) {
                Some(pool) => pool.inherit(left),
                None => _ = self.waiting.lock().insert(left.upstream.clone(), left),
            }
        }
        Ok(count)
    }

    fn settle(&self) {
        self.waiting.lock().clear();
    }
}
