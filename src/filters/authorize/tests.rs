//! What is rejected when it is compiled, and what a filter alone decides.

use crate::exchange::Identity;
use crate::filters::test_kit::{Kit, compile, request};

#[test]
fn what_is_wrong_is_said() {
    for (yaml, why) in [
        ("{}", "at least one rule"),
        ("{scopes: ['a b']}", "scopes[0]: expected one scope"),
        ("{all_scopes: ['a\"']}", "all_scopes[0]: expected one scope"),
        ("{consumers: [three]}", "there is no consumer \"three\""),
        ("{consumers: [onee]}", "did you mean \"one\"?"),
        ("{roles: {claim: groups}}", "expected any or all"),
        ("{claims: {tenant: []}}", "claims.tenant: expected a value"),
        ("{condition: 'request.pat == 1'}", "condition: there is no request.pat; did you mean request.path?"),
        ("{condition: 'client.country == \"DE\"'}", "client.country needs a database"),
        ("{countries: {database: none.mmdb, allow: [DE], unknown: deny}}", "countries.database: cannot read"),
        ("{deny_addresses: ['file:none.txt']}", "deny_addresses[0]: cannot read"),
        ("{allow_addresses: [10.0.0.0/33]}", "expected a network"),
        ("{methods: [get]}", "a method in upper case"),
        ("{scope: [a]}", "unknown field"),
    ] {
        let error = compile(&format!("[{{authorize: {yaml}}}]")).err().unwrap_or_else(|| panic!("{yaml} was accepted"));
        assert!(error.contains(why), "{yaml}: {error}");
    }
}

/// Runs a filter on a request of a caller with these claims.
fn decide(yaml: &str, line: &str, claims: serde_json::Value) -> Result<(), String> {
    let mut kit: Kit = compile(&format!("[{{authorize: {yaml}}}]")).unwrap_or_else(|error| panic!("{yaml}: {error}"));
    kit.exchange.identity = claims.as_object().map(|claims| Identity {
        name: "https://id.example.com#ada".into(),
        consumer: None,
        claims: Some(std::sync::Arc::new(claims.clone())),
        scopes: None,
    });
    kit.on_request(request(line, &[("x-tenant", "acme"), ("cookie", "a=1; b=2; b=3")]))
        .map_err(|rejection| format!("{} {:?}", rejection.reason.code(), rejection.log.as_deref().unwrap_or_default()))
}

#[test]
fn claims_roles_and_scopes() {
    let claims = serde_json::json!({
        "scope": "orders:read orders:list", "tenant": "acme", "level": 3, "staff": true,
        "teams": ["a", "b"], "realm_access": {"roles": ["editor", "viewer"]}, "words": "editor viewer",
    });
    for (yaml, allowed) in [
        ("{scopes: [orders:write, orders:read]}", true),
        ("{scopes: [orders]}", false),
        ("{all_scopes: [orders:read, orders:list]}", true),
        ("{all_scopes: [orders:read, orders:write]}", false),
        ("{claims: {tenant: acme, level: 3, staff: true, teams: b}}", true),
        ("{claims: {tenant: [other, acme]}}", true),
        ("{claims: {tenant: other}}", false),
        ("{claims: {level: '3'}}", false),
        ("{claims: {staff: false}}", false),
        ("{claims: {teams: [c, d]}}", false),
        ("{claims: {missing: x}}", false),
        ("{claims: {realm_access.roles: editor}}", true),
        ("{roles: {claim: realm_access.roles, any: [admin, editor]}}", true),
        ("{roles: {claim: realm_access.roles, all: [viewer, editor]}}", true),
        ("{roles: {claim: realm_access.roles, all: [viewer, admin]}}", false),
        ("{roles: {claim: words, any: [viewer]}}", true),
        ("{roles: {claim: words, any: [view]}}", false),
        ("{roles: {any: [editor]}}", false),
        ("{consumers: [one]}", false),
        ("{groups: [staff]}", false),
        ("{scopes: [orders:read], methods: [POST]}", false),
        ("{condition: 'identity.known && identity.consumer == \"\" && \"orders:list\" in identity.scopes'}", true),
        ("{condition: 'identity.claims.level >= 3 && request.headers[\"x-tenant\"] == identity.claims.tenant'}", true),
        ("{condition: 'request.query.a == \"1\" && request.cookies[\"a\"] == \"1\"'}", true),
        ("{condition: 'request.query.b == \"1\"'}", false),
        ("{condition: 'request.cookies[\"b\"] == \"2\"'}", false),
        ("{condition: 'time.hour >= 0 && time.hour < 24 && time.weekday in [1,2,3,4,5,6,7] && time.unix > 17'}", true),
        (
            "{condition: 'request.scheme == \"http\" && tls.version == \"\" && client.address.startsWith(\"127.\")'}",
            true,
        ),
        ("{condition: 'false'}", false),
    ] {
        let decided = decide(yaml, "GET /?a=1&b=1&b=2", claims.clone());
        assert_eq!(decided.is_ok(), allowed, "{yaml}: {decided:?}");
        if let Err(error) = decided {
            assert!(error.starts_with("forbidden \"") && error.len() > 14, "{yaml}: {error}");
        }
    }
}

#[test]
fn who_is_not_identified() {
    for yaml in [
        "{scopes: [a]}",
        "{all_scopes: [a]}",
        "{groups: [staff]}",
        "{consumers: [one]}",
        "{claims: {a: b}}",
        "{roles: {any: [a]}}",
    ] {
        let decided = decide(yaml, "GET /", serde_json::Value::Null);
        assert!(decided.as_ref().is_err_and(|error| error.starts_with("identity_missing")), "{yaml}: {decided:?}");
    }
    assert_eq!(decide("{methods: [GET]}", "HEAD /", serde_json::Value::Null), Ok(()));
    assert_eq!(decide("{condition: '!identity.known'}", "GET /", serde_json::Value::Null), Ok(()));
    assert!(decide("{condition: 'identity.claims.a == 1'}", "GET /", serde_json::Value::Null).is_err());
    assert!(decide("{deny_addresses: [127.0.0.0/8]}", "GET /", serde_json::Value::Null).is_err());
    assert!(decide("{allow_addresses: [10.0.0.0/8]}", "GET /", serde_json::Value::Null).is_err());
    assert_eq!(decide("{allow_addresses: [127.0.0.1]}", "GET /", serde_json::Value::Null), Ok(()));
}
