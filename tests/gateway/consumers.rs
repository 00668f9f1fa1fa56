//! Consumers in a file: what changes in it takes effect at once, and operators change it by the admin API. Filters that
//! only count.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::harness::client::{self, Answer};
use super::harness::eventually;
use super::harness::gateway::{Gateway, complete, run};

const ROUTE: &str = "consumers_file: consumers.json
plans: {gold: {rate_limit: 100/s}}
routes: [{name: all, filters: [{api_key: {}}], action: {respond: {body: '{consumer}'}}}]
";

fn gateway(consumers: &Value) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("consumers.json"), consumers.to_string()).expect("written");
    Gateway::start_in(folder, ROUTE, &[])
}

fn with_key(key: &str) -> Value {
    json!({"credentials": [{"api_key": {"value": key}}]})
}

fn status(gateway: &Gateway, key: &str) -> u16 {
    gateway.request("GET", "/", &[("x-api-key", key)]).status
}

/// Sends a request with a body to the admin listener.
fn admin(gateway: &Gateway, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len().to_string();
    let head = client::head(method, path, &[("content-length", &length)]);
    client::Connection::open(gateway.admin).ask(format!("{head}{body}"))
}

#[test]
fn a_change_of_the_file_takes_effect_within_a_second_and_an_error_in_it_changes_nothing() {
    let gateway = gateway(&json!({"ada": with_key("one"), "bob": with_key("two")}));
    assert_eq!((status(&gateway, "one"), status(&gateway, "two"), status(&gateway, "three")), (200, 200, 401));
    let file = gateway.config().with_file_name("consumers.json");
    std::fs::write(&file, json!({"bob": with_key("two"), "eve": with_key("three")}).to_string()).expect("written");
    let begin = Instant::now();
    eventually("ada's key is revoked", || status(&gateway, "one") == 401);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!((status(&gateway, "two"), status(&gateway, "three")), (200, 200));
    std::fs::write(&file, r#"{"bob": {"credentials": [{"api_key": {"value": 5}}]}}"#).expect("written");
    eventually("the error is reported", || gateway.log().contains("the earlier consumers stay"));
    assert_eq!((status(&gateway, "two"), status(&gateway, "three")), (200, 200));
    let (code, _, error) = run(&["check", "-c", &gateway.config().display().to_string()], None);
    assert!(code == 2 && error.contains("consumers_file") && error.contains("bob"), "{error}");
}

#[test]
fn operators_create_rotate_and_revoke_keys() {
    let gateway = gateway(&json!({}));
    let made = admin(&gateway, "PUT", "/consumers/ada", &json!({"groups": ["staff"], "plan": "gold"}));
    assert_eq!(made.status, 201, "{}", made.text());
    let first = admin(&gateway, "POST", "/consumers/ada/keys", &json!({"scopes": ["read"]})).json();
    let (key, id) = (first["key"].as_str().expect("a key"), first["id"].as_str().expect("an id"));
    let response = gateway.request("GET", "/", &[("x-api-key", key)]);
    assert_eq!((response.status, response.text().as_str()), (200, "ada"));
    let shown = client::get(gateway.admin, "/consumers/ada");
    let view = shown.json();
    assert_eq!((&view["plan"], &view["groups"][0], &view["source"]), (&json!("gold"), &json!("staff"), &json!("file")));
    assert_eq!(view["credentials"][0]["api_key"]["id"], id);
    // Neither the key nor its digest is shown, or in the file as itself.
    let file = std::fs::read_to_string(gateway.config().with_file_name("consumers.json")).expect("the file");
    assert!(!shown.text().contains(key) && !file.contains(key) && !gateway.log().contains(key));
    // For a time both are accepted, and a rotation without that time revokes the old one at once.
    let second = admin(&gateway, "POST", &format!("/consumers/ada/keys/{id}/rotate"), &json!({"grace": "1h"})).json();
    let (next, next_id) = (second["key"].as_str().expect("a key"), second["id"].as_str().expect("an id"));
    assert_eq!((status(&gateway, key), status(&gateway, next)), (200, 200));
    let third = admin(&gateway, "POST", &format!("/consumers/ada/keys/{next_id}/rotate"), &Value::Null).json();
    let last = third["key"].as_str().expect("a key");
    assert_eq!((status(&gateway, next), status(&gateway, last)), (401, 200));
    assert_eq!(admin(&gateway, "DELETE", &format!("/consumers/ada/keys/{id}"), &Value::Null).status, 200);
    assert_eq!((status(&gateway, key), status(&gateway, last)), (401, 200));
    // A change of the rest keeps the keys; what is removed is gone.
    assert_eq!(admin(&gateway, "PATCH", "/consumers/ada", &json!({"quota": "5/day", "groups": null})).status, 200);
    let view = client::get(gateway.admin, "/consumers/ada").json();
    assert_eq!((&view["plan"], &view["groups"], &view["quota"]), (&json!("gold"), &json!([]), &json!("5/day")));
    assert_eq!(admin(&gateway, "PUT", "/consumers/ada", &json!({})).status, 200);
    assert_eq!(status(&gateway, last), 200);
    // A key that has expired is not revived by its rotation.
    let ended = json!({"expires": "2001-01-01T00:00:00Z"});
    let old = admin(&gateway, "POST", "/consumers/ada/keys", &ended).json();
    let (key, id) = (old["key"].as_str().expect("a key"), old["id"].as_str().expect("an id"));
    let path = format!("/consumers/ada/keys/{id}/rotate");
    assert_eq!(admin(&gateway, "POST", &path, &json!({"grace": "30d"})).status, 201);
    assert_eq!(status(&gateway, key), 401);
    assert_eq!(client::get(gateway.admin, "/consumers").json()["names"], json!(["ada"]));
    assert_eq!(admin(&gateway, "DELETE", "/consumers/ada", &Value::Null).status, 200);
    assert_eq!(status(&gateway, last), 401);
    eventually("it is noted", || gateway.log().contains("audit: DELETE /consumers/ada by an operator"));
}

#[test]
fn wrong_changes_are_rejected_with_their_reason() {
    let gateway = gateway(&json!({"ada": with_key("one")}));
    for (method, path, body, expected, why) in [
        ("PUT", "/consumers/a%20b", json!({}), 422, "a name of"),
        ("PUT", "/consumers/bob", json!({"credentials": [{"api_key": {"value": "one"}}]}), 422, "second time"),
        ("PUT", "/consumers/bob", json!({"colour": "red"}), 422, "unknown field"),
        ("PUT", "/consumers/bob", json!([]), 422, "expected {groups"),
        ("PUT", "/consumers/bob", json!({"plan": "golden"}), 422, "no plan"),
        ("PATCH", "/consumers/bob", json!({}), 404, "no consumer"),
        ("POST", "/consumers/bob/keys", json!({}), 404, "no consumer"),
        ("DELETE", "/consumers/ada/keys/0123", Value::Null, 404, "no key 0123"),
        ("POST", "/consumers/ada/keys", json!({"grace": "1h"}), 422, "rotation"),
        ("POST", "/consumers/ada", json!({}), 405, "expected GET, HEAD, PUT, PATCH, DELETE"),
        ("GET", "/consumers/eve", Value::Null, 404, "no consumer"),
    ] {
        let answer = admin(&gateway, method, path, &body);
        assert!(answer.status == expected && answer.text().contains(why), "{method} {path}: {}", answer.text());
    }
    assert_eq!(status(&gateway, "one"), 200);
    let other = Gateway::start(
        "consumers: {ada: {credentials: [{api_key: {value: one}}]}}\nroutes: [{name: all, filters: [{api_key: {}}], action: {respond: {body: ok}}}]",
    );
    assert_eq!(admin(&other, "PUT", "/consumers/bob", &json!({})).status, 409);
    let file = gateway.config().display().to_string();
    std::fs::write(&file, complete(&ROUTE.replace("consumers.json", "other.json"))).expect("written");
    let (code, _, error) = run(&["check", "-c", &file], None);
    assert!(code == 2 && error.contains("cannot be used"), "{error}");
}

#[test]
fn a_filter_that_is_not_enforced_counts_what_it_would_reject() {
    let gateway = Gateway::start(
        "consumers: {ada: {credentials: [{api_key: {value: one}}]}}
routes:
  - name: all
    filters:
      - {api_key: {}, enforce: false}
      - rate_limit: {limit: 1/h}
        enforce: false
    action: {respond: {body: 'for {consumer}'}}",
    );
    assert_eq!(gateway.request("GET", "/", &[("x-api-key", "one")]).text(), "for ada");
    assert_eq!(gateway.get("/").text(), "for ");
    let log = gateway.access_log(2);
    // Each worker writes its own lines.
    let noted = log.iter().find(|line| line["would_reject"] == "api_key_missing").expect("a line");
    assert!(log.iter().any(|line| line["would_reject"].is_null()), "{log:?}");
    let count = |labels: &str| gateway.metric(&format!("portcullis_would_reject_total{{{labels}}}"));
    assert_eq!(count("filter=\"api_key\",reason=\"api_key_missing\""), 1.0);
    assert_eq!(count("filter=\"rate_limit\",reason=\"rate_limited\""), 1.0);
    let detail = noted["would_reject_detail"].as_str().expect("a detail");
    assert!(detail.starts_with("api_key: send a valid key"), "{detail}");
    for (wrong, why) in [
        ("{headers: {request: {set: {x-a: b}}}, enforce: false}", "headers rejects no request"),
        ("{set: a, enforce: false}", "enforce"),
        ("{api_key: {}, cors: {origins: ['*']}}", "found 2 keys"),
        ("{api_key: {enforce: false}}", "beside the filter"),
    ] {
        let text = format!(
            "filter_sets: {{a: [api_key: {{}}]}}\nconsumers: {{ada: {{credentials: [{{api_key: {{value: one}}}}]}}}}\nroutes: [{{name: all, filters: [{wrong}], action: {{respond: {{body: ok}}}}}}]"
        );
        let file = gateway.config().with_file_name("wrong.yaml");
        std::fs::write(&file, complete(&text)).expect("written");
        let (code, _, error) = run(&["check", "-c", &file.display().to_string()], None);
        assert!(code == 2 && error.contains(why), "{wrong}: {error}");
    }
}
