//! The fetches that are under way: requests for what is being fetched wait for it, so that a target is asked once.
//!
//! A fetch is a task of its own, which goes on while anybody waits for it, and once a response has begun to come. Its
//! flight is published when the head of the response has come and the body can be followed, so that nobody waits for
//! the slowest reader. A fetch that ends without a result publishes that, on every way out.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::exchange::Rejection;
use crate::live::StoredKey;

const SHARDS: usize = 64;

/// The keys that are remembered as not stored; a newer one replaces an older one in its place.
const REMEMBERED: usize = 1 << 14;

/// What is fetched: the key, the variant, and whether the request has credentials: a response to one that has may not
/// be for others.
pub type FlightKey = (StoredKey, Option<StoredKey>, bool);

/// The state of a fetch, for those who wait for it.
#[derive(Clone, Debug)]
pub enum FlightState {
    /// No response has come.
    Pending,
    /// The response is stored, or is being stored and can be read.
    Stored,
    /// The response is not for others.
    NotShared,
    /// There is none.
    Failed(Box<Rejection>),
}

/// A fetch that is under way.
#[derive(Debug)]
pub struct Flight {
    state: watch::Sender<FlightState>,
    /// The number of requests that wait for it.
    waiters: AtomicUsize,
    /// Whether a response has begun to come.
    has_response: AtomicBool,
    /// What ends it.
    task: OnceLock<AbortHandle>,
}

impl Flight {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            state: watch::Sender::new(FlightState::Pending),
            waiters: AtomicUsize::new(0),
            has_response: AtomicBool::new(false),
            task: OnceLock::new(),
        })
    }
}

/// A request that waits for a fetch. Without any the fetch ends, unless a response has begun to come: what a client
/// begins and leaves costs the target no more than what it waits for.
#[derive(Debug)]
pub struct FlightWaiter {
    flights: Arc<Flights>,
    key: Option<FlightKey>,
    flight: Arc<Flight>,
}

impl FlightWaiter {
    /// Must be called under the lock of the key's shard, if there is a key.
    fn new(flights: &Arc<Flights>, key: Option<FlightKey>, flight: &Arc<Flight>) -> Self {
        flight.waiters.fetch_add(1, Ordering::Relaxed);
        Self { flights: Arc::clone(flights), key, flight: Arc::clone(flight) }
    }

    /// Lets the task of the fetch end when nobody waits for it.
    pub fn ends(&self, task: &JoinHandle<()>) {
        let _ = self.flight.task.set(task.abort_handle());
    }

    /// Waits for the end of the fetch, and returns how it ended.
    pub async fn wait(&self) -> FlightState {
        let mut state = self.flight.state.subscribe();
        match state.wait_for(|state| !matches!(state, FlightState::Pending)).await {
            Ok(state) => state.clone(),
            // The sender is in this flight.
            Err(_) => FlightState::NotShared,
        }
    }
}

impl Drop for FlightWaiter {
    fn drop(&mut self) {
        let flight = &self.flight;
        // Nobody joins meanwhile.
        let mut shard = self.key.as_ref().map(|key| self.flights.shard(&key.0).lock());
        let is_last = flight.waiters.fetch_sub(1, Ordering::Relaxed) == 1;
        if !is_last || flight.has_response.load(Ordering::Relaxed) {
            return;
        }
        // One without a task, which refreshes in the background, goes on.
        let Some(task) = flight.task.get() else { return };
        if let (Some(key), Some(shard)) = (&self.key, &mut shard)
            && shard.get(key).is_some_and(|known| Arc::ptr_eq(known, flight))
        {
            shard.remove(key);
        }
        drop(shard);
        task.abort();
    }
}

/// The part that a request has in a fetch.
pub enum FlightPart {
    /// It has to fetch.
    Leader(FlightGuard),
    /// It waits.
    Follower(FlightWaiter),
}

/// The duty to publish how a fetch ended.
#[derive(Debug)]
pub struct FlightGuard {
    flights: Arc<Flights>,
    /// `None` of a fetch for which nobody can wait.
    key: Option<FlightKey>,
    flight: Arc<Flight>,
}

impl FlightGuard {
    /// Returns whether others can wait for the fetch.
    pub fn is_shared(&self) -> bool {
        self.key.is_some()
    }

    /// Returns the request that begins the fetch as one that waits for it.
    pub fn waiter(&self) -> FlightWaiter {
        let _shard = self.key.as_ref().map(|key| self.flights.shard(&key.0).lock());
        FlightWaiter::new(&self.flights, self.key, &self.flight)
    }

    /// Notes that a response has begun to come.
    pub fn note_response(&self) {
        self.flight.has_response.store(true, Ordering::Relaxed);
    }

    /// Publishes how the fetch ended. Requests that come later look into the store.
    pub fn publish(&self, state: FlightState) {
        if let Some(key) = &self.key {
            let mut shard = self.flights.shard(&key.0).lock();
            if shard.get(key).is_some_and(|known| Arc::ptr_eq(known, &self.flight)) {
                shard.remove(key);
            }
        }
        self.flight.state.send_replace(state);
    }
}

impl Drop for FlightGuard {
    fn drop(&mut self) {
        if matches!(*self.flight.state.borrow(), FlightState::Pending) {
            self.publish(FlightState::NotShared);
        }
    }
}

/// The fetches that are under way, and what is known not to be worth waiting for.
#[derive(Debug)]
pub struct Flights {
    shards: Box<[Mutex<AHashMap<FlightKey, Arc<Flight>>>]>,
    /// In each place 40 bits of a key, and the second until which it is remembered.
    unshared: Box<[AtomicU64]>,
    began: Instant,
}

impl Default for Flights {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            unshared: (0..REMEMBERED).map(|_| AtomicU64::new(0)).collect(),
            began: Instant::now(),
        }
    }
}

impl Flights {
    fn shard(&self, key: &StoredKey) -> &Mutex<AHashMap<FlightKey, Arc<Flight>>> {
        &self.shards[usize::from(key.0[0]) % SHARDS]
    }

    /// Joins the fetch for a key, or begins it.
    pub fn join(self: &Arc<Self>, key: FlightKey) -> FlightPart {
        let mut shard = self.shard(&key.0).lock();
        if let Some(known) = shard.get(&key) {
            return FlightPart::Follower(FlightWaiter::new(self, Some(key), known));
        }
        let flight = Flight::new();
        shard.insert(key, Arc::clone(&flight));
        FlightPart::Leader(FlightGuard { flights: Arc::clone(self), key: Some(key), flight })
    }

    /// Begins a fetch for which nobody waits but the request itself.
    pub fn alone(self: &Arc<Self>) -> FlightGuard {
        FlightGuard { flights: Arc::clone(self), key: None, flight: Flight::new() }
    }

    /// Remembers for a while that responses for a key are not shared, so that requests do not wait for each other in
    /// vain ("hit-for-miss").
    pub fn remember_unshared(&self, key: &FlightKey, time: Duration) {
        let (place, mark) = self.place(key);
        let until = (self.began.elapsed() + time).as_secs() & 0xff_ffff;
        place.store(mark | until, Ordering::Relaxed);
    }

    /// Returns whether responses for a key are remembered as not shared.
    pub fn is_unshared(&self, key: &FlightKey) -> bool {
        let (place, mark) = self.place(key);
        let known = place.load(Ordering::Relaxed);
        known != 0 && known & !0xff_ffff == mark && self.began.elapsed().as_secs() & 0xff_ffff < known & 0xff_ffff
    }

    /// Forgets it.
    pub fn forget_unshared(&self, key: &FlightKey) {
        let (place, mark) = self.place(key);
        if place.load(Ordering::Relaxed) & !0xff_ffff == mark {
            place.store(0, Ordering::Relaxed);
        }
    }

    fn place(&self, (key, variant, is_authorized): &FlightKey) -> (&AtomicU64, u64) {
        let number =
            |key: &StoredKey, at: usize| key.0[at..at + 8].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let own = number(key, 0) ^ variant.as_ref().map_or(0, |variant| number(variant, 0).rotate_left(17));
        let mark =
            number(key, 8) ^ variant.as_ref().map_or(0, |variant| number(variant, 8)) ^ u64::from(*is_authorized);
        // The lowest bit of the mark has to reach its upper part.
        let mark = mark.wrapping_mul(0x9e37_79b9_7f4a_7c15) & !0xff_ffff;
        (&self.unshared[own as usize % REMEMBERED], mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Reason;

    fn key(number: u8, is_authorized: bool) -> FlightKey {
        (StoredKey([number; 16]), None, is_authorized)
    }

    #[tokio::test]
    async fn one_fetches_and_the_others_wait() {
        let flights = Arc::new(Flights::default());
        let FlightPart::Leader(guard) = flights.join(key(1, false)) else { panic!("the first one fetches") };
        let FlightPart::Follower(flight) = flights.join(key(1, false)) else { panic!("the second one waits") };
        assert!(matches!(flights.join(key(1, true)), FlightPart::Leader(_)), "one with credentials is another");
        let waiting = tokio::spawn(async move { flight.wait().await });
        guard.publish(FlightState::Stored);
        assert!(matches!(waiting.await.unwrap(), FlightState::Stored));
        assert!(matches!(flights.join(key(1, false)), FlightPart::Leader(_)), "what is published is over");
    }

    #[tokio::test]
    async fn a_fetch_that_is_dropped_lets_the_others_go() {
        let flights = Arc::new(Flights::default());
        let FlightPart::Leader(guard) = flights.join(key(1, false)) else { panic!("the first one fetches") };
        let FlightPart::Follower(flight) = flights.join(key(1, false)) else { panic!("the second one waits") };
        drop(guard);
        assert!(matches!(flight.wait().await, FlightState::NotShared));
        let FlightPart::Leader(guard) = flights.join(key(1, false)) else { panic!("the next one fetches") };
        guard.publish(FlightState::Failed(Rejection::new(Reason::TargetReset, "")));
        assert!(matches!(guard.waiter().wait().await, FlightState::Failed(_)));
    }

    #[test]
    fn what_is_not_shared_is_remembered_for_a_while() {
        let flights = Flights::default();
        flights.remember_unshared(&key(1, false), Duration::from_secs(60));
        assert!(flights.is_unshared(&key(1, false)) && !flights.is_unshared(&key(1, true)));
        assert!(!flights.is_unshared(&key(2, false)));
        flights.remember_unshared(&key(1, false), Duration::ZERO);
        assert!(!flights.is_unshared(&key(1, false)));
        flights.remember_unshared(&key(1, false), Duration::from_secs(60));
        flights.forget_unshared(&key(1, false));
        assert!(!flights.is_unshared(&key(1, false)));
    }
}
