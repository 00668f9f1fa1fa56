//! 1xx responses: 100 and 103 reach clients that may get them, and no HTTP/1.0 client does (RFC 9110 §15.2).

use super::harness::client::{Connection, get};
use super::programs::{Between, Server, before, before_http2, curl, field, run_one};

fn links(line: &serde_json::Value) -> Vec<(u64, String)> {
    let informational = line["informational"].as_array().map(Vec::as_slice).unwrap_or_default();
    informational
        .iter()
        .map(|i| (i["status"].as_u64().unwrap_or(0), i["link"].as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn assert_hints(gateway: &super::harness::gateway::Gateway, who: &str) {
    let address = gateway.address().to_string();
    for version in ["http1", "http2"] {
        let flag = if version == "http1" { "--http1.1" } else { "--http2-prior-knowledge" };
        let done = curl(&["-i", flag, &format!("http://{address}/hints")]);
        let statuses: Vec<&str> =
            done.out.lines().filter(|l| l.starts_with("HTTP/")).filter_map(|l| l.split(' ').nth(1)).collect();
        assert_eq!(statuses, ["103", "200"], "{who}: curl {version}: {done:?}");
        let line = run_one("node_client.js", &["get", version, &address, "/hints"]);
        assert_eq!(links(&line).iter().map(|l| l.0).collect::<Vec<_>>(), [103], "{who}: node {version}: {line}");
        assert!(links(&line)[0].1.contains("/style.css"), "{who}: {line}");
    }
}

#[test]
fn early_hints_of_http1_targets() {
    let target = Server::node("http1");
    assert_hints(&before(target.address), "http1");
}

/// Pingora's client of HTTP/2 reads no interim response, so that the final one is all that comes of such targets.
#[test]
fn early_hints_of_http2_targets_are_lost_and_nothing_else() {
    let target = Server::node("http2");
    let gateway = before_http2(target.address);
    let line = run_one("node_client.js", &["get", "http2", &gateway.address().to_string(), "/hints"]);
    assert_eq!((links(&line).len(), &line["status"]), (0, &200.into()), "{line}");
}

#[test]
fn early_hints_on_hedged_ways() {
    let target = Server::node("http1");
    let upstream = ", retry: {attempts: 2, hedge_after: 5s}";
    assert_hints(&Between { upstream, ..Between::default() }.start(target.address), "hedged");
}

/// Hints are there before the response is: that is what they are for.
#[test]
fn early_hints_come_early() {
    let target = Server::node("http1");
    let line =
        run_one("h2_client.py", &["wait_for_hints", &before(target.address).address().to_string(), "/hints-then-wait"]);
    assert_eq!((links(&line).len(), &line["status"]), (1, &200.into()), "{line}");
}

#[test]
fn several_hints_reach_the_client() {
    let target = Server::recorder();
    let line = run_one("h2_client.py", &["get", &before(target.address).address().to_string(), "/two-hints"]);
    assert_eq!(links(&line).len(), 2, "{line}");
}

#[test]
fn http_1_0_clients_never_get_a_1xx() {
    let one = Server::node("http1");
    let two = Server::node("http2");
    for gateway in [before(one.address), before_http2(two.address)] {
        let address = gateway.address();
        let done = curl(&["-i", "--http1.0", &format!("http://{address}/hints")]);
        let statuses: Vec<&str> =
            done.out.lines().filter(|l| l.starts_with("HTTP/")).filter_map(|l| l.split(' ').nth(1)).collect();
        assert_eq!(statuses, ["200"], "{done:?}");
        // Their Expect is ignored (RFC 9110 §10.1.1), and not passed on.
        let mut connection = Connection::open(address);
        connection.send("POST /expect HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello");
        let answer = connection.receive();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(
            (&answer.json()["headers"]["expect"], &answer.json()["body"]),
            (&serde_json::Value::Null, &"hello".into())
        );
    }
}

/// curl waits for the 100 as long as it is told to: 20 s here, so that it shows.
#[test]
fn uploads_that_expect_100_do_not_wait() {
    let one = Server::node("http1");
    let two = Server::node("http2");
    for (gateway, who) in [(before(one.address), "http1"), (before_http2(two.address), "http2")] {
        let address = gateway.address().to_string();
        let file = gateway.folder.path().join("upload");
        std::fs::write(&file, "hello").expect("written");
        let (file, url) = (file.to_string_lossy().into_owned(), format!("http://{address}/expected"));
        for flag in ["--http1.1", "--http2-prior-knowledge"] {
            let wait = ["-H", "expect: 100-continue", "--expect100-timeout", "20"];
            let done = curl(&[&[flag, "-T", &file, "-w", "\n%{http_code}", &url][..], &wait[..]].concat());
            assert!(
                done.code == 0 && done.out.ends_with("\n200") && done.took.as_secs() < 10,
                "{who} {flag}: {done:?}"
            );
        }
        for version in ["http1", "http2"] {
            let line = run_one("node_client.js", &["expect", version, &address, "/expected"]);
            assert_eq!((&line["status"], &line["continued"]), (&200.into(), &true.into()), "{who} {version}: {line}");
        }
        let line = run_one("h2_client.py", &["expect_continue", &address, "/expected"]);
        assert_eq!(
            (&line["status"], line["informational"][0]["status"].as_u64()),
            (&200.into(), Some(100)),
            "{who}: {line}"
        );
    }
}

/// A response that has no content ends with its HEADERS.
#[test]
fn responses_without_content_end_with_their_headers() {
    let one = Server::recorder();
    let two = Server::node("http2");
    for (gateway, who) in [(before(one.address), "http1"), (before_http2(two.address), "http2")] {
        let address = gateway.address().to_string();
        for (method, path) in [("GET", "/not-modified"), ("HEAD", "/date"), ("HEAD", "/any"), ("HEAD", "/not-modified")]
        {
            let line = run_one("h2_client.py", &["request", &address, method, path]);
            assert_eq!(line["frames"], serde_json::json!(["HEADERS+END_STREAM"]), "{who}: {method} {path}: {line}");
        }
        if who == "http1" {
            let line = run_one("h2_client.py", &["get", &address, "/not-modified"]);
            assert!(matches!(field(&line, "content-length").as_slice(), [] | ["1000"]), "{line}");
        }
        assert_eq!(get(gateway.address(), "/not-modified").status, 304);
    }
}
