//! Requests about which another server decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Seen, Target, answer, refused};

/// A server that accepts `good=1` cookies, as one that keeps sessions does.
fn auth_server() -> (Target, Arc<Mutex<Vec<Seen>>>) {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let target = Target::new(move |stream, request| {
        noted.lock().unwrap().push(request.clone());
        let header = |name: &str| request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v);
        let cookie = header("cookie").unwrap_or_default();
        let path = header("x-forwarded-uri").unwrap_or_default();
        match cookie {
            "good=1" => answer(
                stream,
                202,
                &[
                    ("x-user", "ada"),
                    ("x-groups", "a"),
                    ("x-groups", "b"),
                    ("set-cookie", "s=2; Path=/"),
                    ("x-other", "no"),
                ],
                b"",
            ),
            "stall" => {
                std::thread::sleep(Duration::from_secs(5));
                Ok(())
            }
            "reset" => Err(std::io::ErrorKind::ConnectionReset.into()),
            status if status.parse::<u16>().is_ok() => {
                let headers =
                    [("www-authenticate", "Custom realm=\"x\""), ("connection", "keep-alive"), ("x-why", "y")];
                answer(stream, status.parse().unwrap(), &headers, b"the body of the server")
            }
            _ => {
                let location = format!("http://login.test/?rd={path}");
                let cookie = ("set-cookie", "a=1");
                answer(stream, 302, &[("location", &location), cookie, ("set-cookie", "b=2")], b"<a>login</a>")
            }
        }
    });
    (target, seen)
}

fn yaml(server: &str, target: &Target, settings: &str) -> String {
    format!(
        "
upstreams: {{echo: {{targets: ['{}']}}}}
consumers: {{app: {{credentials: [{{jwt: {{subject: ada}}}}]}}}}
routes:
  - name: a
    match: {{path: /*}}
    filters: [{{forward_auth: {{url: 'http://{server}/verify?x=1', {settings}}}}}]
    action: {{forward: echo}}
",
        target.address
    )
}

fn headers_of(seen: &Seen) -> BTreeMap<String, String> {
    seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

#[test]
fn the_server_sees_the_request_and_its_headers_reach_the_target() {
    let ((server, seen), echo) = (auth_server(), Target::echo("a"));
    let settings = "copy: [x-user, x-groups, x-absent], consumer_header: x-user, set_cookies: true";
    let gateway = Gateway::start(&yaml(&server.address.to_string(), &echo, settings));
    let accepted = gateway.request(
        "POST",
        "/a/b?c=d&e",
        &[
            ("cookie", "good=1"),
            ("authorization", "Bearer t"),
            ("host", "app.test:8080"),
            ("x-user", "root"),
            ("x_user", "root"),
            ("x-absent", "spoofed"),
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-uri", "/public"),
            ("x-forwarded-method", "GET"),
            ("x-original-url", "http://evil.test/"),
            ("x-original-method", "GET"),
            ("x-secret", "not for the server"),
            ("content-length", "0"),
        ],
    );
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    let at_target = &accepted.json()["headers"];
    assert_eq!((&at_target["x-user"], &at_target["x-absent"]), (&"ada".into(), &serde_json::Value::Null));
    assert!(at_target["x-other"].is_null() && at_target["x_user"].is_null(), "{at_target}");
    for name in ["x-forwarded-uri", "x-forwarded-method", "x-original-url", "x-original-method"] {
        assert!(at_target[name].is_null(), "the client's own {name} reaches the target");
    }
    assert_eq!(at_target["x-groups"], "b", "both lines are there; the echo keeps the last");
    assert_eq!(accepted.header("set-cookie"), Some("s=2; Path=/"));
    let call = seen.lock().unwrap()[0].clone();
    assert_eq!((call.method.as_str(), call.target.as_str()), ("GET", "/verify?x=1"));
    let headers = headers_of(&call);
    let expected = [
        ("x-forwarded-method", "POST"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "app.test:8080"),
        ("x-forwarded-uri", "/a/b?c=d&e"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-original-url", "http://app.test:8080/a/b?c=d&e"),
        ("x-original-method", "POST"),
        ("cookie", "good=1"),
        ("authorization", "Bearer t"),
    ];
    for (name, value) in expected {
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{name}: {headers:?}");
    }
    assert!(!headers.contains_key("x-secret") && headers.contains_key("x-request-id"), "{headers:?}");
    assert_eq!(headers["host"], server.address.to_string());
    assert_eq!(gateway.access_log(1)[0]["consumer"], "app");
}

#[test]
fn other_statuses_are_the_response_with_headers_and_body() {
    let ((server, seen), echo) = (auth_server(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&server.address.to_string(), &echo, "headers: [cookie], method: original"));
    let redirected = gateway.request("PUT", "/x?y=z", &[("content-length", "0"), ("accept", "text/html")]);
    assert_eq!(redirected.status, 302);
    assert_eq!(redirected.header("location"), Some("http://login.test/?rd=/x?y=z"));
    assert_eq!(redirected.text(), "<a>login</a>");
    let cookies: Vec<_> =
        redirected.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case("set-cookie")).map(|(_, v)| &**v).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert!(redirected.header("x-request-id").is_some());
    assert_eq!(seen.lock().unwrap()[0].method, "PUT");
    assert!(!headers_of(&seen.lock().unwrap()[0]).contains_key("accept"), "it is not in the list");
    for status in [400, 401, 403, 404, 418, 429] {
        let rejected = gateway.request("GET", "/", &[("cookie", &status.to_string()), ("accept", "text/html")]);
        assert_eq!((rejected.status, rejected.text().as_str()), (status, "the body of the server"));
        assert_eq!(rejected.header("www-authenticate"), Some("Custom realm=\"x\""));
        assert_eq!(rejected.header("x-why"), Some("y"));
    }
    let head = gateway.request("HEAD", "/", &[("cookie", "403")]);
    assert_eq!((head.status, head.body.len()), (403, 0));
    // As gRPC it is a status of gRPC, since such clients can read nothing else.
    let grpc = gateway.request("POST", "/a.B/C", &[("content-type", "application/grpc"), ("content-length", "0")]);
    assert_ne!(grpc.status, 302);
    assert_eq!(echo.count(), 0, "nothing reached the target");
    eventually("all are counted", || gateway.ended("forward_auth_rejected") == 9.0);
}

#[test]
fn without_a_verdict_nothing_is_accepted_unless_that_is_configured() {
    let ((server, _), echo) = (auth_server(), Target::echo("a"));
    let address = server.address.to_string();
    let gateway = Gateway::start(&yaml(&address, &echo, "call: {timeout: 300ms}, copy: [x-user]"));
    for cookie in ["500", "503", "reset", "stall"] {
        let rejected = gateway.request("GET", "/", &[("cookie", cookie)]);
        assert_eq!((rejected.status, rejected.reason().as_str()), (503, "auth_unavailable"), "{cookie}");
        assert!(rejected.header("www-authenticate").is_none() && !rejected.text().contains("body of the server"));
    }
    let log = gateway.access_log(4);
    let details: Vec<_> = log.iter().filter_map(|line| line["detail"].as_str()).collect();
    assert!(details.iter().any(|detail| detail.contains("responded with 500")), "{details:?}");
    assert_eq!(echo.count(), 0);

    // What a client can cause is no outage.
    gateway.write_config(&yaml(&address, &echo, "call: {timeout: 300ms}, when_unavailable: accept"));
    assert_eq!(gateway.reload().status, 200);
    for (cookie, status) in [("500", 503), ("501", 503), ("505", 503), ("403", 403), ("503", 200), ("reset", 200)] {
        assert_eq!(gateway.request("GET", "/", &[("cookie", cookie)]).status, status, "{cookie}");
    }

    let (_held, dead) = refused();
    gateway.write_config(&yaml(&dead.to_string(), &echo, "when_unavailable: accept, copy: [x-user]"));
    assert_eq!(gateway.reload().status, 200);
    for _ in 0..6 {
        let accepted = gateway.request("GET", "/", &[("x-user", "root")]);
        assert_eq!(accepted.status, 200);
        assert!(accepted.json()["headers"]["x-user"].is_null(), "nobody vouches for it");
    }
    gateway.write_config(&yaml(&dead.to_string(), &echo, ""));
    assert_eq!(gateway.reload().status, 200);
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(gateway.get("/").status, 503);
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn only_known_consumers_where_that_is_required() {
    let ((server, _), echo) = (auth_server(), Target::echo("a"));
    let settings = "consumer_header: x-user, known_consumers: true";
    let text = yaml(&server.address.to_string(), &echo, settings);
    let gateway = Gateway::start(&text);
    let accepted = gateway.request("GET", "/", &[("cookie", "good=1"), ("x-user", "root")]);
    assert_eq!(accepted.status, 200);
    assert!(accepted.json()["headers"]["x-user"].is_null(), "the client's own consumer_header reaches the target");
    gateway.write_config(&text.replace("subject: ada", "subject: eve"));
    gateway.reload();
    assert_eq!(gateway.request("GET", "/", &[("cookie", "good=1")]).status, 403);
    for (settings, wanted) in [
        ("known_consumers: true", "needs consumer_header"),
        ("copy: [content-length]", "framing"),
        ("consumer_header: host", "framing"),
        ("headers: [host]", "framing"),
        ("call: {tls: {ca: a.pem}}", "use no TLS"),
        ("when_unavailable: open", "expected"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let text = yaml("127.0.0.1:1", &echo, settings) + "listeners: [{name: main, address: '127.0.0.1:0'}]\n";
        std::fs::write(&file, text).unwrap();
        let (code, out, errors) = run(&["check", "-c", file.to_str().unwrap()], None);
        assert!(code != 0 && (out.clone() + &errors).contains(wanted), "{settings}: {out}{errors}");
    }
}
