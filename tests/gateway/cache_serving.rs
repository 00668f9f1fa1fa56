//! How what is stored is served: what filters see of it, parts as they come, and clients that leave or wait.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

const FRESH: (&str, &str) = ("cache-control", "max-age=60");

fn gateway(address: SocketAddr, upstream: &str, filters: &str, action: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{address}\"], retry: {{attempts: 1}}, {upstream}}}}}
routes: [{{name: all, filters: [{filters}], action: {{{action}}}}}]
listeners: [{{name: main, address: 127.0.0.1:0}}]"
    ))
}

/// Waits until the gate opens.
fn wait_for(gate: &AtomicBool) {
    while !gate.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_client_cannot_switch_off_a_step_by_a_range_or_a_condition() {
    let target = Target::new(|stream, _| {
        answer(stream, 200, &[FRESH, ("etag", "\"1\""), ("content-type", "application/json")], br#"{"ssn":1,"a":2}"#)
    });
    let steps = "{transform: {response: [{when: response.status == 200, json: {remove: [ssn]}}]}}";
    let gateway = gateway(target.address, "", &format!("{{cache: {{}}}}, {steps}"), "forward: one");
    for _ in 0..2 {
        let part = gateway.request("GET", "/a", &[("range", "bytes=0-9")]);
        assert_eq!((part.status, part.text().as_str()), (200, r#"{"a":2}"#));
    }
    assert_eq!(gateway.request("GET", "/a", &[("if-none-match", "\"1\"")]).status, 304);
}

#[test]
fn a_status_that_a_filter_sets_is_no_304() {
    let target = Target::new(|stream, _| answer(stream, 200, &[FRESH, ("etag", "\"1\"")], b"text"));
    let steps = "{transform: {response: [{status: {\"200\": 203}}]}}";
    let gateway = gateway(target.address, "", &format!("{{cache: {{}}}}, {steps}"), "forward: one");
    for _ in 0..2 {
        let answer = gateway.request("GET", "/a", &[("if-none-match", "\"1\"")]);
        assert_eq!((answer.status, answer.text().as_str()), (203, "text"));
    }
}

#[test]
fn the_patience_of_one_client_is_not_that_of_all() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let target = Target::new(move |stream, _| {
        wait_for(&gate);
        answer(stream, 200, &[FRESH], b"text")
    });
    let action = "forward: {upstream: one, deadline_header: x-wait}";
    let gateway = gateway(target.address, "", "{cache: {lock_timeout: 30s}}", action);
    let mut impatient = Connection::open(gateway.address());
    impatient.send(head("GET", "/a", &[("x-wait", "1s")]));
    eventually("the first one asks", || target.count() == 1);
    let mut patient = Connection::open(gateway.address());
    patient.send(head("GET", "/a", &[]));
    assert_eq!(impatient.receive().status, 504);
    open.store(true, Ordering::Release);
    assert_eq!((patient.receive().text().as_str(), target.count()), ("text", 1));
}

#[test]
fn parts_are_sent_as_they_come() {
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let target = Target::new(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 8\r\n\r\nfour")?;
        wait_for(&gate);
        stream.write_all(b"more")
    });
    let gateway = gateway(target.address, "", "{cache: {}}", "forward: one");
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/a", &[]));
    let mut came = Vec::new();
    while !came.ends_with(b"four") {
        came.extend(client.some().expect("the first part"));
    }
    open.store(true, Ordering::Release);
    assert_eq!(client.some().expect("the rest"), b"more");
}

#[test]
fn nobody_waits_for_a_target_that_hangs_within_a_body() {
    let first = AtomicBool::new(true);
    let target = Target::new(move |stream, _| {
        if !first.swap(false, Ordering::AcqRel) {
            return answer(stream, 200, &[FRESH], b"text");
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 8\r\n\r\n")?;
        std::thread::sleep(Duration::from_secs(30));
        Ok(())
    });
    let gateway = gateway(target.address, "", "{cache: {lock_timeout: 100ms}}", "forward: one");
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/a", &[]));
    assert!(client.some().expect("a head").starts_with(b"HTTP/1.1 200"));
    let other = gateway.get("/a");
    let said = other.header("cache-status").map(str::to_owned);
    assert_eq!(
        (other.text().as_str(), said.as_deref()),
        ("text", Some("portcullis; fwd=uri-miss; detail=lock-timeout"))
    );
}

#[test]
fn a_fetch_without_a_response_ends_with_the_last_who_waits_for_it() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&begun), Arc::clone(&ended));
    let target = Target::new(move |stream, _| {
        use std::io::Read;
        counts.0.fetch_add(1, Ordering::AcqRel);
        let _ = stream.read(&mut [0]);
        counts.1.fetch_add(1, Ordering::AcqRel);
        Ok(())
    });
    let gateway = gateway(target.address, "", "{cache: {}}", "forward: one");
    for number in 0..8 {
        let mut client = Connection::open(gateway.address());
        client.send(head("GET", &format!("/{number}"), &[]));
        eventually("it is sent", || begun.load(Ordering::Acquire) == number + 1);
        drop(client);
        eventually("it ends", || ended.load(Ordering::Acquire) == number + 1);
    }
}

#[test]
fn a_range_of_what_is_not_stored_is_for_the_target() {
    let target =
        Target::new(|stream, seen| match seen.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("range")) {
            true => answer(stream, 206, &[("content-range", "bytes 0-0/5000")], b"x"),
            false => answer(stream, 200, &[FRESH], &[b'x'; 5_000]),
        });
    let gateway = gateway(target.address, "", "{cache: {max_object: 1KiB}}", "forward: one");
    assert_eq!(gateway.get("/a").body.len(), 5_000);
    let part = gateway.request("GET", "/a", &[("range", "bytes=0-0")]);
    assert_eq!((part.status, part.text().as_str()), (206, "x"));
}

#[test]
fn edits_of_a_share_and_the_session_are_for_the_client_that_was_sent_there() {
    let target = Target::new(|stream, _| answer(stream, 200, &[FRESH], b"text"));
    let share = "{upstream: one, weight: 1, response: {set: {x-share: one}}}";
    let split = format!("forward: {{split: [{share}, {share}]}}");
    let gateway = gateway(target.address, "sticky: {cookie: {name: at}}", "{cache: {}}", &split);
    let first = gateway.get("/a");
    assert_eq!(first.header("x-share"), Some("one"));
    assert!(first.header("set-cookie").is_some_and(|cookie| cookie.starts_with("at=")));
    let second = gateway.get("/a");
    assert_eq!((second.header("x-share"), second.header("set-cookie")), (None, None));
}
