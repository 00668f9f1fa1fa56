//! The state of one rate limit: a number per key, exact, bounded, in shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::{AHashMap, RandomState};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::heritage::{Heritable, Part};
use super::shelf::Shelf;
use crate::exchange::clock;
use crate::rules::limits::{Decision, Gcra};

const SHARDS: usize = 16;

/// Keys that one shard holds: 16 × 65536 is about a million keys.
const MAX_KEYS_PER_SHARD: usize = 65_536;

/// The theoretical arrival times of all keys of a limit.
///
/// A key takes about 100 bytes with a short name, so the bound is some 100 MB. Over it the keys that
/// are back at their full burst go first, which changes nothing for them; if there are none, the one
/// that is nearest to it.
#[derive(Debug)]
pub struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    /// Whether anything was noted for a successor since it was told last.
    noted: AtomicBool,
}

#[derive(Debug, Default)]
struct Shard {
    keys: AHashMap<Box<[u8]>, u64>,
    /// What was added to keys since a successor was told last, in nanoseconds, if there is one.
    added: Option<AHashMap<Box<[u8]>, u64>>,
    /// By what the keys are counted.
    limit: Option<Gcra>,
    /// When it was last cleared of keys that are back at their full burst.
    cleared: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), hasher: RandomState::new(), noted: AtomicBool::new(false) }
    }
}

impl Buckets {
    /// Counts one more for `key` at `now` (nanoseconds), if the limit allows it. Decision and
    /// decrement are one step under the shard's lock, so a limit of N admits N and not N+1.
    pub fn admit(&self, gcra: Gcra, key: &[u8], now: u64) -> Decision {
        let place = self.hasher.hash_one(key) as usize % SHARDS;
        let mut shard = self.shards[place].lock();
        if shard.limit != Some(gcra) {
            drop(shard);
            self.count_by(gcra, now);
            shard = self.shards[place].lock();
        }
        if let Some(tat) = shard.keys.get_mut(key) {
            let decision = gcra.decide(*tat, now);
            if let Some(next) = decision.tat {
                let more = next.saturating_sub((*tat).max(now));
                *tat = next;
                self.note(&mut shard, key, more);
            }
            return decision;
        }
        let decision = gcra.decide(0, now);
        if let Some(tat) = decision.tat {
            insert(&mut shard, key, tat, now);
            self.note(&mut shard, key, tat - now);
        }
        decision
    }

    /// Keys are counted by that limit from now on, and what was counted by another is carried over: all at once, for
    /// a successor is given all of it as one limit's.
    fn count_by(&self, gcra: Gcra, now: u64) {
        let mut shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        for shard in shards.iter_mut().filter(|shard| shard.limit != Some(gcra)) {
            let before = shard.limit.replace(gcra);
            shard.keys.values_mut().for_each(|tat| *tat = now.saturating_add(gcra.carried(tat.saturating_sub(now), before)));
            shard.added.iter_mut().flat_map(|added| added.values_mut()).for_each(|more| *more = gcra.carried(*more, before));
        }
    }

    fn note(&self, shard: &mut Shard, key: &[u8], more: u64) {
        if let Some(added) = &mut shard.added {
            *added.entry(key.into()).or_default() += more;
            self.noted.store(true, Ordering::Release);
        }
    }

    /// Takes what was counted elsewhere. While that alone counted, a key is behind by as much as it was
    /// there; once both count, by so much more.
    fn take(&self, given: &Given, key: &[u8], behind: u64, now: u64) {
        let mut shard = self.shards[self.hasher.hash_one(key) as usize % SHARDS].lock();
        shard.limit = shard.limit.or(given.counted);
        let behind = match shard.limit {
            Some(own) if given.counted.is_some_and(|theirs| theirs != own) => own.carried(behind, given.counted),
            _ => behind,
        };
        let own = shard.keys.get(key).map_or(now, |tat| (*tat).max(now));
        let tat = match given.part {
            GivenPart::Behind => own.max(now.saturating_add(behind)),
            GivenPart::More => own.saturating_add(behind),
        };
        insert(&mut shard, key, tat, now);
    }

    /// By how many nanoseconds keys are behind: all, those that have changed, or how much more each is since
    /// it was asked last.
    fn give(&self, part: Part, now: u64) -> Vec<(String, u64)> {
        if part == Part::Late && !self.noted.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut given = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let added = shard.added.replace(AHashMap::new());
            let text = |key: &[u8]| STANDARD.encode(key);
            let behind = |tat: u64| tat.checked_sub(now).filter(|behind| *behind > 0);
            match (part, added) {
                (Part::Late, Some(added)) => given.extend(added.iter().map(|(key, more)| (text(key), *more))),
                (Part::Last, Some(added)) => {
                    let changed = added.keys().filter_map(|key| Some((text(key), behind(*shard.keys.get(key)?)?)));
                    given.extend(changed);
                }
                _ => given.extend(shard.keys.iter().filter_map(|(key, tat)| Some((text(key), behind(*tat)?)))),
            }
        }
        given
    }

    /// By what they are counted, if anything was.
    fn limit(&self) -> Option<Gcra> {
        self.shards.iter().find_map(|shard| shard.lock().limit)
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().keys.len()).sum()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn insert(shard: &mut Shard, key: &[u8], tat: u64, now: u64) {
    if shard.keys.len() >= MAX_KEYS_PER_SHARD && !shard.keys.contains_key(key) {
        evict(shard, now);
    }
    shard.keys.insert(key.into(), tat);
}

/// Makes room: at most once a second by a look at all keys, otherwise by a sample, so that a flood of
/// keys costs the same for each.
fn evict(shard: &mut Shard, now: u64) {
    const SECOND: u64 = 1_000_000_000;
    if now.saturating_sub(shard.cleared) >= SECOND {
        shard.keys.retain(|_, tat| *tat > now);
        shard.cleared = now;
    }
    if shard.keys.len() >= MAX_KEYS_PER_SHARD {
        let nearest = shard.keys.iter().take(64).min_by_key(|(_, tat)| **tat).map(|(key, _)| key.clone());
        if let Some(key) = nearest {
            shard.keys.remove(&key);
        }
    }
}

/// What the numbers of a hand-over mean.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum GivenPart {
    /// By how much a key is behind.
    Behind,
    /// By how much more, since that was said.
    More,
}

/// All buckets of one limit, in a hand-over: keys in base64, and nanoseconds.
#[derive(Serialize, Deserialize)]
struct Given {
    limit: String,
    part: GivenPart,
    /// By what they are counted; nothing from a predecessor that did not say.
    #[serde(default)]
    counted: Option<Gcra>,
    keys: Vec<(String, u64)>,
}

impl Heritable for Shelf<String, Buckets> {
    fn kind(&self) -> &'static str {
        "rate_limits"
    }

    fn version(&self) -> u32 {
        2
    }

    fn give(&self, part: Part) -> serde_json::Result<Option<Vec<u8>>> {
        let now = clock::now();
        let numbers = if part == Part::Late { GivenPart::More } else { GivenPart::Behind };
        let all = self.all().into_iter();
        let all = all.map(|(limit, buckets)| Given { limit, part: numbers, counted: buckets.limit(), keys: buckets.give(part, now) });
        let given: Vec<Given> = all.filter(|given| !given.keys.is_empty()).collect();
        if given.is_empty() { Ok(None) } else { serde_json::to_vec(&given).map(Some) }
    }

    fn take(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<Given> = serde_json::from_slice(form)?;
        let now = clock::now();
        let mut taken = 0;
        for limit in given {
            let Some(buckets) = self.inherit(&limit.limit, || Arc::new(Buckets::default())) else { continue };
            for (key, nanos) in limit.keys.iter().filter_map(|(key, nanos)| Some((STANDARD.decode(key).ok()?, *nanos))) {
                buckets.take(&limit, &key, nanos, now);
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn keep(&self) {
        for (_, buckets) in self.all() {
            buckets.shards.iter().for_each(|shard| shard.lock().added = None);
        }
    }

    fn settle(&self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    fn limit(count: u32) -> Gcra {
        Gcra::new(count, Duration::from_secs(3600), None)
    }

    #[test]
    fn exact_under_a_hundred_threads() {
        let (buckets, admitted) = (Buckets::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        if buckets.admit(limit(77), b"one", 1).tat.is_some() {
                            admitted.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 77);
    }

    fn hand(old: &Shelf<String, Buckets>, new: &Shelf<String, Buckets>, part: Part) -> usize {
        old.give(part).expect("given").map_or(0, |form| new.take(&form).expect("taken"))
    }

    #[test]
    fn what_is_given_in_parts_is_what_was_admitted() {
        let (old, new) = (Shelf::default(), Shelf::default());
        let shape = "route a".to_owned();
        let buckets: Arc<Buckets> = old.get_or(&shape, Arc::default);
        let spend = |buckets: &Buckets, key: &[u8], most: usize| {
            (0..most).filter(|_| buckets.admit(limit(10), key, clock::now()).tat.is_some()).count()
        };
        assert_eq!((spend(&buckets, b"one", 3), spend(&buckets, b"two\xff", 1)), (3, 1));
        assert_eq!(hand(&old, &new, Part::Whole), 2);
        assert_eq!(spend(&buckets, b"one", 2), 2);
        assert_eq!((hand(&old, &new, Part::Last), hand(&old, &new, Part::Late)), (1, 0));
        let heir: Arc<Buckets> = new.get_or(&shape, Arc::default);
        Heritable::settle(&new);
        // Both count from now on.
        assert_eq!((spend(&buckets, b"one", 1), spend(&heir, b"one", 1)), (1, 1));
        assert_eq!((hand(&old, &new, Part::Late), hand(&old, &new, Part::Late)), (1, 0));
        assert_eq!((spend(&heir, b"one", 20), spend(&heir, b"two\xff", 20), spend(&heir, b"three", 20)), (3, 9, 10));
        // A hand-over that failed leaves nothing behind, and the next one begins anew.
        old.keep();
        let third: Shelf<String, Buckets> = Shelf::default();
        assert_eq!(hand(&old, &third, Part::Last), 2);
        assert!(new.take(b"{}").is_err());
    }

    #[test]
    fn a_successor_with_another_limit_counts_on() {
        let (old, new): (Shelf<String, Buckets>, Shelf<String, Buckets>) = Default::default();
        let shape = "route a".to_owned();
        let spend = |buckets: &Buckets, count: u32, most: usize| {
            (0..most).filter(|_| buckets.admit(limit(count), b"one", clock::now()).tat.is_some()).count()
        };
        let buckets = old.get_or(&shape, Arc::default);
        assert_eq!(spend(&buckets, 10, 4), 4);
        assert_eq!(hand(&old, &new, Part::Whole), 1);
        hand(&old, &new, Part::Last);
        let heir: Arc<Buckets> = new.get_or(&shape, Arc::default);
        assert_eq!(spend(&heir, 20, 6), 6);
        // What comes late comes in the predecessor's unit.
        assert_eq!(spend(&buckets, 10, 3), 3);
        assert_eq!(hand(&old, &new, Part::Late), 1);
        assert_eq!(spend(&heir, 20, 20), 20 - 4 - 6 - 3);
        assert_eq!(spend(&heir, 100, 200), 80, "20 of the 100 are counted already");
    }

    #[test]
    fn time_goes_by_for_what_was_given() {
        let clock = clock::VirtualClock::start();
        let start = clock::now();
        let (old, new): (Shelf<String, Buckets>, Shelf<String, Buckets>) = Default::default();
        // Ten a second, and never more than that: a start of five seconds in between changes nothing.
        let gcra = Gcra::new(10, Duration::from_secs(1), None);
        let shape = "route a".to_owned();
        let buckets = old.get_or(&shape, Arc::default);
        hand(&old, &new, Part::Whole);
        for tenth in 0..50 {
            clock.set(start + tenth * 100_000_000);
            assert!(buckets.admit(gcra, b"one", clock::now()).tat.is_some());
        }
        hand(&old, &new, Part::Last);
        let heir: Arc<Buckets> = new.get_or(&shape, Arc::default);
        let room = (0..20).filter(|_| heir.admit(gcra, b"one", clock::now()).tat.is_some()).count();
        assert_eq!(room, 9);
    }

    #[test]
    fn keys_are_bounded() {
        let buckets = Buckets::default();
        let hour = 3_600_000_000_000;
        for key in 0..(SHARDS * MAX_KEYS_PER_SHARD + 50_000) as u64 {
            buckets.admit(limit(1), &key.to_be_bytes(), hour + key);
        }
        assert!(buckets.len() <= SHARDS * MAX_KEYS_PER_SHARD);
    }
}
