//! Idle connections to HTTP/1 targets.
//!
//! Pingora watches each of its idle connections in a task that holds a lock on it. A request that takes one waits for
//! that lock, and gets it a moment before the task drops the connection itself: Pingora then considers it used and
//! closes it. That happens when the two run on different workers (cloudflare/pingora#998). Here nothing watches: a
//! connection is checked when it is taken, and once a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use futures::FutureExt;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::AsyncReadExt;

use crate::exchange::clock;
use crate::telemetry::cells::{SLOTS, slot};

/// How often idle connections are checked.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The idle connections to all targets.
pub struct IdlePool {
    /// The connections of each worker, which takes from others only when it has none.
    shards: Box<[Mutex<IdleShard>]>,
    /// The most that a worker keeps.
    most: usize,
    sweeping: AtomicBool,
}

#[derive(Default)]
struct IdleShard {
    by_key: AHashMap<u64, Vec<IdleConnection>>,
    count: usize,
}

struct IdleConnection {
    stream: Stream,
    /// When it is to be closed, on [`clock`].
    until: u64,
}

impl IdlePool {
    /// Returns a pool that keeps at most `most` connections per worker.
    pub fn new(most: usize) -> Arc<Self> {
        let shards = (0..*SLOTS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, most, sweeping: AtomicBool::new(false) })
    }

    /// Takes an open connection of that key, the most recently used first.
    pub fn take(&self, key: u64) -> Option<Stream> {
        let own = slot();
        (0..self.shards.len()).find_map(|offset| {
            let mut shard = self.shards[(own + offset) % self.shards.len()].lock();
            while let Some(mut stream) = shard.pop(key) {
                if is_open(&mut stream) {
                    return Some(stream);
                }
            }
            None
        })
    }

    /// Keeps a connection for `time`.
    pub fn put(self: &Arc<Self>, key: u64, mut stream: Stream, time: Duration) {
        if time.is_zero() || self.most == 0 || !is_open(&mut stream) {
            return;
        }
        let until = clock::now().saturating_add(clock::nanos(time));
        let mut shard = self.shards[slot()].lock();
        if shard.count >= self.most {
            shard.close_oldest();
        }
        shard.by_key.entry(key).or_default().push(IdleConnection { stream, until });
        shard.count += 1;
        drop(shard);
        if !self.sweeping.load(Ordering::Relaxed) && !self.sweeping.swap(true, Ordering::AcqRel) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

impl IdleShard {
    fn pop(&mut self, key: u64) -> Option<Stream> {
        let idle = self.by_key.get_mut(&key)?.pop()?;
        self.count -= 1;
        Some(idle.stream)
    }

    /// Within a key they are in the order in which they were kept.
    fn close_oldest(&mut self) {
        let oldest = self.by_key.values_mut().filter(|idle| !idle.is_empty()).min_by_key(|idle| idle[0].until);
        if let Some(idle) = oldest {
            idle.remove(0);
            self.count -= 1;
        }
    }

    fn sweep(&mut self, now: u64) {
        self.by_key.retain(|_, idle| {
            idle.retain_mut(|idle| idle.until > now && is_open(&mut idle.stream));
            !idle.is_empty()
        });
        self.count = self.by_key.values().map(Vec::len).sum();
    }
}

/// Returns whether the other side has neither closed a connection nor sent anything on it.
fn is_open(stream: &mut Stream) -> bool {
    let mut byte = [0];
    tokio::task::unconstrained(stream.read(&mut byte)).now_or_never().is_none()
}

async fn sweep(idle_pool: Weak<IdlePool>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        let Some(idle_pool) = idle_pool.upgrade() else { return };
        let now = clock::now();
        idle_pool.shards.iter().for_each(|shard| shard.lock().sweep(now));
    }
}
