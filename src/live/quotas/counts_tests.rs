//! Tests of the counts of quotas over a store.

use super::*;
use crate::live::Maintained;

fn window(end: i64) -> CalendarWindow {
    CalendarWindow { start: end - 3_600, end }
}

const FUTURE: i64 = 9_000_000_000;

async fn opened(folder: &std::path::Path) -> Arc<QuotaStore> {
    let store = QuotaStore::new(folder);
    Arc::clone(&store).maintain().await;
    store
}

async fn spend(counts: &Arc<QuotaCounts>, limit: u64, most: usize) -> usize {
    let mut count = 0;
    for _ in 0..most {
        if matches!(counts.count(b"a", limit, window(FUTURE), 1).await, QuotaOutcome::Counted(_)) {
            count += 1;
        }
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exact_with_a_hundred_at_once_and_over_restarts() {
    let folder = tempfile::tempdir().expect("a folder");
    let counts = QuotaCounts::new("q", opened(folder.path()).await);
    let tasks = (0..100).map(|_| {
        let counts = Arc::clone(&counts);
        tokio::spawn(async move { spend(&counts, 150, 2).await })
    });
    let sum: usize = futures::future::join_all(tasks).await.into_iter().map(|task| task.expect("done")).sum();
    assert_eq!(sum, 150);
    assert_eq!(counts.count(b"a", 150, window(FUTURE), 1).await, QuotaOutcome::Exceeded(0));
    // Another window, another key and another quota begin anew.
    assert_eq!(counts.count(b"a", 150, window(FUTURE + 3_600), 1).await, QuotaOutcome::Counted(149));
    assert_eq!(counts.count(b"b", 150, window(FUTURE), 3).await, QuotaOutcome::Counted(147));
    assert_eq!(counts.count(b"b", 150, window(FUTURE), 148).await, QuotaOutcome::Exceeded(147));
    counts.give_back();
    counts.store().flush().await;
    drop(counts);
    let counts = QuotaCounts::new("q", opened(folder.path()).await);
    assert_eq!(counts.count(b"a", 150, window(FUTURE), 1).await, QuotaOutcome::Exceeded(0));
    assert_eq!(counts.count(b"b", 150, window(FUTURE), 147).await, QuotaOutcome::Counted(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_count_one_quota_to_its_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = QuotaCounts::new("q", opened(folder.path()).await);
    let new = QuotaCounts::new("q", opened(folder.path()).await);
    let (a, b) = (spend(&old, 1_000, 300).await, spend(&new, 1_000, 400).await);
    assert_eq!((a, b), (300, 400));
    // The old process ends, and what it held is left to the new one.
    old.give_back();
    old.store().flush().await;
    let rest = spend(&new, 1_000, 299).await;
    assert_eq!(rest, 299);
    let (last, none) = (spend(&new, 1_000, 1).await, spend(&new, 1_000, 5).await);
    assert_eq!((last, none), (1, 0));
    // A quota that was lowered grants nothing of what is held, and one that was raised grants the rest.
    assert_eq!((spend(&new, 900, 5).await, spend(&new, 1_003, 5).await), (0, 3));
}

#[tokio::test]
async fn without_a_store_nothing_is_counted() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let counts = QuotaCounts::new("q", opened(&file.path().join("below")).await);
    assert_eq!(counts.count(b"a", 10, window(FUTURE), 1).await, QuotaOutcome::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_beyond_the_bound_are_in_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    let counts = QuotaCounts::new("q", opened(folder.path()).await);
    let shard = counts.shard(&window_key(b"a", window(FUTURE)));
    for key in 0..(2 * MAX_KEYS_PER_SHARD) as u64 {
        let mut shard = shard.lock();
        counts.make_room(&mut shard);
        shard.insert(window_key(&key.to_be_bytes(), window(FUTURE)).into_vec().into(), Holding::new(window(FUTURE)));
    }
    assert!(shard.lock().len() <= MAX_KEYS_PER_SHARD);
    assert_eq!(spend(&counts, 7, 10).await, 7);
}

/// Requests that wait for a block at the end of a window are counted in theirs, and those of the next in its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_follow_one_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let counts = QuotaCounts::new("q", opened(folder.path()).await);
    let of = |end| counts.count(b"a", 10, window(end), 1);
    let all = futures::join!(of(FUTURE), of(FUTURE + 3_600), of(FUTURE), of(FUTURE + 3_600));
    for outcome in [all.0, all.1, all.2, all.3] {
        assert!(matches!(outcome, QuotaOutcome::Counted(_)), "{outcome:?}");
    }
    assert_eq!(of(FUTURE).await, QuotaOutcome::Counted(7));
    assert_eq!(of(FUTURE + 3_600).await, QuotaOutcome::Counted(7));
}
