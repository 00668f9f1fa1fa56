//! Tests of the counts of limits, and of their hand-over.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

use super::*;
use crate::exchange::clock;
use crate::live::heritable::{HandoverPart, Heritable};
use crate::live::shelf::Shelf;
use crate::rules::limits::{Window, WindowKind};

fn windows(rates: &[(u32, u64)]) -> Arc<Windows> {
    let window =
        |(count, seconds): &(u32, u64)| Window::new(WindowKind::Gcra, *count, Duration::from_secs(*seconds), None);
    Arc::new(rates.iter().map(window).collect::<Vec<_>>().into())
}

fn limit(count: u32) -> Arc<Windows> {
    windows(&[(count, 3600)])
}

#[test]
fn exact_under_a_hundred_threads() {
    let (buckets, admitted) = (Buckets::default(), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                for _ in 0..20 {
                    if buckets.admit(&limit(77), b"one", 1, 1).is_allowed {
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
        (0..most).filter(|_| buckets.admit(&limit(10), key, 1, clock::now()).is_allowed).count()
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
        (0..most).filter(|_| buckets.admit(&limit(count), b"one", 1, clock::now()).is_allowed).count()
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
    let gcra = windows(&[(10, 1)]);
    let shape = "route a".to_owned();
    let buckets = old.get_or(&shape, Arc::default);
    hand(&old, &new, HandoverPart::Whole);
    for tenth in 0..50 {
        clock.set(start + tenth * 100_000_000);
        assert!(buckets.admit(&gcra, b"one", 1, clock::now()).is_allowed);
    }
    hand(&old, &new, HandoverPart::Last);
    let successor: Arc<Buckets> = new.get_or(&shape, Arc::default);
    let room = (0..20).filter(|_| successor.admit(&gcra, b"one", 1, clock::now()).is_allowed).count();
    assert_eq!(room, 9);
}

#[test]
fn several_windows_are_handed_over() {
    let (old, new): (Shelf<String, Buckets>, Shelf<String, Buckets>) = Default::default();
    let both = windows(&[(5, 3600), (8, 86_400)]);
    let spend = |buckets: &Buckets, windows: &Arc<Windows>, most: usize| {
        (0..most).filter(|_| buckets.admit(windows, b"one", 1, clock::now()).is_allowed).count()
    };
    let buckets = old.get_or(&"l".to_owned(), Arc::default);
    assert_eq!(spend(&buckets, &both, 3), 3);
    assert_eq!(hand(&old, &new, HandoverPart::Whole), 1);
    assert_eq!(hand(&old, &new, HandoverPart::Last), 0);
    let successor = new.get_or(&"l".to_owned(), Arc::default);
    assert_eq!((spend(&buckets, &both, 1), hand(&old, &new, HandoverPart::Late)), (1, 1));
    assert_eq!(spend(&successor, &both, 10), 1);
    // The window of a day stays when that of an hour is left out.
    assert_eq!(spend(&successor, &windows(&[(8, 86_400)]), 10), 3);
}

#[test]
fn keys_are_bounded() {
    let (buckets, limit) = (Buckets::default(), limit(2));
    let hour = 3_600_000_000_000;
    for key in 0..(SHARDS * MAX_KEYS_PER_SHARD + 50_000) as u64 {
        assert!(buckets.admit(&limit, &key.to_be_bytes(), 1, hour + key).is_allowed);
    }
    assert!(buckets.len() <= SHARDS * MAX_KEYS_PER_SHARD);
}

/// When all keys are exhausted, further ones count together, and none of the exhausted ones gets anything.
#[test]
fn an_exhausted_key_is_never_freed_before_its_time() {
    let (buckets, one) = (Buckets::default(), limit(1));
    let (hour, second) = (3_600_000_000_000_u64, 1_000_000_000);
    let full = (SHARDS * MAX_KEYS_PER_SHARD) as u64;
    let mut admitted = 0;
    for key in 0..full + 100_000 {
        admitted += u64::from(buckets.admit(&one, &key.to_be_bytes(), 1, hour + key).is_allowed);
    }
    assert!(buckets.len() <= SHARDS * (MAX_KEYS_PER_SHARD + 1));
    // One more for each shard whose keys count together.
    assert!(admitted <= full + SHARDS as u64, "{admitted} of {full}");
    let again = (0..full + 100_000)
        .filter(|key| buckets.admit(&one, &key.to_be_bytes(), 1, hour + 2 * second + key).is_allowed);
    assert_eq!(again.count(), 0);
    // Once their time has come, all are free again, and there is room.
    assert!(buckets.admit(&one, b"another", 1, 3 * hour).is_allowed);
    assert!(buckets.admit(&one, &7_u64.to_be_bytes(), 1, 3 * hour).is_allowed);
}
