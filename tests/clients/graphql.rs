//! A GraphQL service of npm behind paths and methods, and within limits.

use serde_json::{Value, json};

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::programs::{Server, run};

/// Starts the example before the service, with other limits.
fn gateway(target: &Server, introspection: &str, depth: u32) -> Gateway {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples");
    let text = std::fs::read_to_string(examples.join("graphql.yaml")).expect("the example");
    let text = text
        .replace("[127.0.0.1:9001, 127.0.0.1:9002]", &format!("[\"{}\"]", target.address))
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("introspection: false", introspection)
        .replace("depth: 10", &format!("depth: {depth}"));
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::symlink(examples.join("graphql"), folder.path().join("graphql")).expect("a link");
    Gateway::start_in(folder, &text, &[])
}

#[test]
fn paths_and_methods_before_a_service_of_npm() {
    let target = Server::start("graphql_server.js", &[]);
    let gateway = gateway(&target, "introspection: false", 10);
    let ada = json!({"id": "1", "name": "Ada", "role": "WRITER", "friends": [{"id": "2", "name": "Grace"}]});
    let answer = gateway.get("/people/1");
    assert_eq!((answer.status, answer.json()), (200, ada));
    assert_eq!(gateway.get("/people/1?limit=0").json()["friends"], json!([]));
    assert_eq!(gateway.get("/people?role=READER").json(), json!([{"id": "2", "name": "Grace"}]));
    for (path, status) in [
        ("/people?role=reader", 400),
        ("/people?limit=x", 400),
        ("/people/9", 404),
        ("/people/secret", 401),
        ("/people/broken", 502),
        // The list of friends has to be there: its error is that of the person.
        ("/people/2", 502),
    ] {
        assert_eq!(gateway.get(path).status, status, "{path}: {}", gateway.get(path).text());
    }
    let add = |body: &str| {
        let length = body.len().to_string();
        let fields = [("content-type", "application/json"), ("content-length", length.as_str())];
        Connection::open(gateway.address()).ask(head("POST", "/people", &fields) + body)
    };
    assert_eq!(add(r#"{"name": "Edsger"}"#).json(), json!({"id": "3", "name": "Edsger"}));
    let before = target.lines().len();
    for wrong in [r#"{"nome": "Edsger"}"#, r#"{"name": 1}"#, r#"{"name": "x", "role": "NONE"}"#, "[]"] {
        let answer = add(wrong);
        assert_eq!(answer.status, 400, "{wrong}: {}", answer.text());
    }
    assert_eq!(target.lines().len(), before, "the schema is known to the gateway");
}

#[track_caller]
fn case<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|line| line["case"] == name).unwrap_or_else(|| panic!("no case {name}: {lines:?}"))
}

#[test]
fn a_client_of_npm_within_limits() {
    let target = Server::start("graphql_server.js", &[]);
    let closed = gateway(&target, "introspection: false", 20);
    let lines = run("graphql_client.js", &[&closed.address().to_string()]);
    let introspection = case(&lines, "introspection");
    assert_eq!(
        (&introspection["status"], &introspection["errors"][0]["message"]),
        (&400.into(), &"the schema may not be read here".into())
    );
    // The query for the schema is deeper than the example allows.
    let open = gateway(&target, "introspection: true", 20);
    let lines = run("graphql_client.js", &[&open.address().to_string()]);
    let query = case(&lines, "query");
    assert_eq!(
        (&query["valid"], &query["body"]["data"]["people"]),
        (&true.into(), &json!([{"id": "1", "name": "Ada"}]))
    );
    let deep = case(&lines, "deep");
    assert_eq!((&deep["status"], &deep["type"]), (&400.into(), &"application/graphql-response+json".into()), "{deep}");
    assert_eq!(deep["body"]["errors"][0]["extensions"]["code"], "GRAPHQL_LIMIT_EXCEEDED");
    let known = case(&lines, "known");
    assert_eq!(known["body"]["data"]["person"], json!({"name": "Ada", "role": "WRITER"}), "{known}");
}
