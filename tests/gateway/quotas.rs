//! Quotas: exact at once, over reloads, restarts and an upgrade, and never more after a crash.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::limit_filters::load;
use super::upgrade::upgrade;

/// A month, so that hardly any run of the test is at the border of two windows.
fn quota(limit: u32) -> String {
    format!(
        "routes: [{{name: all, filters: [{{quota: {{limit: {limit}/month, by: route}}}}], action: {{respond: {{body: ok}}}}}}]
process: {{threads: 2, state: state, upgrade_socket: upgrade.sock, drain_time: 10s, standby_time: 300ms}}
admin: {{address: 127.0.0.1:0}}"
    )
}

#[test]
fn a_quota_of_n_admits_n_with_a_hundred_at_once_and_after_restarts() {
    let mut gateway = Gateway::start(&quota(150));
    let to = gateway.address();
    let (admitted, rejected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                let mut connection = Connection::open(to);
                for _ in 0..2 {
                    let response = connection.ask(head("GET", "/", &[]));
                    let counter = if response.status == 200 { &admitted } else { &rejected };
                    counter.fetch_add(1, Ordering::AcqRel);
                    assert!(response.status == 200 || response.reason() == "quota_exceeded");
                }
            });
        }
    });
    assert_eq!((admitted.into_inner(), rejected.into_inner()), (150, 50));
    let response = gateway.get("/");
    assert_eq!((response.status, response.reason().as_str()), (429, "quota_exceeded"));
    let (wait, state) = (response.header("retry-after"), response.header("ratelimit"));
    assert!(wait.and_then(|wait| wait.parse::<u64>().ok()).is_some_and(|wait| wait <= 31 * 86_400), "{wait:?}");
    assert!(state.is_some_and(|state| state.starts_with("\"quota\";r=0;t=")), "{state:?}");
    let policy = response.header("ratelimit-policy").expect("a policy").to_owned();
    assert!(policy.starts_with("\"quota\";q=150;w=2"), "{policy}");
    // A reload with a higher quota goes on from there, whatever filters are written before it, and so does the next
    // process.
    gateway.write_config(&quota(160).replace("filters: [", "filters: [{guard: {}}, {rate_limit: {limit: 1000/s}}, "));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!((0..4).filter(|_| gateway.get("/").status == 200).count(), 4);
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(0));
    let folder = std::mem::replace(&mut gateway.folder, tempfile::tempdir().expect("a folder"));
    let again = Gateway::start_in(folder, &quota(160), &[]);
    assert_eq!((0..10).filter(|_| again.get("/").status == 200).count(), 6);
    let state = again.folder.path().join("state");
    let mode = |path: std::path::PathBuf| {
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(path).expect("it").permissions()) & 0o777
    };
    assert_eq!((mode(state.clone()), mode(state.join("quotas.redb"))), (0o700, 0o600));
}

/// Kills gateways that are under load so often, and then uses the quota up. Returns how many requests were admitted.
fn admitted_over_crashes(limit: u32, crashes: usize, each: usize) -> usize {
    let mut folder = tempfile::tempdir().expect("a folder");
    let (admitted, rejected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    for round in 1..=crashes {
        let gateway = Gateway::start_in(folder, &quota(limit), &[]);
        let (to, stop) = (gateway.address(), AtomicBool::new(false));
        let before = admitted.load(Ordering::Acquire);
        folder = std::thread::scope(|scope| {
            scope.spawn(|| load(to, 4, &stop, &admitted, &rejected));
            eventually("some are counted", || {
                admitted.load(Ordering::Acquire) >= before + each || rejected.load(Ordering::Acquire) > 0
            });
            let mut gateway = gateway;
            gateway.signal("-KILL");
            gateway.wait();
            stop.store(true, Ordering::Release);
            std::mem::replace(&mut gateway.folder, tempfile::tempdir().expect("a folder"))
        });
        assert!(admitted.load(Ordering::Acquire) <= limit as usize, "round {round}");
    }
    let gateway = Gateway::start_in(folder, &quota(limit), &[]);
    let (to, stop) = (gateway.address(), AtomicBool::new(false));
    let until = rejected.load(Ordering::Acquire) + 20;
    std::thread::scope(|scope| {
        scope.spawn(|| load(to, 4, &stop, &admitted, &rejected));
        eventually("it is used up", || rejected.load(Ordering::Acquire) >= until);
        stop.store(true, Ordering::Release);
    });
    admitted.into_inner()
}

/// A crash costs a block, which is a part of what is left, and up to four responses that nobody got. With
/// `LONG_TESTS=1` there are more of them, which takes a while.
#[test]
fn a_crash_grants_nothing_twice() {
    let is_long = std::env::var_os("LONG_TESTS").is_some();
    let (limit, crashes, each) = if is_long { (1_000, 25, 10) } else { (300, 5, 20) };
    let admitted = admitted_over_crashes(limit, crashes, each);
    let limit = limit as usize;
    assert!((limit / 2..=limit).contains(&admitted), "{admitted} of {limit}");
}

#[test]
fn a_quota_is_exact_over_an_upgrade() {
    const LIMIT: u32 = 800;
    let mut gateway = Gateway::start(&quota(LIMIT));
    let (to, stop) = (gateway.address(), AtomicBool::new(false));
    let (admitted, rejected) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let successor = std::thread::scope(|scope| {
        scope.spawn(|| load(to, 4, &stop, &admitted, &rejected));
        eventually("some are counted", || admitted.load(Ordering::Acquire) >= 100);
        let (successor, _) = upgrade(&gateway);
        // The old process gives back what it held when it ends.
        assert_eq!(gateway.wait(), Some(0), "{}", gateway.log());
        eventually("all are counted", || admitted.load(Ordering::Acquire) >= LIMIT as usize);
        let until = rejected.load(Ordering::Acquire) + 50;
        eventually("the rest is rejected", || rejected.load(Ordering::Acquire) >= until);
        stop.store(true, Ordering::Release);
        successor
    });
    assert_eq!(admitted.into_inner(), LIMIT as usize);
    drop(successor);
}

#[test]
fn what_is_done_without_a_store_is_configured() {
    let yaml = "routes:
  - {name: strict, match: {path: /strict}, filters: [{quota: {limit: 5/day, by: route}}], action: {respond: {body: ok}}}
  - {name: lax, match: {path: /lax}, filters: [{quota: {limit: 5/day, by: route, when_unavailable: accept}}], action: {respond: {body: ok}}}
process: {threads: 1, drain_time: 10s, state: blocked/state}";
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("blocked"), "a file").expect("written");
    let gateway = Gateway::start_in(folder, yaml, &[]);
    let rejected = gateway.get("/strict");
    assert_eq!((rejected.status, rejected.reason().as_str()), (503, "quota_unavailable"));
    assert!((0..7).all(|_| gateway.get("/lax").status == 200));
    assert!(gateway.log().contains("quotas cannot be counted"), "{}", gateway.log());
    // Once it can be written, all is counted.
    std::fs::remove_file(gateway.folder.path().join("blocked")).expect("removed");
    eventually("it is counted", || gateway.get("/strict").status == 200);
    assert_eq!((0..7).filter(|_| gateway.get("/strict").status == 200).count(), 4);
}
