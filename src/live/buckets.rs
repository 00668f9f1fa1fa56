//! The state of one rate limit: a number per key, exact, bounded, in shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::{AHashMap, RandomState};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::heritable::{HandoverPart, Heritable};
use super::shelf::Shelf;
use crate::exchange::clock;
use crate::rules::limits::{Decision, Gcra};

const SHARDS: usize = 16;

/// Keys that one shard holds: 16 × 65536 is about a million keys.
const MAX_KEYS_PER_SHARD: usize = 65_536;

/// The theoretical arrival times of all keys of a limit.
///
/// A key takes about 100 bytes with a short name, so the bound is some 100 MB. At the bound the keys that are back at
/// their full burst are dropped first, which changes nothing for them; if there are none, the one that is nearest to
/// it.
#[derive(Debug)]
pub struct Buckets {
    shards: Box<[Mutex<BucketShard>]>,
    hasher: RandomState,
    /// Whether anything was noted for a successor since the last hand-over.
    noted: AtomicBool,
}

#[derive(Debug, Default)]
struct BucketShard {
    keys: AHashMap<Box<[u8]>, u64>,
    /// The nanoseconds that were added to keys since the last hand-over, if there is a successor.
    added: Option<AHashMap<Box<[u8]>, u64>>,
    /// The limit by which the keys are counted.
    limit: Option<Gcra>,
    /// When it was last cleared of keys that are back at their full burst.
    cleared: u64,
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            noted: AtomicBool::new(false),
        }
    }
}

impl Buckets {
    /// Counts one more for `key` at `now` (nanoseconds), if the limit allows it. Decision and decrement are one step
    /// under the shard's lock, so a limit of N admits N and not N+1.
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

    /// Counts keys by that limit from now on, and carries the counts of another one over: all at once, since a
    /// successor gets all of them as one limit's.
    fn count_by(&self, gcra: Gcra, now: u64) {
        let mut shards: Vec<_> = self.shards.iter().map(Mutex::lock).collect();
        for shard in shards.iter_mut().filter(|shard| shard.limit != Some(gcra)) {
            let before = shard.limit.replace(gcra);
            shard
                .keys
                .values_mut()
                .for_each(|tat| *tat = now.saturating_add(gcra.carry_over(tat.saturating_sub(now), before)));
            shard
                .added
                .iter_mut()
                .flat_map(|added| added.values_mut())
                .for_each(|more| *more = gcra.carry_over(*more, before));
        }
    }

    fn note(&self, shard: &mut BucketShard, key: &[u8], more: u64) {
        if let Some(added) = &mut shard.added {
            *added.entry(key.into()).or_default() += more;
            self.noted.store(true, Ordering::Release);
        }
    }

    /// Adds counts of another process. While only that process counted, a key is behind by as much as there; once
    /// both count, by that much more.
    fn add(&self, given: &SavedBuckets, key: &[u8], behind: u64, now: u64) {
        let mut shard = self.shards[self.hasher.hash_one(key) as usize % SHARDS].lock();
        shard.limit = shard.limit.or(given.counted);
        let behind = match shard.limit {
            Some(own) if given.counted.is_some_and(|theirs| theirs != own) => own.carry_over(behind, given.counted),
            _ => behind,
        };
        let own = shard.keys.get(key).map_or(now, |tat| (*tat).max(now));
        let tat = match given.part {
            CountKind::Behind => own.max(now.saturating_add(behind)),
            CountKind::More => own.saturating_add(behind),
        };
        insert(&mut shard, key, tat, now);
    }

    /// Returns by how many nanoseconds keys are behind: all keys, those that have changed, or how much more each is
    /// behind since the last call.
    fn collect(&self, part: HandoverPart, now: u64) -> Vec<(String, u64)> {
        if part == HandoverPart::Late && !self.noted.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        let mut given = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let added = shard.added.replace(AHashMap::new());
            let text = |key: &[u8]| STANDARD.encode(key);
            let behind = |tat: u64| tat.checked_sub(now).filter(|behind| *behind > 0);
            match (part, added) {
                (HandoverPart::Late, Some(added)) => given.extend(added.iter().map(|(key, more)| (text(key), *more))),
                (HandoverPart::Last, Some(added)) => {
                    let changed = added.keys().filter_map(|key| Some((text(key), behind(*shard.keys.get(key)?)?)));
                    given.extend(changed);
                }
                _ => given.extend(shard.keys.iter().filter_map(|(key, tat)| Some((text(key), behind(*tat)?)))),
            }
        }
        given
    }

    /// Returns the limit by which keys are counted, if any were.
    fn limit(&self) -> Option<Gcra> {
        self.shards.iter().find_map(|shard| shard.lock().limit)
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().keys.len()).sum()
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn insert(shard: &mut BucketShard, key: &[u8], tat: u64, now: u64) {
    if shard.keys.len() >= MAX_KEYS_PER_SHARD && !shard.keys.contains_key(key) {
        evict(shard, now);
    }
    shard.keys.insert(key.into(), tat);
}

/// Makes space: at most once a second by a scan of all keys, otherwise by a sample, so that a flood of keys costs the
/// same for each.
fn evict(shard: &mut BucketShard, now: u64) {
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

/// The meaning of the numbers in a hand-over.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CountKind {
    /// By how much a key is behind.
    Behind,
    /// By how much more it is behind since the last hand-over.
    More,
}

/// All buckets of one limit in a hand-over: keys in base64, and nanoseconds.
#[derive(Serialize, Deserialize)]
struct SavedBuckets {
    limit: String,
    part: CountKind,
    /// The limit by which they are counted; `None` from a predecessor that did not send it.
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

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        let now = clock::now();
        let numbers = if part == HandoverPart::Late { CountKind::More } else { CountKind::Behind };
        let all = self.all().into_iter();
        let all = all.map(|(limit, buckets)| SavedBuckets {
            limit,
            part: numbers,
            counted: buckets.limit(),
            keys: buckets.collect(part, now),
        });
        let given: Vec<SavedBuckets> = all.filter(|given| !given.keys.is_empty()).collect();
        if given.is_empty() { Ok(None) } else { serde_json::to_vec(&given).map(Some) }
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<SavedBuckets> = serde_json::from_slice(form)?;
        let now = clock::now();
        let mut taken = 0;
        for limit in given {
            let Some(buckets) = self.inherit(&limit.limit, || Arc::new(Buckets::default())) else { continue };
            for (key, nanos) in limit.keys.iter().filter_map(|(key, nanos)| Some((STANDARD.decode(key).ok()?, *nanos)))
            {
                buckets.add(&limit, &key, nanos, now);
                taken += 1;
            }
        }
        Ok(taken)
    }

    fn cancel(&self) {
        for (_, buckets) in self.all() {
            buckets.shards.iter().for_each(|shard| shard.lock().added = None);
        }
    }

    fn drop_unused(&self) {
        self.drop_unused();
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

    fn hand(old: &Shelf<String, Buckets>, new: &Shelf<String, Buckets>, part: HandoverPart) -> usize {
        old.save(part).expect("given").map_or(0, |form| new.restore(&form).expect("taken"))
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
        assert_eq!(hand(&old, &new, HandoverPart::Whole), 2);
        assert_eq!(spend(&buckets, b"one", 2), 2);
        assert_eq!((hand(&old, &new, HandoverPart::Last), hand(&old, &new, HandoverPart::Late)), (1, 0));
        let successor: Arc<Buckets> = new.get_or(&shape, Arc::default);
        Heritable::drop_unused(&new);
        // Both count from now on.
        assert_eq!((spend(&buckets, b"one", 1), spend(&successor, b"one", 1)), (1, 1));
        assert_eq!((hand(&old, &new, HandoverPart::Late), hand(&old, &new, HandoverPart::Late)), (1, 0));
        assert_eq!(
            (spend(&successor, b"one", 20), spend(&successor, b"two\xff", 20), spend(&successor, b"three", 20)),
            (3, 9, 10)
        );
        // A hand-over that failed leaves nothing behind, and the next one begins anew.
        old.cancel();
        let third: Shelf<String, Buckets> = Shelf::default();
        assert_eq!(hand(&old, &third, HandoverPart::Last), 2);
        assert!(new.restore(b"{}").is_err());
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
        assert_eq!(hand(&old, &new, HandoverPart::Whole), 1);
        hand(&old, &new, HandoverPart::Last);
        let successor: Arc<Buckets> = new.get_or(&shape, Arc::default);
        assert_eq!(spend(&successor, 20, 6), 6);
        // What comes late comes in the predecessor's unit.
        assert_eq!(spend(&buckets, 10, 3), 3);
        assert_eq!(hand(&old, &new, HandoverPart::Late), 1);
        assert_eq!(spend(&successor, 20, 20), 20 - 4 - 6 - 3);
        assert_eq!(spend(&successor, 100, 200), 80, "20 of the 100 are counted already");
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
        hand(&old, &new, HandoverPart::Whole);
        for tenth in 0..50 {
            clock.set(start + tenth * 100_000_000);
            assert!(buckets.admit(gcra, b"one", clock::now()).tat.is_some());
        }
        hand(&old, &new, HandoverPart::Last);
        let successor: Arc<Buckets> = new.get_or(&shape, Arc::default);
        let room = (0..20).filter(|_| successor.admit(gcra, b"one", clock::now()).tat.is_some()).count();
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
