//! Paths and methods before targets that speak GraphQL.

use serde_json::{Value, json};

use super::harness::client::{Answer, Connection, head};
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Target, answer};

/// A target that responds with what the variable `reply` holds, or with the request itself as the data.
fn target() -> Target {
    Target::new(|stream, seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let headers: serde_json::Map<String, Value> =
            seen.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone().into())).collect();
        let reply = body["variables"]["reply"].as_str().map(str::to_owned);
        let own = json!({"data": {"seen": {"target": seen.target, "headers": headers, "body": body}}}).to_string();
        let fields = [("content-type", "application/json"), ("cache-control", "max-age=60"), ("x-cost", "7")];
        answer(stream, 200, &fields, reply.unwrap_or(own).as_bytes())
    })
}

const OPERATIONS: &str = r#"
- {method: GET, path: "/users/{id}", data: seen, operation: User, variables: {id: {from: path}, first: {from: query, name: limit}, tags: {from: query, name: tag}, lang: {from: header, name: accept-language}},
   query: "query User($id: ID!, $first: Int = 3, $tags: [String!], $lang: String) { a(id: $id, first: $first, tags: $tags, lang: $lang) } query Other { b }"}
- {method: POST, path: /users, data: seen, variables: {name: {from: body, name: user.name}, age: {from: body}},
   query: "mutation Add($name: String!, $age: Int) { a(name: $name, age: $age) }"}
- {method: PUT, path: "/users/{id}", data: seen, variables: {id: {from: path}, all: {from: body, name: "*"}},
   query: "mutation Put($id: ID!, $all: UserInput!) { a(id: $id, all: $all) }"}
- {method: GET, path: /reply, data: user, variables: {reply: {from: query}}, response_headers: [x-cost],
   query: "query Reply($reply: String) { a(reply: $reply) }"}
- {method: GET, path: /strict, data: user, partial: reject, null_status: 204, variables: {reply: {from: query}},
   query: "query Strict($reply: String) { a(reply: $reply) }"}
- {method: GET, path: /users/me, data: seen, query: "query Me { a }"}"#;

fn config(target: &Target, settings: &str, operations: &str) -> String {
    let operations = operations.replace('\n', "\n            ");
    format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes:
  - name: rest
    action:
      forward:
        upstream: one
        translate:
        - rest_to_graphql:
            path: /api/graphql{settings}
            operations:{operations}
",
        target.address
    )
}

fn gateway(target: &Target, settings: &str) -> Gateway {
    Gateway::start(&config(target, settings, OPERATIONS))
}

#[track_caller]
fn send(gateway: &Gateway, method: &str, path: &str, kind: &str, body: &str) -> Answer {
    let length = body.len().to_string();
    let request = head(method, path, &[("content-type", kind), ("content-length", &length)]) + body;
    Connection::open(gateway.address()).ask(request)
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[test]
fn values_become_variables_of_their_types() {
    let target = target();
    let gateway = gateway(&target, "");
    let answer = gateway.request(
        "GET",
        "/users/a%22%7D%20b?limit=5&tag=x&tag=y%2Bz",
        &[("accept-language", "de"), ("if-none-match", "\"x\"")],
    );
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("max-age=60"));
    let seen = answer.json();
    assert_eq!(seen["target"], "/api/graphql");
    assert_eq!(seen["body"]["operationName"], "User");
    assert_eq!(seen["body"]["variables"], json!({"id": "a\"} b", "first": 5, "tags": ["x", "y+z"], "lang": "de"}));
    assert!(seen["body"]["query"].as_str().is_some_and(|query| query.starts_with("query User($id")));
    assert_eq!(seen["headers"]["content-type"], "application/json");
    assert_eq!(seen["headers"]["accept"], "application/graphql-response+json, application/json;q=0.9");
    assert_eq!(seen["headers"]["if-none-match"], Value::Null);
    // What is not there is left out, so that the operation's default counts. The more precise path comes first.
    assert_eq!(gateway.get("/users/7").json()["body"]["variables"], json!({"id": "7"}));
    assert_eq!(gateway.get("/users/me").json()["body"]["operationName"], "Me");
    let seen = send(&gateway, "POST", "/users", "application/json", r#"{"user": {"name": "Ada"}, "age": 36}"#).json();
    assert_eq!(seen["body"]["variables"], json!({"name": "Ada", "age": 36}));
    let seen =
        send(&gateway, "PUT", "/users/1", "application/merge-patch+json", r#"{"deep": [1, {"a": null}]}"#).json();
    assert_eq!(seen["body"]["variables"], json!({"id": "1", "all": {"deep": [1, {"a": null}]}}));
    let line = &gateway.access_log(5)[0];
    assert_eq!((&line["operation"], &line["target_status"]), (&"User".into(), &"data".into()), "{line}");
    assert_eq!(line["translated"], "rest to graphql");
}

#[test]
fn values_that_lack_or_are_wrong_are_named() {
    let target = target();
    let gateway = gateway(&target, "");
    for (answer, detail) in [
        (gateway.get("/users/1?limit=x"), "the query parameter limit has to be of the type Int"),
        (gateway.get("/users/1?limit=1&limit=2"), "the query parameter limit is there more than once"),
        (gateway.get("/users/%ff"), "the parameter id of the path is not UTF-8"),
        (send(&gateway, "POST", "/users", "application/json", "{}"), "user.name of the body is missing"),
        (send(&gateway, "POST", "/users", "application/json", ""), "user.name of the body is missing"),
        (
            send(&gateway, "POST", "/users", "application/json", r#"{"user": {"name": 7}}"#),
            "user.name of the body has to be of the type String!",
        ),
        (send(&gateway, "PUT", "/users/1", "application/json", ""), "the body is missing"),
    ] {
        let problem = answer.json();
        assert_eq!((answer.status, answer.reason().as_str()), (400, "request_untranslatable"), "{problem}");
        assert_eq!(problem["detail"], detail);
    }
    let wrong = send(&gateway, "POST", "/users", "application/json", "{");
    assert!(wrong.json()["detail"].as_str().is_some_and(|d| d.starts_with("the body is not JSON: ")));
    assert_eq!(send(&gateway, "POST", "/users", "text/plain", "{}").reason(), "media_type");
    let other = gateway.request("DELETE", "/users/1", &[]);
    assert_eq!((other.status, other.header("allow")), (405, Some("GET, PUT, HEAD")));
    assert_eq!(target.count(), 0);
    // What no path is for is forwarded as it is.
    assert_eq!(gateway.get("/other").status, 200);
    assert_eq!(target.count(), 1);
}

#[test]
fn errors_have_a_status() {
    let target = target();
    let gateway = gateway(&target, "\n            errors: {UNAUTHENTICATED: 401, NOT_FOUND: 404}");
    let shown = Gateway::start(&config(&target, "\n            show_messages: true", OPERATIONS));
    let failed =
        |code: &str| json!({"errors": [{"message": "no such user", "extensions": {"code": code}}]}).to_string();
    let get = |gateway: &Gateway, path: &str, reply: &str| gateway.get(&format!("{path}?reply={}", encoded(reply)));
    for (reply, status) in [
        (failed("UNAUTHENTICATED"), 401),
        (failed("NOT_FOUND"), 404),
        (failed("OTHER"), 502),
        (r#"{"errors": [{"message": "m"}], "data": {"user": null}}"#.to_owned(), 502),
        (r#"{"data": {"user": null}}"#.to_owned(), 404),
        (r#"{"data": {}}"#.to_owned(), 404),
    ] {
        let answer = get(&gateway, "/reply", &reply);
        assert_eq!((answer.status, answer.reason().as_str()), (status, "no_result"), "{reply}");
        assert_eq!(answer.json()["detail"], Value::Null, "{reply}");
    }
    assert_eq!(get(&shown, "/reply", &failed("X")).json()["detail"], "no such user");
    for reply in ["<html>", "[]", "{}", r#"{"data": {"user": 1}"#] {
        let answer = get(&gateway, "/reply", reply);
        assert_eq!((answer.status, answer.reason().as_str()), (502, "response_untranslatable"), "{reply}");
    }
    let long = format!(r#"{{"data": {{"user": "{}"}}}}"#, "x".repeat(2000));
    let small = Gateway::start(&config(&target, "\n            max_response: 1KiB", OPERATIONS));
    assert_eq!(get(&small, "/reply", &long).reason(), "response_untranslatable");
    assert_eq!(get(&gateway, "/reply", &long).body.len(), 2002);
    assert!(gateway.access_log(1).iter().any(|line| line["detail"] == "UNAUTHENTICATED: no such user"));
}

#[test]
fn a_part_of_a_result_is_marked_or_rejected() {
    let target = target();
    let gateway = gateway(&target, "");
    let partial =
        encoded(r#"{"data": {"user": {"n": 12345678901234567890.10, "name": null}}, "errors": [{"message": "m"}]}"#);
    let answer = gateway.get(&format!("/reply?reply={partial}"));
    assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"n": 12345678901234567890.10, "name": null}"#));
    assert_eq!((answer.header("x-partial"), answer.header("cache-control")), (Some("true"), Some("no-store")));
    assert_eq!(answer.header("x-cost"), Some("7"));
    let whole = gateway.get(&format!("/reply?reply={}", encoded(r#"{"data": {"user": [1]}}"#)));
    assert_eq!((whole.header("x-partial"), whole.text().as_str()), (None, "[1]"));
    // Only those that are listed are passed on.
    assert_eq!(whole.header("cache-control"), None);
    let strict = gateway.get(&format!("/strict?reply={partial}"));
    assert_eq!((strict.status, strict.reason().as_str()), (502, "no_result"));
    let none = gateway.get(&format!("/strict?reply={}", encoded(r#"{"data": {"user": null}}"#)));
    assert_eq!((none.status, none.text().as_str()), (204, ""));
}

#[test]
fn settings_that_cannot_work_are_rejected() {
    let target = target();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("schema.graphql"), "type Query { user(id: ID!): String }").expect("written");
    let one =
        |settings: &str, query: &str| format!("\n- {{method: GET, path: \"/a/{{id}}\", query: \"{query}\"{settings}}}");
    for (settings, operations, wanted) in [
        ("", one("", "query {"), "syntax error"),
        ("", one("", "query A($id: ID!) { a(id: $id) }"), "needs a value for $id"),
        ("", one(", variables: {ib: {from: path}}", "query A($id: ID) { a(id: $id) }"), "declares no variable $ib"),
        (
            "",
            one(", variables: {id: {from: path, name: ib}}", "query A($id: ID!) { a(id: $id) }"),
            "the path has no parameter {ib}",
        ),
        (
            "",
            one(", variables: {id: {from: body}}", "query A($id: ID!) { a(id: $id) }"),
            "a request by GET has no body",
        ),
        ("", one("", "mutation A { a }"), "a mutation has an effect"),
        ("", one("", "subscription A { a }"), "a subscription has no response"),
        ("\n            schema: schema.graphql", one("", "{ nobody }"), "nobody"),
        ("\n            schema: none.graphql", one("", "{ a }"), "cannot read"),
        ("\n            errors: {A: 200}", one("", "{ a }"), "a status from 400 to 599"),
    ] {
        std::fs::write(folder.path().join("a.yaml"), config(&target, settings, &operations)).expect("written");
        let (code, _, errors) = run(&["check", "-c", "a.yaml"], Some(folder.path()));
        assert!(code != 0 && errors.contains(wanted), "{operations}: {errors}");
    }
}

#[test]
fn a_schema_checks_input_objects() {
    let target = target();
    let folder = tempfile::tempdir().expect("a folder");
    let schema =
        "type Query { a: Int } type Mutation { add(user: UserInput!): String } input UserInput { name: String! }";
    std::fs::write(folder.path().join("schema.graphql"), schema).expect("written");
    std::fs::write(folder.path().join("add.graphql"), "mutation Add($user: UserInput!) { add(user: $user) }")
        .expect("written");
    let operations = "\n- {method: POST, path: /users, file: add.graphql, variables: {user: {from: body, name: '*'}}}";
    let yaml = config(&target, "\n            schema: schema.graphql", operations);
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    assert_eq!(send(&gateway, "POST", "/users", "application/json", r#"{"name": "Ada"}"#).status, 200);
    let wrong = send(&gateway, "POST", "/users", "application/json", r#"{"nome": "Ada"}"#);
    assert_eq!((wrong.status, target.count()), (400, 1), "{}", wrong.text());
}
