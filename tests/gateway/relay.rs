//! Responses that the gateway's own relay passes on, and rejections at the upstream.

use std::io::{Read, Write};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;
use super::http2::grpc_target;
use super::websocket::{UPGRADE, reflecting};

#[test]
fn a_handshake_is_tried_again_as_any_request() {
    let (busy, well) = (Target::fixed(503, &[], b"busy"), reflecting());
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\", \"{}\"], retry: {{statuses: 502-504}}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]",
        busy.address, well.address
    ));
    for _ in 0..4 {
        assert_eq!(Connection::open(gateway.address()).ask(head("GET", "/", UPGRADE)).status, 101);
    }
    assert!(busy.count() > 0);
    assert!(gateway.metric("portcullis_upstream_retries_total{outcome=\"begun\",upstream=\"one\"}") >= 1.0);
}

#[test]
fn a_declined_handshake_keeps_to_the_deadline_of_its_route() {
    let target = Target::new(|stream, _| {
        stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 10\r\n\r\nonly")?;
        // Until the gateway lets go.
        let _ = stream.read(&mut [0]);
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: {{upstream: one, timeout: 300ms}}}}}}]",
        target.address
    ));
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", UPGRADE));
    assert!(connection.try_receive(false).is_err(), "it is broken off");
    let line = &gateway.access_log(1)[0];
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(403), Some("route_timeout")));
}

#[test]
fn a_rejection_at_the_upstream_keeps_the_connection() {
    let target = Target::named("echo", "a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], limits: {{requests: 1, pending: 0}}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]",
        target.address
    ));
    let mut first = Connection::open(gateway.address());
    first.send(head("GET", "/hold", &[]));
    eventually("the first request is under way", || target.count() == 1);
    let mut second = Connection::open(gateway.address());
    for _ in 0..3 {
        let rejected = second.ask(head("GET", "/", &[]));
        assert_eq!((rejected.status, rejected.reason().as_str()), (503, "overloaded"));
        // A handshake is rejected as any request.
        assert_eq!(Connection::open(gateway.address()).ask(head("GET", "/", UPGRADE)).reason(), "overloaded");
    }
    target.release();
    assert_eq!(first.receive().status, 200);
    let mut status = 0;
    eventually("there is room again", || {
        status = second.ask(head("GET", "/", &[])).status;
        status == 200
    });
}

#[test]
fn a_body_that_is_held_whole_is_relayed() {
    // A client of HTTP/1.0 knows no chunks, and Pingora's proxy would send the response of this target in chunks.
    let filters = "filters: [{json_limits: {}}]";
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], protocol: http2}}}}\nroutes: [{{name: all, {filters}, action: {{forward: one}}}}]",
        grpc_target()
    ));
    let json = format!("{{\"a\": \"{}\"}}", "x".repeat(200_000));
    let mut connection = Connection::open(gateway.address());
    connection.send(format!(
        "POST / HTTP/1.0\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{json}",
        json.len()
    ));
    let mut all = Vec::new();
    connection.stream.read_to_end(&mut all).expect("a response");
    let text = String::from_utf8(all).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("ransfer-"), "{head}");
    assert!(body == json, "{} bytes", body.len());
}
