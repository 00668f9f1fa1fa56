//! Clients that leave before the end.

use super::harness::eventually;
use super::programs::{Server, before, before_http2, curl, run_one};

/// What a reset stream has used of its connection's window is given back (RFC 9113 §6.9).
#[test]
fn cancelled_uploads_give_their_window_back() {
    for scenario in ["cancelled_uploads", "windows"] {
        let target = Server::recorder();
        let gateway = before(target.address);
        let line = run_one("h2_client.py", &[scenario, &gateway.address().to_string(), "/never-read", "6", "/seventh"]);
        assert_eq!(line["status"], 200, "{scenario}: {line}");
        let seventh = target.await_line("the seventh upload", |l| l["target"] == "/seventh");
        assert_eq!(seventh["length"], 300_000);
    }
}

#[test]
fn cancelled_downloads_end_at_the_target() {
    for protocol in ["http1", "http2"] {
        let target = Server::node(protocol);
        let gateway = if protocol == "http1" { before(target.address) } else { before_http2(target.address) };
        run_one("h2_client.py", &["cancel_download", &gateway.address().to_string(), "/download?bytes=500000000"]);
        eventually("the target's response is aborted", || target.lines().iter().any(|l| l["aborted"] == true));
    }
}

#[test]
fn cancelled_uploads_end_at_the_target() {
    for protocol in ["http1", "http2"] {
        let target = Server::node(protocol);
        let gateway = if protocol == "http1" { before(target.address) } else { before_http2(target.address) };
        let line = run_one("h2_client.py", &["cancel_upload", &gateway.address().to_string(), "/hang"]);
        assert_eq!(line["status"], 200, "{protocol}: {line}");
        target.await_line(&format!("the end of the {protocol} request"), |l| {
            l["aborted"] == true || !l["incomplete"].is_null()
        });
    }
}

/// A response that ends too early ends too early for the client, too: by a reset, or an unfinished body.
#[test]
fn responses_that_are_cut_are_cut() {
    let (raw, one, two) = (Server::recorder(), Server::node("http1"), Server::node("http2"));
    let cases = [
        (before(raw.address), &["/cut-length", "/cut-chunks", "/cut-chunk"][..]),
        (before(one.address), &["/reset"][..]),
        (before_http2(two.address), &["/reset"][..]),
    ];
    for (gateway, paths) in cases {
        for path in paths {
            let url = format!("http://{}{path}", gateway.address());
            let done = curl(&["--http1.1", &url]);
            assert!(matches!(done.code, 18 | 56) && done.took.as_secs() < 10, "{path}: {done:?}");
            let done = curl(&["--http2-prior-knowledge", &url]);
            assert!(done.code == 92 && done.took.as_secs() < 10, "{path}: {done:?}");
            let line = run_one("h2_client.py", &["get", &gateway.address().to_string(), path]);
            assert!(line["ended"] == false && line["reset"].as_u64().is_some_and(|code| code != 0), "{path}: {line}");
        }
    }
    // What ends with its connection is whole.
    let gateway = before(raw.address);
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        let done = curl(&[flag, &format!("http://{}/to-the-end", gateway.address())]);
        assert_eq!((done.code, done.out.as_str()), (0, "hello"), "{flag}: {done:?}");
    }
}

/// A response that comes before the end of the request reaches the client while it is sending.
#[test]
fn early_responses_reach_clients_that_are_sending() {
    let (raw, two) = (Server::recorder(), Server::node("http2"));
    for (gateway, who) in [(before(raw.address), "http1"), (before_http2(two.address), "http2")] {
        for version in ["http1", "http2"] {
            let line =
                run_one("node_client.js", &["upload", version, &gateway.address().to_string(), "/early", "1000000"]);
            assert_eq!((&line["status"], &line["body"]), (&200.into(), &"early".into()), "{who} {version}: {line}");
        }
    }
}
