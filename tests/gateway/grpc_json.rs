//! JSON over HTTP to a target that speaks gRPC.

use std::time::{Duration, Instant};

use serde_json::json;

use super::grpc_json_target::{Target, target};
use super::harness::client::{Answer, Connection};
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};

const PROTO: &str = include_str!("protos/books.proto");
const MORE: &str = include_str!("protos/more.proto");

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("books.proto"), PROTO).expect("written");
    std::fs::write(folder.path().join("more.proto"), MORE).expect("written");
    folder
}

fn yaml(target: &Target, settings: &str, rest: &str) -> String {
    format!(
        "
upstreams: {{books: {{targets: ['{}'], protocol: http2}}}}
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]
routes:
  - name: books
    action: {{forward: {{upstream: books{rest}, translate: [{{rest_to_grpc: {{protos: [books.proto]{settings}}}}}]}}}}
",
        target.address
    )
}

fn gateway(target: &Target) -> Gateway {
    Gateway::start_in(folder(), &yaml(target, ", openapi: /openapi.json, json: {defaults: false}", ""), &[])
}

fn ask(gateway: &Gateway, line: &str, headers: &[&str], body: &str) -> Answer {
    let mut request = format!("{line} HTTP/1.1\r\nhost: a\r\n");
    headers.iter().for_each(|header| request.push_str(&format!("{header}\r\n")));
    if !body.is_empty() {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    let mut connection = Connection::open(gateway.address());
    connection.send(format!("{request}\r\n{body}"));
    connection.try_receive(line.starts_with("HEAD")).expect("a response")
}

fn get(gateway: &Gateway, path: &str) -> Answer {
    ask(gateway, &format!("GET {path}"), &[], "")
}

const JSON: &str = "content-type: application/json";

#[test]
fn calls_of_one_message() {
    let target = target();
    let gateway = gateway(&target);
    let response = get(&gateway, "/v1/shelves/1/books/caf%C3%A9?pages=9007199254740993&more.note=a+b");
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(
        response.json(),
        json!({"name": "shelves/1/books/café", "pages": "9007199254740993", "more": {"note": "a b"}})
    );
    {
        let calls = target.calls.lock().unwrap();
        let call = calls.last().expect("a call");
        assert_eq!((call.method.as_str(), call.uri.path()), ("POST", "/t.Books/Echo"));
        assert_eq!(call.headers["content-type"], "application/grpc");
        assert_eq!(call.headers["te"], "trailers");
        assert_eq!(call.headers["grpc-accept-encoding"], "identity");
        assert!(!call.headers.contains_key("accept"), "{:?}", call.headers);
    }
    let response = ask(&gateway, "POST /v1/books", &[JSON], r#"{"name":"a","pages":3}"#);
    assert_eq!((response.status, response.json()), (200, json!({"name": "a", "pages": "3"})));
    let response = ask(&gateway, "PATCH /v1/books/b", &[JSON, "x-own: 1", "grpc-status: 9"], r#"{"name":"a"}"#);
    assert_eq!(response.json(), json!({"name": "b"}));
    let call_headers = target.calls.lock().unwrap().last().expect("a call").headers.clone();
    assert!(call_headers["x-own"] == "1" && !call_headers.contains_key("grpc-status"), "{call_headers:?}");
    let response = ask(&gateway, "HEAD /v1/shelves/1/books/2", &[], "");
    assert!(response.status == 200 && response.body.is_empty() && response.header("content-length").is_some());
    // Metadata of the response, from its head and its end.
    let response = get(&gateway, "/v1/metadata");
    assert_eq!((response.header("x-one"), response.header("x-two")), (Some("1"), Some("2")));
    assert_eq!(response.header("x-bin-bin"), Some("AP8"));
    assert!(response.headers.iter().all(|(name, _)| !name.starts_with("grpc-")), "{:?}", response.headers);
    assert_eq!(response.json(), json!({}));
    let response = get(&gateway, "/v1/page");
    assert_eq!((response.header("content-type"), response.text().as_str()), (Some("text/csv"), "a,b"));
    assert!(gateway.metric("portcullis_translated_requests_total{from=\"rest\",route=\"books\",to=\"grpc\"}") >= 6.0);
}

#[test]
fn requests_that_call_nothing() {
    let target = target();
    let gateway = gateway(&target);
    let rejected = |line: &str, headers: &[&str], body: &str, status: u16, reason: &str, detail: &str| {
        let response = ask(&gateway, line, headers, body);
        assert_eq!((response.status, response.reason().as_str()), (status, reason), "{line}: {}", response.text());
        assert!(response.text().contains(detail), "{line}: {}", response.text());
        response
    };
    rejected("GET /v1/none/such", &[], "", 404, "route_not_found", "");
    let response = rejected("DELETE /v1/books", &[], "", 405, "method_not_allowed", "");
    assert_eq!(response.header("allow"), Some("POST"));
    let response = rejected("OPTIONS /v1/late", &[], "", 405, "method_not_allowed", "");
    assert_eq!(response.header("allow"), Some("GET, HEAD"));
    let reason = "request_untranslatable";
    rejected("GET /v1/list?unknown=1", &[], "", 400, reason, "/unknown");
    rejected("GET /v1/list?pages=x", &[], "", 400, reason, "expected an integer");
    rejected("POST /v1/books", &[JSON], r#"{"more":{"note":1}}"#, 400, reason, "/more/note");
    rejected("POST /v1/books", &[JSON], r#"{"name":"a","name":"b"}"#, 400, reason, "twice");
    rejected("POST /v1/books", &[JSON], "{", 400, reason, "JSON");
    rejected("GET /v1/list", &[JSON], "{}", 400, reason, "no body");
    rejected("POST /v1/books", &["content-type: text/plain"], "{}", 415, "media_type", "application/json");
    rejected("POST /v1/books?pages=1", &[JSON], "{}", 400, reason, "/pages");
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(5 << 20));
    rejected("POST /v1/books", &[JSON], &large, 413, "body_too_large", "max_message");
    assert!(target.calls.lock().unwrap().is_empty());
}

#[test]
fn calls_that_fail() {
    let target = target();
    let gateway = gateway(&target);
    for (code, status) in [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ] {
        let response = get(&gateway, &format!("/v1/fail/{code}"));
        assert_eq!(response.status, status, "{code}: {}", response.text());
        assert_eq!(response.json(), json!({"code": code, "message": "100% üml", "details": []}));
        assert_eq!(response.header("content-type"), Some("application/json"));
    }
    let response = get(&gateway, "/v1/fail/99");
    assert_eq!((response.status, &response.json()["code"]), (500, &json!(2)));
    // An error after a message is an error.
    let response = get(&gateway, "/v1/late");
    assert_eq!((response.status, response.json()), (400, json!({"code": 9, "message": "late", "details": []})));
    let response = get(&gateway, "/v1/details");
    let details = json!([
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "GONE", "domain": "", "metadata": {}},
        {"@type": "type.googleapis.com/not.Known", "value": "CAc="},
    ]);
    assert_eq!((response.status, response.json()), (404, json!({"code": 5, "message": "noü x", "details": details})));
    // What is no response of gRPC.
    for path in ["/v1/nostatus", "/v1/two", "/v1/none", "/v1/cut", "/v1/compressed", "/v1/html/200"] {
        let response = get(&gateway, path);
        assert_eq!((response.status, response.reason().as_str()), (502, "response_untranslatable"), "{path}");
    }
    for (http, status, code) in [(503, 503, 14), (404, 501, 12), (401, 401, 16), (500, 500, 2)] {
        let response = get(&gateway, &format!("/v1/html/{http}"));
        assert_eq!((response.status, &response.json()["code"]), (status, &json!(code)), "{}", response.text());
    }
    let lines = gateway.access_log(28);
    let failed = lines.iter().find(|line| line["path"] == "/v1/fail/5").expect("a line");
    assert_eq!(
        (&failed["operation"], &failed["target_status"]),
        (&json!("t.Books/Fail"), &json!("NOT_FOUND")),
        "{failed}"
    );
    assert_eq!(failed["reason"], "forwarded");
}

#[test]
fn streams() {
    let target = target();
    let gateway = gateway(&target);
    let list =
        |query: &str, accept: &str| ask(&gateway, &format!("GET /v1/list{query}"), &[&format!("accept: {accept}")], "");
    let one = json!({"text": "x"});
    let response = list("?pages=3", "*/*");
    assert_eq!((response.header("content-type"), response.json()), (Some("application/json"), json!([one, one, one])));
    assert_eq!(list("", "application/json").text(), "[]");
    let response = list("?pages=2", "application/x-ndjson");
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(response.text(), "{\"text\":\"x\"}\n{\"text\":\"x\"}\n");
    assert_eq!(list("?pages=1", "application/jsonl").header("content-type"), Some("application/jsonl"));
    let response = list("?pages=1", "text/event-stream");
    assert_eq!(response.header("content-type"), Some("text/event-stream"));
    assert_eq!(response.text(), "data: {\"text\":\"x\"}\n\n");
    // An error before the first message has a status of its own, and later one the form of the stream.
    for accept in ["application/json", "application/x-ndjson", "text/event-stream"] {
        let response = list("?name=5", accept);
        assert_eq!((response.status, &response.json()["message"]), (404, &json!("at the end")), "{accept}");
    }
    let error = r#"{"code":5,"message":"at the end","details":[]}"#;
    let response = list("?name=5&pages=1", "application/x-ndjson");
    assert_eq!(response.text(), format!("{{\"text\":\"x\"}}\n{{\"error\":{error}}}\n"));
    let response = list("?name=5&pages=1", "text/event-stream");
    assert_eq!(response.text(), format!("data: {{\"text\":\"x\"}}\n\nevent: error\ndata: {error}\n\n"));
    // A list is broken off, and never ends in order.
    for path in ["/v1/list?name=5&pages=1", "/v1/reset"] {
        let mut connection = Connection::open(gateway.address());
        connection.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let text = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(text.starts_with("HTTP/1.1 200") && text.contains("[{") && !text.contains("\r\n0\r\n"), "{text}");
    }
    // A request for the head alone has no body.
    let mut connection = Connection::open(gateway.address());
    connection.send("HEAD /v1/list?pages=2 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&connection.rest()).into_owned();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\n"), "{text}");
    let response = ask(&gateway, "GET /v1/reset", &["accept: text/event-stream"], "");
    assert!(response.text().contains("event: error\ndata: {\"code\":14,"), "{}", response.text());
    let response = get(&gateway, "/v1/data");
    assert_eq!((response.header("content-type"), response.text().as_str()), (Some("text/csv"), "a,b,c\n"));
    let response = ask(&gateway, "POST /v1/collect", &[JSON], r#"[{"name":"a"},{"name":"b"}]"#);
    assert_eq!(response.json(), json!([{"name": "a"}, {"name": "b"}]));
    let response = ask(&gateway, "POST /v1/collect", &["content-type: application/x-ndjson"], "{\"name\":\"a\"}\n{}\n");
    assert_eq!(response.json(), json!([{"name": "a"}, {}]));
}

#[test]
fn a_long_stream_passes_in_little_memory() {
    let target = target();
    let gateway = gateway(&target);
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).expect("a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    };
    get(&gateway, "/v1/list?pages=1");
    let before = peak();
    let mut connection = Connection::open(gateway.address());
    connection.send(
        "GET /v1/list?pages=512 HTTP/1.1\r\nhost: a\r\naccept: application/x-ndjson\r\nconnection: close\r\n\r\n",
    );
    let mut received = 0;
    while let Ok(part) = connection.some()
        && !part.is_empty()
    {
        received += part.len();
    }
    assert!(received > 512 * 262_144, "{received}");
    assert!(peak() - before < 48 << 10, "{} KiB more", peak() - before);
}

#[test]
fn times_and_clients_that_leave() {
    let target = target();
    let gateway = Gateway::start_in(folder(), &yaml(&target, "", ", timeout: 300ms"), &[]);
    let began = Instant::now();
    let response = get(&gateway, "/v1/wait");
    assert_eq!((response.status, response.reason().as_str()), (504, "route_timeout"), "{}", response.text());
    assert!(began.elapsed() < Duration::from_secs(10));
    let timeout = target.calls.lock().unwrap()[0].headers["grpc-timeout"].to_str().expect("a text").to_owned();
    let millis: u64 =
        timeout.strip_suffix('m').and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{timeout}"));
    assert!((1..=300).contains(&millis), "{timeout}");
    let target = super::grpc_json_target::target();
    let gateway = self::gateway(&target);
    // The client's own time.
    let response = ask(&gateway, "GET /v1/wait", &["grpc-timeout: 200m"], "");
    assert_eq!(response.status, 504, "{}", response.text());
    let mut connection = Connection::open(gateway.address());
    connection.send("GET /v1/wait HTTP/1.1\r\nhost: a\r\n\r\n");
    eventually("the call is made", || target.calls.lock().unwrap().len() == 2);
    drop(connection);
    eventually("both calls are cancelled", || *target.cancelled.lock().unwrap() == 2);
}

#[test]
fn a_request_for_the_head_of_a_stream_ends_the_call() {
    let target = target();
    let gateway = gateway(&target);
    let mut connection = Connection::open(gateway.address());
    connection.send("HEAD /v1/list?pages=1000000 HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = connection.try_receive(true).expect("a head");
    assert_eq!(head.status, 200);
    eventually("the call is cancelled", || *target.cancelled.lock().unwrap() == 1);
    eventually("no place is held", || {
        gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"books\"}") == 0.0
    });
}

#[test]
fn the_document_and_native_calls() {
    let target = target();
    let gateway = gateway(&target);
    let response = get(&gateway, "/openapi.json");
    let document = response.json();
    assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
    assert_eq!(document["openapi"], "3.0.3");
    assert_eq!(document["paths"]["/v1/fail/{name}"]["get"]["description"], "Fails with the status that is the name.");
    assert!(document["components"]["schemas"]["t.More"].is_object());
    assert_eq!(ask(&gateway, "POST /openapi.json", &[], "").status, 405);
    // gRPC itself passes as it is.
    let response =
        ask(&gateway, "POST /t.Books/Echo", &["content-type: application/grpc", "te: trailers"], "\0\0\0\0\0");
    assert_eq!(
        (response.header("content-type"), response.body.as_slice()),
        (Some("application/grpc"), &b"\0\0\0\0\0"[..])
    );
}

#[test]
fn settings() {
    let target = target();
    let settings =
        ", unknown_query: ignore, routes_without_rules: true, json: {proto_names: true}, services: [t.Books]";
    let gateway = Gateway::start_in(folder(), &yaml(&target, settings, ""), &[]);
    let response = ask(&gateway, "POST /t.Books/Unruled", &[JSON], r#"{"pages":1}"#);
    assert_eq!(response.json(), json!({"name": "", "pages": "1", "text": ""}));
    assert_eq!(get(&gateway, "/v1/list?what=ever").text(), "[]");
    // A file that is only imported is a part of the configuration.
    std::fs::write(gateway.folder.path().join("more.proto"), MORE.replace("note", "remark")).expect("written");
    assert_eq!(gateway.reload().status, 200);
    let response = ask(&gateway, "POST /v1/books", &[JSON], r#"{"more":{"remark":"a"}}"#);
    assert_eq!(response.json()["more"], json!({"remark": "a"}), "{}", response.text());
}

fn check(yaml: &str, more: &[(&str, &str)]) -> (i32, String) {
    let folder = folder();
    more.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).expect("written"));
    std::fs::write(folder.path().join("portcullis.yaml"), yaml).expect("written");
    let (code, out, error) = run(&["check", "-c", "portcullis.yaml"], Some(folder.path()));
    (code, out + &error)
}

#[test]
fn configurations_that_are_wrong() {
    let target = target();
    let wrong = |settings: &str, more: &[(&str, &str)], expected: &str| {
        let (code, text) = check(&yaml(&target, settings, ""), more);
        assert!(code != 0 && text.contains(expected), "{settings}: {text}");
    };
    wrong(", services: [t.None]", &[], "there is no service t.None; there are t.Books");
    wrong(", import_paths: [nowhere]", &[], "is no folder");
    wrong(", descriptor_sets: [more.proto]", &[], "is no descriptor set");
    wrong(", openapi: openapi.json", &[], "expected a path such as /openapi.json");
    wrong(", openapi: /v1/late", &[], "is the path of a method: t.Books/Fail");
    wrong(", max_message: 1B", &[], "expected a size from 1KiB to 256MiB");
    wrong("", &[("more.proto", "syntax = \"proto3\";\npackage t;\nmessage More { strin note = 1; }")], "more.proto:3:");
    wrong("", &[("more.proto", "syntax = \"proto3\";\npackage t;\nmessage More { string note }")], "more.proto:3:");
    wrong("", &[("books.proto", &PROTO.replace("more.proto", "less.proto"))], "books.proto:7:");
    wrong("", &[("books.proto", &PROTO.replace("/v1/late", "/v1/details"))], "matches the same requests as");
    wrong("", &[("books.proto", &PROTO.replace("/v1/late", "/v1/{nothing}"))], "t.Book has no field nothing");
    let yaml = yaml(&target, "", "").replace(", protocol: http2", "");
    let (code, text) = check(&yaml, &[]);
    assert!(code != 0 && text.contains("the targets have to speak HTTP/2"), "{text}");
    let (code, text) = check(&yaml.replace("protos: [books.proto]", ""), &[]);
    assert!(code != 0 && text.contains("expected protos, descriptor_sets or reflection"), "{text}");
}

#[test]
fn explain_shows_the_call() {
    let target = target();
    let folder = folder();
    std::fs::write(folder.path().join("portcullis.yaml"), yaml(&target, "", "")).expect("written");
    let explain =
        |method: &str, url: &str| run(&["explain", "-c", "portcullis.yaml", method, url], Some(folder.path())).1;
    let text = explain("GET", "http://localhost/v1/shelves/1/books/2");
    assert!(text.contains("call: POST /t.Books/Echo by /v1/{name=shelves/*/books/*}"), "{text}");
    assert!(text.contains("rest_to_grpc: POST /v1/books calls t.Books/Echo"), "{text}");
    let text = explain("DELETE", "http://localhost/v1/books");
    assert!(text.contains("response: 405 method_not_allowed"), "{text}");
}
