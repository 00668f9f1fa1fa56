//! What callers may do: by their tokens, by lists of addresses that change, and by country.

use std::net::Ipv4Addr;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::harness::client::{Answer, Connection};
use super::harness::gateway::Gateway;
use super::harness::target::Target;
use super::harness::{eventually, mmdb};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn token(changes: Value) -> String {
    let mut claims = json!({"sub": "ada", "exp": 4_102_444_800_u64});
    changes.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token");
    format!("Bearer {token}")
}

fn from(gateway: &Gateway, address: [u8; 4], path: &str) -> Answer {
    Connection::open_from(gateway.address(), Ipv4Addr::from(address))
        .ask(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

#[test]
fn tokens_and_what_they_may() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         defaults: {{filters: [{{jwt: {{secret: {SECRET}}}}}]}}\n\
         routes:\n\
         - {{name: scopes, match: {{path: /scopes}}, filters: [{{authorize: {{all_scopes: ['orders:read', 'orders:write']}}}}], action: {{forward: echo}}}}\n\
         - {{name: roles, match: {{path: /roles}}, filters: [{{authorize: {{roles: {{claim: realm_access.roles, any: [editor]}}, claims: {{tenant: acme}}}}}}], action: {{forward: echo}}}}\n\
         - {{name: condition, match: {{path: /condition}}, filters: [{{authorize: {{condition: 'identity.claims.tenant == request.headers[\"x-tenant\"]'}}}}], action: {{forward: echo}}}}",
        target.address
    ));
    let ask = |path: &str, claims: Value, tenant: &str| {
        gateway.request("GET", path, &[("authorization", &token(claims)), ("x-tenant", tenant)])
    };
    assert_eq!(ask("/scopes", json!({"scope": "orders:write orders:read"}), "").status, 200);
    let less = ask("/scopes", json!({"scp": ["orders:read"]}), "");
    assert_eq!((less.status, less.reason()), (403, "forbidden".to_owned()));
    assert_eq!(
        less.header("www-authenticate"),
        Some("Bearer realm=\"portcullis\", error=\"insufficient_scope\", scope=\"orders:read orders:write\"")
    );
    let editor = json!({"tenant": "acme", "realm_access": {"roles": ["viewer", "editor"]}});
    assert_eq!(ask("/roles", editor, "").status, 200);
    let viewer = ask("/roles", json!({"tenant": "acme", "realm_access": {"roles": ["viewer"]}}), "");
    assert_eq!((viewer.status, viewer.header("www-authenticate")), (403, None));
    assert!(!viewer.text().contains("editor"), "{}", viewer.text());
    assert_eq!(ask("/condition", json!({"tenant": "acme"}), "acme").status, 200);
    assert_eq!(ask("/condition", json!({"tenant": "acme"}), "other").status, 403);
    // Neither a claim that is missing nor one of another type lets anybody in.
    assert_eq!(ask("/condition", json!({}), "other").status, 403);
    assert_eq!(ask("/condition", json!({"tenant": ["acme"]}), "acme").status, 403);
    assert_eq!(gateway.get("/condition").status, 401);
    let log = gateway.access_log(9);
    let details: Vec<&str> = log.iter().filter_map(|line| line["detail"].as_str()).collect();
    for detail in [
        "the scope orders:write is missing",
        "none of the roles editor is there",
        "the condition does not hold",
        "the condition could not be evaluated: ",
    ] {
        assert!(details.iter().any(|known| known.starts_with(detail)), "{detail}: {details:?}");
    }
}

#[test]
fn lists_of_addresses_are_read_again() {
    let target = Target::echo("a");
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("denied.txt");
    std::fs::write(&list, "# who is not let in\n127.0.0.2\n").expect("written");
    let yaml = format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         routes: [{{name: all, filters: [{{authorize: {{deny_addresses: ['file:denied.txt', 127.0.0.9]}}}}], action: {{forward: echo}}}}]",
        target.address
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let status = |last: u8| from(&gateway, [127, 0, 0, last], "/").status;
    assert_eq!([1, 2, 3, 9].map(status), [200, 403, 200, 403]);
    std::fs::write(&list, "127.0.0.3/32\n").expect("written");
    eventually("the list is read again", || status(3) == 403);
    assert_eq!([1, 2, 9].map(status), [200, 200, 403]);
    // A list that is wrong does not replace the last one, neither by itself nor by a reload.
    std::fs::write(&list, "127.0.0.4\nnonsense\n").expect("written");
    eventually("the error is logged", || gateway.log().contains("line 2 is neither a network"));
    assert_eq!([1, 3, 4].map(status), [200, 403, 200]);
    assert_eq!(gateway.reload().status, 422, "a reload does not take it either");
    assert_eq!([1, 3, 4].map(status), [200, 403, 200]);
    std::fs::write(&list, "127.0.0.4\n").expect("written");
    eventually("the list is read again", || status(4) == 403);
    assert_eq!(status(3), 200);
}

#[test]
fn countries_are_allowed_or_not() {
    let target = Target::echo("a");
    let folder = tempfile::tempdir().expect("a folder");
    let database = folder.path().join("countries.mmdb");
    std::fs::write(&database, mmdb::countries(&[("127.0.0.0/30", "DE"), ("127.0.1.0/24", "FR")])).expect("written");
    let route = |name: &str, rules: &str| {
        format!(
            "- {{name: {name}, match: {{path: /{name}}}, filters: [{{authorize: {{countries: {{database: countries.mmdb{rules}}}}}}}], action: {{forward: echo}}}}\n"
        )
    };
    let yaml = format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes:\n{}{}{}{}",
        target.address,
        route("only", ", allow: [DE], unknown: deny"),
        route("lenient", ", allow: [de, AT], unknown: allow"),
        route("never", ", deny: [FR], unknown: allow"),
        route("expression", "").replace("mmdb}}", "mmdb}, condition: 'client.country in [\"FR\", \"\"]'}"),
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let (german, french, unknown) = ([127, 0, 0, 1], [127, 0, 1, 1], [127, 0, 2, 1]);
    let status = |path: &str| [german, french, unknown].map(|address| from(&gateway, address, path).status);
    assert_eq!(status("/only"), [200, 403, 403]);
    assert_eq!(status("/lenient"), [200, 403, 200]);
    assert_eq!(status("/never"), [200, 403, 200]);
    assert_eq!(status("/expression"), [403, 200, 200]);
    std::fs::write(&database, mmdb::countries(&[("127.0.2.0/24", "DE")])).expect("written");
    eventually("the database is read again", || status("/only") == [403, 403, 200]);
    std::fs::write(&database, b"no database").expect("written");
    eventually("the error is logged", || gateway.log().contains("it is no MaxMind database"));
    assert_eq!(status("/only"), [403, 403, 200]);
}
