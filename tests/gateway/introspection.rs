//! Tokens that an authorization server is called about (RFC 7662).

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::harness::client::Answer;
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Seen, Target, answer};

/// A server that knows tokens, and what came to it.
struct Server {
    target: Target,
    tokens: Arc<Mutex<HashMap<String, String>>>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start() -> Self {
        let tokens: Arc<Mutex<HashMap<String, String>>> = Arc::default();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (known, noted) = (Arc::clone(&tokens), Arc::clone(&seen));
        let target = Target::new(move |stream, request| {
            noted.lock().unwrap().push(request.clone());
            let body = String::from_utf8_lossy(&request.body).into_owned();
            let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).unwrap_or_default();
            // Long enough that parallel requests meet.
            std::thread::sleep(Duration::from_millis(50));
            let json = known.lock().unwrap().get(&token.replace("%2D", "-")).cloned();
            let json = json.unwrap_or_else(|| r#"{"active":false}"#.to_owned());
            match json.as_str() {
                "stall" => {
                    std::thread::sleep(Duration::from_secs(5));
                    Ok(())
                }
                "reset" => Err(std::io::ErrorKind::ConnectionReset.into()),
                "huge" => {
                    let text = format!(r#"{{"active":true,"sub":"{}"}}"#, "a".repeat(100_000));
                    answer(stream, 200, &[("content-type", "application/json")], text.as_bytes())
                }
                "endless" => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
                    loop {
                        stream.write_all(b"6\r\n      \r\n")?;
                    }
                }
                json => match json.parse::<u16>() {
                    Ok(status) => answer(stream, status, &[("location", "/elsewhere")], br#"{"active":true}"#),
                    Err(_) => answer(stream, 200, &[("content-type", "application/json")], json.as_bytes()),
                },
            }
        });
        Self { target, tokens, seen }
    }

    fn knows(&self, token: &str, json: &str) {
        self.tokens.lock().unwrap().insert(token.to_owned(), json.to_owned());
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn bearer(gateway: &Gateway, path: &str, token: &str) -> Answer {
    gateway.request("GET", path, &[("authorization", &format!("Bearer {token}"))])
}

/// A gateway with one route that has that filter, and what the filter has besides `url`.
fn gateway(server: &Server, target: &Target, settings: &str) -> Gateway {
    Gateway::start(&format!(
        "
upstreams: {{echo: {{targets: ['{}']}}}}
consumers: {{app: {{credentials: [{{jwt: {{subject: ada}}}}]}}}}
routes:
  - name: a
    match: {{path: /*}}
    filters: [{{introspection: {{url: 'http://{}/introspect', client_id: 'gate:way', client_secret: 'se cret', {settings}}}}}]
    action: {{forward: echo}}
",
        target.address, server.target.address
    ))
}

#[test]
fn a_token_is_introspected_once_and_its_claims_are_the_identity() {
    let (server, echo) = (Server::start(), Target::echo("a"));
    server.knows("good-token", r#"{"active":true,"sub":"ada","scope":"read write","org":{"id":7}}"#);
    let settings = "forward_claims: {sub: x-user, org.id: x-org}, forward_token: false";
    let gateway = gateway(&server, &echo, settings);
    let first =
        gateway.request("GET", "/x", &[("authorization", "Bearer good-token"), ("x-user", "root"), ("x-org", "1")]);
    assert_eq!(first.status, 200, "{}", first.text());
    let headers = &first.json()["headers"];
    assert_eq!((&headers["x-user"], &headers["x-org"]), (&"ada".into(), &"7".into()), "{headers}");
    assert!(headers["authorization"].is_null(), "{headers}");
    let call = server.seen.lock().unwrap()[0].clone();
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/introspect"));
    let header = |name: &str| call.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
    // `gate%3Away:se%20cret` (RFC 6749, section 2.3.1).
    assert_eq!(header("authorization").as_deref(), Some("Basic Z2F0ZSUzQXdheTpzZSUyMGNyZXQ="));
    assert_eq!(header("content-type").as_deref(), Some("application/x-www-form-urlencoded"));
    assert_eq!(String::from_utf8_lossy(&call.body), "token=good%2Dtoken&token_type_hint=access_token");
    for _ in 0..5 {
        assert_eq!(bearer(&gateway, "/x", "good-token").status, 200);
    }
    assert_eq!(server.calls(), 1);
    // Also after a reload.
    gateway.reload();
    assert_eq!(bearer(&gateway, "/x", "good-token").status, 200);
    assert_eq!(server.calls(), 1);
    let log = gateway.access_log(1);
    assert_eq!(log[0]["consumer"], "app", "{}", log[0]);
}

#[test]
fn parallel_requests_with_one_token_make_one_call() {
    let (server, echo) = (Server::start(), Target::echo("a"));
    server.knows("t", r#"{"active":true,"sub":"ada"}"#);
    let gateway = gateway(&server, &echo, "");
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..30).map(|_| scope.spawn(|| bearer(&gateway, "/x", "t").status)).collect();
        assert!(all.into_iter().all(|one| one.join().unwrap() == 200));
    });
    assert_eq!(server.calls(), 1);
}

#[test]
fn what_is_not_acceptable_is_rejected_with_its_challenge() {
    let (server, echo) = (Server::start(), Target::echo("a"));
    let settings = "issuer: 'https://id.test', audience: [api, other], scopes: [read, write], required_claims: [org]";
    let gateway = gateway(&server, &echo, settings);
    let good = r#""iss":"https://id.test","aud":["x","api"],"scope":"read write","org":"o","sub":"ada""#;
    server.knows("good", &format!(r#"{{"active":true,{good}}}"#));
    assert_eq!(bearer(&gateway, "/", "good").status, 200);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let cases = [
        ("inactive", r#"{"active":false}"#.to_owned(), 401, "token_invalid", "invalid_token"),
        ("expired", format!(r#"{{"active":true,"exp":{},{good}}}"#, now - 1), 401, "token_invalid", "invalid_token"),
        ("early", format!(r#"{{"active":true,"nbf":{},{good}}}"#, now + 300), 401, "token_invalid", "invalid_token"),
        ("issuer", good.replace("id.test", "evil.test"), 401, "token_invalid", "invalid_token"),
        ("no-issuer", good.replace("\"iss\"", "\"i\""), 401, "token_invalid", "invalid_token"),
        ("audience", good.replace("\"api\"", "\"apis\""), 401, "token_invalid", "invalid_token"),
        ("claim", good.replace("org", "orga"), 401, "token_invalid", "invalid_token"),
        ("bound", format!(r#"{good},"cnf":{{"jkt":"x"}}"#), 401, "token_invalid", "invalid_token"),
        ("scope", good.replace(" write", " writer"), 403, "insufficient_scope", "insufficient_scope"),
    ];
    for (token, json, status, reason, error) in &cases {
        let json = if json.starts_with('{') { json.clone() } else { format!(r#"{{"active":true,{json}}}"#) };
        server.knows(token, &json);
        let rejected = bearer(&gateway, "/", token);
        assert_eq!((rejected.status, rejected.reason().as_str()), (*status, *reason), "{token}");
        let challenge = rejected.header("www-authenticate").unwrap_or_default().to_owned();
        assert!(challenge.starts_with("Bearer ") && challenge.contains(&format!("error=\"{error}\"")), "{challenge}");
    }
    assert!(bearer(&gateway, "/", "scope").header("www-authenticate").unwrap().ends_with("scope=\"read write\""));
    let calls = server.calls();
    // What cannot be a token is not sent anywhere.
    for token in ["", "a b", "a\"b", "ä", &"a".repeat(8_193)] {
        assert_eq!(bearer(&gateway, "/", token).status, 401, "{token}");
    }
    let missing = gateway.get("/");
    assert_eq!((missing.status, missing.reason().as_str()), (401, "token_missing"));
    let twice = gateway.request("GET", "/", &[("authorization", "Bearer good"), ("authorization", "Bearer other")]);
    assert_eq!(twice.status, 401);
    assert_eq!(server.calls(), calls);
    // A random token that is not known is rejected by the first response, and no call is made for it for a while.
    bearer(&gateway, "/", "random");
    bearer(&gateway, "/", "random");
    assert_eq!(server.calls(), calls + 1);
}

#[test]
fn a_server_that_is_down_or_wrong_rejects_and_costs_little() {
    let (server, echo) = (Server::start(), Target::echo("a"));
    let gateway = gateway(&server, &echo, "call: {timeout: 300ms}");
    server.knows("good", r#"{"active":true,"sub":"ada"}"#);
    assert_eq!(bearer(&gateway, "/", "good").status, 200);
    let wrong = ["500", "401", "302", "204", "not json", "[]", r#"{"active":"true"}"#, "{}", "huge", "reset"];
    for (number, what) in wrong.iter().enumerate() {
        let token = format!("wrong{number}");
        server.knows(&token, what);
        let rejected = bearer(&gateway, "/", &token);
        assert_eq!((rejected.status, rejected.reason().as_str()), (503, "auth_unavailable"), "{what}");
        assert!(!rejected.text().contains("introspect"), "the client does not see why: {}", rejected.text());
    }
    // A body without an end is cut at the bound.
    server.knows("endless", "endless");
    assert_eq!(bearer(&gateway, "/", "endless").status, 503);
    // The time-outs open the breaker, and then rejections come at once.
    server.knows("stall", "stall");
    for _ in 0..5 {
        assert_eq!(bearer(&gateway, "/", "stall").status, 503);
    }
    let calls = server.calls();
    let begun = Instant::now();
    for number in 0..20 {
        assert_eq!(bearer(&gateway, "/", &format!("new{number}")).status, 503);
    }
    assert!(begun.elapsed() < Duration::from_millis(1_500), "{:?}", begun.elapsed());
    assert_eq!(server.calls(), calls, "no call is made while the breaker is open");
    // What is known is accepted meanwhile.
    assert_eq!(bearer(&gateway, "/", "good").status, 200);
    let series = |outcome: &str| format!("portcullis_calls_total{{client=\"introspection\",outcome=\"{outcome}\"}}");
    assert!(gateway.metric(&series("timed_out")) >= 4.0 && gateway.metric(&series("breaker_open")) >= 20.0);
    eventually("the breaker lets a call through", || {
        server.knows("later", r#"{"active":true,"sub":"ada"}"#);
        bearer(&gateway, "/", "later").status == 200
    });
    assert!(!gateway.log().contains("se cret") && !gateway.log().contains("stall"), "{}", gateway.log());
}

#[test]
fn expiry_ends_what_is_cached() {
    let (server, echo) = (Server::start(), Target::echo("a"));
    let gateway = gateway(&server, &echo, "cache: 1h, cache_inactive: 0s");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    server.knows("short", &format!(r#"{{"active":true,"sub":"ada","exp":{}}}"#, now + 2));
    assert_eq!(bearer(&gateway, "/", "short").status, 200);
    // Had the server said so later, it would have been introspected again.
    eventually("the token expires", || bearer(&gateway, "/", "short").status == 401);
    server.knows("back", r#"{"active":false}"#);
    assert_eq!(bearer(&gateway, "/", "back").status, 401);
    server.knows("back", r#"{"active":true,"sub":"ada"}"#);
    assert_eq!(bearer(&gateway, "/", "back").status, 200, "with cache_inactive: 0s");
}

#[test]
fn credentials_in_the_body_and_a_bearer_token() {
    let (server, echo) = (Server::start(), Target::echo("a"));
    server.knows("t", r#"{"active":true}"#);
    let yaml = |filter: &str| {
        let (echo, url) = (echo.address, server.target.address);
        format!(
            "upstreams: {{echo: {{targets: ['{echo}']}}}}
routes:
  - {{name: a, match: {{path: /*}}, filters: [{{introspection: {{url: 'http://{url}/i', {filter}}}}}], action: {{forward: echo}}}}
"
        )
    };
    let gateway = Gateway::start(&yaml("client_id: a, client_secret: b&c, client_auth: body, cookie: session"));
    assert_eq!(gateway.request("GET", "/", &[("cookie", "session=t; other=1")]).status, 200);
    let body = String::from_utf8_lossy(&server.seen.lock().unwrap()[0].body).into_owned();
    assert_eq!(body, "token=t&token_type_hint=access_token&client_id=a&client_secret=b%26c");
    gateway.write_config(&yaml("bearer: the-gateways-own"));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(bearer(&gateway, "/", "t").status, 200);
    let headers = server.seen.lock().unwrap()[1].headers.clone();
    assert!(headers.contains(&("authorization".to_owned(), "Bearer the-gateways-own".to_owned())), "{headers:?}");
    for (filter, wanted) in [
        ("client_id: a", "client_id with client_secret"),
        ("bearer: b, client_auth: body", "is for client_id and client_secret"),
        ("bearer: b, cache: 2h", "at most 1h"),
        ("bearer: b, call: {tls: {ca: x.pem}}", "the calls use no TLS"),
        ("bearer: b, call: {tls: {cert: x.pem}}", "need each other"),
        ("bearer: b, call: {timeout: 2m}", "at most 60s"),
        ("bearer: b, call: {connect_timeout: 9s}", "at most the 5s of timeout"),
        ("bearer: b, call: {max_concurrent: 0}", "from 1 to 10000"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        std::fs::write(&file, yaml(filter) + "listeners: [{name: main, address: '127.0.0.1:0'}]\n").unwrap();
        let (code, out, errors) = run(&["check", "-c", file.to_str().unwrap()], None);
        assert!(code != 0 && (out.clone() + &errors).contains(wanted), "{filter}: {out}{errors}");
    }
}
