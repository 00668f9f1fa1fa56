//! Tokens with which the gateway identifies itself to targets.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::lambda::header;
use super::harness::target::{Seen, Target, answer};

/// A server that gives tokens, and what came to it.
fn metadata(respond: impl Fn(usize) -> (u16, String) + Send + Sync + 'static) -> (Target, Arc<Mutex<Vec<Seen>>>) {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let target = Target::new(move |stream, request| {
        let count = {
            let mut seen = noted.lock().unwrap();
            seen.push(request.clone());
            seen.len()
        };
        let (status, body) = respond(count);
        answer(stream, status, &[("content-type", "application/json")], body.as_bytes())
    });
    (target, seen)
}

fn gateway(echo: &Target, provider: &str, header: &str) -> Gateway {
    Gateway::start(&format!(
        "
upstreams: {{echo: {{targets: ['{}']}}}}
routes:
  - name: a
    match: {{path: /*}}
    filters: [{{target_token: {{provider: {provider}, header: {header}}}}}]
    action: {{forward: echo}}
",
        echo.address
    ))
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

#[test]
fn an_identity_token_of_google_cloud_is_sent_and_renewed() {
    let (server, seen) = metadata(|count| {
        // Each ends soon, so that it is renewed.
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{},"n":{count}}}"#, now() + 8));
        (200, format!("e30.{claims}.sig"))
    });
    let echo = Target::echo("a");
    let provider = format!("{{google_metadata: {{audience: 'https://a.run.app', url: 'http://{}/'}}}}", server.address);
    let gateway = gateway(&echo, &provider, "x-serverless-authorization");
    let token = || gateway.get("/x").json()["headers"]["x-serverless-authorization"].as_str().map(str::to_owned);
    let first = token().expect("a token");
    assert!(first.starts_with("Bearer e30."), "{first}");
    let call = seen.lock().unwrap()[0].clone();
    let path = "/computeMetadata/v1/instance/service-accounts/default/identity?audience=https%3A%2F%2Fa%2Erun%2Eapp&format=full";
    assert_eq!((call.target.as_str(), header(&call, "metadata-flavor").as_deref()), (path, Some("Google")));
    // Requests do not wait for it, and do not ask for it.
    for _ in 0..5 {
        assert!(token().is_some());
    }
    eventually("it is renewed", || token().is_some_and(|token| token != first));
    assert!(!gateway.log().contains("e30."));
}

#[test]
fn a_token_of_azure_replaces_what_the_client_sent() {
    let (server, seen) = metadata(|_| (200, format!(r#"{{"access_token":"az","expires_on":"{}"}}"#, now() + 3_600)));
    let echo = Target::echo("a");
    let provider = format!(
        "{{azure_managed_identity: {{resource: 'api://orders', client_id: c1, url: 'http://{}/'}}}}",
        server.address
    );
    let gateway = gateway(&echo, &provider, "authorization");
    let got = gateway.request("GET", "/x", &[("authorization", "Bearer of-client")]).json();
    assert_eq!(got["headers"]["authorization"], "Bearer az", "{got}");
    let call = seen.lock().unwrap()[0].clone();
    assert!(call.target.ends_with("&resource=api%3A%2F%2Forders&client_id=c1"), "{}", call.target);
    assert_eq!(header(&call, "metadata").as_deref(), Some("true"));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn without_a_token_nothing_is_forwarded() {
    let (server, seen) = metadata(|count| match count {
        1 => (500, "secret".to_owned()),
        _ => (200, r#"{"access_token":"t","expires_in":3600}"#.to_owned()),
    });
    let echo = Target::echo("a");
    let provider = format!(
        "{{client_credentials: {{url: 'http://{}/token', client_id: gate, client_secret: s3cret, scope: 'a b'}}}}",
        server.address
    );
    let gateway = gateway(&echo, &provider, "authorization");
    let got = gateway.get("/x");
    if got.status != 200 {
        assert_eq!((got.status, got.reason().as_str()), (503, "credentials_unavailable"), "{}", got.text());
        assert!(!got.text().contains("secret") && echo.count() == 0);
    }
    eventually("there is a token", || gateway.get("/x").status == 200);
    let call = seen.lock().unwrap()[0].clone();
    assert_eq!(String::from_utf8_lossy(&call.body), "grant_type=client_credentials&scope=a%20b");
    assert!(header(&call, "authorization").is_some_and(|value| value.starts_with("Basic ")));
    assert!(!gateway.log().contains("s3cret"));
}
