//! What requests for the same have in common: one fetch for all, bodies that are read while they come, stale responses
//! while one refreshes them; and that the filters of the route hold for every one.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Request;
use tokio::net::TcpStream;

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

pub fn gateway(address: SocketAddr, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{address}\"], retry: {{attempts: 1}}}}}}
routes: [{{name: all, filters: [{filters}], action: {{forward: one}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2], limits: {{streams: 200}}}}]
consumers:
  ann: {{credentials: [{{api_key: {{value: key-of-ann-0123456789}}}}]}}
  bob: {{credentials: [{{api_key: {{value: key-of-bob-0123456789}}}}]}}"
    ))
}

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

/// A target that responds when it is released.
fn gated(fields: &'static [(&'static str, &'static str)]) -> (Target, Arc<AtomicBool>) {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let target = Target::new(move |stream, _| {
        while !gate.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(2));
        }
        answer(stream, 200, fields, b"the response")
    });
    (target, open)
}

/// Requests `/a` by HTTP/2, `streams` times on each of `connections`, and returns how many got the response.
async fn ask_many(address: SocketAddr, connections: usize, streams: usize, sent: Arc<AtomicUsize>) -> usize {
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        for _ in 0..streams {
            let mut client = client.clone().ready().await.expect("ready");
            let request = Request::get("http://a.test/a").body(()).expect("a request");
            let (response, _) = client.send_request(request, true).expect("sent");
            sent.fetch_add(1, Ordering::AcqRel);
            all.spawn(async move {
                let (head, mut body) = response.await.ok()?.into_parts();
                let mut text = Vec::new();
                while let Some(part) = body.data().await {
                    text.extend_from_slice(&part.ok()?);
                }
                (head.status == 200 && text == b"the response").then_some(())
            });
        }
    }
    all.join_all().await.into_iter().flatten().count()
}

#[test]
fn ten_thousand_misses_are_one_request() {
    let (target, open) = gated(&[FRESH]);
    let gateway = gateway(target.address, "{cache: {lock_timeout: 60s}}");
    let sent = Arc::new(AtomicUsize::new(0));
    let (address, counted) = (gateway.address(), Arc::clone(&sent));
    let clients = std::thread::spawn(move || block(ask_many(address, 100, 100, counted)));
    eventually("all have asked", || sent.load(Ordering::Acquire) == 10_000);
    open.store(true, Ordering::Release);
    assert_eq!(clients.join().expect("clients"), 10_000);
    assert_eq!(target.count(), 1);
}

#[test]
fn a_slow_origin_holds_the_others_no_longer_than_they_wait() {
    let (first, open) = (AtomicBool::new(true), Arc::new(AtomicBool::new(false)));
    let gate = Arc::clone(&open);
    let target = Target::new(move |stream, _| {
        if first.swap(false, Ordering::AcqRel) {
            while !gate.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        answer(stream, 200, &[FRESH], b"the response")
    });
    let gateway = gateway(target.address, "{cache: {lock_timeout: 100ms}}");
    let mut slow = Connection::open(gateway.address());
    slow.send(head("GET", "/a", &[]));
    eventually("the first one asks", || target.count() == 1);
    let other = gateway.get("/a");
    assert_eq!(
        (other.status, other.header("cache-status")),
        (200, Some("portcullis; fwd=uri-miss; detail=lock-timeout"))
    );
    open.store(true, Ordering::Release);
    assert_eq!(slow.receive().status, 200);
}

#[test]
fn a_fetch_outlives_the_client_that_began_it() {
    let (target, open) = gated(&[FRESH]);
    let gateway = gateway(target.address, "{cache: {}}");
    let mut first = Connection::open(gateway.address());
    first.send(head("GET", "/a", &[]));
    eventually("the first one asks", || target.count() == 1);
    let mut second = Connection::open(gateway.address());
    second.send(head("GET", "/a", &[]));
    drop(first);
    open.store(true, Ordering::Release);
    assert_eq!(second.receive().text(), "the response");
    assert_eq!((gateway.get("/a").text().as_str(), target.count()), ("the response", 1));
}

/// The size of a body that no socket's buffers hold.
const LARGE: usize = 6 << 20;

/// A target that sends a large body, in chunks or with its length.
fn large(chunked: bool) -> Target {
    Target::new(move |stream, _| {
        if !chunked {
            return answer(stream, 200, &[FRESH], &vec![b'x'; LARGE]);
        }
        stream.write_all(b"HTTP/1.1 200 X\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for _ in 0..LARGE / (64 << 10) {
            stream.write_all(b"10000\r\n")?;
            stream.write_all(&vec![b'x'; 64 << 10])?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")
    })
}

#[test]
fn a_client_that_does_not_read_holds_no_other() {
    for chunked in [false, true] {
        let target = large(chunked);
        let gateway = gateway(target.address, "{cache: {}}");
        let mut slow = Connection::open(gateway.address());
        slow.send(head("GET", "/a", &[]));
        eventually("the first one asks", || target.count() == 1);
        let quick = gateway.get("/a");
        assert_eq!((quick.status, quick.body.len(), target.count()), (200, LARGE, 1), "chunked: {chunked}");
        assert_eq!(slow.receive().body.len(), LARGE);
        eventually("it is stored", || gateway.get("/a").header("cache-status").is_some_and(|s| s.contains("; hit")));
        let stored = gateway.get("/a");
        assert_eq!(
            (stored.body.len(), stored.header("content-length").map(str::to_owned)),
            (LARGE, Some(LARGE.to_string()))
        );
    }
}

#[test]
fn a_body_that_turns_out_too_large_is_passed_on_whole() {
    let target = large(true);
    let gateway = gateway(target.address, "{cache: {max_object: 1MiB}}");
    let mut slow = Connection::open(gateway.address());
    slow.send(head("GET", "/a", &[]));
    for _ in 0..3 {
        assert_eq!(gateway.get("/a").body.len(), LARGE);
    }
    assert_eq!(slow.receive().body.len(), LARGE);
    let again = gateway.get("/a");
    assert_eq!((again.body.len(), again.header("age")), (LARGE, None));
}

#[test]
fn what_is_not_stored_is_not_serialised() {
    let target = Target::new(|stream, _| {
        std::thread::sleep(Duration::from_millis(100));
        answer(stream, 200, &[("cache-control", "no-store")], b"the response")
    });
    let gateway = gateway(target.address, "{cache: {}}");
    assert_eq!(gateway.get("/a").status, 200);
    let began = Instant::now();
    let address = gateway.address();
    let clients: Vec<_> =
        (0..30).map(|_| std::thread::spawn(move || Connection::open(address).ask(head("GET", "/a", &[])))).collect();
    for client in clients {
        assert_eq!(client.join().expect("a client").text(), "the response");
    }
    // One after the other they would take three seconds.
    assert!(began.elapsed() < Duration::from_millis(1_500), "took {:?}", began.elapsed());
    assert_eq!(target.count(), 31);
}

#[test]
fn stale_while_one_refreshes_also_for_http2() {
    let count = AtomicUsize::new(0);
    let target = Target::new(move |stream, seen| {
        let number = count.fetch_add(1, Ordering::AcqRel) + 1;
        let age = if number == 1 { "90" } else { "0" };
        assert_eq!(seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count(), 1);
        let fields = [("cache-control", "max-age=60, stale-while-revalidate=600"), ("age", age)];
        answer(stream, 200, &fields, b"the response")
    });
    let gateway = gateway(target.address, "{cache: {}}");
    let sent = Arc::new(AtomicUsize::new(0));
    assert_eq!(block(ask_many(gateway.address(), 1, 1, Arc::clone(&sent))), 1);
    assert_eq!(block(ask_many(gateway.address(), 1, 1, sent)), 1, "it gets the stale one");
    eventually("it is refreshed", || target.count() == 2);
    eventually("the fresh one is served", || {
        let found = Connection::open(gateway.address()).ask("GET /a HTTP/1.1\r\nhost: a.test\r\n\r\n");
        found.header("age") == Some("0") && found.header("cache-status").is_some_and(|status| status.contains("; hit"))
    });
    assert_eq!(target.count(), 2);
}

#[test]
fn a_stale_response_when_no_target_is_there() {
    let target = Target::fixed(200, &[("cache-control", "max-age=60, stale-if-error=600"), ("age", "90")], b"old");
    let gateway = gateway(target.address, "{cache: {}}");
    assert_eq!(gateway.get("/a").text(), "old");
    drop(target);
    eventually("the target is gone", || {
        let found = gateway.get("/a");
        assert_eq!((found.status, found.text().as_str()), (200, "old"));
        found.header("cache-status") == Some("portcullis; fwd=stale; detail=stale-if-error")
    });
    assert_eq!(gateway.get("/b").status, 502);
}

#[test]
fn filters_hold_for_every_hit() {
    let target = Target::fixed(
        200,
        &[FRESH, ("content-type", "application/json"), ("etag", "\"a\"")],
        br#"{"name":"Ada","ssn":"078-05-1120"}"#,
    );
    let gateway = gateway(
        target.address,
        "{api_key: {}}, {rate_limit: {limit: 4/h, by: consumer}}, {strip_fields: {response: [ssn]}}, \
         {cache: {key: {consumer: false}}}",
    );
    let ask = |key: &str, more: &[(&str, &str)]| {
        let fields: Vec<(&str, &str)> = [("x-api-key", key)].into_iter().chain(more.iter().copied()).collect();
        gateway.request("GET", "/a", &fields)
    };
    assert_eq!(gateway.get("/a").status, 401);
    let ann = "key-of-ann-0123456789";
    for _ in 0..3 {
        assert_eq!(ask(ann, &[]).text(), r#"{"name":"Ada"}"#);
    }
    let part = ask(ann, &[("range", "bytes=0-3")]);
    assert_eq!((part.status, part.text().as_str()), (200, r#"{"name":"Ada"}"#), "a changed body has no ranges");
    assert_eq!(ask(ann, &[]).status, 429);
    assert_eq!(gateway.get("/a").status, 401, "what is cached is not for everybody");
    assert_eq!(ask("key-of-bob-0123456789", &[]).status, 200);
    assert_eq!(target.count(), 1);
}

#[test]
fn each_consumer_has_its_own() {
    let target = Target::new(|stream, seen| {
        let name = seen
            .headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("x-consumer"))
            .map(|(_, v)| v.clone())
            .unwrap_or_default();
        answer(stream, 200, &[("cache-control", "private, max-age=60")], name.as_bytes())
    });
    let gateway = gateway(target.address, "{api_key: {}}, {cache: {key: {consumer: true}}}");
    for _ in 0..2 {
        for name in ["ann", "bob"] {
            let key = format!("key-of-{name}-0123456789");
            assert_eq!(gateway.request("GET", "/a", &[("x-api-key", &key)]).text(), name);
        }
    }
    assert_eq!(target.count(), 2);
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let target = large(true);
    let gateway = gateway(target.address, "{cache: {}}");
    for _ in 0..2 {
        let mut old = Connection::open(gateway.address());
        old.send("GET /a HTTP/1.0\r\nhost: a.test\r\n\r\n");
        let response = old.receive();
        assert_eq!((response.header("transfer-encoding"), response.body.len()), (None, LARGE));
    }
}

#[test]
fn hits_cost_the_upstream_nothing_and_are_counted() {
    let target = Target::fixed(200, &[FRESH], b"one");
    let gateway = gateway(target.address, "{cache: {}}");
    for _ in 0..3 {
        assert_eq!(gateway.get("/a").status, 200);
    }
    assert_eq!(gateway.request("POST", "/a", &[("content-length", "0")]).status, 200);
    // What is logged is counted.
    let lines = gateway.access_log(4);
    let outcome =
        |word: &str| gateway.metric(&format!("portcullis_cache_requests_total{{outcome=\"{word}\",route=\"all\"}}"));
    assert_eq!((outcome("hit"), outcome("miss"), outcome("bypass"), outcome("stale")), (2.0, 1.0, 1.0, 0.0));
    let upstream = "portcullis_upstream_requests_total{status=\"2xx\",upstream=\"one\"}";
    assert_eq!(gateway.metric(upstream), 2.0);
    // Requests on different connections are logged in any order.
    let fields = |outcome: &str| {
        let line = lines.iter().find(|line| line["cache"] == outcome).expect("a line");
        [line["reason"].as_str(), line["upstream"].as_str()]
    };
    assert_eq!(fields("miss"), [Some("forwarded"), Some("one")]);
    assert_eq!(fields("hit"), [Some("cached"), None]);
}

/// A target that speaks HTTP/2 and counts its requests.
fn http2_target(count: Arc<AtomicUsize>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        block(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        count.fetch_add(1, Ordering::AcqRel);
                        let has_condition = request.headers().contains_key("if-none-match");
                        let status = if has_condition { 304 } else { 200 };
                        let head = http::Response::builder().status(status).header("etag", "\"a\"");
                        let head = head.header("cache-control", "max-age=60").header("vary", "x-a").body(());
                        let mut body = respond.send_response(head.expect("a head"), has_condition).expect("sent");
                        if !has_condition {
                            body.send_data("the response".into(), true).expect("sent");
                        }
                    }
                });
            }
        });
    });
    address
}

#[test]
fn http2_on_both_sides_and_http_1_0() {
    let count = Arc::new(AtomicUsize::new(0));
    let address = http2_target(Arc::clone(&count));
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{address}\"], protocol: http2}}}}
routes: [{{name: all, filters: [{{cache: {{}}}}], action: {{forward: one}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]"
    ));
    let sent = Arc::new(AtomicUsize::new(0));
    assert_eq!(block(ask_many(gateway.address(), 2, 5, sent)), 10);
    let old = Connection::open(gateway.address()).ask("GET /a HTTP/1.0\r\nhost: a.test\r\n\r\n");
    assert_eq!((old.status, old.text().as_str(), old.header("transfer-encoding")), (200, "the response", None));
    assert_eq!(count.load(Ordering::Acquire), 1);
    let fresh = "GET /a HTTP/1.1\r\nhost: a.test\r\ncache-control: no-cache\r\n\r\n";
    let confirmed = Connection::open(gateway.address()).ask(fresh);
    assert_eq!((confirmed.status, confirmed.text().as_str()), (200, "the response"));
    assert_eq!(confirmed.header("cache-status"), Some("portcullis; fwd=request; fwd-status=304; stored"));
    assert_eq!(count.load(Ordering::Acquire), 2);
}

#[test]
fn an_aggregated_response_is_made_once() {
    let target = Target::new(|stream, seen| {
        let fields = [("content-type", "application/json")];
        let body = format!("{{\"path\":\"{}\"}}", seen.target);
        answer(stream, if seen.target == "/broken" { 500 } else { 200 }, &fields, body.as_bytes())
    });
    let call = |name: &str, path: &str| format!("{{name: {name}, upstream: one, path: {path}, required: false}}");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], retry: {{attempts: 1}}}}}}
routes:
- name: whole
  match: {{path: /whole}}
  filters: [{{cache: {{ttl: {{default: 60s}}}}}}]
  action: {{aggregate: {{calls: [{}, {}]}}}}
- name: part
  match: {{path: /part}}
  filters: [{{cache: {{ttl: {{default: 60s}}}}}}]
  action: {{aggregate: {{calls: [{}, {}]}}}}",
        target.address,
        call("a", "/one"),
        call("b", "/two"),
        call("a", "/one"),
        call("b", "/broken"),
    ));
    let first = gateway.get("/whole");
    assert_eq!(first.header("cache-status"), Some("portcullis; fwd=uri-miss; stored"));
    let second = gateway.get("/whole");
    assert_eq!((second.status, second.text()), (200, first.text()));
    assert!(second.header("cache-status").is_some_and(|status| status.starts_with("portcullis; hit")));
    assert_eq!(target.count(), 2);
    // What lacks a part now may have it with the next request.
    for asked in [4, 6] {
        assert_eq!(gateway.get("/part").header("cache-status"), Some("portcullis; fwd=uri-miss; detail=no-store"));
        assert_eq!(target.count(), asked);
    }
}
