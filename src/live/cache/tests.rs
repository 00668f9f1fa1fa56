//! The memory store against a naive model.

use std::time::{Duration, SystemTime};

use pingora::http::ResponseHeader;

use super::body::BodyError;
use super::*;

pub fn key(number: u8) -> StoredKey {
    StoredKey([number; 16])
}

pub fn head(url: &str, tags: &[&str]) -> StoredHead {
    let now = SystemTime::now();
    StoredHead {
        response: ResponseHeader::build(200, None).expect("a head"),
        url: url.into(),
        tags: tags.iter().map(|tag| (*tag).into()).collect(),
        created: now,
        updated: now,
        age_from: now,
        fresh_until: now + Duration::from_secs(60),
        stale_while_revalidate: 0,
        stale_if_error: 0,
        variance: None,
        memo: HeadMemo::default(),
    }
}

pub fn cache(memory: u64) -> Arc<Cache> {
    Cache::new("test", &CacheSettings { memory, max_object: memory, disk: None })
}

pub fn store(cache: &Arc<Cache>, key: StoredKey, variant: Option<StoredKey>, head: StoredHead, body: &[u8]) -> bool {
    let mut filling = cache.begin(key, variant, head, cache.generation());
    body.chunks(1_000).for_each(|part| filling.write(part));
    filling.finish().is_some()
}

pub async fn read(mut body: StoredBody) -> Result<Vec<u8>, BodyError> {
    let mut out = Vec::new();
    while let Some(part) = body.next_part().await? {
        assert!(!part.is_empty());
        out.extend_from_slice(&part);
    }
    Ok(out)
}

pub async fn found(cache: &Cache, key: StoredKey, variant: Option<StoredKey>) -> Option<Vec<u8>> {
    let found = cache.find(&key, variant.as_ref()).await?;
    Some(read(found.body).await.expect("a whole body"))
}

#[tokio::test]
async fn what_was_stored_is_found() {
    let cache = cache(1 << 20);
    assert!(found(&cache, key(1), None).await.is_none());
    let body: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
    assert!(store(&cache, key(1), None, head("http://a/", &[]), &body));
    assert_eq!(found(&cache, key(1), None).await.as_deref(), Some(&body[..]));
    assert!(found(&cache, key(1), Some(key(2))).await.is_none());
    let mut part = cache.find(&key(1), None).await.expect("found").body;
    assert!(part.seek(65_530, Some(65_540)) && !part.seek(100_000, None));
    assert_eq!(read(part).await.expect("a range"), body[65_530..65_540]);
}

#[tokio::test]
async fn readers_follow_a_fill() {
    let cache = cache(1 << 20);
    let mut filling = cache.begin(key(1), None, head("http://a/", &[]), cache.generation());
    let mut follower = cache.find(&key(1), None).await.expect("found").body;
    assert_eq!(follower.length(), None);
    filling.write(b"abc");
    assert_eq!(follower.next_part().await.expect("a part").as_deref(), Some(&b"abc"[..]));
    let own = cache.follow(&key(1), filling.id()).expect("its own").body;
    let waits = tokio::spawn(read(own));
    filling.write(b"def");
    filling.finish();
    assert_eq!(waits.await.expect("no panic").expect("whole"), b"abcdef");
    assert_eq!(follower.next_part().await.expect("a part").as_deref(), Some(&b"def"[..]));
    assert_eq!(follower.next_part().await, Ok(None));
    // One that fails leaves nothing.
    let mut filling = cache.begin(key(2), None, head("http://b/", &[]), cache.generation());
    filling.write(b"abc");
    let follower = cache.find(&key(2), None).await.expect("found").body;
    drop(filling);
    assert_eq!(read(follower).await, Err(BodyError::Incomplete));
    assert!(cache.find(&key(2), None).await.is_none());
}

#[tokio::test]
async fn what_is_too_large_is_passed_on_and_not_stored() {
    let cache = Cache::new("test", &CacheSettings { memory: 8 << 20, max_object: 100_000, disk: None });
    let mut filling = cache.begin(key(1), None, head("http://a/", &[]), cache.generation());
    let reader = tokio::spawn(read(filling.follow().expect("its own").body));
    let mut lagging = filling.follow().expect("its own").body;
    let part = vec![7; 10_000];
    for _ in 0..1_000 {
        filling.write(&part);
        tokio::task::yield_now().await;
    }
    assert!(!filling.is_kept());
    assert!(cache.find(&key(1), None).await.is_none());
    assert!(cache.memory.budget.used() <= 8 << 20);
    assert_eq!(filling.finish(), None);
    assert_eq!(reader.await.expect("no panic").expect("whole").len(), 10_000_000);
    // One that is far behind ends early, and the others do not wait for it.
    let mut result = lagging.next_part().await;
    while matches!(result, Ok(Some(_))) {
        result = lagging.next_part().await;
    }
    assert_eq!(result, Err(BodyError::Incomplete));
    drop(lagging);
    assert_eq!(cache.memory.budget.used(), 0);
}

#[tokio::test]
async fn a_scan_evicts_nothing_that_is_in_use() {
    let cache = cache(2 << 20);
    let number = |n: u32| {
        let mut key = [0; 16];
        // As a digest has it: all over the shards.
        key[..8].copy_from_slice(&u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        StoredKey(key)
    };
    let body = [1; 2_000];
    for n in 0..100 {
        store(&cache, number(n), None, head(&format!("http://a/{n}"), &[]), &body);
        assert!(cache.find(&number(n), None).await.is_some());
    }
    for n in 1_000..8_000 {
        store(&cache, number(n), None, head(&format!("http://a/{n}"), &[]), &body);
        if n % 50 == 0 {
            for n in 0..100 {
                cache.find(&number(n), None).await;
            }
        }
    }
    let mut there = 0;
    for n in 0..100 {
        there += usize::from(cache.find(&number(n), None).await.is_some());
    }
    assert!(there >= 95, "only {there} are there");
    assert!(cache.memory.budget.used() > 1 << 20);
}

#[tokio::test]
async fn variants_are_bounded() {
    let cache = cache(1 << 20);
    store(&cache, key(1), None, head("http://a/", &[]), b"primary");
    for n in 0..40 {
        assert!(store(&cache, key(1), Some(key(100 + n)), head("http://a/", &[]), &[n]));
    }
    assert_eq!(found(&cache, key(1), None).await.as_deref(), Some(&b"primary"[..]));
    assert_eq!(found(&cache, key(1), Some(key(139))).await, Some(vec![39]));
    assert_eq!(found(&cache, key(1), Some(key(100))).await, None);
    assert_eq!(cache.view().memory.0, slots::MAX_VARIANTS);
}

#[tokio::test]
async fn a_head_is_replaced_for_the_same_response_alone() {
    let cache = cache(1 << 20);
    let first = head("http://a/", &["old"]);
    store(&cache, key(1), None, first.clone(), b"body");
    cache.purge(&Purge::Tag("old".into()), true).await.expect("no disk");
    assert!(cache.find(&key(1), None).await.expect("found").stale_since.is_some());
    let mut fresh = first.clone();
    fresh.tags = vec!["new".into()];
    assert!(cache.replace_head(&key(1), None, fresh.clone(), cache.generation()));
    let found = cache.find(&key(1), None).await.expect("found");
    assert_eq!((found.stale_since, found.head.tags.len()), (None, 1));
    assert_eq!(read(found.body).await.expect("whole"), b"body");
    // The tags are those of the new head.
    cache.purge(&Purge::Tag("old".into()), false).await.expect("no disk");
    assert!(cache.find(&key(1), None).await.is_some());
    let before = cache.generation();
    cache.purge(&Purge::Tag("new".into()), false).await.expect("no disk");
    assert!(!cache.replace_head(&key(1), None, fresh.clone(), before));
    store(&cache, key(1), None, StoredHead { created: first.created + Duration::from_secs(1), ..first }, b"other");
    assert!(!cache.replace_head(&key(1), None, fresh, cache.generation()));
}

/// A purge is visible to all when it returns, and reaches fills that began before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purges_are_visible_at_once_under_load() {
    let (cache, purged, hits) = (cache(1 << 20), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    // The purges that have begun: what begins now may be of them already.
    let begun = Arc::new(AtomicU64::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for worker in 0..4_u8 {
        let (cache, purged, is_over) = (Arc::clone(&cache), Arc::clone(&purged), Arc::clone(&is_over));
        let (hits, begun) = (Arc::clone(&hits), Arc::clone(&begun));
        workers.push(tokio::spawn(async move {
            while !is_over.load(Ordering::SeqCst) {
                let before = purged.load(Ordering::SeqCst);
                let of = key(worker % 2);
                if let Some(found) = cache.find(&of, None).await {
                    let body = read(found.body).await.expect("whole");
                    let stored = u64::from_le_bytes(body.try_into().expect("a number"));
                    assert!(stored >= before, "what began at {stored} is found after purge {before}");
                    hits.fetch_add(1, Ordering::SeqCst);
                } else {
                    let (started, value) = (cache.generation(), begun.load(Ordering::SeqCst));
                    let mut filling = cache.begin(of, None, head("http://a/", &["t"]), started);
                    tokio::task::yield_now().await;
                    filling.write(&value.to_le_bytes());
                    filling.finish();
                }
                tokio::task::yield_now().await;
            }
        }));
    }
    for round in 1..=400_u64 {
        let before = hits.load(Ordering::SeqCst);
        while hits.load(Ordering::SeqCst) < before + 3 && workers.iter().all(|worker| !worker.is_finished()) {
            tokio::task::yield_now().await;
        }
        let purge = match round % 4 {
            0 => Purge::All,
            1 => Purge::Tag("t".into()),
            2 => Purge::Url("http://a/".into()),
            _ => Purge::Prefix("http://".into()),
        };
        begun.store(round, Ordering::SeqCst);
        cache.purge(&purge, false).await.expect("no disk");
        // From here on no look-up that begins may find what began before.
        purged.store(round, Ordering::SeqCst);
    }
    is_over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.await.expect("no panic");
    }
}

/// However many tags and prefixes are purged, the memory for them is bounded, and old fills are not stored.
#[tokio::test]
async fn the_memory_of_purges_is_bounded() {
    let cache = cache(1 << 20);
    let old = cache.begin(key(1), None, head("http://a/", &["t"]), cache.generation());
    let started = cache.generation();
    for n in 0..70_000 {
        cache.purge(&Purge::Tag(format!("tag {n}").into()), n % 2 == 0).await.expect("no disk");
    }
    for n in 0..600 {
        cache.purge(&Purge::Prefix(format!("http://{n}/").into()), false).await.expect("no disk");
    }
    assert!(cache.purges.remembered() <= 65_536 + 256, "{}", cache.purges.remembered());
    // What has its marks already is not affected; what would need those that are forgotten is not stored.
    assert!(old.finish().is_some());
    assert!(cache.begin(key(2), None, head("http://b/", &[]), started).finish().is_none());
    assert!(cache.begin(key(2), None, head("http://b/", &[]), cache.generation()).finish().is_some());
}
