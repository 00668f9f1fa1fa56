//! Clients that leave before the end.

use super::harness::eventually;
use super::programs::{Server, before, before_http2, run_one};

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
