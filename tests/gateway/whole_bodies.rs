//! Request bodies that a filter has to see whole, and that go on as they came.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::Request;
use serde_json::Value;

use super::harness::client::Connection;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, refused};

const PROTOCOLS: &str =
    "\nlisteners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2], limits: {body: 64MiB}}]";

fn checking(upstream: &str, more: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{{upstream}}}}}\nroutes: [{{name: all, filters: [{{json_limits: {{max_size: 32MiB, max_depth: 3, max_text: 33554432}}}}], action: {{forward: {{upstream: one{more}}}}}}}]{PROTOCOLS}"
    ))
}

/// A JSON text of that many bytes.
fn text(length: usize) -> Vec<u8> {
    let mut text = vec![b'"'];
    text.extend((0..length - 2).map(|at| b'a' + (at % 23) as u8));
    text.push(b'"');
    text
}

/// What the echo says of a body: its length, and whether it is what was sent.
fn is_same(answer: &Value, sent: &[u8]) -> bool {
    answer["length"] == sent.len() && answer["body"].as_str().map(str::as_bytes) == Some(sent)
}

fn post(length: Option<usize>, extra: &str) -> String {
    let framing =
        length.map_or_else(|| "transfer-encoding: chunked".to_owned(), |length| format!("content-length: {length}"));
    format!("POST /p HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{extra}{framing}\r\n\r\n")
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in body.chunks(10_000) {
        out.extend(format!("{:x}\r\n", part.len()).bytes());
        out.extend_from_slice(part);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\n\r\n");
    out
}

/// One request over h2c, its body in many parts.
fn over_http2(gateway: &Gateway, body: &[u8]) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = gateway.address();
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let request = Request::post(format!("http://{address}/p"))
            .header("content-type", "application/json")
            .body(())
            .expect("a request");
        let (answer, mut send) = client.send_request(request, false).expect("sent");
        let mut parts = body.chunks(9_000).peekable();
        while let Some(part) = parts.next() {
            send.reserve_capacity(part.len());
            while send.capacity() < part.len() {
                if std::future::poll_fn(|context| send.poll_capacity(context)).await.is_none() {
                    break;
                }
            }
            if send.send_data(Bytes::copy_from_slice(part), parts.peek().is_none()).is_err() {
                break;
            }
        }
        let (head, mut stream) = answer.await.expect("an answer").into_parts();
        let mut all = Vec::new();
        while let Some(part) = stream.data().await {
            let part = part.expect("a part");
            let _ = stream.flow_control().release_capacity(part.len());
            all.extend_from_slice(&part);
        }
        (head.status.as_u16(), serde_json::from_slice(&all).expect("JSON"))
    })
}

#[test]
fn they_go_on_unchanged_at_any_size_between_all_protocols() {
    let target = Target::echo("a");
    let plain = checking(&format!("targets: [\"{}\"]", target.address), "");
    // Its target speaks HTTP/2: the gateway before it.
    let second = checking(&format!("targets: [\"{}\"], protocol: http2", plain.address()), "");
    for gateway in [&plain, &second] {
        let mut connection = Connection::open(gateway.address());
        for length in [2, 300, 30_000, 200_000, 3_000_000] {
            let body = text(length);
            let answer = connection.ask([post(Some(length), "").into_bytes(), body.clone()].concat());
            assert!(answer.status == 200 && is_same(&answer.json(), &body), "{length} bytes: {}", answer.status);
            let answer = connection.ask([post(None, "").into_bytes(), chunked(&body)].concat());
            assert!(is_same(&answer.json(), &body), "{length} bytes in chunks, on the same connection");
            assert_eq!(answer.json()["headers"]["content-length"], length.to_string(), "the length is known");
            let (status, seen) = over_http2(gateway, &body);
            assert!(status == 200 && is_same(&seen, &body), "{length} bytes over HTTP/2");
        }
        assert_eq!(connection.ask("GET /empty HTTP/1.1\r\nhost: a\r\n\r\n").json()["length"], 0);
    }
}

#[test]
fn what_is_rejected_never_reaches_the_target_and_the_connection_lives_on() {
    let target = Target::echo("a");
    let gateway = checking(&format!("targets: [\"{}\"]", target.address), "");
    let mut connection = Connection::open(gateway.address());
    for (body, reason) in [("[[[[1]]]]", "body_invalid"), ("{\"a\":1,\"a\":2}", "body_invalid"), ("{", "body_invalid")]
    {
        let answer = connection.ask(format!("{}{body}", post(Some(body.len()), "")));
        assert_eq!((answer.status, answer.reason().as_str()), (400, reason), "{body}");
        let (status, problem) = over_http2(&gateway, body.as_bytes());
        assert_eq!((status, problem["reason"].as_str()), (400, Some(reason)), "{body}");
    }
    assert_eq!(target.count(), 0);
    assert_eq!(connection.ask(format!("{}[[[1]]]", post(Some(7), ""))).status, 200);
    // Over the size: by its length at once, in chunks as soon as that is seen.
    let small = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{json_limits: {{max_size: 1KiB}}}}], action: {{forward: one}}}}]{PROTOCOLS}",
        target.address
    ));
    assert_eq!(Connection::open(small.address()).ask(post(Some(1025), "")).status, 413);
    assert_eq!(
        Connection::open(small.address()).ask([post(None, "").into_bytes(), chunked(&text(1025))].concat()).status,
        413
    );
    assert_eq!(over_http2(&small, &text(1025)).0, 413);
    assert_eq!(target.count(), 1);
}

#[test]
fn a_client_that_waits_for_100_is_told_to_go_on() {
    let target = Target::echo("a");
    let gateway = checking(&format!("targets: [\"{}\"]", target.address), "");
    let mut connection = Connection::open(gateway.address());
    for _ in 0..2 {
        connection.send(post(Some(5), "expect: 100-continue\r\n"));
        let interim = connection.some().expect("an interim response");
        assert!(interim.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&interim));
        let answer = connection.ask("\"abc\"");
        assert!(answer.status == 200 && answer.json()["headers"]["expect"].is_null(), "{}", answer.text());
    }
    // One that is too large is told so instead.
    assert_eq!(connection.ask(post(Some(40 << 20), "expect: 100-continue\r\n")).status, 413);
}

#[test]
fn a_large_body_is_sent_again_to_another_target() {
    let (_held, dead) = refused();
    let (closing, target) = (Target::named("close", "closing"), Target::echo("a"));
    let upstream =
        format!("targets: [\"{dead}\", \"{}\", \"{}\"], retry: {{attempts: 3}}", closing.address, target.address);
    let gateway = checking(&upstream, ", retry_methods: [POST]");
    let body = text(1_000_000);
    for _ in 0..6 {
        let answer =
            Connection::open(gateway.address()).ask([post(Some(body.len()), "").into_bytes(), body.clone()].concat());
        assert!(answer.status == 200 && is_same(&answer.json(), &body), "{}", answer.status);
    }
    assert!(closing.requests.load(Ordering::Relaxed) > 0, "it was tried");
}

#[test]
fn bodies_that_are_held_have_one_budget() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{json_limits: {{}}}}], action: {{forward: one}}}}]{PROTOCOLS}\nprocess: {{threads: 2, drain_time: 10s, body_memory: 64KiB}}",
        target.address
    ));
    let ask = |length: usize| {
        Connection::open(gateway.address()).ask([post(Some(length), "").into_bytes(), text(length)].concat())
    };
    assert_eq!(ask(60_000).status, 200);
    // What another request holds counts as well, until it has gone. It may itself come while there is no room.
    let hold = || {
        let mut holding = Connection::open(gateway.address());
        holding.send([post(Some(60_001), "").into_bytes(), vec![b' '; 60_000]].concat());
        holding
    };
    let mut holding = hold();
    super::harness::eventually("the first part is held", || {
        let answer = ask(10_000);
        let rejected = answer.status == 503;
        assert!(!rejected || (answer.reason() == "buffers_full" && answer.header("retry-after") == Some("1")));
        if !rejected {
            holding = hold();
        }
        rejected
    });
    drop(holding);
    super::harness::eventually("it is given back", || ask(60_000).status == 200);
}

#[test]
fn an_empty_body_in_chunks_is_an_empty_body() {
    let target = Target::echo("a");
    let plain = checking(&format!("targets: [\"{}\"]", target.address), "");
    let second = checking(&format!("targets: [\"{}\"], protocol: http2", plain.address()), "");
    let hedged =
        checking(&format!("targets: [\"{}\"], protocol: http2, retry: {{hedge_after: 1s}}", plain.address()), "");
    for gateway in [&plain, &second, &hedged] {
        let mut connection = Connection::open(gateway.address());
        for method in ["POST", "PUT", "DELETE"] {
            let request = post(None, "").replacen("POST", method, 1);
            let answer = connection.ask(format!("{request}0\r\n\r\n"));
            assert_eq!((answer.status, answer.json()["length"].as_u64()), (200, Some(0)), "{method}");
        }
    }
}

#[test]
fn a_body_that_can_never_be_held_is_too_large() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{json_limits: {{}}}}], action: {{forward: one}}}}]{PROTOCOLS}\nprocess: {{threads: 2, drain_time: 10s, body_memory: 4KiB}}",
        target.address
    ));
    let ask = |length: usize| {
        Connection::open(gateway.address()).ask([post(Some(length), "").into_bytes(), text(length)].concat())
    };
    assert_eq!((ask(4_000).status, ask(5_000).status), (200, 413));
}
