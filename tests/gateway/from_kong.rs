//! conf/examples/from-kong: what Kong does by its file, the gateway does by the counterpart. Kong itself is not there
//! to compare it with: the expectations are those of its documentation.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::harness::client::{Answer, Connection, head, request};
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Target, answer};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/from-kong");

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(EXAMPLE).join(name)).expect("the example")
}

/// A target that is healthy, and responds with what it saw, a name and a number that clients are not to get.
fn target() -> Target {
    Target::new(|stream, seen| {
        let headers: Value = seen.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), json!(v))).collect();
        let body = json!({"target": seen.target, "headers": headers, "name": "Ada", "ssn": "078-05-1120"});
        let headers = [("content-type", "application/json"), ("x-powered-by", "app")];
        answer(stream, 200, &headers, body.to_string().as_bytes())
    })
}

struct Started {
    gateway: Gateway,
    _targets: [Target; 3],
}

fn start() -> Started {
    let targets = [target(), target(), target()];
    let mut yaml = read("portcullis.yaml").replace(":8080", ":0").replace(":9901", ":0");
    for (target, port) in targets.iter().zip(["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"]) {
        yaml = yaml.replace(port, &target.address.to_string());
    }
    Started { gateway: Gateway::start(&yaml), _targets: targets }
}

fn api(gateway: &Gateway, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    request(gateway.address(), method, path, &[&[("host", "api.example.com")], headers].concat())
}

const KEY: (&str, &str) = ("apikey", "only-for-this-example");

#[test]
fn keys_paths_and_transformers() {
    let Started { gateway, _targets } = start();
    let response =
        api(&gateway, "GET", "/api/users/7?fields=all", &[KEY, ("x-internal", "1"), ("x-consumer-username", "x")]);
    assert_eq!(response.status, 200, "{}", response.text());
    let seen = response.json();
    assert_eq!(seen["target"], "/v1/users/7?fields=all");
    assert_eq!(seen["headers"]["host"], "api.example.com");
    assert_eq!(seen["headers"]["x-consumer-username"], "mobile");
    assert_eq!(seen["headers"]["x-edge"], "gateway");
    assert_eq!((&seen["headers"]["apikey"], &seen["headers"]["x-internal"]), (&Value::Null, &Value::Null));
    assert_eq!((&seen["name"], &seen["ssn"]), (&json!("Ada"), &Value::Null));
    assert_eq!((response.header("x-powered-by"), response.header("x-frame-options")), (None, Some("DENY")));
    assert_eq!(response.header("x-request-id"), seen["headers"]["x-request-id"].as_str());
    // The path of the service alone, a key in the query, and no key.
    assert_eq!(api(&gateway, "GET", "/api/users", &[KEY]).json()["target"], "/v1/users/");
    assert_eq!(api(&gateway, "GET", "/api/users/7?apikey=only-for-this-example", &[]).json()["target"], "/v1/users/7");
    for headers in [&[][..], &[("apikey", "another")]] {
        let response = api(&gateway, "GET", "/api/users/7", headers);
        assert_eq!(response.status, 401);
        assert!(response.header("www-authenticate").is_some());
    }
    assert_eq!(api(&gateway, "DELETE", "/api/users/7", &[KEY]).status, 405);
    assert_eq!(api(&gateway, "GET", "/elsewhere", &[KEY]).status, 404);
}

#[test]
fn limits_cors_and_termination() {
    let Started { gateway, _targets } = start();
    let statuses: Vec<u16> = (0..6).map(|_| api(&gateway, "GET", "/api/users/7", &[KEY]).status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    let origin = ("origin", "https://app.example.com");
    let preflight = api(&gateway, "OPTIONS", "/api/users/7", &[origin, ("access-control-request-method", "POST")]);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example.com"));
    assert_eq!(preflight.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(preflight.header("access-control-max-age"), Some("600"));
    let response = api(&gateway, "GET", "/api/v0/users", &[]);
    assert_eq!((response.status, response.json()), (410, json!({"message": "This version is gone"})));
    let response = Connection::open(gateway.address()).ask(head(
        "POST",
        "/api/users/7",
        &[("host", "api.example.com"), KEY, ("content-length", "2000000")],
    ));
    assert_eq!(response.status, 413);
}

#[test]
fn tokens_and_addresses() {
    let Started { gateway, _targets } = start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let token = |claims: &Value, secret: &str| {
        encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
    };
    let secret = "only-for-this-example-32-bytes-long";
    let reports = |token: &str| {
        let bearer = format!("Bearer {token}");
        request(gateway.address(), "GET", "/q3", &[("host", "reports.example.com"), ("authorization", &bearer)])
    };
    let response = reports(&token(&json!({"iss": "auditor-app", "exp": now + 60}), secret));
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["headers"]["x-consumer-username"], "auditor");
    assert_eq!(response.json()["target"], "/q3");
    for wrong in [
        token(&json!({"iss": "auditor-app", "exp": now - 600}), secret),
        token(&json!({"iss": "auditor-app"}), secret),
        token(&json!({"exp": now + 60}), secret),
        token(&json!({"iss": "another-app", "exp": now + 60}), secret),
        token(&json!({"iss": "auditor-app", "exp": now + 60}), "another-secret-that-is-32-bytes-long"),
    ] {
        assert!([401, 403].contains(&reports(&wrong).status), "{wrong}");
    }
    // From elsewhere: no client of this machine has such an address.
    let file = format!("{EXAMPLE}/portcullis.yaml");
    let arguments = ["explain", "-c", &file, "--from", "192.0.2.1", "GET", "http://reports.example.com/q3"];
    let (_, out, errors) = run(&arguments, None);
    assert!(out.contains("route: reports-of-others") && out.contains("403"), "{out}{errors}");
}

/// What kong.yaml names is in the counterpart: a name that is added to one has to be added to the other.
#[test]
fn the_counterpart_has_what_the_file_has() {
    let kong: Value = serde_yaml::from_str(&read("kong.yaml")).expect("YAML");
    let counterpart = read("portcullis.yaml");
    let mut named = Vec::new();
    let names = |list: &Value, key: &str| -> Vec<String> {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter().filter_map(|one| one[key].as_str().map(str::to_owned)).collect()
    };
    for service in kong["services"].as_array().expect("services") {
        named.extend(names(&service["routes"], "name").iter().map(|name| format!("- name: {name}\n")));
    }
    named.extend(names(&kong["consumers"], "username").iter().map(|name| format!("  {name}:\n")));
    for upstream in kong["upstreams"].as_array().expect("upstreams") {
        named.push(format!("  {}:\n", upstream["name"].as_str().expect("a name")));
        named.extend(names(&upstream["targets"], "target").iter().map(|target| format!("address: {target}")));
    }
    assert!(named.len() >= 8, "{named:?}");
    for name in named {
        assert!(counterpart.contains(&name), "{name:?}");
    }
}
