//! The store of the cache behind a gateway: purges, restarts, upgrades, kills, damaged files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::harness::client::{self, Answer, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{Gateway, complete, run};
use super::harness::target::{Target, answer};
use super::upgrade::{PROCESS, upgrade};

/// The body of a path: `/N/…` has N bytes, which differ between paths.
fn body_of(path: &str) -> Vec<u8> {
    let length = path.split('/').nth(1).and_then(|length| length.parse().ok()).unwrap_or(10);
    path.bytes().cycle().enumerate().map(|(n, byte)| byte ^ (n / 251) as u8).take(length).collect()
}

fn target() -> Target {
    Target::new(|stream, seen| {
        let headers = [("Cache-Control", "max-age=3600"), ("Surrogate-Key", "all-of-them")];
        answer(stream, 200, &headers, &body_of(&seen.target))
    })
}

fn yaml(target: &Target, folder: &Path, size: &str) -> String {
    format!(
        "caches: {{default: {{memory: 32MiB, disk: {{path: {}, size: {size}}}}}}}
upstreams: {{a: {{targets: [\"{}\"]}}}}
routes: [{{name: all, filters: [{{cache: {{}}}}], action: {{forward: a}}}}]{PROCESS}
admin: {{address: 127.0.0.1:0}}",
        folder.display(),
        target.address
    )
}

#[track_caller]
fn post(gateway: &Gateway, path: &str, body: &str) -> Answer {
    let length = body.len().to_string();
    let head = head("POST", path, &[("host", "127.0.0.1"), ("content-length", &length)]);
    Connection::open(gateway.admin).ask(head + body)
}

#[track_caller]
fn purge(gateway: &Gateway, body: &str) {
    let response = post(gateway, "/caches/purge", body);
    assert_eq!(response.status, 200, "{}", response.text());
}

#[track_caller]
fn is_right(gateway: &Gateway, path: &str) {
    let response = gateway.get(path);
    assert_eq!(response.status, 200, "{path}");
    assert!(response.body == body_of(path), "{path} is not what the target has sent");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let parts = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let parts = parts.filter(|part| part.file_name().len() == 2);
    parts.flat_map(|part| std::fs::read_dir(part.path()).into_iter().flatten().flatten()).map(|f| f.path()).collect()
}

fn kill(mut gateway: Gateway) {
    gateway.child.kill().expect("killed");
    gateway.child.wait().expect("ended");
}

#[test]
fn a_purge_is_visible_at_once() {
    let (version, is_over) = (Arc::new(AtomicUsize::new(0)), AtomicBool::new(false));
    let own = Arc::clone(&version);
    let target = Target::new(move |stream, _| {
        let body = own.load(Ordering::SeqCst).to_string();
        answer(stream, 200, &[("Cache-Control", "max-age=3600"), ("Surrogate-Key", "a b")], body.as_bytes())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{a: {{targets: [\"{}\"]}}}}
routes: [{{name: all, filters: [{{cache: {{}}}}], action: {{forward: a}}}}]",
        target.address
    ));
    let (purged, hits) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                while !is_over.load(Ordering::SeqCst) {
                    let before = purged.load(Ordering::SeqCst);
                    let response = connection.ask(head("GET", "/x", &[]));
                    let seen: usize = response.text().parse().expect("a version");
                    assert!(seen >= before, "{seen} is served after purge {before}");
                    hits.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for round in 1..=60 {
            let before = hits.load(Ordering::SeqCst);
            while hits.load(Ordering::SeqCst) < before + 6 {
                std::thread::yield_now();
            }
            version.store(round, Ordering::SeqCst);
            purge(
                &gateway,
                match round % 4 {
                    0 => r#"{"all": true}"#,
                    1 => r#"{"url": "http://LOCALHOST:80/x"}"#,
                    2 => r#"{"tag": ["c", "b"]}"#,
                    _ => r#"{"prefix": "http://localhost/"}"#,
                },
            );
            purged.store(round, Ordering::SeqCst);
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(target.count() < 60 * 6, "{} requests reached the target", target.count());
    assert!(gateway.metric("portcullis_cache_purges_total{cache=\"default\"}") > 59.0);
    assert!(gateway.metric("portcullis_cache_lookups_total{cache=\"default\",outcome=\"memory\"}") > 59.0);
}

#[test]
fn operators_see_what_is_stored() {
    let (target, folder) = (target(), tempfile::tempdir().expect("a folder"));
    let gateway = Gateway::start(&yaml(&target, folder.path(), "64MiB"));
    is_right(&gateway, "/10/a");
    let shown = client::get(gateway.admin, "/caches/default/entries?url=http%3A%2F%2Flocalhost%2F10%2Fa").json();
    let entry = &shown["entries"][0];
    assert_eq!((entry["status"].as_u64(), entry["length"].as_u64()), (Some(200), Some(10)), "{shown}");
    assert_eq!((entry["tags"][0].as_str(), entry["stale"].as_bool()), (Some("all-of-them"), Some(false)), "{shown}");
    assert!(entry["fresh_for"].as_u64().is_some_and(|left| left > 3_000), "{shown}");
    eventually("it is written", || client::get(gateway.admin, "/caches").json()[0]["disk"]["entries"] == 1);
    let (code, out, error) = run(
        &["purge", "--soft", "--tag", "all-of-them", "--admin", &gateway.admin.to_string()],
        Some(gateway.folder.path()),
    );
    assert_eq!((code, out.as_str()), (0, "1 purge in default\n"), "{error}");
    let shown = client::get(gateway.admin, "/caches/default/entries?url=http://localhost/10/a").json();
    assert_eq!(shown["entries"][0]["stale"], true, "{shown}");
    assert!(shown["entries"][0]["purged_softly"].is_string(), "{shown}");
    is_right(&gateway, "/10/a");
    assert_eq!(target.count(), 2, "it is validated");
    for (path, body, status) in [
        ("/caches/purge", "{}", 422),
        ("/caches/purge", r#"{"url": "/10/a"}"#, 422),
        ("/caches/purge", r#"{"tag": "a", "soft": 1}"#, 422),
        ("/caches/other/purge", r#"{"all": true}"#, 404),
        ("/caches/default", "", 405),
    ] {
        let response = post(&gateway, path, body);
        assert_eq!(response.status, status, "{path} {body}: {}", response.text());
    }
    let wrong = client::get(gateway.admin, "/caches/default/entries?url=x");
    assert_eq!(wrong.status, 422);
}

#[test]
fn files_outlive_a_kill_and_purges_do_too() {
    let (target, folder) = (target(), tempfile::tempdir().expect("a folder"));
    let yaml = yaml(&target, folder.path(), "64MiB");
    let gateway = Gateway::start(&yaml);
    let paths = ["/10/a", "/100000/b", "/2000000/c", "/300000/d"];
    paths.iter().for_each(|path| is_right(&gateway, path));
    eventually("they are written", || files(folder.path()).len() == 4);
    purge(&gateway, r#"{"url": "http://localhost/300000/d"}"#);
    kill(gateway);
    let gateway = Gateway::start(&yaml);
    paths.iter().for_each(|path| is_right(&gateway, path));
    assert_eq!(target.count(), 5, "only what was purged is asked for again");
    // What is damaged is not served.
    eventually("they are written", || files(folder.path()).len() == 4);
    eventually("none waits", || client::get(gateway.admin, "/caches").json()[0]["disk"]["waiting"] == 0);
    kill(gateway);
    for file in files(folder.path()) {
        let mut bytes = std::fs::read(&file).expect("read");
        let at = if bytes.len() > 100_000 { bytes.len() / 2 } else { 60 };
        bytes[at] ^= 4;
        std::fs::write(&file, bytes).expect("written");
    }
    let gateway = Gateway::start(&yaml);
    for path in paths {
        // A damaged block is found before anything of a small body is sent; a large one ends short.
        let response = std::panic::catch_unwind(|| gateway.get(path));
        assert!(response.is_err() || response.is_ok_and(|response| response.body == body_of(path)), "{path}");
        is_right(&gateway, path);
    }
    assert!(target.count() >= 9, "{}", target.count());
    assert!(gateway.metric("portcullis_cache_disk_errors_total{cache=\"default\",kind=\"damaged\"}") > 3.0);
}

#[test]
fn files_outlive_reloads_and_upgrades() {
    let (target, folder) = (target(), tempfile::tempdir().expect("a folder"));
    let mut old = Gateway::start(&yaml(&target, folder.path(), "64MiB"));
    let paths = ["/10/a", "/300000/b", "/10/c"];
    paths.iter().for_each(|path| is_right(&old, path));
    eventually("they are written", || files(folder.path()).len() == 3);
    old.write_config(&yaml(&target, folder.path(), "32MiB"));
    assert_eq!(old.reload().status, 200);
    let shown = client::get(old.admin, "/caches/default").json();
    assert_eq!((shown["disk"]["limit"].as_u64(), shown["memory"]["entries"].as_u64()), (Some(32 << 20), Some(3)));
    // Another instance may not have the folder, nor a successor of another gateway.
    let other = tempfile::tempdir().expect("a folder");
    std::fs::write(other.path().join("other.yaml"), complete(&yaml(&target, folder.path(), "32MiB"))).expect("written");
    let (code, _, error) = run(&["run", "-c", "other.yaml"], Some(other.path()));
    assert!(code == 2 && error.contains("caches.default.disk.path") && error.contains("is in use by"), "{error}");
    let (_successor, said) = upgrade(&old);
    assert!(said.contains("has settled"), "{said}");
    assert_eq!(old.wait(), Some(0), "{}", old.log());
    paths.iter().for_each(|path| is_right(&old, path));
    assert_eq!(target.count(), 3, "nothing is asked for again");
    purge(&old, r#"{"tag": "all-of-them"}"#);
    let (_third, _) = upgrade(&old);
    paths.iter().for_each(|path| is_right(&old, path));
    assert_eq!(target.count(), 6, "a purge outlives an upgrade");
}

/// With `LONG_TESTS=1` it is killed 50 times.
#[test]
fn kills_while_files_are_written_leave_nothing_damaged() {
    let (target, folder) = (target(), tempfile::tempdir().expect("a folder"));
    let yaml = yaml(&target, folder.path(), "16MiB");
    let rounds = if std::env::var_os("LONG_TESTS").is_some() { 50 } else { 3 };
    for round in 0..rounds {
        let gateway = Gateway::start(&yaml);
        for n in 0..30 {
            is_right(&gateway, &format!("/{}/{n}", (n * 7_919) % 260_000));
        }
        assert!(gateway.metric("portcullis_cache_disk_errors_total{cache=\"default\",kind=\"damaged\"}") < 0.5);
        for n in 30..40 + round {
            is_right(&gateway, &format!("/{}/{round}-{n}", (n * 104_729) % 300_000));
        }
        kill(gateway);
    }
    assert!(target.count() < 40 * rounds + rounds * rounds, "most is served from files: {}", target.count());
}
