//! Streams pass as they come: events, large bodies, 100-continue, early ends.

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::Target;

fn forwarding(target: &Target, route: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, {route} action: {{forward: one}}}}]",
        target.address
    ))
}

#[test]
fn events_pass_one_by_one_also_through_filters() {
    let (send, next) = channel::<&'static str>();
    let next = std::sync::Mutex::new(next);
    let target = Target::new(move |stream, seen| {
        let kind = if seen.target == "/json" { "application/x-ndjson" } else { "text/event-stream" };
        stream.write_all(
            format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n").as_bytes(),
        )?;
        let next = next.lock().expect("the gate");
        while let Ok(event) = next.recv_timeout(Duration::from_secs(20)) {
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            if event.is_empty() {
                return stream.write_all(b"\r\n");
            }
        }
        Ok(())
    });
    let gateway = forwarding(&target, "filters: [{strip_fields: {response: [secret]}}],");
    for (path, events) in
        [("/", ["data: one\n\n", "data: two\n\n"]), ("/json", ["{\"a\":1,\"secret\":2}\n", "{\"secret\":3,\"b\":4}\n"])]
    {
        let mut connection = Connection::open(gateway.address());
        connection.send(head("GET", path, &[]));
        for event in events {
            send.send(event).expect("sent");
            // The event arrives although the next one has not been sent: nothing is held back.
            let mut seen = String::new();
            while !seen.contains('\n') || !(seen.contains("data: ") || seen.contains('}')) {
                seen.push_str(&String::from_utf8_lossy(&connection.some().expect("an event")));
            }
            assert!(!seen.contains("secret"), "{seen}");
        }
        send.send("").expect("sent");
        connection.rest_of_chunks();
    }
}

impl Connection {
    fn rest_of_chunks(&mut self) {
        let mut seen = Vec::new();
        while !seen.ends_with(b"0\r\n\r\n") {
            seen.extend(self.some().expect("the end"));
        }
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    let size = 24 << 20;
    let target = Target::new(|stream, seen| {
        let sum: u64 = seen.body.iter().map(|b| u64::from(*b)).sum();
        let body = [sum.to_string().into_bytes(), vec![b'.'; seen.body.len()]].concat();
        super::harness::target::answer(stream, 200, &[], &body)
    });
    let gateway = forwarding(&target, "");
    let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
    let sum: u64 = body.iter().map(|b| u64::from(*b)).sum();
    let mut connection = Connection::open(gateway.address());
    let mut writer = connection.stream.try_clone().expect("a handle");
    let upload = std::thread::spawn(move || {
        writer.write_all(head("POST", "/", &[("content-length", &size.to_string())]).as_bytes()).expect("sent");
        writer.write_all(&body).expect("sent");
    });
    let answer = connection.receive();
    upload.join().expect("uploaded");
    assert_eq!(answer.body.len(), size + sum.to_string().len());
    assert!(answer.body.starts_with(sum.to_string().as_bytes()));
}

#[test]
fn a_continue_passes() {
    let target = Target::echo("a");
    let gateway = forwarding(&target, "");
    let mut connection = Connection::open(gateway.address());
    connection.send(head("POST", "/", &[("content-length", "5"), ("expect", "100-continue")]));
    assert_eq!(connection.receive().status, 100);
    connection.send("hello");
    let answer = connection.receive();
    assert_eq!((answer.json()["body"].as_str(), answer.header("connection")), (Some("hello"), Some("keep-alive")));
    // And the connection goes on.
    assert_eq!(connection.ask(head("GET", "/next", &[])).status, 200);
}

#[test]
fn a_body_that_ends_early_is_not_passed_off_as_whole() {
    let target = Target::named("short", "short");
    let gateway = forwarding(&target, "");
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]));
    assert!(connection.try_receive(false).is_err(), "the client was told that it is whole");
    assert_eq!(gateway.access_log(1)[0]["reason"], "target_reset");
}

#[test]
fn chunked_bodies_over_the_limit_are_refused() {
    let target = Target::echo("a");
    let gateway = forwarding(&target, "body: 10B,");
    let mut connection = Connection::open(gateway.address());
    connection
        .send(head("POST", "/", &[("transfer-encoding", "chunked")]) + "8\r\n01234567\r\n8\r\n01234567\r\n0\r\n\r\n");
    let answer = connection.receive();
    assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"));
}

#[test]
fn http_1_0_clients_are_served() {
    let target = Target::echo("a");
    let gateway = forwarding(&target, "filters: [{strip_fields: {response: [body]}}],");
    let mut connection = Connection::open(gateway.address());
    let answer = connection.ask("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks");
    assert_eq!(answer.json()["target"], "/old");
    assert_eq!(answer.json()["headers"]["host"], target.address.to_string());
}

#[test]
fn encoded_answers_are_decoded_to_be_stripped_or_refused() {
    // printf '{"a":1,"ssn":2}' | gzip -n
    const GZIP: &[u8] = &[
        0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03, 0xab, 0x56, 0x4a, 0x54, 0xb2, 0x32, 0xd4, 0x51, 0x2a, 0x2e, 0xce,
        0x53, 0xb2, 0x32, 0xaa, 0x05, 0, 0x88, 0x49, 0x4b, 0, 0x0f, 0, 0, 0,
    ];
    let encoded = Target::fixed(200, &[("content-type", "application/json"), ("content-encoding", "gzip")], GZIP);
    let gateway = forwarding(&encoded, "filters: [{strip_fields: {response: [ssn]}}],");
    let answer = gateway.request("GET", "/", &[("accept-encoding", "gzip")]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"a\":1}"));
    assert_eq!(answer.header("content-encoding"), None);
    let unknown = Target::fixed(200, &[("content-type", "application/json"), ("content-encoding", "x-own")], b"????");
    let gateway = forwarding(&unknown, "filters: [{strip_fields: {response: [ssn]}}],");
    assert_eq!(gateway.get("/").reason(), "response_opaque");
    // Without the filter an encoded answer passes as it is.
    let gateway = forwarding(&encoded, "");
    assert_eq!(gateway.request("GET", "/", &[("accept-encoding", "gzip")]).body, GZIP);
}
