//! The turns of a throttle: requests wait for theirs in the order in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use crate::exchange::clock;
use crate::rules::limits::Gcra;

const SHARDS: usize = 256;

/// Keys of one shard, about a million of all. Beyond them, new keys wait together. One takes some 150 bytes.
const MAX_KEYS_PER_SHARD: usize = 4_096;

/// The least time between two searches of a full shard for keys that are idle, in nanoseconds: each looks at all of its
/// keys while it is locked.
const SEARCH_AFTER: u64 = 100_000_000;

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
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    waiting: AtomicUsize,
    /// The number of the next ticket of any key: a queue that is made anew has none of an earlier one's.
    next_ticket: AtomicU64,
}

/// A part of the keys.
#[derive(Debug, Default)]
struct Shard {
    keys: AHashMap<Box<[u8]>, KeyTurns>,
    /// When it was last searched for keys that are idle.
    searched: u64,
}

/// The turns of a key.
#[derive(Debug, Default)]
struct KeyTurns {
    /// The theoretical arrival time after those that have had their turn.
    tat: u64,
    /// Those who wait, if anybody does.
    queue: Option<Box<Queue>>,
}

/// Those who wait for the turns of a key.
#[derive(Debug, Default)]
struct Queue {
    /// Their tickets, which rise.
    tickets: VecDeque<u64>,
    /// Notified when one of them has left.
    left: Arc<Notify>,
}

impl Shard {
    /// Returns the turns of a key, or of all those for which there is no room, and the key by which they are known.
    fn turns<'k>(&mut self, key: &'k [u8], now: u64) -> (&mut KeyTurns, &'k [u8]) {
        let mut key = key;
        if !self.keys.contains_key(key) {
            if self.keys.len() >= MAX_KEYS_PER_SHARD && now.saturating_sub(self.searched) >= SEARCH_AFTER {
                self.searched = now;
                self.keys.retain(|_, turns| turns.tat > now || turns.queue.is_some());
            }
            key = if self.keys.len() >= MAX_KEYS_PER_SHARD { TOGETHER } else { key };
        }
        (self.keys.entry(key.into()).or_default(), key)
    }
}

impl KeyTurns {
    /// Returns how many wait.
    fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.tickets.len())
    }

    /// Removes a ticket, and the queue with the last one.
    fn remove(&mut self, at: usize) {
        let Some(queue) = &mut self.queue else { return };
        queue.tickets.remove(at);
        if queue.tickets.is_empty() {
            self.queue = None;
        }
    }
}

/// The key of those for which there is no room. No other key is empty.
const TOGETHER: &[u8] = &[];

impl Default for Turns {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            waiting: AtomicUsize::new(0),
            next_ticket: AtomicU64::new(0),
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
    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
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
        let (turns, key) = shard.turns(key, now);
        let wait = rate.wait(turns.tat, now, turns.waiting() as u64);
        if wait == 0 && turns.queue.is_none() {
            turns.tat = rate.count(turns.tat, now, 1);
            return Ok(None);
        }
        if wait > clock::nanos(bounds.delay) {
            return Err(NoTurn::TooLong(wait - clock::nanos(bounds.delay)));
        }
        if turns.waiting() >= bounds.of_key {
            return Err(NoTurn::Full(rate.wait(turns.tat, now, 0)));
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= bounds.of_all {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            return Err(NoTurn::Full(rate.wait(turns.tat, now, 0)));
        }
        // The shard is locked: the numbers of a queue rise.
        let number = self.next_ticket.fetch_add(1, Ordering::AcqRel);
        turns.queue.get_or_insert_default().tickets.push_back(number);
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
        let turns = shard.keys.get_mut(&self.key)?;
        let queue = turns.queue.as_ref()?;
        let before = queue.tickets.binary_search(&self.number).ok()?;
        let wait = rate.wait(turns.tat, now, before as u64);
        if wait > 0 {
            return Some((Duration::from_nanos(wait), Arc::clone(&queue.left).notified_owned()));
        }
        turns.remove(before);
        turns.tat = rate.count(turns.tat, now, 1);
        None
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.turns.waiting.fetch_sub(1, Ordering::AcqRel);
        let mut shard = self.turns.shard(&self.key).lock();
        let Some(turns) = shard.keys.get_mut(&self.key) else { return };
        let Some(queue) = &turns.queue else { return };
        // It is not there any more if it has had its turn.
        if let Ok(at) = queue.tickets.binary_search(&self.number) {
            queue.left.notify_waiters();
            turns.remove(at);
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

    #[test]
    fn keys_are_bounded_and_those_that_are_idle_make_room() {
        let (turns, rate) = (Turns::default(), rate(1, 1));
        let keys = |turns: &Turns| turns.shards.iter().map(|shard| shard.lock().keys.len()).sum::<usize>();
        let most = SHARDS * MAX_KEYS_PER_SHARD;
        // A key is a digest of at most 64 bytes; the table is at worst half empty.
        let entry = size_of::<(Box<[u8]>, KeyTurns)>() + 1;
        assert!(most * (2 * entry + 64) < 200 << 20, "{entry} bytes");
        let mut shard = Shard::default();
        for number in 0..MAX_KEYS_PER_SHARD as u64 {
            shard.turns(&number.to_le_bytes(), SECOND).0.tat = 2 * SECOND + number;
        }
        // None is idle: a key that is new waits with others, and the shard is not searched again at once.
        assert_eq!((shard.turns(b"new", SECOND).1, shard.searched), (TOGETHER, SECOND));
        assert_eq!((shard.turns(b"new", SECOND + 1).1, shard.searched), (TOGETHER, SECOND));
        let later = 2 * SECOND + 10;
        assert_eq!((shard.turns(b"new", later).1, shard.searched), (&b"new"[..], later));
        assert!(shard.keys.len() <= MAX_KEYS_PER_SHARD - 9);
        // Who has left leaves no queue.
        assert!(turns.enter(rate, b"a", BOUNDS, SECOND).expect("a turn").is_none());
        drop(turns.enter(rate, b"a", BOUNDS, SECOND).expect("room").expect("a ticket"));
        let is_free = turns.shard(b"a").lock().keys.get(&b"a"[..]).is_some_and(|turns| turns.queue.is_none());
        assert_eq!((keys(&turns), is_free), (1, true));
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
