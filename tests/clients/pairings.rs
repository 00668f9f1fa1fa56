//! Every pairing of clients and targets: long bodies both ways, events, trailers.

use std::net::SocketAddr;

use serde_json::Value;

use super::harness::gateway::Gateway;
use super::programs::{Between, Server, before, before_http2, finish, run, run_one};

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
    assert_eq!(
        (&line["status"], &line["length"], &line["sha256"]),
        (&200.into(), &SIZE.into(), &SHA256.into()),
        "{who}: {line}"
    );
}

#[test]
fn long_uploads() {
    let size = SIZE.to_string();
    for (name, server, gateway) in targets() {
        let address = gateway.address().to_string();
        for version in ["http1", "http2"] {
            for (client, scenario) in
                [("httpx_client.py", "upload"), ("httpx_client.py", "upload_of_length"), ("node_client.js", "upload")]
            {
                let path = format!("/{client}-{scenario}-{version}");
                let line = run_one(client, &[scenario, version, &address, &path, &size]);
                assert_eq!(line["status"], 200, "{name} {client} {version}: {line}");
                let seen = server.await_line("the upload", |l| l["target"] == path.as_str());
                assert_eq!(
                    (&seen["length"], &seen["sha256"]),
                    (&SIZE.into(), &SHA256.into()),
                    "{name} {client} {version}: {seen}"
                );
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
            assert_eq!(
                (&line["first"], &line["rest"]),
                (&"data: first".into(), &serde_json::json!(["data: second"])),
                "{name} {version}"
            );
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

/// Many streams of one connection, each with its own body.
#[test]
fn many_requests_at_a_time() {
    for (name, _server, gateway) in targets().into_iter().take(2) {
        let address = gateway.address().to_string();
        let lines = run("h2_client.py", &["downloads", &address, "/download?bytes=300000", "30"]);
        let wrong: Vec<_> = lines.iter().filter(|l| l["length"] != 300_000 || l["ended"] != true).collect();
        assert!(lines.len() == 30 && wrong.is_empty(), "{name}: {} of 30 are wrong: {wrong:?}", wrong.len());
        for version in ["http1", "http2"] {
            let lines = run("httpx_client.py", &["many", version, &address, "/many", "200"]);
            assert_eq!(lines.last().map(|l| &l["right"]), Some(&200.into()), "{name} {version}: {lines:?}");
            let lines = run("node_client.js", &["downloads", version, &address, "/download?bytes=300000", "30"]);
            let wrong: Vec<_> = lines.iter().filter(|l| l["status"] != 200 || l["length"] != 300_000).collect();
            let lengths: Vec<_> = wrong
                .iter()
                .map(|l| format!("{} {} {} {}", l["status"], l["length"], l["reset"], l["error"]))
                .collect();
            assert!(
                lines.len() == 30 && wrong.is_empty(),
                "{name} {version}: of {} these are wrong: {lengths:?}",
                lines.len()
            );
        }
    }
}

/// A certificate that signs itself is its own authority: `openssl req -x509` makes it, OpenSSL's and Go's clients take
/// it.
#[test]
fn targets_with_a_certificate_of_their_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    for name in ["one", "other"] {
        let (key, cert) = (path(&format!("{name}.key")), path(&format!("{name}.pem")));
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout",
            &key,
            "-out",
            &cert,
        ]);
        let done = finish(&mut openssl, b"");
        assert_eq!(done.code, 0, "{done:?}");
    }
    let target = Server::start("targets.js", &["https", &path("one.pem"), &path("one.key")]);
    for (authority, status) in [("one.pem", 200), ("other.pem", 502)] {
        let upstream = format!(", tls: {{name: localhost, ca: \"{}\"}}", path(authority));
        let gateway = Between { upstream: &upstream, ..Between::default() }.start(target.address);
        let answer = gateway.get("/");
        assert_eq!(answer.status, status, "{authority}: {}", answer.text());
    }
}

/// Mirrors get bodies that come in several parts.
#[test]
fn mirrors_get_bodies_of_several_parts() {
    let (one, two) = (Server::recorder(), Server::recorder());
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}, two: {{targets: [\"{}\"]}}}}\n\
         routes: [{{name: all, action: {{forward: {{upstream: one, mirror: {{upstream: two}}}}}}}}]\n\
         listeners: [{{name: main, address: \"127.0.0.1:0\", protocols: [http1, http2]}}]",
        one.address, two.address
    ));
    for version in ["http1", "http2"] {
        let path = format!("/{version}");
        let line = run_one("httpx_client.py", &["iterator", version, &gateway.address().to_string(), &path, "1"]);
        assert_eq!(line["status"], 200, "{version}: {line}");
        let copy = two.await_line("the copy", |l| l["target"] == path.as_str());
        assert_eq!(copy["body"], "hello", "{version}: {copy}");
    }
    two.assert_clean();
}
