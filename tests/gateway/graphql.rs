//! GraphQL over calls to upstreams: operations over HTTP, the calls that they make, and their limits.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::harness::client::{Answer, Connection};
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Target, answer};

const SCHEMA: &str = "
type Query { user(id: ID!): User users(first: Int = 2): [User!]! slow: String }
type Mutation { addUser(input: NewUser!): User }
input NewUser { name: String! tags: [String!] }
type User { id: ID! name: String email: String posts(limit: Int): [Post!] }
type Post { id: ID! title: String author: User }
";

const ACTION: &str = "
schema: schema.graphql
timeout: 2s
limits: {depth: 6, aliases: 3, cost: 200, batch: 2}
resolvers:
  Query.user: {upstream: users, path: '/users/{args.id}'}
  Query.users: {upstream: users, path: /users, query: {limit: '{args.first}'}, take: items}
  Query.slow: {upstream: users, path: /slow}
  Mutation.addUser: {upstream: users, method: POST, path: /users, body: '{\"new\": {args.input}}'}
  User.email: {member: mail}
  User.posts: {upstream: users, path: /posts, query: {author: '{parent.id}', limit: '{args.limit}'}}
  Post.author: {upstream: users, path: '/users/{parent.author}'}
";

type Calls = Arc<Mutex<Vec<String>>>;

fn users() -> (Target, Calls) {
    let calls = Calls::default();
    let noted = Arc::clone(&calls);
    let target = Target::new(move |stream, seen| {
        let line = format!("{} {} {}", seen.method, seen.target, String::from_utf8_lossy(&seen.body));
        noted.lock().expect("the lock").push(line.trim_end().to_owned());
        let user = |id: &str| json!({"id": id, "name": format!("n{id}"), "mail": format!("{id}@x.test")});
        let body = match seen.target.as_str() {
            "/users?limit=2" => json!({"items": [user("1"), user("2")]}),
            "/users" => user("9"),
            "/users/404" => return answer(stream, 404, &[], b"none"),
            "/users/500" => return answer(stream, 500, &[], b"secret detail"),
            "/users/text" => return answer(stream, 200, &[], b"no json"),
            "/slow" => {
                std::thread::sleep(std::time::Duration::from_secs(3));
                json!("late")
            }
            path if path.starts_with("/posts") => json!([{"id": "p", "title": path, "author": 1}]),
            path => user(path.rsplit('/').next().expect("an id")),
        };
        answer(stream, 200, &[("content-type", "application/json")], body.to_string().as_bytes())
    });
    (target, calls)
}

fn yaml(target: &Target, action: &str, filters: &str) -> String {
    let action = action.trim().replace('\n', "\n          ");
    format!(
        "upstreams: {{users: {{targets: [\"{}\"]}}}}
routes:
  - name: api
    match: {{path: /graphql}}
    filters: [{filters}]
    action:
      graphql:
          {action}
",
        target.address
    )
}

fn gateway(action: &str, filters: &str) -> (Gateway, Target, Calls) {
    let (target, calls) = users();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("schema.graphql"), SCHEMA).expect("written");
    std::fs::write(folder.path().join("ops.json"), r#"{"one": "query One{user(id:1){id}}"}"#).expect("written");
    let gateway = Gateway::start_in(folder, &yaml(&target, action, filters), &[]);
    (gateway, target, calls)
}

fn post(gateway: &Gateway, body: &Value, headers: &str) -> Answer {
    let body = body.to_string();
    Connection::open(gateway.address()).ask(format!(
        "POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    ))
}

fn query(gateway: &Gateway, text: &str) -> Value {
    let answer = post(gateway, &json!({"query": text}), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[test]
fn an_operation_is_executed_over_calls() {
    let (gateway, _target, calls) = gateway(ACTION, "");
    let response = query(&gateway, "{users{id email posts(limit:3){title author{name}}} user(id:\"1\"){name}}");
    let user = |id: &str| {
        let post = json!({"title": format!("/posts?author={id}&limit=3"), "author": {"name": "n1"}});
        json!({"id": id, "email": format!("{id}@x.test"), "posts": [post]})
    };
    assert_eq!(response, json!({"data": {"users": [user("1"), user("2")], "user": {"name": "n1"}}}));
    let mut made = calls.lock().expect("the lock").clone();
    made.sort();
    let wanted = ["GET /posts?author=1&limit=3", "GET /posts?author=2&limit=3", "GET /users/1", "GET /users?limit=2"];
    assert_eq!(made, wanted, "equal calls are made once");
    calls.lock().expect("the lock").clear();
    let mutation = json!({
        "query": "mutation Add($input: NewUser!){addUser(input:$input){id}}",
        "variables": {"input": {"name": "a\"b", "tags": ["x"]}},
        "operationName": "Add",
    });
    assert_eq!(post(&gateway, &mutation, "").json(), json!({"data": {"addUser": {"id": "9"}}}));
    assert_eq!(*calls.lock().expect("the lock"), [r#"POST /users {"new": {"name":"a\"b","tags":["x"]}}"#]);
    let log = gateway.access_log(2);
    let line = log.iter().find(|line| line["operation"] == "Add").expect("a line");
    assert_eq!(line["translated"], "graphql to http");
    eventually("no place is held", || {
        gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"users\"}") == 0.0
    });
}

#[test]
fn failures_are_errors_of_their_fields() {
    let (gateway, _target, _) = gateway(ACTION, "");
    let response = query(&gateway, "{a:user(id:\"404\"){id} b:user(id:\"500\"){id} c:user(id:\"text\"){id}}");
    assert_eq!(response["data"], json!({"a": null, "b": null, "c": null}));
    let errors: Vec<_> = response["errors"].as_array().expect("errors").iter().map(|e| e["message"].clone()).collect();
    assert_eq!(errors, ["a call was responded to with 500", "the response to a call is no JSON"]);
    assert!(!response.to_string().contains("secret"));
    let late = query(&gateway, "{slow}");
    assert_eq!(late["errors"][0]["message"], "a call failed: route_timeout");
    assert_eq!(gateway.access_log(2)[0]["reason"], "aggregated_in_part");
}

#[test]
fn requests_follow_graphql_over_http() {
    let (gateway, target, _) = gateway(ACTION, "");
    let got = gateway.get("/graphql?query=%7Buser(id%3A1)%7Bid%7D%7D");
    assert_eq!((got.status, got.json()), (200, json!({"data": {"user": {"id": "1"}}})));
    assert_eq!(got.header("content-type"), Some("application/json"));
    let count = target.count();
    let new = "accept: application/graphql-response+json\r\n";
    for (body, headers, status) in [
        (json!({"query": "{nothing}"}), "", 200),
        (json!({"query": "{nothing}"}), new, 400),
        (json!({"query": "{user"}), new, 400),
        (json!({"query": "subscription{x}"}), new, 400),
        (json!({}), new, 400),
        (json!([]), "", 400),
        (json!(7), "", 400),
        (json!([{"query": "{a}"}, {"query": "{b}"}, {"query": "{c}"}]), "", 400),
    ] {
        let answer = post(&gateway, &body, headers);
        assert_eq!(answer.status, status, "{body} {}", answer.text());
    }
    let mutation = gateway.get("/graphql?query=mutation%7BaddUser(input%3A%7Bname%3A%22x%22%7D)%7Bid%7D%7D");
    assert_eq!(mutation.json()["errors"][0]["message"], "only queries may come by GET");
    let put = gateway.request("PUT", "/graphql", &[("content-length", "0")]);
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, POST")));
    let form = gateway.request("POST", "/graphql", &[("content-type", "text/plain"), ("content-length", "0")]);
    assert_eq!(form.status, 415);
    assert_eq!(target.count(), count, "nothing of these was executed");
    let batch = post(&gateway, &json!([{"query": "{user(id:1){id}}"}, {"query": "{nothing}"}]), "");
    assert_eq!(batch.json()[0], json!({"data": {"user": {"id": "1"}}}));
    assert!(batch.json()[1]["errors"].is_array());
    let head = gateway.request("HEAD", "/graphql?query=%7Buser(id%3A1)%7Bid%7D%7D", &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn what_is_too_large_is_not_executed() {
    let (gateway, target, _) = gateway(ACTION, "");
    for (text, limit) in [
        ("{users{posts{author{posts{author{posts{author{id}}}}}}}}", "depth"),
        ("{a:user(id:1){id} b:user(id:1){id} c:user(id:1){id} d:user(id:1){id}}", "aliases"),
        ("{users(first:100){posts(limit:100){id}}}", "cost"),
        ("{__schema{types{name}}}", "introspection"),
    ] {
        let message = query(&gateway, text)["errors"][0]["message"].to_string();
        assert!(message.contains(limit), "{text}: {message}");
    }
    let nested = format!("{{{}{}}}", "a{".repeat(5_000), "}".repeat(5_000));
    assert!(query(&gateway, &nested)["errors"].is_array());
    assert_eq!(target.count(), 0);
    let large = post(&gateway, &json!({"query": " ".repeat(300_000)}), "");
    assert_eq!(large.status, 413);
}

#[test]
fn persisted_documents_alone() {
    let action = format!("{ACTION}persisted: {{file: ops.json, only: true}}\nintrospection: true");
    let (gateway, _target, _) = gateway(&action, "");
    assert_eq!(post(&gateway, &json!({"documentId": "one"}), "").json()["data"]["user"]["id"], "1");
    let hash = json!({"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "one"}}});
    assert_eq!(post(&gateway, &hash, "").json()["data"]["user"]["id"], "1");
    let other = query(&gateway, "{user(id:1){id}}");
    assert_eq!(other["errors"][0]["extensions"]["code"], "PERSISTED_QUERY_NOT_FOUND");
}

#[test]
fn responses_pass_filters_and_the_cache() {
    let (target, calls) = users();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("schema.graphql"), SCHEMA).expect("written");
    let filters = "{strip_fields: {response: ['**.email']}}, {cache: {store: pages, ttl: {default: 1m}}}";
    let yaml = format!("caches: {{pages: {{memory: 4MiB, max_object: 1MiB}}}}\n{}", yaml(&target, ACTION, filters));
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for _ in 0..3 {
        let got = gateway.get("/graphql?query=%7Buser(id%3A1)%7Bid%20email%7D%7D");
        assert_eq!(got.json(), json!({"data": {"user": {"id": "1"}}}));
    }
    assert_eq!(calls.lock().expect("the lock").len(), 1, "it is cached");
}

#[test]
fn what_cannot_take_effect_is_rejected() {
    let (target, _) = users();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("schema.graphql"), SCHEMA).expect("written");
    std::fs::write(path.join("bad.graphql"), "type Query { a: Nothing }").expect("written");
    for (from, to, wanted) in [
        ("Query.user:", "Query.usr:", "has no field \"usr\""),
        ("Query.user:", "Qery.user:", "has no type \"Qery\""),
        ("{args.id}", "{args.ids}", "has no argument \"ids\""),
        ("{args.id}", "{id}", "expected {args.NAME}"),
        ("'/users/{args.id}'", "'/users/{parent.id}'", "no parent at the root"),
        ("  Query.slow: {upstream: users, path: /slow}\n", "", "nothing resolves Query.slow"),
        ("{member: mail}", "{member: mail, path: /x}", "nothing else beside it"),
        ("schema: schema.graphql", "schema: bad.graphql", "bad.graphql:1:17"),
        ("schema: schema.graphql", "schema: none.graphql", "none.graphql"),
        ("batch: 2", "batch: 0", "expected 1 or more"),
        ("path: /slow", "path: slow", "a path that starts with /"),
    ] {
        let action = ACTION.replacen(from, to, 1);
        assert_ne!(action, ACTION, "{from}");
        std::fs::write(path.join("c.yaml"), super::harness::gateway::complete(&yaml(&target, &action, "")))
            .expect("written");
        let (code, _, error) = run(&["check", "-c", path.join("c.yaml").to_str().expect("a path")], None);
        assert!(code == 2 && error.contains(wanted), "{to}: {error}");
    }
}
