//! gRPC-Web before targets that speak gRPC.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::harness::client::{Answer, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::grpc::{GrpcTarget, frame, frames};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text";

fn config(target: SocketAddr, route: &str, forward: &str) -> String {
    format!(
        "upstreams: {{one: {{targets: [\"{target}\"], protocol: http2, retry: {{attempts: 1}}}}}}
routes: [{{name: web, match: {{path: /test.Service/*}}{route}, action: {{forward: {{upstream: one{forward}, \
         translate: [{{grpc_web_to_grpc: {{}}}}]}}}}}}]
consumers: {{a: {{credentials: [{{api_key: {{value: key-of-a}}}}]}}}}
"
    )
}

fn gateway(target: &GrpcTarget) -> Gateway {
    Gateway::start(&config(target.address, "", ""))
}

fn post(path: &str, kind: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let own = [("content-type", kind), ("content-length", &length), ("x-grpc-web", "1")];
    let mut request = head("POST", path, &[&own[..], headers].concat()).into_bytes();
    request.extend(body);
    request
}

#[track_caller]
fn call(gateway: &Gateway, path: &str, kind: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Connection::open(gateway.address()).ask(post(path, kind, headers, body))
}

/// The messages, and the trailers.
#[track_caller]
fn read(body: &[u8]) -> (Vec<String>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut frames = frames(body);
    let (flags, trailers) = frames.pop().unwrap_or_else(|| panic!("no frame: {body:?}"));
    assert_eq!(flags, 0x80, "{frames:?}");
    assert!(frames.iter().all(|(flags, _)| *flags == 0), "{frames:?}");
    (frames.iter().map(|(_, message)| text(message)).collect(), text(&trailers))
}

/// Decodes base64 that is padded anywhere.
#[track_caller]
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|four| STANDARD.decode(four).expect("base64")).collect()
}

#[test]
fn calls_in_both_forms() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let message = frame(0, b"hello");
    let answer = call(&gateway, "/test.Service/Echo", BINARY, &[("x-mine", "1")], &message);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(BINARY)));
    assert_eq!(answer.header("x-initial"), Some("first"));
    let (messages, trailers) = read(&answer.body);
    assert_eq!(messages, ["hello"]);
    assert_eq!(trailers, "grpc-status: 0\r\nx-trailer: last\r\nx-raw-bin: AP8\r\n");
    let called = target.last();
    let field = |name: &str| called.headers.get(name).map(|v| v.to_str().expect("text"));
    assert_eq!((called.path.as_str(), &called.body), ("/test.Service/Echo", &message));
    assert_eq!((field("content-type"), field("te")), (Some("application/grpc+proto"), Some("trailers")));
    assert_eq!((field("x-grpc-web"), field("x-mine")), (None, Some("1")));

    let answer = call(&gateway, "/test.Service/Echo", TEXT, &[], STANDARD.encode(&message).as_bytes());
    assert_eq!(answer.header("content-type"), Some("application/grpc-web-text+proto"));
    assert_eq!(read(&decoded(&answer.body)).0, ["hello"]);
    assert_eq!(target.last().body, message);

    let log = gateway.access_log(2);
    let line = &log[0];
    assert_eq!(line["operation"], "test.Service/Echo", "{line}");
    assert_eq!((&line["target_status"], &line["reason"]), (&"OK".into(), &"forwarded".into()), "{line}");
    let series = "portcullis_translated_requests_total{from=\"grpc_web\",route=\"web\",to=\"grpc\"}";
    eventually("both are counted", || gateway.metric(series) > 1.5);
}

#[test]
fn the_format_of_messages_is_kept() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    for (kind, sent, got) in [
        ("application/grpc-web", "application/grpc+proto", "application/grpc-web+proto"),
        ("application/grpc-web+json", "application/grpc+json", "application/grpc-web+json"),
        ("application/grpc-web-text+thrift; x=y", "application/grpc+thrift", "application/grpc-web-text+thrift"),
    ] {
        let answer = call(&gateway, "/test.Service/Echo", kind, &[], b"");
        assert_eq!(answer.header("content-type"), Some(got));
        assert_eq!(target.last().headers["content-type"], sent);
    }
}

#[test]
fn the_response_is_in_the_form_that_is_accepted() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let message = frame(0, b"hello");
    let answer = call(&gateway, "/test.Service/Echo", BINARY, &[("accept", TEXT)], &message);
    assert_eq!(answer.header("content-type"), Some("application/grpc-web-text+proto"));
    assert_eq!(read(&decoded(&answer.body)).0, ["hello"]);
    let text = STANDARD.encode(&message);
    let answer = call(&gateway, "/test.Service/Echo", TEXT, &[("accept", BINARY)], text.as_bytes());
    assert_eq!(answer.header("content-type"), Some(BINARY));
    assert_eq!(read(&answer.body).0, ["hello"]);
}

#[test]
fn text_may_be_padded_anywhere_and_come_in_any_parts() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let bytes = [frame(0, b"one"), frame(0, b"twenty-two"), frame(0, b"")].concat();
    for size in 1..=bytes.len() {
        let text: String = bytes.chunks(size).map(|part| STANDARD.encode(part)).collect();
        let mut connection = Connection::open(gateway.address());
        let fields = [("content-type", TEXT), ("transfer-encoding", "chunked"), ("accept", BINARY)];
        connection.send(head("POST", "/test.Service/Echo", &fields));
        for part in text.as_bytes().chunks(size % 5 + 1) {
            connection.send(format!("{:x}\r\n{}\r\n", part.len(), String::from_utf8_lossy(part)));
        }
        connection.send("0\r\n\r\n");
        assert_eq!(read(&connection.receive().body).0, ["one", "twenty-two", ""], "{size}");
        assert_eq!(target.last().body, bytes, "{size}");
    }
}

#[test]
fn messages_of_a_stream_are_passed_on_as_they_come() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    for kind in [BINARY, TEXT] {
        let mut connection = Connection::open(gateway.address());
        connection.send(post("/test.Service/Step", kind, &[], b""));
        for number in 0..3 {
            let wanted = format!("step {number}");
            let text = STANDARD.encode(frame(0, wanted.as_bytes()));
            connection.pass(if kind == TEXT { text.as_bytes() } else { wanted.as_bytes() });
            target.step.notify_one();
        }
        connection.pass(if kind == TEXT { &b"gAAAA"[..] } else { b"grpc-status: 0" });
    }
}

#[test]
fn a_status_without_messages_is_in_head_and_body() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    for (method, status, message, logged) in [
        ("Fail", "9", "no %E2%98%BA", "FAILED_PRECONDITION"),
        ("Http", "12", "the target responded with the HTTP status 404", "UNIMPLEMENTED"),
    ] {
        let answer = call(&gateway, &format!("/test.Service/{method}"), BINARY, &[], b"");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(BINARY)), "{method}");
        assert_eq!(answer.header("grpc-status"), Some(status), "{method}");
        assert_eq!(answer.header("grpc-message"), Some(message), "{method}");
        let trailers = format!("grpc-status: {status}\r\ngrpc-message: {message}\r\n");
        assert_eq!(read(&answer.body), (Vec::new(), trailers), "{method}");
        eventually("the status is logged", || gateway.access_log(1).iter().any(|line| line["target_status"] == logged));
    }
    assert_eq!(call(&gateway, "/test.Service/Fail", BINARY, &[], b"").header("x-fail"), Some("yes"));
}

#[test]
fn success_without_messages_is_in_the_body_alone() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    for kind in [BINARY, TEXT] {
        let answer = call(&gateway, "/test.Service/Done", kind, &[], b"");
        assert_eq!((answer.status, answer.header("x-done")), (200, Some("yes")), "{kind}");
        assert_eq!((answer.header("grpc-status"), answer.header("grpc-message")), (None, None), "{kind}");
        let body = if kind == TEXT { decoded(&answer.body) } else { answer.body };
        assert_eq!(read(&body), (Vec::new(), "grpc-status: 0\r\ngrpc-message: \r\n".to_owned()), "{kind}");
    }
    eventually("the status is logged", || gateway.access_log(2).iter().all(|line| line["target_status"] == "OK"));
}

#[test]
fn a_status_behind_messages_is_in_the_trailers() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let answer = call(&gateway, "/test.Service/FailLate", BINARY, &[], b"");
    let (messages, trailers) = read(&answer.body);
    assert_eq!(messages, ["before"]);
    assert!(trailers.starts_with("grpc-status: 5\r\ngrpc-message: late\r\nx-trailer: last\r\n"), "{trailers}");
    assert!(trailers.contains("grpc-status-details-bin: CAUSBGxhdGU"), "{trailers}");
    let (messages, trailers) = read(&call(&gateway, "/test.Service/NoStatus", BINARY, &[], b"").body);
    assert_eq!(messages, ["before"]);
    assert_eq!(trailers, "grpc-status: 2\r\ngrpc-message: the target sent no status\r\n");
}

#[test]
fn what_is_malformed_is_rejected_before_a_target_gets_it() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let path = "/test.Service/Echo";
    for (kind, headers, body, status) in [
        (BINARY, &[][..], &b"\0\0\0\0"[..], 400),
        (BINARY, &[], b"\0\0\0\0\x05hell", 400),
        (BINARY, &[], b"\x80\0\0\0\0", 400),
        (TEXT, &[], b"AAAAA", 400),
        (TEXT, &[], b"AA=A", 400),
        (TEXT, &[], b"!!!!", 400),
        (BINARY, &[("grpc-timeout", "soon")], b"", 400),
        (BINARY, &[("content-encoding", "lzma")], b"x", 415),
    ] {
        let answer = call(&gateway, path, kind, headers, body);
        assert_eq!((answer.status, answer.header("grpc-status")), (status, Some("3")), "{kind} {body:?}");
        let body = if kind == TEXT { decoded(&answer.body) } else { answer.body };
        assert!(read(&body).1.starts_with("grpc-status: 3\r\ngrpc-message: "), "{kind}");
    }
    assert_eq!(target.count(), 0);
    // Another method and another type are forwarded as they are.
    assert_eq!(gateway.request("GET", path, &[("content-type", BINARY)]).status, 200);
    assert_eq!(call(&gateway, path, "application/grpc-webby", &[], b"").status, 200);
    assert_eq!(target.last().headers["content-type"], "application/grpc-webby");
}

#[test]
fn a_content_coding_of_the_body_is_decoded() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &frame(0, b"hello")).expect("packed");
    let packed = packed.finish().expect("packed");
    let answer = call(&gateway, "/test.Service/Echo", BINARY, &[("content-encoding", "gzip")], &packed);
    assert_eq!(read(&answer.body).0, ["hello"]);
    assert_eq!(target.last().headers.get("content-encoding"), None);
}

#[test]
fn a_target_that_breaks_off_between_messages_has_a_status() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/Reset", BINARY, &[], b""));
    connection.pass(b"before");
    target.step.notify_one();
    connection.pass(b"grpc-status: 14\r\ngrpc-message: The target closed the connection\r\n");
    connection.pass(b"\r\n0\r\n\r\n");
    assert_eq!(gateway.access_log(1)[0]["reason"], "target_reset");
    // Within a message no frame can follow: the response is broken off.
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/ResetWithin", BINARY, &[], b""));
    connection.pass(b"befo");
    target.step.notify_one();
    assert!(!connection.rest().ends_with(b"\r\n0\r\n\r\n"));
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/Cut", BINARY, &[], b""));
    connection.try_receive(false).expect_err("no end");
}

#[test]
fn the_time_that_a_client_waits_is_its_deadline() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let late = "grpc-status: 4\r\ngrpc-message: The request took too long\r\n";
    let answer = call(&gateway, "/test.Service/Silent", BINARY, &[("grpc-timeout", "100m")], b"");
    assert_eq!((answer.status, read(&answer.body)), (200, (Vec::new(), late.to_owned())));
    let told = target.last().headers["grpc-timeout"].to_str().expect("text").to_owned();
    let millis: u64 = told.strip_suffix('m').and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{told}"));
    assert!(millis <= 100, "{told}");
    let answer = call(&gateway, "/test.Service/Waits", BINARY, &[("grpc-timeout", "300m")], b"");
    assert_eq!(read(&answer.body), (vec!["before".to_owned()], late.to_owned()));
    eventually("both calls are cancelled", || target.cancelled.load(Ordering::Acquire) == 2);
    let timed = Gateway::start(&config(target.address, "", ", timeout: 100ms"));
    assert_eq!(read(&call(&timed, "/test.Service/Silent", BINARY, &[], b"").body).1, late);
}

#[test]
fn who_leaves_cancels_the_call() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    for (number, method) in ["Waits", "Silent"].into_iter().enumerate() {
        let mut connection = Connection::open(gateway.address());
        connection.send(post(&format!("/test.Service/{method}"), BINARY, &[], b""));
        eventually("the target has the call", || target.count() == number + 1);
        drop(connection);
        eventually("the call is cancelled", || target.cancelled.load(Ordering::Acquire) == number + 1);
    }
    let in_flight = || gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"one\"}");
    eventually("nothing is held", || in_flight() < 0.5);
}

#[test]
fn rejections_are_read_by_clients_and_pages() {
    let target = GrpcTarget::start();
    let filters = ", filters: [{cors: {origins: ['https://app.example.com'], expose: [x-request-id]}}, {api_key: {}}]";
    let gateway = Gateway::start(&config(target.address, filters, ""));
    let origin = ("origin", "https://app.example.com");
    let exposed = "x-request-id, grpc-status, grpc-message, grpc-status-details-bin";
    let answer = call(&gateway, "/test.Service/Echo", BINARY, &[origin, ("accept", TEXT)], b"");
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("16")));
    assert_eq!(answer.header("content-type"), Some("application/grpc-web-text+proto"));
    assert_eq!(answer.header("access-control-expose-headers"), Some(exposed));
    assert!(read(&decoded(&answer.body)).1.starts_with("grpc-status: 16\r\n"));
    let key = ("x-api-key", "key-of-a");
    let answer = call(&gateway, "/test.Service/Fail", BINARY, &[origin, key], b"");
    assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("9")));
    assert_eq!(answer.header("access-control-expose-headers"), Some(exposed));
    let preflight = [
        origin,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type,x-grpc-web,x-user-agent,grpc-timeout"),
    ];
    let answer = gateway.request("OPTIONS", "/test.Service/Echo", &preflight);
    let allowed = answer.header("access-control-allow-headers");
    assert_eq!((answer.status, allowed), (204, Some("content-type,x-grpc-web,x-user-agent,grpc-timeout")));
}

#[test]
fn targets_have_to_speak_http2() {
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = config(([127, 0, 0, 1], 9).into(), "", "").replace("protocol: http2, ", "");
    std::fs::write(folder.path().join("a.yaml"), yaml).expect("written");
    let (code, _, errors) = run(&["check", "-c", "a.yaml"], Some(folder.path()));
    assert_ne!(code, 0);
    assert!(errors.contains("add `protocol: http2` to upstream one"), "{errors}");
}

#[test]
fn a_target_that_responds_before_it_has_read_the_body_is_heard() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    for size in [10, 100, 200_000, 1_000_000] {
        for _ in 0..5 {
            let answer = call(&gateway, "/test.Service/Early", BINARY, &[], &frame(0, &vec![b'x'; size]));
            assert_eq!((answer.status, answer.header("grpc-status")), (200, Some("12")), "{size} {}", answer.text());
        }
    }
    let failed = format!(
        "portcullis_target_requests_total{{outcome=\"gateway_failed\",target=\"{}\",upstream=\"one\"}}",
        target.address
    );
    assert_eq!(gateway.metric(&failed), 0.0);
}
