//! The Connect protocol before targets that speak gRPC.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::harness::client::{Answer, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::grpc::{GrpcTarget, frame, frames};

const PROTO: &str = "application/proto";
const JSON: &str = "application/json";
const STREAM: &str = "application/connect+proto";

fn config(target: SocketAddr, route: &str, settings: &str) -> String {
    format!(
        "upstreams: {{one: {{targets: [\"{target}\"], protocol: http2, retry: {{attempts: 1}}}}}}
routes: [{{name: connect, match: {{path: /test.Service/*}}{route}, action: {{forward: {{upstream: one, \
         translate: [{{connect_to_grpc: {{{settings}}}}}]}}}}}}]
consumers: {{a: {{credentials: [{{api_key: {{value: key-of-a}}}}]}}}}
"
    )
}

fn gateway(target: &GrpcTarget) -> Gateway {
    Gateway::start(&config(target.address, "", ""))
}

fn post(path: &str, kind: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let length = body.len().to_string();
    let own = [("content-type", kind), ("content-length", &length)];
    let mut request = head("POST", path, &[&own[..], headers].concat()).into_bytes();
    request.extend(body);
    request
}

#[track_caller]
fn call(gateway: &Gateway, path: &str, kind: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    Connection::open(gateway.address()).ask(post(path, kind, headers, body))
}

/// The messages of a stream, and its end.
#[track_caller]
fn read(body: &[u8]) -> (Vec<String>, Value) {
    let mut frames = frames(body);
    let (flags, end) = frames.pop().unwrap_or_else(|| panic!("no frame: {body:?}"));
    assert_eq!(flags, 2, "{frames:?}");
    assert!(frames.iter().all(|(flags, _)| *flags == 0), "{frames:?}");
    let messages = frames.iter().map(|(_, message)| String::from_utf8_lossy(message).into_owned()).collect();
    (messages, serde_json::from_slice(&end).expect("JSON"))
}

#[test]
fn unary_calls_have_plain_bodies() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let version = ("connect-protocol-version", "1");
    for (kind, sent) in [(PROTO, "application/grpc+proto"), (JSON, "application/grpc+json")] {
        let answer = call(&gateway, "/test.Service/Echo", kind, &[version, ("x-mine", "1")], b"{}");
        assert_eq!((answer.status, answer.text().as_str()), (200, "{}"));
        assert_eq!((answer.header("content-type"), answer.header("x-initial")), (Some(kind), Some("first")));
        assert_eq!(answer.header("trailer-x-trailer"), Some("last"));
        assert_eq!(answer.header("trailer-x-raw-bin"), Some("AP8"));
        assert_eq!(answer.header("content-length"), Some("2"));
        for absent in ["grpc-status", "trailer-grpc-status", "grpc-encoding", "x-trailer"] {
            assert_eq!(answer.header(absent), None, "{absent}");
        }
        let called = target.last();
        assert_eq!((called.path.as_str(), called.body), ("/test.Service/Echo", frame(0, b"{}")));
        let field = |name: &str| called.headers.get(name).map(|v| v.to_str().expect("text"));
        assert_eq!((field("content-type"), field("te")), (Some(sent), Some("trailers")));
        assert_eq!((field("grpc-accept-encoding"), field("x-mine")), (Some("identity"), Some("1")));
        assert_eq!(field("connect-protocol-version"), None);
    }
    // curl and others need not name the version.
    assert_eq!(call(&gateway, "/test.Service/Echo", "application/json; charset=utf-8", &[], b"[]").text(), "[]");
    let line = &gateway.access_log(3)[0];
    assert_eq!((&line["operation"], &line["target_status"]), (&"test.Service/Echo".into(), &"OK".into()), "{line}");
}

#[test]
fn errors_have_a_status_and_a_code() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let detail = json!({"type": "test.Detail", "value": "CAE"});
    for (method, status, error) in [
        ("Fail", 400, json!({"code": "failed_precondition", "message": "no ☺"})),
        ("FailLate", 404, json!({"code": "not_found", "message": "late", "details": [detail]})),
        ("NoStatus", 500, json!({"code": "unknown", "message": "the target sent no status"})),
        ("Http", 501, json!({"code": "unimplemented", "message": "the target responded with the HTTP status 404"})),
        ("Nothing", 501, json!({"code": "unimplemented", "message": "no such method"})),
        (
            "Stream",
            501,
            json!({"code": "unimplemented", "message": "a unary response has one message, and the target sent 3"}),
        ),
        (
            "Empty",
            501,
            json!({"code": "unimplemented", "message": "a unary response has one message, and the target sent 0"}),
        ),
    ] {
        let answer = call(&gateway, &format!("/test.Service/{method}"), PROTO, &[], b"");
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(JSON)), "{method}");
        assert_eq!(answer.json(), error, "{method}");
    }
    assert_eq!(call(&gateway, "/test.Service/Fail", PROTO, &[], b"").header("x-fail"), Some("yes"));
    assert_eq!(call(&gateway, "/test.Service/FailLate", PROTO, &[], b"").header("trailer-x-trailer"), Some("last"));
    for (method, status, code) in
        [("Big", 502, "resource_exhausted"), ("Compressed", 502, "internal"), ("Cut", 502, "internal")]
    {
        let answer = call(&gateway, &format!("/test.Service/{method}"), PROTO, &[], b"");
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{method}");
    }
}

#[test]
fn calls_by_get_are_for_listed_methods() {
    let target = GrpcTarget::start();
    let gateway = Gateway::start(&config(target.address, "", "get: [test.Service/Echo]"));
    for (query, kind, message) in [
        ("connect=v1&encoding=json&message=%7B%22a%22%3A%221+2%22%7D", JSON, &br#"{"a":"1 2"}"#[..]),
        ("message=CgFh&base64=1&encoding=proto&connect=v1", PROTO, b"\n\x01a"),
        ("connect=v1&encoding=proto&message=%0A%01%ff", PROTO, b"\n\x01\xff"),
    ] {
        let answer = gateway.get(&format!("/test.Service/Echo?{query}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{query}");
        assert_eq!(answer.body, message, "{query}");
        assert_eq!(target.last().path, "/test.Service/Echo");
        assert_eq!(target.last().body, frame(0, message));
    }
    let count = target.count();
    let other = gateway.get("/test.Service/Headers?connect=v1&encoding=json&message=%7B%7D");
    assert_eq!((other.status, other.header("allow")), (405, Some("POST")));
    assert_eq!(other.json()["code"], "unimplemented", "{}", other.text());
    for (query, status, code) in [
        ("connect=v1&encoding=json", 400, "invalid_argument"),
        ("connect=v1&encoding=json&message=%7B%7D&compression=gzip", 501, "unimplemented"),
        ("connect=v1&encoding=proto&message=!&base64=1", 400, "invalid_argument"),
        ("connect=v1&encoding=xml&message=a", 415, "invalid_argument"),
    ] {
        let answer = gateway.get(&format!("/test.Service/Echo?{query}"));
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code.into()), "{query}: {}", answer.text());
    }
    assert_eq!(target.count(), count);
    assert!(gateway.access_log(8).iter().all(|line| line["status"] != 500));
}

#[test]
fn streams_have_an_end() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let messages = [frame(0, b"3"), frame(0, b"b")].concat();
    let answer = call(&gateway, "/test.Service/Joined", STREAM, &[], &messages);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(STREAM)));
    assert_eq!((answer.header("x-initial"), answer.header("grpc-encoding")), (Some("first"), None));
    let metadata = json!({"x-trailer": ["last"], "x-raw-bin": ["AP8"]});
    assert_eq!(read(&answer.body), (vec!["3|b".to_owned()], json!({"metadata": metadata})));
    assert_eq!(target.last().body, messages);
    let answer = call(&gateway, "/test.Service/Stream", "application/connect+json", &[], &messages);
    assert_eq!(answer.header("content-type"), Some("application/connect+json"));
    assert_eq!(read(&answer.body).0, ["part 0", "part 1", "part 2"]);
    assert_eq!(target.last().headers["content-type"], "application/grpc+json");
    for (method, messages, error) in [
        ("Fail", &[][..], json!({"code": "failed_precondition", "message": "no ☺"})),
        ("Http", &[], json!({"code": "unimplemented", "message": "the target responded with the HTTP status 404"})),
        ("NoStatus", &["before"], json!({"code": "unknown", "message": "the target sent no status"})),
    ] {
        let answer = call(&gateway, &format!("/test.Service/{method}"), STREAM, &[], b"");
        let (got, end) = read(&answer.body);
        assert_eq!(
            (answer.status, got, &end["error"]),
            (200, messages.iter().map(|text| (*text).to_owned()).collect(), &error),
            "{method}"
        );
    }
    let (_, end) = read(&call(&gateway, "/test.Service/FailLate", STREAM, &[], b"").body);
    assert_eq!(end["error"]["details"][0]["type"], "test.Detail");
    assert_eq!(end["metadata"]["x-trailer"], json!(["last"]));
}

#[test]
fn streams_are_passed_on_as_they_come_and_end_when_they_break() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/Step", STREAM, &[], b""));
    for number in 0..3 {
        connection.pass(format!("step {number}").as_bytes());
        target.step.notify_one();
    }
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/Reset", STREAM, &[], b""));
    connection.pass(b"before");
    target.step.notify_one();
    connection.pass(br#"{"error":{"code":"unavailable","message":"The target closed the connection"}}"#);
    connection.pass(b"\r\n0\r\n\r\n");
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/ResetWithin", STREAM, &[], b""));
    connection.pass(b"befo");
    target.step.notify_one();
    assert!(!connection.rest().ends_with(b"\r\n0\r\n\r\n"));
    let mut connection = Connection::open(gateway.address());
    connection.send(post("/test.Service/Waits", STREAM, &[], b""));
    eventually("the target has the call", || target.last().path.ends_with("Waits"));
    drop(connection);
    eventually("the call is cancelled", || target.cancelled.load(Ordering::Acquire) == 1);
}

#[test]
fn the_time_that_a_client_waits_is_its_deadline() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let wait = ("connect-timeout-ms", "150");
    let answer = call(&gateway, "/test.Service/Silent", PROTO, &[wait], b"");
    assert_eq!((answer.status, &answer.json()["code"]), (504, &"deadline_exceeded".into()));
    let headers = target.last().headers;
    assert!(headers.contains_key("grpc-timeout") && !headers.contains_key("connect-timeout-ms"));
    let (_, end) = read(&call(&gateway, "/test.Service/Silent", STREAM, &[wait], b"").body);
    assert_eq!(end["error"]["code"], "deadline_exceeded");
    let (messages, end) = read(&call(&gateway, "/test.Service/Waits", STREAM, &[wait], b"").body);
    assert_eq!((messages.len(), &end["error"]["code"]), (1, &"deadline_exceeded".into()));
    let answer = call(&gateway, "/test.Service/Echo", PROTO, &[("connect-timeout-ms", "soon")], b"");
    assert_eq!((answer.status, &answer.json()["code"]), (400, &"invalid_argument".into()));
}

#[test]
fn what_is_malformed_is_rejected_before_a_target_gets_it() {
    let target = GrpcTarget::start();
    let gateway = gateway(&target);
    let path = "/test.Service/Echo";
    let answer = call(&gateway, path, PROTO, &[("connect-protocol-version", "2")], b"");
    assert_eq!((answer.status, &answer.json()["code"]), (400, &"invalid_argument".into()));
    let answer = call(&gateway, path, "application/connect+xml", &[], b"");
    assert_eq!(answer.status, 415);
    assert_eq!(answer.header("accept-post"), Some("application/connect+proto, application/connect+json"));
    let answer = call(&gateway, path, STREAM, &[("connect-content-encoding", "gzip")], b"");
    let (_, end) = read(&answer.body);
    assert_eq!((answer.status, &end["error"]["code"]), (200, &"unimplemented".into()));
    assert!(end["error"]["message"].as_str().is_some_and(|text| text.contains("identity")), "{end}");
    for body in [&b"\0\0\0\0"[..], b"\0\0\0\0\x05hell", b"\x01\0\0\0\0", b"\x02\0\0\0\0"] {
        let answer = call(&gateway, path, STREAM, &[], body);
        assert_eq!((answer.status, &read(&answer.body).1["error"]["code"]), (200, &"invalid_argument".into()));
    }
    let answer = call(&gateway, path, PROTO, &[("content-encoding", "lzma")], b"x");
    assert_eq!((answer.status, answer.header("content-type")), (501, Some(JSON)), "{}", answer.text());
    assert_eq!(answer.json()["code"], "unimplemented");
    assert_eq!(target.count(), 0);
}

#[test]
fn rejections_are_errors_of_the_protocol() {
    let target = GrpcTarget::start();
    let filters = ", filters: [{cors: {origins: ['https://app.example.com']}}, {api_key: {}}]";
    let gateway = Gateway::start(&config(target.address, filters, "get: [test.Service/Echo]"));
    for kind in [PROTO, JSON] {
        let answer = call(&gateway, "/test.Service/Echo", kind, &[], b"{}");
        assert_eq!((answer.status, answer.header("content-type")), (401, Some(JSON)), "{kind}");
        assert_eq!(answer.json()["code"], "unauthenticated");
        assert!(answer.json()["message"].as_str().is_some_and(|text| text.starts_with("An API key is required")));
    }
    let get = gateway.get("/test.Service/Echo?connect=v1&encoding=json&message=%7B%7D");
    assert_eq!((get.status, &get.json()["code"]), (401, &"unauthenticated".into()));
    let answer = call(&gateway, "/test.Service/Echo", STREAM, &[], b"");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(STREAM)));
    assert_eq!(read(&answer.body).1["error"]["code"], "unauthenticated");
    // No route: the field names the protocol.
    let version = ("connect-protocol-version", "1");
    let answer = call(&gateway, "/other/Echo", JSON, &[version], b"{}");
    assert_eq!((answer.status, &answer.json()["code"]), (404, &"unimplemented".into()));
    assert_eq!(
        call(&gateway, "/other/Echo", JSON, &[], b"{}").header("content-type"),
        Some("application/problem+json")
    );
    // A page may read the trailers.
    let headers = [("origin", "https://app.example.com"), ("x-api-key", "key-of-a")];
    let answer = call(&gateway, "/test.Service/Echo", JSON, &headers, b"{}");
    assert_eq!(answer.header("access-control-expose-headers"), Some("trailer-x-trailer, trailer-x-raw-bin"));
}

#[test]
fn plain_json_can_be_left_to_others() {
    let target = GrpcTarget::start();
    let gateway = Gateway::start(&config(target.address, "", "require_version: true"));
    let version = ("connect-protocol-version", "1");
    assert_eq!(call(&gateway, "/test.Service/Echo", JSON, &[version], b"{}").text(), "{}");
    call(&gateway, "/test.Service/Empty", JSON, &[], b"");
    assert_eq!(target.last().headers["content-type"], JSON);
}

#[test]
fn settings_that_cannot_work_are_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    for (settings, wanted) in [("get: [Echo]", "such as shop.v1.Catalog/Item"), ("get: [/a/b]", "found \"/a/b\"")] {
        std::fs::write(folder.path().join("a.yaml"), config(([127, 0, 0, 1], 9).into(), "", settings))
            .expect("written");
        let (code, _, errors) = run(&["check", "-c", "a.yaml"], Some(folder.path()));
        assert!(code != 0 && errors.contains(wanted), "{settings}: {errors}");
    }
}
