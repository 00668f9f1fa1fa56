//! The memory store against a naive model.

use std::time::{Duration, SystemTime};

use pingora::http::ResponseHeader;

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
    Cache::new("test", &CacheSettings { memory, max_object: memory })
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
