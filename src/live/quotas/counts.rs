//! The counts of one quota: what this process may still count of it, by key.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use futures::future::{BoxFuture, Either, Ready, ready};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::file::{Granted, place_of};
use super::writer::{BlockRequest, QuotaStore};
use crate::exchange::clock;
use crate::rules::limits::{CalendarWindow, is_block_low};

const SHARDS: usize = 16;

/// Keys that one shard holds. The others are in the store alone.
const MAX_KEYS_PER_SHARD: usize = 16_384;

/// The keys that are looked at for one to drop.
const EVICTION_SAMPLE: usize = 64;

/// The longest wait for a block.
const BLOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a quota that is used up is looked for in the store: another process may have given back a block.
const RECHECK_INTERVAL: u64 = 1_000_000_000;

/// The counts of one quota.
#[derive(Debug)]
pub struct QuotaCounts {
    name: String,
    store: Arc<QuotaStore>,
    shards: Box<[Mutex<AHashMap<Box<[u8]>, Holding>>]>,
    hasher: RandomState,
}

/// A key and the window: those that still wait at the end of a window have nothing to do with those of the next.
type WindowKey = SmallVec<[u8; 112]>;

const WINDOW_BYTES: usize = 16;

fn window_key(key: &[u8], window: CalendarWindow) -> WindowKey {
    let mut out = WindowKey::from_slice(key);
    out.extend_from_slice(&window.start.to_be_bytes());
    out.extend_from_slice(&window.end.to_be_bytes());
    out
}

/// What this process holds for a key in a window.
#[derive(Debug)]
struct Holding {
    window: CalendarWindow,
    /// What it may count without the store.
    available: u64,
    /// What was granted to all processes, as far as it is known.
    granted: Option<u64>,
    /// What the requests that wait for a block need.
    needed: u64,
    /// The present request for a block.
    asking: Option<Arc<Asking>>,
    /// When a block was last asked for.
    asked_at: u64,
}

/// A request for a block.
#[derive(Debug, Default)]
struct Asking {
    done: Arc<Notify>,
    failed: AtomicBool,
}

/// The outcome for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaOutcome {
    /// It was counted; so much is left.
    Counted(u64),
    /// The quota does not have as much left; what is.
    Exceeded(u64),
    /// The store failed.
    Unavailable,
}

enum Step {
    Done(QuotaOutcome),
    Wait(Arc<Asking>, OwnedNotified),
}

impl QuotaCounts {
    /// Returns the counts of the quota of that name.
    pub fn new(name: &str, store: Arc<QuotaStore>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            store,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        })
    }

    /// Returns the store.
    pub fn store(&self) -> &Arc<QuotaStore> {
        &self.store
    }

    fn shard(&self, key: &[u8]) -> &Mutex<AHashMap<Box<[u8]>, Holding>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Counts a request of that cost, if the quota of `limit` in this window has as much left. Where this process has
    /// to be granted a block first, the outcome comes later; that future is in a box, so that the one of a request
    /// that does not wait is small.
    pub fn count(
        self: &Arc<Self>,
        key: &[u8],
        limit: u64,
        window: CalendarWindow,
        cost: u64,
    ) -> Either<Ready<QuotaOutcome>, BoxFuture<'static, QuotaOutcome>> {
        let key = window_key(key, window);
        match self.step(&key, limit, window, cost) {
            Step::Done(outcome) => Either::Left(ready(outcome)),
            Step::Wait(asking, done) => {
                let (counts, key) = (Arc::clone(self), Box::from(&*key));
                Either::Right(Box::pin(async move { counts.wait(key, limit, window, cost, asking, done).await }))
            }
        }
    }

    async fn wait(
        self: Arc<Self>,
        key: Box<[u8]>,
        limit: u64,
        window: CalendarWindow,
        cost: u64,
        mut asking: Arc<Asking>,
        mut done: OwnedNotified,
    ) -> QuotaOutcome {
        let deadline = Instant::now() + BLOCK_TIMEOUT;
        loop {
            if tokio::time::timeout_at(deadline, done).await.is_err() || asking.failed.load(Ordering::Acquire) {
                return QuotaOutcome::Unavailable;
            }
            match self.step(&key, limit, window, cost) {
                Step::Done(outcome) => return outcome,
                Step::Wait(next, next_done) => (asking, done) = (next, next_done),
            }
        }
    }

    fn step(self: &Arc<Self>, key: &[u8], limit: u64, window: CalendarWindow, cost: u64) -> Step {
        let mut shard = self.shard(key).lock();
        if !shard.contains_key(key) {
            self.make_room(&mut shard);
            shard.insert(key.into(), Holding::new(window));
        }
        let Some(holding) = shard.get_mut(key) else { return Step::Done(QuotaOutcome::Unavailable) };
        let left = holding.granted.map(|granted| limit.saturating_sub(granted));
        // What is left is what is held and what the store has, but never more than a lower limit allows.
        let used = holding.granted.map_or(0, |granted| granted.saturating_sub(holding.available));
        let room = limit.saturating_sub(used);
        if holding.available >= cost && room >= cost {
            holding.available -= cost;
            if left.is_some_and(|left| is_block_low(holding.available, left)) {
                self.ask(holding, key, limit);
            }
            return Step::Done(QuotaOutcome::Counted(room - cost));
        }
        if left.is_some_and(|left| room < cost || left.saturating_add(holding.available) < cost) {
            if clock::now().saturating_sub(holding.asked_at) >= RECHECK_INTERVAL {
                self.ask(holding, key, limit);
            }
            return Step::Done(QuotaOutcome::Exceeded(room));
        }
        holding.needed = holding.needed.saturating_add(cost);
        match self.ask(holding, key, limit) {
            Some(asking) => {
                let done = Arc::clone(&asking.done).notified_owned();
                Step::Wait(asking, done)
            }
            None => Step::Done(QuotaOutcome::Unavailable),
        }
    }

    /// Asks for a block, unless that is under way already. Returns `None` where it cannot be asked for.
    fn ask(self: &Arc<Self>, holding: &mut Holding, key: &[u8], limit: u64) -> Option<Arc<Asking>> {
        if let Some(asking) = &holding.asking {
            return Some(Arc::clone(asking));
        }
        let needed = std::mem::take(&mut holding.needed);
        holding.asked_at = clock::now();
        let counts = Arc::clone(self);
        if !self.store.ask(BlockRequest { counts, key: key.into(), window: holding.window, limit, needed }) {
            return None;
        }
        let asking = Arc::new(Asking::default());
        holding.asking = Some(Arc::clone(&asking));
        Some(asking)
    }

    /// Returns the place of a key in the store.
    pub fn place(&self, window: CalendarWindow, key: &[u8]) -> Vec<u8> {
        place_of(window, &self.name, &key[..key.len().saturating_sub(WINDOW_BYTES)])
    }

    /// Receives what was granted, or that the store failed.
    pub fn receive(&self, key: &[u8], window: CalendarWindow, granted: Option<Granted>) {
        let mut shard = self.shard(key).lock();
        let Some(holding) = shard.get_mut(key) else {
            drop(shard);
            let more = granted.map_or(0, |granted| granted.more);
            if more > 0 {
                self.store.give_back(vec![(self.place(window, key), more)]);
            }
            return;
        };
        let asking = holding.asking.take();
        if let Some(granted) = granted {
            holding.available += granted.more;
            holding.granted = Some(granted.total);
        }
        if let Some(asking) = asking {
            asking.failed.store(granted.is_none(), Ordering::Release);
            asking.done.notify_waiters();
        }
    }

    /// Drops a key where there are as many as may be, and gives back what it holds.
    fn make_room(&self, shard: &mut AHashMap<Box<[u8]>, Holding>) {
        if shard.len() < MAX_KEYS_PER_SHARD {
            return;
        }
        let sample = shard.iter().take(EVICTION_SAMPLE).filter(|(_, holding)| holding.asking.is_none());
        let least =
            sample.min_by_key(|(_, holding)| (holding.window.end, holding.available)).map(|(key, _)| key.clone());
        let dropped = least.and_then(|key| Some((shard.remove(&key)?, key)));
        if let Some((holding, key)) = dropped.filter(|(holding, _)| holding.available > 0) {
            self.store.give_back(vec![(self.place(holding.window, &key), holding.available)]);
        }
    }

    /// Gives back all that this process holds.
    pub fn give_back(&self) {
        let mut unused = Vec::new();
        for shard in &self.shards {
            for (key, holding) in shard.lock().iter_mut().filter(|(_, holding)| holding.available > 0) {
                let place = self.place(holding.window, key);
                unused.push((place, std::mem::take(&mut holding.available)));
                holding.granted = None;
            }
        }
        self.store.give_back(unused);
    }
}

impl Drop for QuotaCounts {
    /// A quota that the configuration no longer has gives back what it held.
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Holding {
    fn new(window: CalendarWindow) -> Self {
        Self { window, available: 0, granted: None, needed: 0, asking: None, asked_at: 0 }
    }
}

#[cfg(test)]
#[path = "counts_tests.rs"]
mod tests;
