//! Uploads over HTTP/2 whose end comes in an empty DATA frame, to HTTP/1.1 targets: one closing chunk
//! (RFC 9112 §7.1), or the next request on that connection gets the answer to the second.

use serde_json::Value;

use super::harness::gateway::Gateway;
use super::programs::{Between, Server, before, before_http2, curl, curl_with, run};

const NOTHING: &str = "0\r\n\r\n";
const ENDINGS: &[(&str, &str)] = &[
    ("upload_with_empty_end", "5\r\nhello\r\n0\r\n\r\n"),
    ("upload_at_once", "5\r\nhello\r\n0\r\n\r\n"),
    ("upload_of_nothing", NOTHING),
];

/// Asserts that another client's requests are answered, until one went over the connection of an upload.
#[track_caller]
fn assert_next_is_answered(gateway: &Gateway, target: &Server) {
    let used = |lines: &[Value], upload: bool| -> Vec<Value> {
        lines.iter().filter(|l| (l["method"] != "GET") == upload).map(|l| l["connection"].clone()).collect()
    };
    for _ in 0..20 {
        assert_next_is_well(gateway, target);
        let lines = target.lines();
        let uploads = used(&lines, true);
        if used(&lines, false).iter().any(|c| uploads.contains(c)) {
            return;
        }
    }
    panic!("no connection of an upload is used again: {:?}", target.lines());
}

#[track_caller]
fn assert_next_is_well(gateway: &Gateway, target: &Server) {
    let next = curl(&["-w", "%{http_code}", "-o", "/dev/null", &format!("http://{}/next", gateway.address())]);
    assert_eq!(
        (next.code, next.out.as_str()),
        (0, "200"),
        "the next request: {next:?}; the target got {:?}",
        target.lines()
    );
}

/// Asserts that each of those uploads came with that framing, and that nothing came between them.
#[track_caller]
fn assert_framed(target: &Server, path: &str, framed: &str, count: usize) {
    target.assert_clean();
    let lines: Vec<Value> =
        target.lines().into_iter().filter(|l| l["target"].as_str().is_some_and(|t| t.starts_with(path))).collect();
    assert_eq!(lines.len(), count, "{lines:?}");
    for line in lines {
        // A body of no bytes may as well be sent as none.
        assert!(line["framed"] == framed || (framed == NOTHING && line["framed"] == ""), "{line}");
    }
}

fn uploads_of_h2(path: &str) {
    for (scenario, framed) in ENDINGS {
        let target = Server::recorder();
        let gateway = before(target.address);
        let address = gateway.address().to_string();
        for line in run("h2_client.py", &[scenario, &address, path, "6"]) {
            assert_eq!(line["status"], 200, "{scenario}: {line}");
        }
        assert_next_is_answered(&gateway, &target);
        assert_framed(&target, path, framed, 6);
    }
}

#[test]
fn python_h2_has_one_closing_chunk() {
    uploads_of_h2("/upload");
}

/// The target is 4 ms away: the gateway has sent all before the answer comes.
#[test]
fn python_h2_has_one_closing_chunk_far_away() {
    uploads_of_h2("/upload?delay=4");
}

#[test]
fn a_declared_length_and_an_empty_end() {
    let target = Server::recorder();
    let gateway = before(target.address);
    let lines = run("h2_client.py", &["upload_of_length", &gateway.address().to_string(), "/upload?delay=4", "5"]);
    assert_eq!(lines[0]["status"], 200, "{lines:?}");
    assert_next_is_answered(&gateway, &target);
    assert_framed(&target, "/upload", "xxxxx", 1);
}

#[test]
fn curl_has_one_closing_chunk() {
    for path in ["/upload", "/upload?delay=4"] {
        let target = Server::recorder();
        let gateway = before(target.address);
        let url = format!("http://{}{path}", gateway.address());
        for _ in 0..4 {
            let done = curl_with(
                &["--http2-prior-knowledge", "-T", "-", "-w", "\n%{http_code} %{http_version}", &url],
                b"hello",
            );
            assert!(done.out.ends_with("\n200 2"), "{done:?}");
        }
        assert_next_is_answered(&gateway, &target);
        assert_framed(&target, "/upload", "5\r\nhello\r\n0\r\n\r\n", 4);
    }
}

#[test]
fn httpx_and_node_have_one_closing_chunk() {
    for (client, scenario) in [("httpx_client.py", "iterator"), ("node_client.js", "writeEnd")] {
        let target = Server::recorder();
        let gateway = before(target.address);
        let lines = run(client, &[scenario, "http2", &gateway.address().to_string(), "/upload?delay=4", "6"]);
        assert!(lines.len() == 6 && lines.iter().all(|l| l["status"] == 200), "{client}: {lines:?}");
        assert_next_is_answered(&gateway, &target);
        target.assert_clean();
        for line in target.lines().iter().filter(|l| l["method"] == "POST") {
            assert_eq!(
                (&line["body"], line["framed"].as_str().map(|f| f.matches("0\r\n\r\n").count())),
                (&"hello".into(), Some(1)),
                "{line}"
            );
        }
    }
}

/// A node target answers 400 to what follows the first closing chunk.
#[test]
fn node_targets_answer_every_upload() {
    let target = Server::node("http1");
    let gateway = before(target.address);
    let address = gateway.address().to_string();
    let mut lines = run("node_client.js", &["writeEnd", "http2", &address, "/upload", "10"]);
    lines.extend(run("httpx_client.py", &["iterator", "http2", &address, "/upload", "10"]));
    let failed: Vec<_> = lines.iter().filter(|l| l["status"] != 200).collect();
    assert!(lines.len() == 20 && failed.is_empty(), "{} of 20 failed: {failed:?}", failed.len());
    target.assert_clean();
    assert_eq!(gateway.metric("portcullis_upstream_connections_total{upstream=\"one\"}"), 1.0, "connections are kept");
}

/// Behind a distance the answer to a second closing chunk is under way while the connection looks unused: it
/// becomes the answer to whoever is next.
#[test]
fn distant_targets_answer_the_next_request_of_another_client() {
    for (name, arguments) in [("recorder.py", &[][..]), ("targets.js", &["http1"][..]), ("asgi.py", &["uvicorn"][..])] {
        let target = Server::start(name, arguments);
        let gateway = before(target.address);
        let lines =
            run("h2_client.py", &["uploads_and_others", &gateway.address().to_string(), "/upload?delay=4", "20"]);
        let failed: Vec<_> = lines.iter().filter(|l| l["upload"] != 200 || l["next"] != 200).collect();
        assert!(lines.len() == 20 && failed.is_empty(), "{name}: {} of 20 failed: {failed:?}", failed.len());
        target.assert_clean();
    }
}

/// What is sent again after a first target failed ends once, too.
#[test]
fn repeated_bodies_have_one_closing_chunk() {
    for (scenario, framed) in ENDINGS {
        let target = Server::recorder();
        let gateway = Between {
            upstream: ", retry: {attempts: 2, when: [connect, reset]}",
            forward: ", retry_methods: [GET, POST]",
            ..Between::default()
        }
        .start(target.address);
        let lines = run("h2_client.py", &[scenario, &gateway.address().to_string(), "/fail-first", "1"]);
        assert_eq!(lines[0]["status"], 200, "{scenario}: {lines:?}");
        assert_next_is_answered(&gateway, &target);
        assert_framed(&target, "/fail-first", framed, 2);
    }
}

/// The same over hedged ways, which the gateway carries over calls of its own.
#[test]
fn hedged_uploads_have_one_closing_chunk() {
    let target = Server::recorder();
    let gateway = Between {
        upstream: ", retry: {attempts: 2, hedge_after: 5s}",
        forward: ", retry_methods: [GET, POST]",
        ..Between::default()
    }
    .start(target.address);
    let lines = run("h2_client.py", &["upload_with_empty_end", &gateway.address().to_string(), "/upload?delay=4", "3"]);
    assert!(lines.iter().all(|l| l["status"] == 200), "{lines:?}");
    assert_next_is_well(&gateway, &target);
    target.assert_clean();
    let bodies: Vec<Value> =
        target.lines().iter().filter(|l| l["method"] == "POST").map(|l| l["body"].clone()).collect();
    assert_eq!(bodies, ["hello"; 3], "{:?}", target.lines());
}

/// HTTP/2 targets get the same ends of streams.
#[test]
fn http2_targets_get_every_kind_of_end() {
    for (name, arguments) in [("targets.js", &["http2"][..]), ("asgi.py", &["hypercorn"][..])] {
        let target = Server::start(name, arguments);
        let gateway = before_http2(target.address);
        let address = gateway.address().to_string();
        for (scenario, framed) in ENDINGS {
            let path = format!("/{scenario}");
            let lines = run("h2_client.py", &[scenario, &address, &path, "4"]);
            assert!(lines.iter().all(|l| l["status"] == 200 && l["ended"] == true), "{name} {scenario}: {lines:?}");
            let length = if framed.contains("hello") { 5 } else { 0 };
            let seen: Vec<Value> = target.lines().into_iter().filter(|l| l["target"] == path.as_str()).collect();
            assert!(seen.len() == 4 && seen.iter().all(|l| l["length"] == length), "{name} {scenario}: {seen:?}");
        }
    }
}

/// A request without a body says so to HTTP/1 targets where its method gives a body a meaning (RFC 9110 §8.6).
#[test]
fn methods_with_a_meaning_for_bodies_have_a_length() {
    let target = Server::recorder();
    let gateway = before(target.address);
    for method in ["POST", "PUT", "PATCH", "GET", "DELETE"] {
        let lines = run("h2_client.py", &["request", &gateway.address().to_string(), method, &format!("/{method}")]);
        assert_eq!(lines[0]["status"], 200, "{lines:?}");
        let seen = target.await_line("the request", |l| l["method"] == method);
        let lengths = super::programs::field(&seen, "content-length");
        let wanted: &[&str] = if matches!(method, "GET" | "DELETE") { &[] } else { &["0"] };
        assert_eq!(lengths, wanted, "{method}: {seen}");
    }
}
