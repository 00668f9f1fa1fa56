//! Limits of GraphQL operations.

use serde_json::{Value, json};

use super::harness::client::{Answer, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::target::Target;

fn config(target: &Target, settings: &str) -> String {
    format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes: [{{name: graphql, match: {{path: /graphql}}, filters: [{{graphql_limits: {{{settings}}}}}], action: {{forward: one}}}}]
",
        target.address
    )
}

fn start(settings: &str) -> (Target, Gateway) {
    let target = Target::echo("a");
    let gateway = Gateway::start(&config(&target, settings));
    (target, gateway)
}

#[track_caller]
fn post(gateway: &Gateway, body: &str, fields: &[(&str, &str)]) -> Answer {
    post_as(gateway, "/graphql", "application/json", body, fields)
}

#[track_caller]
fn post_as(gateway: &Gateway, path: &str, kind: &str, body: &str, fields: &[(&str, &str)]) -> Answer {
    let length = body.len().to_string();
    let own = [("content-type", kind), ("content-length", &length)];
    Connection::open(gateway.address()).ask(head("POST", path, &[&own[..], fields].concat()) + body)
}

fn query(text: &str) -> String {
    json!({"query": text}).to_string()
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[track_caller]
fn error(answer: &Answer) -> (u16, String) {
    let code = &answer.json()["errors"][0]["extensions"]["code"];
    (answer.status, code.as_str().unwrap_or_else(|| panic!("no error: {}", answer.text())).to_owned())
}

fn limit() -> (u16, String) {
    (400, "GRAPHQL_LIMIT_EXCEEDED".to_owned())
}

fn invalid() -> (u16, String) {
    (400, "GRAPHQL_PARSE_FAILED".to_owned())
}

#[test]
fn operations_within_the_limits_are_forwarded_as_they_are() {
    let (_target, gateway) = start("depth: 3, batch: 2");
    let body = r#" {"query": "query Q { a { b } }" , "variables": {"big": 12345678901234567890123}, "more": [1]}"#;
    assert_eq!(post(&gateway, body, &[]).json()["body"], body);
    let batch = format!("[{}, {}]", query("{ a }"), query("mutation M { b }"));
    assert_eq!(post(&gateway, &batch, &[]).json()["body"], batch.as_str());
    let got = gateway.get(&format!("/graphql?query={}&operationName=A", encoded("query A { a } mutation B { b }")));
    assert_eq!(got.json()["method"], "GET");
    // A page of the service, and a preflight.
    assert_eq!(gateway.get("/graphql").status, 200);
    assert_eq!(gateway.request("OPTIONS", "/graphql", &[]).status, 200);
    assert!(gateway.access_log(5).iter().any(|line| line["operation"] == "Q"));
    let count = |kind: &str| {
        gateway.metric(&format!("portcullis_graphql_operations_total{{kind=\"{kind}\",route=\"graphql\"}}"))
    };
    eventually("all are counted", || (count("query"), count("mutation")) == (3.0, 1.0));
}

#[test]
fn operations_over_a_limit_are_rejected() {
    let settings =
        "depth: 3, fields: 6, aliases: 2, tokens: 60, introspection: false, cost: {max: 100, fields: {dear: 50}}";
    let (target, gateway) = start(settings);
    for text in [
        "{ a { b { c { d } } } }",
        "{ a b c d e f g }",
        "{ x: a y: a z: a }",
        "{ __schema { queryType { name } } }",
        "{ ...F } fragment F on Query { __type(name: \"A\") { name } }",
        "{ a(first: 101) }",
        "{ a(first: 10) { b(last: 10) { c } } }",
        "{ dear { dear } x: dear }",
    ] {
        assert_eq!(error(&post(&gateway, &query(text), &[])), limit(), "{text}");
        assert_eq!(error(&gateway.get(&format!("/graphql?query={}", encoded(text)))), limit(), "{text}");
    }
    let variables = json!({"query": "query Q($n: Int) { a(first: $n) }", "variables": {"n": 101}}).to_string();
    assert_eq!(error(&post(&gateway, &variables, &[])), limit());
    let long = format!("{{ {} }}", "a(b: [1, 2]) ".repeat(20));
    for text in ["{ a", "{ ...F } fragment F on T { ...F }", "", "{ ...G }", &long] {
        assert_eq!(error(&post(&gateway, &query(text), &[])), invalid(), "{text}");
    }
    assert_eq!(error(&post(&gateway, &format!("[{0}, {0}]", query("{ a }")), &[])), invalid());
    assert_eq!(target.count(), 0);
    let graphql = ("accept", "application/graphql-response+json, application/json;q=0.9");
    let answer = post(&gateway, &query("{ a b c d e f g }"), &[graphql]);
    assert_eq!(answer.header("content-type"), Some("application/graphql-response+json"));
    assert_eq!(answer.json()["errors"][0]["message"], "the operation has the number of fields 7, and 6 is the most");
    let log = gateway.access_log(10);
    assert!(log.iter().any(|line| line["reason"] == "graphql_limit"), "{log:?}");
}

#[test]
fn nothing_goes_round_the_limits() {
    let (target, gateway) = start("depth: 2");
    let deep = "{ a { b { c } } }";
    let duplicate = format!(r#"{{"query": "{{ a }}", "query": "{deep}"}}"#);
    assert_eq!(error(&post(&gateway, &duplicate, &[])), invalid());
    for kind in
        ["text/plain", "application/graphql", "", "multipart/form-data; boundary=x", "application/json; charset=utf-7"]
    {
        assert_eq!(post_as(&gateway, "/graphql", kind, &query(deep), &[]).status, 415, "{kind}");
    }
    let gzip = post(&gateway, &query(deep), &[("content-encoding", "gzip")]);
    assert_eq!(gzip.status, 415);
    let both = format!("/graphql?query={}", encoded(deep));
    assert_eq!(post_as(&gateway, &both, "application/json", &query("{ a }"), &[]).status, 400);
    assert_eq!(gateway.get(&format!("/graphql?query={}&query={}", encoded("{ a }"), encoded(deep))).status, 400);
    assert_eq!(gateway.request("PUT", "/graphql", &[("content-length", "0")]).status, 405);
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];
    assert_eq!(gateway.request("GET", "/graphql", &upgrade).status, 400);
    let mutation = gateway.get(&format!("/graphql?query={}", encoded("mutation { a }")));
    assert_eq!((mutation.status, mutation.header("allow")), (405, Some("POST")));
    assert_eq!(target.count(), 0);
}

#[test]
fn known_documents_are_named_by_their_id() {
    let target = Target::echo("a");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("known.json"), r#"{"k1": "query Known { a }"}"#).expect("written");
    let yaml = config(&target, "persisted: {file: known.json, only: true}");
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let sent = |answer: &Answer| -> Value {
        serde_json::from_str(answer.json()["body"].as_str().expect("a body")).expect("JSON")
    };
    let by_id = post(&gateway, r#"{"documentId": "k1", "variables": {"a": 1}}"#, &[]);
    assert_eq!(sent(&by_id), json!({"variables": {"a": 1}, "query": "query Known { a }"}));
    assert_eq!(post(&gateway, &query("query Known { a }"), &[]).status, 200);
    let other = post(&gateway, &query("{ b }"), &[]);
    assert_eq!(error(&other), (400, "PERSISTED_QUERY_REQUIRED".to_owned()));
    let unknown = post(&gateway, r#"{"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "ff"}}}"#, &[]);
    assert_eq!(error(&unknown), (200, "PERSISTED_QUERY_NOT_FOUND".to_owned()));
    assert_eq!(target.count(), 2);
}

#[test]
fn settings_that_cannot_work_are_rejected() {
    let target = Target::echo("a");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("list.json"), "[1]").expect("written");
    for (settings, wanted) in [
        ("depth: 0", "depth"),
        ("depth: 1000", "depth"),
        ("persisted: {file: none.json}", "cannot read"),
        ("persisted: {file: list.json}", "expected a JSON object"),
        ("deepth: 3", "depth"),
    ] {
        std::fs::write(folder.path().join("a.yaml"), config(&target, settings)).expect("written");
        let (code, _, errors) = run(&["check", "-c", "a.yaml"], Some(folder.path()));
        assert!(code != 0 && errors.contains(wanted), "{settings}: {errors}");
    }
}
