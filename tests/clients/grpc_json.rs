//! JSON over HTTP, with curl, to a service on grpcio that has the classes of protoc.

use serde_json::{Value, json};

use super::harness::gateway::Gateway;
use super::programs::{Server, curl};

const PROTOS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/protos");

fn gateway(target: &Server, described: &str) -> Gateway {
    Gateway::start(&format!(
        "
upstreams: {{library: {{targets: ['{}'], protocol: http2}}}}
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]
routes:
  - name: library
    action:
      forward: {{upstream: library, timeout: 10s, translate: [{{rest_to_grpc: {{{described}}}}}]}}
",
        target.address
    ))
}

/// The status, and the body.
fn ask(gateway: &Gateway, path: &str, arguments: &[&str]) -> (String, String) {
    let url = format!("http://{}{path}", gateway.address());
    let mut all = vec!["-s", "-w", "\n%{http_code}", &url];
    all.extend_from_slice(arguments);
    let out = curl(&all).out;
    let (body, status) = out.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("no JSON: {text}"))
}

fn works(target: &Server, gateway: &Gateway) {
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (status, body) = ask(gateway, "/v1/shelves/1/books/2", &[version]);
        let book = json!({
            "name": "shelves/1/books/2", "title": "Émile", "pages": "9007199254740993",
            "printedAt": "2026-01-31T12:00:00.500Z",
        });
        assert_eq!((status.as_str(), value(&body)), ("200", book));
    }
    let call = target.await_line("the call", |line| line["method"] == "GetBook");
    assert!(call["remaining"].as_f64().is_some_and(|left| left > 0.0 && left <= 10.0), "{call}");
    let (status, body) = ask(gateway, "/v1/shelves/1/books/0", &[]);
    let details = json!([{
        "@type": "type.googleapis.com/google.rpc.ResourceInfo", "resourceType": "book",
        "resourceName": "shelves/1/books/0", "owner": "", "description": "",
    }]);
    let error = json!({"code": 5, "message": "no such book: ü", "details": details});
    assert_eq!((status.as_str(), value(&body)), ("404", error));
    let (_, body) = ask(gateway, "/v1/shelves/1/books?prefix=The", &[]);
    assert_eq!(value(&body)[2]["name"], "shelves/1/books/2");
    let (_, body) = ask(gateway, "/v1/shelves/1/books?prefix=fail", &["-H", "accept: application/x-ndjson"]);
    let last = value(body.trim().lines().last().expect("a line"));
    assert_eq!(last["error"], json!({"code": 15, "message": "the rest is lost", "details": []}));
    let change = ["-X", "PATCH", "-H", "content-type: application/json", "-d", r#"{"title":"Other","pages":"7"}"#];
    let (status, body) = ask(gateway, "/v1/shelves/1/books/2?updateMask=title,printedAt", &change);
    assert_eq!((status.as_str(), &value(&body)["title"]), ("200", &json!("Other")));
    let call = target.await_line("the change", |line| line["method"] == "UpdateBook");
    let request = json!({
        "book": {"name": "shelves/1/books/2", "title": "Other", "pages": "7"}, "updateMask": "title,printedAt",
    });
    assert_eq!(call["request"], request);
}

#[test]
fn curl_calls_grpcio_by_proto_files() {
    let target = Server::start("library_server.py", &[PROTOS]);
    works(&target, &gateway(&target, &format!("protos: ['{PROTOS}/books.proto']")));
}

#[test]
fn curl_calls_grpcio_by_a_descriptor_set_of_protoc() {
    let folder = tempfile::tempdir().expect("a folder");
    let set = folder.path().join("library.pb");
    let set = set.to_str().expect("a path");
    let target = Server::start("library_server.py", &[PROTOS, set]);
    works(&target, &gateway(&target, &format!("descriptor_sets: ['{set}'], services: [library.Library]")));
}

#[test]
fn curl_calls_grpcio_by_its_reflection() {
    let target = Server::start("library_server.py", &[PROTOS]);
    works(&target, &gateway(&target, "reflection: true"));
}
