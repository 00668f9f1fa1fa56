//! What tells requests apart in the cache: consumers, versions, what the target gets, and the URLs of purges.

use super::caching_shared::gateway;
use super::harness::client::{Answer, Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

const ANN: (&str, &str) = ("x-api-key", "key-of-ann-0123456789");

/// A target whose body is the request's target and the value of `x-a`; the fields of its responses come in `x-fields`,
/// as `name: value | name: value`.
fn mirror_target() -> Target {
    Target::new(|stream, seen| {
        let of = |name: &str| seen.headers.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value.as_str());
        let mut fields = vec![("cache-control", "max-age=60")];
        fields.extend(of("x-fields").split('|').filter_map(|field| field.trim().split_once(": ")));
        let body = format!("{} {}", seen.target, of("x-a"));
        answer(stream, 200, &fields, body.as_bytes())
    })
}

fn is_hit(response: &Answer) -> bool {
    response.header("cache-status").is_some_and(|value| value.contains("; hit"))
}

#[track_caller]
fn says(response: &Answer, wanted: &str) {
    let said = response.header("cache-status").unwrap_or_default();
    assert!(response.status == 200 && said.contains(wanted), "{} {said}", response.status);
}

#[track_caller]
fn purge(gateway: &Gateway, body: &str) {
    let length = body.len().to_string();
    let head = head("POST", "/caches/purge", &[("host", "127.0.0.1"), ("content-length", &length)]);
    let response = Connection::open(gateway.admin).ask(head + body);
    assert_eq!(response.status, 200, "{}", response.text());
}

#[test]
fn clients_without_a_name_do_not_share_the_entries_of_consumers() {
    let target = mirror_target();
    let gateway = gateway(target.address, "{api_key: {}, enforce: false}, {cache: {key: {consumer: true}}}");
    for _ in 0..2 {
        says(&gateway.get("/a"), "fwd=bypass");
    }
    assert!(!is_hit(&gateway.request("GET", "/a", &[ANN])));
    assert!(is_hit(&gateway.request("GET", "/a", &[ANN])));
    assert_eq!(target.count(), 3);
}

#[test]
fn what_an_authenticator_let_through_needs_permission() {
    let target = mirror_target();
    let gateway = gateway(target.address, "{api_key: {}, enforce: false}, {cache: {}}");
    says(&gateway.get("/a"), "detail=authorization");
    let public = [("x-fields", "cache-control: public")];
    says(&gateway.request("GET", "/b", &public), "stored");
    says(&gateway.request("GET", "/b", &public), "hit");
}

#[test]
fn versions_have_entries_of_their_own() {
    let target = mirror_target();
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
apis:
  a:
    version_by: [{{header: x-version}}, {{media_type_parameter: v}}]
    default: v1
    versions: {{v1: {{}}, v2: {{}}}}
routes: [{{name: all, api: a, filters: [{{cache: {{}}}}], action: {{forward: one}}}}]",
        target.address
    ));
    let of = |version: &str| gateway.request("GET", "/a", &[("x-version", version), ("x-a", version)]);
    for version in ["v1", "v2"] {
        let first = of(version);
        assert_eq!((first.text().trim(), first.header("vary")), (&*format!("/a {version}"), Some("x-version, accept")));
        assert!(is_hit(&of(version)));
    }
    assert_eq!(gateway.get("/a").text(), "/a v1");
    assert_eq!(target.count(), 2);
}

#[test]
fn responses_vary_with_what_the_target_gets() {
    let target = mirror_target();
    let gateway = gateway(target.address, "{headers: {request: {set: {x-a: '{header.x-b}'}}}}, {cache: {}}");
    let vary = |b: &str| gateway.request("GET", "/a", &[("x-b", b), ("x-a", "same"), ("x-fields", "vary: x-a")]);
    for b in ["1", "2"] {
        assert_eq!(vary(b).text(), format!("/a {b}"));
        let again = vary(b);
        assert_eq!((again.text(), is_hit(&again)), (format!("/a {b}"), true));
    }
    for name in ["x-forwarded-for", "x-request-id", "traceparent"] {
        let fields = format!("vary: {name}");
        says(&gateway.request("GET", &format!("/{name}"), &[("x-fields", &fields)]), "detail=vary");
    }
}

#[test]
fn responses_that_vary_with_the_edits_of_a_share_are_not_stored() {
    let target = mirror_target();
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes:
  - name: all
    filters: [{{cache: {{}}}}]
    action: {{forward: {{split: [{{upstream: one, weight: 1, request: {{set: {{x-a: '1'}}}}}}]}}}}",
        target.address
    ));
    says(&gateway.request("GET", "/a", &[("x-fields", "vary: x-a")]), "detail=vary");
    says(&gateway.request("GET", "/b", &[("x-fields", "vary: x-c")]), "stored");
}

#[test]
fn the_target_that_is_sent_is_part_of_the_key() {
    let target = mirror_target();
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes:
  - name: rewrite
    match: {{path: /r}}
    filters: [{{cache: {{key: {{query: {{without: utm_*}}}}}}}}]
    action: {{forward: {{upstream: one, rewrite: '/of/{{header.x-b}}'}}}}
  - name: transform
    match: {{path: /t}}
    filters: [{{transform: {{request: {{query: {{set: {{b: '{{header.x-b}}'}}}}}}}}}}, {{cache: {{}}}}]
    action: {{forward: one}}",
        target.address
    ));
    for (path, first, second) in [("/r", "/of/1", "/of/2"), ("/t", "/t?b=1", "/t?b=2")] {
        for (b, wanted) in [("1", first), ("2", second), ("1", first)] {
            assert_eq!(gateway.request("GET", path, &[("x-b", b)]).text().trim(), wanted);
        }
        assert!(is_hit(&gateway.request("GET", path, &[("x-b", "2")])));
    }
    assert!(is_hit(&gateway.request("GET", "/r?utm_a=1", &[("x-b", "2")])));
}

#[test]
fn purges_reach_every_spelling_of_a_url() {
    let target = mirror_target();
    let gateway = gateway(target.address, "{cache: {key: {query: {without: utm_*}, sort_query: true}}}");
    let fill = |path: &str| {
        gateway.get(path);
        assert!(is_hit(&gateway.get(path)), "{path}");
    };
    for (stored, url) in [
        ("/x?utm_a=1", "http://localhost/x"),
        ("/x?utm_a=1", "http://localhost/x?utm_b=2"),
        ("/x?b=1&a=2", "http://localhost/x?a=2&b=1"),
        ("/x?b=1&a=2&utm_a=1", "http://localhost/x?b=1&a=2"),
        ("/~x?", "http://localhost/%7Ex"),
        ("/x?q=%7e", "http://LOCALHOST/y/../x?q=~"),
    ] {
        fill(stored);
        purge(&gateway, &format!("{{\"url\": \"{url}\"}}"));
        assert!(!is_hit(&gateway.get(stored)), "{stored} after a purge of {url}");
        purge(&gateway, r#"{"all": true}"#);
    }
    fill("/%7Ey/1?utm_a=1");
    purge(&gateway, r#"{"prefix": "http://localhost/%7ey/"}"#);
    assert!(!is_hit(&gateway.get("/~y/1")));
    fill("/z?utm_a=1");
    gateway.request("POST", "/z?utm_b=2", &[("content-length", "0")]);
    assert!(!is_hit(&gateway.get("/z")));
}

#[test]
fn what_could_not_be_purged_by_its_tags_is_not_stored() {
    let target = mirror_target();
    let gateway = gateway(target.address, "{cache: {}}");
    let tags = |count: usize| (0..count).map(|n| format!("t{n}")).collect::<Vec<_>>().join(" ");
    for (path, tags, wanted) in
        [("/a", tags(64), "stored"), ("/b", tags(65), "detail=tags"), ("/c", "t".repeat(257), "detail=tags")]
    {
        let fields = format!("surrogate-key: {tags}");
        says(&gateway.request("GET", path, &[("x-fields", &fields)]), wanted);
    }
}

#[test]
fn credentials_in_the_query_are_neither_in_the_key_nor_in_the_url() {
    let target = mirror_target();
    let gateway = gateway(target.address, "{api_key: {query: key}}, {cache: {key: {consumer: false}}}");
    let own = |name: &str| gateway.get(&format!("/a?b=1&key=key-of-{name}-0123456789"));
    assert_eq!((own("ann").text().trim(), is_hit(&own("bob"))), ("/a?b=1", true));
    let asked = head("GET", "/caches/default/entries?url=http://localhost/a?b=1", &[("host", "127.0.0.1")]);
    let view = Connection::open(gateway.admin).ask(asked);
    assert_eq!(view.json()["entries"].as_array().map(Vec::len), Some(1), "{}", view.text());
    assert!(!view.text().contains("key-of"), "{}", view.text());
}

#[test]
fn what_trusted_proxies_say_is_part_of_the_key() {
    let target = mirror_target();
    for (trusted, is_shared) in [(", trusted_proxies: [127.0.0.0/8]", false), ("", true)] {
        let gateway = Gateway::start(&format!(
            "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes: [{{name: all, filters: [{{cache: {{}}}}], action: {{forward: one}}}}]
listeners: [{{name: main, address: 127.0.0.1:0{trusted}}}]",
            target.address
        ));
        for name in ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-prefix"] {
            let path = format!("/{name}");
            gateway.request("GET", &path, &[(name, "1")]);
            assert_eq!(is_hit(&gateway.request("GET", &path, &[(name, "2")])), is_shared, "{name}");
        }
    }
}
