//! The turns of a throttle: requests wait for theirs in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::exchange::clock;
use crate::rules::limits::Gcra;

const SHARDS: usize = 16;

/// Keys of one shard. Beyond them, new keys wait together.
const MAX_KEYS_PER_SHARD: usize = 65_536;

/// How many may wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct QueueBounds {
    /// Requests of one key.
    pub of_key: usize,
    /// Requests of all keys.
    pub of_all: usize,
    /// The longest delay.
    pub delay: Duration,
}

/// The reason for which a request does not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// It would wait for too long: its turn is in as many nanoseconds.
    TooLong(u64),
    /// As many wait as may; the next place is free in as many nanoseconds.
    Full(u64),
}

/// The turns of all keys of a throttle.
#[derive(Debug)]
pub struct Turns {
    shards: Box<[Mutex<AHashMap<Box<[u8]>, KeyTurns>>]>,
    hasher: RandomState,
    waiting: AtomicUsize,
}

/// The turns of a key.
#[derive(Debug, Default)]
struct KeyTurns {
    /// The theoretical arrival time after those that have had their turn.
    tat: u64,
    /// Those who wait, by their tickets, which rise.
    waiting: VecDeque<u64>,
    next_ticket: u64,
    /// Notified when one of them has left.
    left: Arc<Notify>,
}

/// The key of those for which there is no room. No other key is empty.
const TOGETHER: &[u8] = &[];

impl Default for Turns {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// A request that waits. It leaves the queue when this is dropped.
struct Ticket<'t> {
    turns: &'t Turns,
    key: Box<[u8]>,
    number: u64,
}

impl Turns {
    fn shard(&self, key: &[u8]) -> &Mutex<AHashMap<Box<[u8]>, KeyTurns>> {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Takes the turn of a request, or returns the wait for it. Where that is dropped, the turn is left to those behind
    /// it.
    ///
    /// # Errors
    /// Returns why it does not wait.
    pub fn wait(&self, rate: Gcra, key: &[u8], bounds: QueueBounds) -> Result<Option<BoxFuture<'_, ()>>, NoTurn> {
        let Some(ticket) = self.enter(rate, key, bounds, clock::now())? else { return Ok(None) };
        Ok(Some(Box::pin(async move {
            while let Some((wait, left)) = ticket.take_turn(rate, clock::now()) {
                let _ = tokio::time::timeout(wait, left).await;
            }
        })))
    }

    /// Takes the turn at once, if there is one, or a ticket.
    fn enter(&self, rate: Gcra, key: &[u8], bounds: QueueBounds, now: u64) -> Result<Option<Ticket<'_>>, NoTurn> {
        let mut shard = self.shard(key).lock();
        let mut key = key;
        if !shard.contains_key(key) {
            if shard.len() >= MAX_KEYS_PER_SHARD {
                shard.retain(|_, turns| turns.tat > now || !turns.waiting.is_empty());
            }
            key = if shard.len() >= MAX_KEYS_PER_SHARD { TOGETHER } else { key };
        }
        let turns = shard.entry(key.into()).or_default();
        let wait = rate.wait(turns.tat, now, turns.waiting.len() as u64);
        if wait == 0 && turns.waiting.is_empty() {
            turns.tat = rate.count(turns.tat, now, 1);
            return Ok(None);
        }
        if wait > clock::nanos(bounds.delay) {
            return Err(NoTurn::TooLong(wait - clock::nanos(bounds.delay)));
        }
        if turns.waiting.len() >= bounds.of_key {
            return Err(NoTurn::Full(rate.wait(turns.tat, now, 0)));
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= bounds.of_all {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(NoTurn::Full(rate.wait(turns.tat, now, 0)));
        }
        let number = turns.next_ticket;
        turns.next_ticket += 1;
        turns.waiting.push_back(number);
        Ok(Some(Ticket { turns: self, key: key.into(), number }))
    }

    /// Returns how many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }
}

impl Ticket<'_> {
    /// Takes the turn, if it has come. Otherwise returns how long to wait for it, unless one that waits leaves first.
    fn take_turn(&self, rate: Gcra, now: u64) -> Option<(Duration, OwnedNotified)> {
        let mut shard = self.turns.shard(&self.key).lock();
        let turns = shard.get_mut(&self.key)?;
        let before = turns.waiting.binary_search(&self.number).ok()?;
        let wait = rate.wait(turns.tat, now, before as u64);
        if wait > 0 {
            return Some((Duration::from_nanos(wait), Arc::clone(&turns.left).notified_owned()));
        }
        turns.waiting.remove(before);
        turns.tat = rate.count(turns.tat, now, 1);
        None
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.turns.waiting.fetch_sub(1, Ordering::AcqRel);
        let mut shard = self.turns.shard(&self.key).lock();
        let Some(turns) = shard.get_mut(&self.key) else { return };
        // It is not there any more if it has had its turn.
        if let Ok(at) = turns.waiting.binary_search(&self.number) {
            turns.waiting.remove(at);
            turns.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;
    const BOUNDS: QueueBounds = QueueBounds { of_key: 5, of_all: 100, delay: Duration::from_secs(100) };

    fn rate(count: u32, burst: u32) -> Gcra {
        Gcra::new(count, Duration::from_secs(1), Some(burst))
    }

    #[test]
    fn those_who_leave_free_their_turns_and_the_order_is_kept() {
        let (turns, rate) = (Turns::default(), rate(1, 1));
        let enter = |now| turns.enter(rate, b"a", BOUNDS, now);
        assert!(enter(SECOND).expect("a turn").is_none());
        let mut tickets: Vec<_> = (0..3).map(|_| enter(SECOND).expect("room").expect("a ticket")).collect();
        let wait = |ticket: &Ticket<'_>, now| ticket.take_turn(rate, now).map(|(wait, _)| wait.as_secs());
        assert_eq!(tickets.iter().map(|t| wait(t, SECOND)).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
        tickets.remove(0);
        assert_eq!(tickets.iter().map(|t| wait(t, SECOND)).collect::<Vec<_>>(), [Some(1), Some(2)]);
        assert_eq!((turns.waiting(), wait(&tickets[0], 2 * SECOND), wait(&tickets[1], 2 * SECOND)), (2, None, Some(1)));
        drop(tickets);
        assert_eq!(turns.waiting(), 0);
        assert!(enter(3 * SECOND).expect("a turn").is_none(), "the turn that was left");
    }

    #[test]
    fn queues_are_bounded() {
        let (turns, rate) = (Turns::default(), rate(1, 1));
        let enter = |key: &'static [u8], bounds| turns.enter(rate, key, bounds, SECOND);
        assert!(enter(b"a", BOUNDS).expect("a turn").is_none());
        let held: Vec<_> = (0..5).map(|_| enter(b"a", BOUNDS).expect("room")).collect();
        assert_eq!(enter(b"a", BOUNDS).err(), Some(NoTurn::Full(SECOND)));
        let short = QueueBounds { of_key: 100, of_all: 100, delay: Duration::from_secs(2) };
        assert_eq!(enter(b"a", short).err(), Some(NoTurn::TooLong(4 * SECOND)));
        assert!(enter(b"b", BOUNDS).expect("a turn").is_none());
        let few = QueueBounds { of_all: 5, ..BOUNDS };
        assert_eq!(enter(b"b", few).err(), Some(NoTurn::Full(SECOND)));
        assert_eq!(turns.waiting(), held.len());
    }

    proptest! {
        /// However requests come and leave, turns are taken no faster than the rate, in the order of arrival.
        #[test]
        fn turns_keep_the_rate(
            count in 1_u32..20, burst in 1_u32..5,
            steps in proptest::collection::vec((0_u64..300_000_000, 0_u8..4), 1..80),
        ) {
            let (turns, rate) = (Turns::default(), rate(count, burst));
            let bounds = QueueBounds { of_key: 1000, ..BOUNDS };
            let mut now = SECOND;
            let mut waiting: Vec<(usize, Ticket<'_>)> = Vec::new();
            let (mut taken, mut tat) = (Vec::new(), 0);
            for (number, (step, kind)) in steps.into_iter().enumerate() {
                now += step;
                if kind == 0 && !waiting.is_empty() {
                    waiting.remove(number % waiting.len());
                } else {
                    match turns.enter(rate, b"a", bounds, now).expect("room") {
                        None => taken.push((number, now)),
                        Some(ticket) => waiting.push((number, ticket)),
                    }
                }
                waiting.retain(|(number, ticket)| {
                    let waits = ticket.take_turn(rate, now).is_some();
                    if !waits {
                        taken.push((*number, now));
                    }
                    waits
                });
            }
            prop_assert!(taken.windows(2).all(|pair| pair[0].0 < pair[1].0));
            for (_, at) in taken {
                let (next, _) = rate.decide(tat, at, 1);
                prop_assert!(next.is_some());
                tat = next.unwrap_or_default();
            }
        }
    }
}
