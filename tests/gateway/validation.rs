//! Requests and responses are validated by schemas and OpenAPI documents, over HTTP/1 and HTTP/2.

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use super::harness::client::Connection;
use super::harness::eventually;
use super::harness::gateway::{Gateway, complete, run};
use super::harness::target::{Target, answer};

const SHOP: &str = include_str!("../../conf/examples/openapi/shop.yaml");

const BOTH: &str = "listeners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}]\n";

/// Starts a gateway whose route has the document of the shop.
fn shop(target: &Target, openapi: &str, more: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("shop.yaml"), SHOP).expect("written");
    Gateway::start_in(folder, &shop_config(target, openapi, more), &[])
}

fn shop_config(target: &Target, openapi: &str, more: &str) -> String {
    format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes:
  - {{name: shop, openapi: {{file: shop.yaml{openapi}}}, action: {{forward: one}}}}
{more}{BOTH}",
        target.address
    )
}

/// Sends a request over HTTP/1, its body in chunks of so many bytes.
fn over_http1(gateway: &Gateway, line: &str, headers: &str, body: &[u8], size: usize) -> (u16, Value) {
    let mut request = format!("{line} HTTP/1.1\r\nhost: a\r\n{headers}").into_bytes();
    if body.is_empty() {
        request.extend(b"\r\n");
    } else {
        request.extend(b"transfer-encoding: chunked\r\n\r\n");
        for part in body.chunks(size) {
            request.extend(format!("{:x}\r\n", part.len()).bytes());
            request.extend_from_slice(part);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\n\r\n");
    }
    let answer = Connection::open(gateway.address()).ask(request);
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
}

/// Sends a request over h2c, its body in parts of so many bytes.
fn over_http2(gateway: &Gateway, line: &str, headers: &str, body: &[u8], size: usize) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = gateway.address();
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
        for (name, value) in headers.lines().filter_map(|line| line.split_once(": ")) {
            request = request.header(name, value);
        }
        let (answer, mut send) = client.send_request(request.body(()).expect("a head"), body.is_empty()).expect("sent");
        let mut parts = body.chunks(size).peekable();
        while let Some(part) = parts.next() {
            if send.send_data(Bytes::copy_from_slice(part), parts.peek().is_none()).is_err() {
                break;
            }
        }
        let (head, mut stream) = answer.await.expect("an answer").into_parts();
        let mut all = Vec::new();
        while let Some(part) = stream.data().await {
            all.extend_from_slice(&part.expect("a part"));
        }
        (head.status.as_u16(), serde_json::from_slice(&all).unwrap_or(Value::Null))
    })
}

fn places(problem: &Value) -> Vec<String> {
    let all = problem["violations"].as_array().into_iter().flatten();
    all.map(|one| {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        format!("{}{} {}", text("in"), text("pointer"), text("keyword"))
    })
    .collect()
}

#[test]
fn violations_are_listed_with_their_places() {
    let target = Target::echo("a");
    let gateway = shop(&target, ", unknown_query: reject", "");
    let json = "content-type: application/json\r\n";
    let tenant = "content-type: application/json\r\nx-tenant: acme\r\n";
    for ask in [over_http1, over_http2] {
        let before = target.count();
        let ok = [
            ("GET /v1/items?limit=5&tag=new&tag=sale", "", ""),
            ("GET /v1/items/7", "", ""),
            ("GET /v1/items/default", "", ""),
            ("POST /v1/items", tenant, r#"{"name": "pen", "price": null, "parts": [{"name": "cap"}]}"#),
            ("POST /v1/items", &format!("{tenant}cookie: session=abc1\r\n"), r#"{"name": "pen"}"#),
        ];
        for (line, headers, body) in ok {
            for size in [1, 1000] {
                let (status, seen) = ask(&gateway, line, headers, body.as_bytes(), size);
                assert_eq!((status, seen["body"].as_str()), (200, Some(body)), "{line} {seen}");
            }
        }
        assert_eq!(target.count(), before + 2 * ok.len());
        for (line, headers, body, status, reason, wanted) in [
            ("GET /v1/items?limit=0", "", "", 400, "request_invalid", &["query/limit minimum"][..]),
            (
                "GET /v1/items?limit=x&tag=old",
                "",
                "",
                400,
                "request_invalid",
                &["query/limit type", "query/tag/0 enum"],
            ),
            ("GET /v1/items?more=1", "", "", 400, "request_invalid", &["query/more additionalProperties"]),
            ("GET /v1/items?limit=1&limit=2", "", "", 400, "request_invalid", &["query/limit style"]),
            ("GET /v1/items/x", "", "", 400, "request_invalid", &["path/id type"]),
            ("POST /v1/items", json, "{}", 400, "request_invalid", &["header/x-tenant required"]),
            (
                "POST /v1/items",
                &format!("{tenant}cookie: session=A\r\n"),
                "{}",
                400,
                "request_invalid",
                &["cookie/session pattern"],
            ),
            (
                "POST /v1/items",
                tenant,
                r#"{"id": 1, "price": 0, "parts": [{"name": ""}]}"#,
                400,
                "request_invalid",
                &["body required", "body/id readOnly", "body/price exclusiveMinimum", "body/parts/0/name minLength"],
            ),
            ("POST /v1/items", tenant, "", 400, "request_invalid", &["body required"]),
            ("POST /v1/items", tenant, "{\"name\": \n}", 400, "body_invalid", &[]),
            ("POST /v1/items", tenant, r#"{"name": "a", "name": "b"}"#, 400, "body_invalid", &[]),
            ("POST /v1/items", "content-type: text/xml\r\nx-tenant: a\r\n", "<a/>", 415, "media_type", &[]),
            ("GET /v1/nothing", "", "", 404, "route_not_found", &[]),
            ("DELETE /v1/items", "", "", 405, "method_not_allowed", &[]),
        ] {
            let (found, problem) = ask(&gateway, line, headers, body.as_bytes(), 3);
            assert_eq!((found, problem["reason"].as_str()), (status, Some(reason)), "{line} {body} {problem}");
            let mut all = places(&problem);
            all.sort_unstable();
            let mut wanted: Vec<&str> = wanted.to_vec();
            wanted.sort_unstable();
            assert_eq!(all, wanted, "{line} {body} {problem}");
        }
        let (_, problem) = ask(&gateway, "POST /v1/items", tenant, br#"{"name": "S3CRET", "price": "S3CRET"}"#, 100);
        assert!(!problem.to_string().contains("S3CRET"), "{problem}");
        let (_, problem) = ask(&gateway, "POST /v1/items", tenant, b"{\"name\": \n}", 100);
        assert_eq!(problem["detail"], "the document is not JSON at line 2 column 1");
        assert_eq!(target.count(), before + 2 * ok.len(), "what is rejected is not forwarded");
    }
    let allow = gateway.request("DELETE", "/v1/items", &[]);
    assert_eq!(allow.header("allow"), Some("GET, POST, HEAD"));
    let requests = |operation: &str, status: &str| {
        gateway.metric(&format!(
            "portcullis_operation_requests_total{{operation=\"{operation}\",route=\"shop\",status=\"{status}\"}}"
        ))
    };
    assert_eq!(
        [requests("getItem", "2xx"), requests("getItem", "4xx"), requests("defaultItem", "2xx")],
        [4.0, 2.0, 4.0]
    );
    let lines = gateway.access_log(30);
    assert!(lines.iter().any(|line| line["operation"] == "addItem" && line["reason"] == "request_invalid"));
}

#[test]
fn what_is_not_looked_into_is_streamed() {
    let target = Target::echo("a");
    let gateway = shop(&target, ", max_body: 1KiB", "");
    let body = vec![b'x'; 100_000];
    let (status, seen) = over_http1(&gateway, "PUT /v1/items/1", "content-type: image/png\r\n", &body, 5_000);
    assert_eq!((status, &seen["length"]), (200, &json!(100_000)));
    let headers = "content-type: application/json\r\nx-tenant: a\r\n";
    let long = format!("{{\"name\": \"{}\"}}", "x".repeat(2_000));
    assert_eq!(over_http1(&gateway, "POST /v1/items", headers, long.as_bytes(), 100).0, 413);
    assert_eq!(over_http1(&gateway, "PUT /v1/items/1", "content-type: text/plain\r\n", b"x", 1).0, 415);
}

/// A target whose responses depend on the path.
fn responding() -> Target {
    Target::new(|stream, seen| {
        let json = [("content-type", "application/json"), ("etag", "\"v1\"")];
        match seen.target.as_str() {
            "/v1/items/1" => answer(
                stream,
                200,
                &json,
                br#"{"id": 1, "name": "pen", "cost": 3, "parts": [{"id": 2, "name": "cap", "x": 1}]}"#,
            ),
            "/v1/items/2" => answer(stream, 200, &json, br#"{"id": "2", "name": "pen"}"#),
            "/v1/items/3" => answer(stream, 200, &json, b"{"),
            "/v1/items/4" => answer(
                stream,
                404,
                &[("content-type", "application/problem+json")],
                br#"{"title": "no", "trace": "x"}"#,
            ),
            "/v1/items/5" => answer(stream, 500, &json, b"{\"trace\": \"secret\"}"),
            "/v1/items/6" => answer(stream, 200, &[("content-type", "text/html")], b"<p>secret</p>"),
            _ => answer(stream, 200, &json, b"[]"),
        }
    })
}

#[test]
fn responses_are_observed_enforced_or_filtered() {
    let target = responding();
    let whole = json!({"id": 1, "name": "pen", "cost": 3, "parts": [{"id": 2, "name": "cap", "x": 1}]});
    let filtered = json!({"id": 1, "name": "pen", "parts": [{"id": 2, "name": "cap"}]});
    let observing = shop(&target, ", responses: observe", "");
    let enforcing = shop(&target, ", responses: enforce", "");
    let filtering = shop(&target, ", responses: filter", "");
    for ask in [over_http1, over_http2] {
        let get = |gateway: &Gateway, id: u8| {
            let (status, body) = ask(gateway, &format!("GET /v1/items/{id}"), "", b"", 1);
            (status, body["reason"].as_str().map_or_else(|| body.clone(), |reason| json!(reason)))
        };
        for (gateway, wanted) in [
            (
                &observing,
                [
                    (200, whole.clone()),
                    (200, json!({"id": "2", "name": "pen"})),
                    (200, Value::Null),
                    (404, json!({"title": "no", "trace": "x"})),
                    (500, json!({"trace": "secret"})),
                    (200, Value::Null),
                ],
            ),
            (
                &enforcing,
                [
                    (200, whole.clone()),
                    (502, json!("response_invalid")),
                    (502, json!("response_invalid")),
                    (404, json!({"title": "no", "trace": "x"})),
                    (502, json!("response_invalid")),
                    (502, json!("response_invalid")),
                ],
            ),
            (
                &filtering,
                [
                    (200, filtered.clone()),
                    (200, json!({"name": "pen"})),
                    (502, json!("response_invalid")),
                    (404, json!({"title": "no"})),
                    (500, Value::Null),
                    (200, Value::Null),
                ],
            ),
        ] {
            for (id, wanted) in (1..).zip(wanted) {
                assert_eq!(get(gateway, id), wanted, "item {id}");
            }
        }
    }
    let observed = observing.get("/v1/items/1");
    assert_eq!((observed.header("etag"), observed.body.len()), (Some("\"v1\""), 80), "it is as the target sent it");
    let would = "portcullis_would_reject_total{filter=\"openapi\",reason=\"response_invalid\"}";
    assert_eq!(observing.metric(would), 8.0);
    let filtered = filtering.get("/v1/items/1");
    assert_eq!(filtered.header("etag"), Some("W/\"v1\""));
    assert_eq!(filtered.header("content-length"), Some(filtered.body.len().to_string().as_str()));
    assert!(filtering.get("/v1/items/6").body.is_empty(), "what is not declared never leaves");
    let head = filtering.request("HEAD", "/v1/items/1", &[]);
    assert_eq!((head.status, head.header("content-length")), (200, None), "it would be that of the whole document");
}

#[test]
fn mocks_are_marked_and_chosen_by_prefer() {
    let target = Target::echo("a");
    let more = "  - {name: sandbox, openapi: {file: shop.yaml, base_path: /sandbox}, action: {mock: {}}}\n";
    let gateway = shop(&target, ", mock: [defaultItem, addItem]", more);
    let get = |path: &str, prefer: &str| {
        let answer = gateway.request("GET", path, &[("prefer", prefer)]);
        (answer.status, answer.header("x-mock").map(str::to_owned), answer.json())
    };
    let mock = Some("true".to_owned());
    let pen = json!({"id": 1, "name": "pen", "price": 1.50});
    assert_eq!(get("/sandbox/items/1", "example=pen"), (200, mock.clone(), pen.clone()));
    assert_eq!(get("/sandbox/items/1", ""), (200, mock.clone(), pen));
    assert_eq!(get("/sandbox/items/1", "example=book").2["name"], "book");
    let missing = json!({"title": "There is no such item"});
    assert_eq!(get("/sandbox/items/1", "code=404"), (404, mock.clone(), missing));
    let (status, marked, problem) = get("/sandbox/items/1", "example=none");
    assert_eq!((status, marked, problem["reason"].as_str()), (400, mock.clone(), Some("request_invalid")));
    assert_eq!(get("/sandbox/items/0", "").0, 400, "requests are validated first");
    assert_eq!(get("/sandbox/nothing", "").0, 404);
    assert_eq!(get("/v1/items/default", "").1, mock);
    assert_eq!(target.count(), 0);
    let made = gateway.request("GET", "/v1/items/1", &[]);
    assert_eq!((made.header("x-mock"), target.count()), (None, 1), "other operations are forwarded");
    let headers = "content-type: application/json\r\nx-tenant: a\r\n";
    assert_eq!(over_http1(&gateway, "POST /v1/items", headers, b"{\"name\": \"\"}", 5).0, 400);
    assert_eq!(over_http1(&gateway, "POST /v1/items", headers, b"{\"name\": \"pen\"}", 5).0, 201);
    assert_eq!(target.count(), 1);
}

#[test]
fn other_paths_are_rejected_passed_or_left_to_other_routes() {
    let target = Target::echo("a");
    let more = "  - {name: rest, match: {path: /*}, action: {respond: {status: 203}}}\n";
    for (option, unknown, method) in [("reject", 404, 405), ("pass", 200, 405), ("other_routes", 203, 203)] {
        let gateway = shop(&target, &format!(", unknown_paths: {option}"), more);
        assert_eq!(gateway.get("/v1/unknown").status, unknown, "{option}");
        assert_eq!(gateway.request("DELETE", "/v1/items", &[]).status, method, "{option}");
        assert_eq!(gateway.get("/elsewhere").status, 203, "{option}");
        assert_eq!(gateway.get("/v1/items").status, 200, "{option}");
        assert_eq!(gateway.request("HEAD", "/v1/items", &[]).status, 200, "{option}");
    }
}

#[test]
fn requests_can_be_observed_first() {
    let target = Target::echo("a");
    let gateway = shop(&target, ", requests: observe", "");
    assert_eq!(gateway.get("/v1/items/x").status, 200);
    let would = "portcullis_would_reject_total{filter=\"validate\",reason=\"request_invalid\"}";
    assert_eq!(gateway.metric(would), 1.0);
}

#[test]
fn a_changed_document_is_loaded_and_a_wrong_one_is_not() {
    let target = Target::echo("a");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_path_buf();
    let parts = "Item: {type: object, required: [name], properties: {name: {type: string}}}\n";
    let document = SHOP.replace("'#/components/schemas/Item'", "'parts.yaml#/Item'");
    std::fs::write(path.join("parts.yaml"), parts).expect("written");
    std::fs::write(path.join("shop.yaml"), &document).expect("written");
    let config = format!("{}process: {{watch: 50ms}}\n", shop_config(&target, "", ""));
    let gateway = Gateway::start_in(folder, &config, &[]);
    let headers = "content-type: application/json\r\nx-tenant: a\r\n";
    let post = || over_http1(&gateway, "POST /v1/items", headers, b"{\"name\": \"pen\"}", 100).0;
    assert_eq!(post(), 200);
    // A file to which the document refers.
    std::fs::write(path.join("parts.yaml"), parts.replace("required: [name]", "required: [name, size]"))
        .expect("written");
    eventually("the part is loaded", || post() == 400);
    std::fs::write(path.join("shop.yaml"), document.replace("maximum: 100", "maximum: lots")).expect("written");
    eventually("it is rejected", || gateway.log().contains("shop.yaml:12:"));
    assert!(gateway.log().contains("routes[0].openapi.file"), "{}", gateway.log());
    assert_eq!(post(), 400, "the last good one serves");
    std::fs::write(path.join("shop.yaml"), document.replace("/items:", "/things:")).expect("written");
    eventually("the document is loaded", || gateway.get("/v1/things").status == 200);
    assert_eq!(gateway.get("/v1/items").status, 404);
}

#[test]
fn errors_and_explanations_name_places_and_operations() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("shop.yaml", SHOP);
    let target = Target::echo("a");
    write("portcullis.yaml", &complete(&shop_config(&target, "", "")));
    let config = folder.path().join("portcullis.yaml").display().to_string();
    let (code, printed, error) = run(&["explain", "-c", &config, "GET", "/v1/items/7"], None);
    assert_eq!(code, 0, "{error}");
    for wanted in ["operation: getItem (GET /items/{id})", "filter: openapi (is it valid?)"] {
        assert!(printed.contains(wanted), "{wanted} in {printed}");
    }
    let check = |openapi: &str, more: &str| {
        let text = shop_config(&target, openapi, "").replace("name: shop,", &format!("name: shop, {more}"));
        write("portcullis.yaml", &complete(&text));
        let (_, printed, error) = run(&["check", "-c", &config], None);
        format!("{printed}{error}")
    };
    for (openapi, more, wanted) in [
        ("", "match: {path: /x},", "routes[0].match.path: the paths are those of the document"),
        ("", "match: {methods: [GET]},", "routes[0].match.methods: the methods are those of the document"),
        (", mock: [getItm]", "", "the document has no operation \"getItm\""),
        (", base_path: api", "", "routes[0].openapi.base_path: expected a path such as /api"),
    ] {
        let shown = check(openapi, more);
        assert!(shown.contains(wanted), "{wanted} in {shown}");
    }
    write("shop.yaml", &SHOP.replace("'#/components/schemas/Item'", "'../../etc/passwd'"));
    assert!(check("", "").contains("shop.yaml:30:") && check("", "").contains("leads out of"), "{}", check("", ""));
    write("shop.yaml", "openapi: 3.1.0\npaths: [\n");
    assert!(check("", "").contains("shop.yaml:"), "{}", check("", ""));
}
