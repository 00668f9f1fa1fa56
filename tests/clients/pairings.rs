//! Every pairing of clients and targets: long bodies both ways, events, trailers.

use std::net::SocketAddr;

use serde_json::Value;

use super::harness::gateway::Gateway;
use super::programs::{Server, before, before_http2, run, run_one};

const SIZE: usize = 4_000_000;
/// Of `SIZE` bytes, byte i being i modulo 251.
const SHA256: &str = "35a4b558fb5752ca9838a388a2322e48a60f7506f47cccca55a7763104a5d408";

/// The targets, each behind a gateway of its own.
fn targets() -> Vec<(&'static str, Server, Gateway)> {
    let start = |name, server: Server, gateway: fn(SocketAddr) -> Gateway| {
        let gateway = gateway(server.address);
        (name, server, gateway)
    };
    vec![
        start("node http1", Server::node("http1"), before),
        start("node http2", Server::node("http2"), before_http2),
        start("uvicorn", Server::start("asgi.py", &["uvicorn"]), before),
        start("hypercorn http2", Server::start("asgi.py", &["hypercorn"]), before_http2),
    ]
}

#[track_caller]
fn assert_whole(line: &Value, who: &str) {
    assert_eq!((&line["status"], &line["length"], &line["sha256"]), (&200.into(), &SIZE.into(), &SHA256.into()), "{who}: {line}");
}

#[test]
fn long_uploads() {
    let size = SIZE.to_string();
    for (name, server, gateway) in targets() {
        let address = gateway.address().to_string();
        for version in ["http1", "http2"] {
            for (client, scenario) in [("httpx_client.py", "upload"), ("httpx_client.py", "upload_of_length"), ("node_client.js", "upload")]
            {
                let path = format!("/{client}-{scenario}-{version}");
                let line = run_one(client, &[scenario, version, &address, &path, &size]);
                assert_eq!(line["status"], 200, "{name} {client} {version}: {line}");
                let seen = server.await_line("the upload", |l| l["target"] == path.as_str());
                assert_eq!((&seen["length"], &seen["sha256"]), (&SIZE.into(), &SHA256.into()), "{name} {client} {version}: {seen}");
            }
        }
    }
}

#[test]
fn long_downloads() {
    let path = format!("/download?bytes={SIZE}");
    for (name, _server, gateway) in targets() {
        let address = gateway.address().to_string();
        for version in ["http1", "http2"] {
            for client in ["httpx_client.py", "node_client.js"] {
                let line = run_one(client, &["download", version, &address, &path]);
                assert_whole(&line, &format!("{name} {client} {version}"));
            }
        }
    }
}

/// A target that sends back what it gets while it gets it: both directions at a time.
#[test]
fn both_directions_at_a_time() {
    let size = SIZE.to_string();
    for (name, _server, gateway) in targets().into_iter().take(2) {
        let address = gateway.address().to_string();
        for version in ["http1", "http2"] {
            let line = run_one("node_client.js", &["upload", version, &address, "/mirror", &size]);
            assert_whole(&line, &format!("{name} {version}"));
        }
    }
}

#[test]
fn events_come_one_by_one() {
    for (name, _server, gateway) in targets().into_iter().take(2) {
        for version in ["http1", "http2"] {
            let line = run_one("httpx_client.py", &["events", version, &gateway.address().to_string()]);
            assert_eq!((&line["first"], &line["rest"]), (&"data: first".into(), &serde_json::json!(["data: second"])), "{name} {version}");
        }
    }
}

#[test]
fn trailers_between_http2_and_http2() {
    let target = Server::node("http2");
    let gateway = before_http2(target.address);
    let address = gateway.address().to_string();
    let line = run_one("node_client.js", &["get", "http2", &address, "/trailers"]);
    assert_eq!((&line["body"], &line["trailers"]["x-sum"]), (&"body".into(), &"42".into()), "{line}");
    let lines = run("h2_client.py", &["upload_with_trailers", &address, "/upload"]);
    assert_eq!(lines[0]["status"], 200, "{lines:?}");
    // Those of a request may be dropped (RFC 9110 §6.5.1).
    let seen = target.await_line("the upload", |l| l["target"] == "/upload");
    assert_eq!(seen["body"], "hello", "{seen}");
}

/// Trailers may be dropped where HTTP/1 lies between; the bodies that they end may not.
#[test]
fn trailers_do_no_harm_over_http1() {
    let target = Server::node("http1");
    let gateway = before(target.address);
    let address = gateway.address().to_string();
    for version in ["http1", "http2"] {
        let line = run_one("node_client.js", &["get", version, &address, "/trailers"]);
        assert_eq!((&line["status"], &line["body"]), (&200.into(), &"body".into()), "{version}: {line}");
    }
    let recorder = Server::recorder();
    let gateway = before(recorder.address);
    let lines = run("h2_client.py", &["upload_with_trailers", &gateway.address().to_string(), "/upload"]);
    assert_eq!(lines[0]["status"], 200, "{lines:?}");
    recorder.assert_clean();
    assert_eq!(recorder.await_line("the upload", |l| l["target"] == "/upload")["body"], "hello");
}
