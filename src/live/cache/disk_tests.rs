//! The files of a cache: they come back after a restart, and nothing that is damaged or purged does.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::body::BodyError;
use super::tests::{found, head, key, read, store};
use super::*;

pub fn settings(folder: &Path, memory: u64) -> CacheSettings {
    let disk = DiskSettings { path: folder.to_owned(), size: 64 << 20 };
    CacheSettings { memory, max_object: 8 << 20, disk: Some(disk) }
}

pub fn open_with(settings: &CacheSettings, shares: bool) -> Result<Arc<Cache>, String> {
    let cache = Cache::new("test", settings);
    cache.open(settings, shares).map(|()| cache)
}

pub fn open(folder: &Path) -> Arc<Cache> {
    open_with(&settings(folder, 4 << 20), false).expect("a cache")
}

/// Waits for a state that comes in the background.
pub async fn wait(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "not {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn written(cache: &Cache, files: usize) {
    wait("written", || cache.view().disk.is_some_and(|disk| disk.0 == files) && cache.view().waiting == 0).await;
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 249) as u8).collect()
}

fn file(folder: &Path, of: StoredKey) -> PathBuf {
    folder.join(format!("{:02x}", of.0[0])).join(of.to_string())
}

#[tokio::test]
async fn files_come_back_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open(folder.path());
    let sizes = [0, 10, 65_536, 200_000, 3_000_000];
    for (n, size) in (1..).zip(sizes) {
        store(&cache, key(n), None, head(&format!("http://a/{n}"), &["t"]), &body(size));
    }
    store(&cache, key(1), Some(key(9)), head("http://a/1", &[]), b"variant");
    written(&cache, 6).await;
    drop(cache);
    for is_scanned in [false, true] {
        let cache = open(folder.path());
        if is_scanned {
            wait("scanned", || cache.view().is_scanned).await;
            assert_eq!(cache.view().disk.expect("a disk").0, 6);
        }
        for (n, size) in (1..).zip(sizes) {
            let first = cache.find(&key(n), None).await.expect("found");
            assert_eq!((first.tier, first.body.length()), (StoredTier::Disk, Some(size as u64)));
            assert_eq!(read(first.body).await.expect("whole"), body(size));
            // What is small is in memory from then on.
            let again = cache.find(&key(n), None).await.expect("found");
            assert_eq!(again.tier, if size <= 200_000 { StoredTier::Memory } else { StoredTier::Disk });
        }
        assert_eq!(found(&cache, key(1), Some(key(9))).await.as_deref(), Some(&b"variant"[..]));
        let mut range = cache.find(&key(5), None).await.expect("found").body;
        for (from, to) in [(2_500_000, 2_900_001), (7, 9), (65_535, 65_537), (2_999_999, 3_000_000)] {
            assert!(range.seek(from, Some(to)));
            let mut read = Vec::new();
            while let Some(part) = range.next_part().await.expect("a part") {
                read.extend_from_slice(&part);
            }
            assert!(read == body(3_000_000)[from as usize..to as usize], "{from} to {to}");
        }
    }
}

#[tokio::test]
async fn purges_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open(folder.path());
    for n in 1..=6 {
        store(&cache, key(n), None, head(&format!("http://a/{n}/x"), &[&n.to_string()]), &[n]);
    }
    written(&cache, 6).await;
    cache.purge(&Purge::Tag("1".into()), false).await.expect("durable");
    cache.purge(&Purge::Url("http://a/2/x".into()), false).await.expect("durable");
    cache.purge(&Purge::Prefix("http://a/3".into()), false).await.expect("durable");
    cache.purge(&Purge::Tag("4".into()), true).await.expect("durable");
    cache.invalidate(&key(5)).await;
    // Without an orderly end.
    std::mem::forget(cache);
    for is_scanned in [false, true] {
        let settings = settings(folder.path(), 4 << 20);
        let cache = open_with(&settings, true).expect("a cache");
        if is_scanned {
            wait("scanned", || cache.view().is_scanned).await;
            assert_eq!(cache.view().disk.expect("a disk").0, 2);
        }
        for n in [1, 2, 3, 5] {
            assert!(cache.find(&key(n), None).await.is_none(), "{n}");
        }
        assert!(cache.find(&key(4), None).await.expect("found").stale_since.is_some());
        assert!(cache.find(&key(6), None).await.expect("found").stale_since.is_none());
    }
}

#[tokio::test]
async fn a_damaged_file_is_never_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open(folder.path());
    for n in 1..=4 {
        store(&cache, key(n), None, head("http://a/", &[]), &body(1_000_000));
    }
    written(&cache, 4).await;
    drop(cache);
    let change = |n: u8, at: usize| {
        let path = file(folder.path(), key(n));
        let mut bytes = std::fs::read(&path).expect("read");
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).expect("written");
    };
    change(1, 100);
    change(2, 800_000);
    let path = file(folder.path(), key(3));
    let bytes = std::fs::read(&path).expect("read");
    std::fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
    // The file of another key.
    std::fs::copy(file(folder.path(), key(4)), file(folder.path(), key(4)).with_file_name(key(4).to_string() + "x"))
        .expect("copied");
    let cache = open(folder.path());
    assert!(cache.find(&key(1), None).await.is_none());
    assert!(cache.find(&key(3), None).await.is_none());
    let mut damaged = cache.find(&key(2), None).await.expect("its head is whole").body;
    let mut got = Vec::new();
    let end = loop {
        match damaged.next_part().await {
            Ok(Some(part)) => got.extend_from_slice(&part),
            end => break end,
        }
    };
    assert_eq!(end, Err(BodyError::Damaged));
    assert!(got.len() < 800_000 && got == body(1_000_000)[..got.len()]);
    wait("removed", || !file(folder.path(), key(2)).exists()).await;
    assert!(cache.find(&key(2), None).await.is_none());
    assert_eq!(found(&cache, key(4), None).await, Some(body(1_000_000)));
    wait("counted", || cache.view().disk_counts[1] >= 3).await;
}

#[tokio::test]
async fn the_size_of_the_files_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = settings(folder.path(), 1 << 20);
    settings.disk = Some(DiskSettings { path: folder.path().to_owned(), size: 1_000_000 });
    let cache = open_with(&settings, false).expect("a cache");
    for n in 0..100_u8 {
        store(&cache, key(n), None, head("http://a/", &[]), &body(30_000));
        assert!(cache.view().disk.expect("a disk").1 <= 1_000_000);
        wait("written", || cache.view().waiting == 0).await;
    }
    wait("evicted", || cache.view().disk_counts[0] >= 60).await;
    let (count, bytes, _) = cache.view().disk.expect("a disk");
    let on_disk = || {
        let parts = std::fs::read_dir(folder.path()).expect("a folder").flatten().filter(|e| e.path().is_dir());
        let files = parts.flat_map(|part| std::fs::read_dir(part.path()).expect("a folder").flatten());
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    assert!((25..=33).contains(&count) && bytes == on_disk(), "{count} {bytes} {}", on_disk());
    settings.disk = Some(DiskSettings { path: folder.path().to_owned(), size: 200_000 });
    cache.resize(&settings);
    wait("evicted", || on_disk() <= 200_000).await;
}

#[tokio::test]
async fn one_instance_has_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let old = open(folder.path());
    let error = open_with(&settings(folder.path(), 1 << 20), false).expect_err("in use");
    assert!(error.contains("is in use by process"), "{error}");
    // A successor shares it, until the predecessor has left.
    let new = open_with(&settings(folder.path(), 1 << 20), true).expect("shared");
    store(&old, key(1), None, head("http://a/", &["t"]), b"old");
    written(&old, 1).await;
    wait("scanned", || new.view().is_scanned).await;
    new.purge(&Purge::Tag("u".into()), false).await.expect("durable");
    wait("learned", || old.generation() >= new.generation()).await;
    store(&old, key(2), None, head("http://b/", &["t", "u"]), b"old");
    written(&old, 2).await;
    // What one purges, the other learns.
    new.purge(&Purge::Tag("t".into()), false).await.expect("durable");
    wait("learned", || old.generation() >= new.generation()).await;
    assert!(old.find(&key(1), None).await.is_none() && old.find(&key(2), None).await.is_none());
    written(&old, 0).await;
    store(&old, key(3), None, head("http://c/", &["v"]), b"late");
    written(&old, 1).await;
    drop(old);
    // It knows what the predecessor has written, and is the only one now.
    wait("known", || futures::executor::block_on(new.find(&key(3), None)).is_some()).await;
    assert_eq!(found(&new, key(3), None).await.as_deref(), Some(&b"late"[..]));
    open_with(&settings(folder.path(), 1 << 20), false).expect_err("in use");
    drop(new);
    assert_eq!(found(&open(folder.path()), key(3), None).await.as_deref(), Some(&b"late"[..]));
    std::fs::write(folder.path().join("file"), b"x").expect("written");
    let error = open_with(&settings(&folder.path().join("file"), 1 << 20), false).expect_err("no folder");
    assert!(error.contains("cannot be written"), "{error}");
}

const CHILD: &str = "PORTCULLIS_CACHE_FOLDER";

/// The body of a version of a key: whatever is found has to be one, from its first byte to its last.
fn versioned(of: u8, version: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(version * 256 + u64::from(of));
    let mut body = [version.to_le_bytes(), u64::from(of).to_le_bytes()].concat();
    let length = random.usize(0..300_000);
    body.extend(std::iter::repeat_with(|| random.u8(..)).take(length));
    body
}

/// Writes until it is killed, in a process that the test below starts; nothing by itself.
#[tokio::test]
async fn child_that_writes() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    let cache = open(Path::new(&folder));
    let begun: u64 = std::env::var("PORTCULLIS_CACHE_VERSION").expect("a version").parse().expect("a number");
    for version in begun.. {
        let of = fastrand::u8(0..32);
        if version % 7 == 0 {
            match version % 3 {
                0 => cache.purge(&Purge::Tag(of.to_string().into()), false).await.expect("durable"),
                1 => cache.invalidate_url(&format!("http://a/{of}")).await.expect("noted"),
                _ => cache.invalidate(&key(of)).await,
            }
            println!("\npurged {of} {version}");
            continue;
        }
        let head = head(&format!("http://a/{of}"), &[&of.to_string()]);
        store(&cache, key(of), None, head, &versioned(of, version));
        println!("\nstored {of} {version}");
        if version % 5 == 0 {
            wait("written", || cache.view().waiting < 3).await;
        }
    }
}

/// Returns what a child has reported: the last version, and the last purge of each key.
fn run_child(folder: &Path, begun: u64) -> (u64, Vec<(u8, u64)>) {
    use std::io::BufRead;
    let mut child = std::process::Command::new(std::env::current_exe().expect("the tests"))
        .args(["--exact", "live::cache::disk_tests::child_that_writes", "--nocapture", "--test-threads=1"])
        .env(CHILD, folder)
        .env("PORTCULLIS_CACHE_VERSION", begun.to_string())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("started");
    let lines = std::io::BufReader::new(child.stdout.take().expect("its output")).lines();
    let (mut last, mut purged, mut left) = (begun, Vec::new(), fastrand::u32(5..60));
    for line in lines.map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        let [what @ ("purged" | "stored"), of, version] = words[..] else { continue };
        last = version.parse().expect("a version");
        if what == "purged" {
            purged.push((of.parse().expect("a key"), last));
        }
        left -= 1;
        if left == 0 {
            child.kill().expect("killed");
            // What it has reported up to there counts too.
            left = u32::MAX;
        }
    }
    child.wait().expect("ended");
    (last, purged)
}

/// With `LONG_TESTS=1` it is killed 50 times.
#[tokio::test]
async fn a_kill_leaves_nothing_damaged_and_undoes_no_purge() {
    let folder = tempfile::tempdir().expect("a folder");
    let rounds = if std::env::var_os("LONG_TESTS").is_some() { 50 } else { 10 };
    let (mut version, mut purged, mut hits) = (1, vec![0; 32], 0);
    for round in 0..rounds {
        let (last, purges) = run_child(folder.path(), version);
        // A purge that was made, and not reported before the end, has a version of its own.
        version = last + 2;
        purges.iter().for_each(|(of, at)| purged[usize::from(*of)] = *at);
        let cache = open(folder.path());
        if round % 2 == 0 {
            wait("scanned", || cache.view().is_scanned).await;
            let left = std::fs::read_dir(folder.path().join("incomplete")).expect("a folder").count();
            assert_eq!(left, 0, "incomplete files are left");
        }
        for of in 0..32 {
            let Some(body) = found(&cache, key(of), None).await else { continue };
            let found = u64::from_le_bytes(body[..8].try_into().expect("a version"));
            assert!(body == versioned(of, found), "the body of {of} is damaged");
            assert!(found > purged[usize::from(of)], "{of} was purged at {}, and is {found}", purged[usize::from(of)]);
            hits += 1;
        }
        assert_eq!(cache.view().disk_counts[1], 0, "no file is damaged");
    }
    assert!(hits > rounds, "only {hits} were found");
}

/// Where the disk fails, responses are found in memory.
#[tokio::test]
async fn a_disk_that_fails_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open(folder.path());
    std::fs::remove_dir(folder.path().join("incomplete")).expect("removed");
    store(&cache, key(1), None, head("http://a/", &[]), b"one");
    wait("counted", || cache.view().disk_counts[2] == 1).await;
    assert_eq!(found(&cache, key(1), None).await.as_deref(), Some(&b"one"[..]));
    assert!(cache.find(&key(2), None).await.is_none());
    std::fs::remove_dir_all(folder.path()).expect("removed");
    assert!(cache.purge(&Purge::All, false).await.is_err());
    assert!(cache.find(&key(1), None).await.is_none());
}

#[tokio::test]
async fn nothing_stays_in_memory_where_it_may_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open_with(&settings(folder.path(), 0), false).expect("a cache");
    store(&cache, key(1), None, head("http://a/", &[]), &body(100_000));
    assert_eq!(found(&cache, key(1), None).await, Some(body(100_000)));
    wait("moved", || cache.view().memory.0 == 0).await;
    for _ in 0..2 {
        let found = cache.find(&key(1), None).await.expect("found");
        assert_eq!(found.tier, StoredTier::Disk);
        assert_eq!(read(found.body).await.expect("whole"), body(100_000));
    }
    assert_eq!(cache.view().memory.1, 0);
}

#[tokio::test]
async fn a_head_is_replaced_in_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = open(folder.path());
    let mut first = head("http://a/", &["old"]);
    store(&cache, key(1), None, first.clone(), &body(3_000_000));
    written(&cache, 1).await;
    drop(cache);
    let cache = open(folder.path());
    wait("scanned", || cache.view().is_scanned).await;
    first.tags = vec!["new".into()];
    assert!(cache.replace_head(&key(1), None, first, cache.generation()));
    assert_eq!(&*cache.find(&key(1), None).await.expect("found").head.tags[0], "new");
    wait("written", || cache.view().waiting == 0).await;
    cache.purge(&Purge::Tag("other".into()), false).await.expect("durable");
    drop(cache);
    let cache = open(folder.path());
    let found = cache.find(&key(1), None).await.expect("found");
    assert_eq!(&*found.head.tags[0], "new");
    assert!(read(found.body).await.expect("whole") == body(3_000_000));
}
