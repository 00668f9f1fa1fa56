//! Rejections as clients read them, also while they are still sending.

use super::harness::eventually;
use super::harness::target::refused;
use super::programs::{Between, Server, curl, curl_with, run, run_one};

const CONSUMERS: &str = "consumers: {a: {credentials: [{api_key: {value: key-of-a}}]}}";

fn keyed() -> Between<'static> {
    Between { route: ", filters: [{api_key: {}}]", rest: CONSUMERS, ..Between::default() }
}

/// A rejected HEAD ends with its HEADERS, whatever the length of what a GET would get.
#[test]
fn rejected_heads_end_with_their_headers() {
    let (_held, away) = refused();
    for (gateway, status) in [(keyed().start(away), "401"), (Between::default().start(away), "502")] {
        let address = gateway.address().to_string();
        for flag in ["--http1.1", "--http2-prior-knowledge"] {
            let done = curl(&[flag, "-I", "-w", "%{http_code}", "-o", "/dev/null", &format!("http://{address}/")]);
            assert_eq!((done.code, done.out.as_str()), (0, status), "{flag}: {done:?}");
        }
        let line = run_one("h2_client.py", &["request", &address, "HEAD", "/"]);
        assert_eq!(line["frames"], serde_json::json!(["HEADERS+END_STREAM"]), "{line}");
    }
}

/// What is rejected while its body is under way is read, not reset (RFC 9112 §9.6, RFC 9113 §8.1).
fn assert_rejections_are_read(version: &str, flag: &str) {
    let (_held, away) = refused();
    let gateway = keyed().start(away);
    let address = gateway.address().to_string();
    let body = vec![b'x'; 2_000_000];
    let url = format!("http://{address}/");
    for upload in [&["-T", "-"][..], &["--data-binary", "@-"][..]] {
        for _ in 0..3 {
            let common = [flag, "-H", "expect:", "-w", "%{http_code}", "-o", "/dev/null", &url];
            let done = curl_with(&[&common[..], upload].concat(), &body);
            assert_eq!((done.code, done.out.as_str()), (0, "401"), "{flag} {upload:?}: {done:?}");
        }
    }
    let lines = run("node_client.js", &["rejected", version, &address, "/", "2000000", "5"]);
    assert!(lines.len() == 5 && lines.iter().all(|l| l["status"] == 401), "{version}: {lines:?}");
}

#[test]
fn rejections_reach_http1_clients_that_are_sending() {
    assert_rejections_are_read("http1", "--http1.1");
}

#[test]
fn rejections_reach_http2_clients_that_are_sending() {
    assert_rejections_are_read("http2", "--http2-prior-knowledge");
}

/// A body of unknown length over the limit: 413 at once, to every kind of target, and the place is free again.
#[test]
fn bodies_over_their_limit_free_their_places() {
    for protocol in ["http1", "http2"] {
        let target = Server::node(protocol);
        let upstream = format!(", protocol: {protocol}, limits: {{requests: 5, pending: 0}}, timeouts: {{read: 60s}}");
        let gateway =
            Between { upstream: &upstream, route: ", body: 10KiB", ..Between::default() }.start(target.address);
        let address = gateway.address().to_string();
        let lines = run("h2_client.py", &["hold_uploads", &address, "/hang", "5"]);
        assert!(lines.len() == 5 && lines.iter().all(|l| l["status"] == 413), "{protocol}: {lines:?}");
        eventually("all five places are free", || {
            gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"one\"}") == 0.0
        });
        let done = curl(&["-w", "%{http_code}", "-o", "/dev/null", &format!("http://{address}/after")]);
        assert_eq!(done.out, "200", "{protocol}: {done:?}");
        // The target learns that what it got is no complete request.
        eventually("the target's requests end", || {
            let lines = target.lines();
            let count = |key: &str| lines.iter().filter(|l| l[key] == true).count();
            count("hanging") == count("aborted")
        });
    }
}

/// A 413 by Content-Length can be read by the page that caused it.
#[test]
fn cors_fields_are_on_every_413() {
    let target = Server::recorder();
    let route = ", filters: [{cors: {origins: [\"https://app.example.com\"]}}], body: 1KiB";
    let gateway = Between { route, ..Between::default() }.start(target.address);
    let url = format!("http://{}/", gateway.address());
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        // Of a known length, and of none.
        for upload in [&["--data-binary", "@-"][..], &["-T", "-"][..]] {
            let common = ["-i", flag, "-H", "expect:", "-H", "origin: https://app.example.com", &url];
            let done = curl_with(&[&common[..], upload].concat(), &[b'x'; 5000]);
            let out = done.out.to_ascii_lowercase();
            let allowed = out.contains("access-control-allow-origin: https://app.example.com");
            assert!(out.contains(" 413") && allowed, "{flag} {upload:?}: {done:?}");
        }
    }
}
