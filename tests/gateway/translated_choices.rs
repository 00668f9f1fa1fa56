//! Which of several translations has a request, and what `explain` shows of it.

use super::grpc_json_target::target;
use super::harness::client::{Answer, Connection, head};
use super::harness::gateway::{Gateway, run};

const GRPC: [&str; 3] = [
    "{rest_to_grpc: {protos: [b.proto], openapi: /api.json}}",
    "{connect_to_grpc: {get: [t.B/Echo]}}",
    "{grpc_web_to_grpc: {}}",
];

const PROTO: &str = "syntax = \"proto3\"; package t; import \"google/api/annotations.proto\";
message Book { string name = 1; }
service B { rpc Echo(Book) returns (Book) { option (google.api.http) = {
  get: \"/v1/{name}\" additional_bindings { post: \"/v1\" body: \"*\" } }; } }";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("b.proto"), PROTO).expect("written");
    folder
}

fn yaml(target: std::net::SocketAddr, order: [usize; 3]) -> String {
    let list = order.map(|at| GRPC[at]).join(", ");
    format!(
        "
upstreams: {{books: {{targets: ['{target}'], protocol: http2}}}}
listeners: [{{name: main, address: 127.0.0.1:0}}]
routes: [{{name: books, action: {{forward: {{upstream: books, translate: [{list}]}}}}}}]
"
    )
}

fn send(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let length = body.len().to_string();
    let mut request = head(method, path, &[&[("content-length", length.as_str())], headers].concat()).into_bytes();
    request.extend(body);
    Connection::open(gateway.address()).ask(request)
}

#[test]
fn a_request_that_names_its_protocol_is_translated_from_it() {
    let target = target();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let gateway = Gateway::start_in(folder(), &yaml(target.address, order), &[]);
        let kind = |kind| ("content-type", kind);
        let version = ("connect-protocol-version", "1");
        let frame = &[0, 0, 0, 0, 0][..];
        for (method, path, headers, body, response) in [
            ("POST", "/t.B/Echo", &[kind("application/proto")][..], &b""[..], "application/proto"),
            ("POST", "/t.B/Echo", &[kind("application/json"), version], b"{}", "application/json"),
            ("POST", "/t.B/Echo", &[kind("application/connect+proto")], frame, "application/connect+proto"),
            ("GET", "/t.B/Echo?connect=v1&encoding=proto&message=", &[], b"", "application/proto"),
            ("POST", "/t.B/Echo", &[kind("application/grpc-web+proto")], frame, "application/grpc-web+proto"),
            ("GET", "/v1/a", &[], b"", "application/json"),
            ("GET", "/api.json", &[], b"", "application/json"),
        ] {
            let got = send(&gateway, method, path, headers, body);
            let found = (got.status, got.header("content-type"));
            assert_eq!(found, (200, Some(response)), "{order:?}: {method} {path} {headers:?}: {}", got.text());
        }
        // JSON that names no protocol is the first one's.
        let got = send(&gateway, "POST", "/v1", &[kind("application/json")], b"{\"name\": \"a\"}");
        let is_rest = order[0] == 0;
        assert_eq!(got.status == 200, is_rest, "{order:?}: {}", got.text());
    }
}

#[test]
fn explain_shows_requests_that_need_a_body() {
    let folder = folder();
    let nobody = ([127, 0, 0, 1], 9).into();
    let soap = "
  - name: ws
    match: {path: /ws}
    action: {forward: {upstream: books, translate: [{soap_to_json: {operations: [
      {element: Get, action: urn:get, method: GET, path: '/books/{id}'},
      {element: Add, method: POST, path: /books}]}}]}}
  - name: function
    match: {path: /function}
    action: {lambda: {upstream: books, function: hello, region: us-east-1, credentials: environment}}
";
    let yaml =
        yaml(nobody, [0, 1, 2]).replace("routes: [{name: books, action: ", "routes:\n  - {name: books, action: ");
    let yaml = yaml.trim_end().trim_end_matches(']').to_owned() + soap;
    std::fs::write(folder.path().join("a.yaml"), yaml).expect("written");
    let explain = |arguments: &[&str]| {
        let (_, text, errors) = run(&[&["explain", "-c", "a.yaml"], arguments].concat(), Some(folder.path()));
        assert!(errors.is_empty(), "{errors}");
        text
    };
    let text = explain(&["-H", "content-type: application/grpc-web", "POST", "/t.B/Echo"]);
    assert!(text.contains("translated: grpc_web to grpc"), "{text}");
    assert!(text.contains("request to the target: POST /t.B/Echo\n  operation: t.B/Echo\n"), "{text}");
    let text = explain(&["GET", "/api.json"]);
    assert!(text.contains("response: 200 the OpenAPI document of all methods"), "{text}");
    let xml = ["-H", "content-type: text/xml", "POST", "/ws"];
    let text = explain(&xml);
    assert!(text.contains("call: POST /books, if the body has Add") && !text.contains("has Get"), "{text}");
    let text = explain(&[&["-H", "soapaction: \"urn:get\""], &xml[..]].concat());
    assert!(text.contains("call: GET /books/{id}, if the body has Get") && text.contains("has Add"), "{text}");
    let text = explain(&["GET", "/function"]);
    assert_eq!(text.matches("lambda: POST").count(), 1, "{text}");
    assert!(text.contains("host for the target: lambda.us-east-1.amazonaws.com"), "{text}");
}
