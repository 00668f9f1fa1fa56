//! Logins at a provider that behaves well and badly.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::harness::browser::{Browser, parameter};
use super::harness::client::Answer;
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Seen, Target, answer};
use super::key_sets::Pair;

pub(super) const APP: &str = "http://app.test";

/// What the provider does at its token endpoint, and what it has seen there.
#[derive(Default)]
pub(super) struct State {
    /// Claims of the ID tokens besides the usual ones, or what replaces them.
    pub(super) claims: Value,
    /// The token response besides the usual members, or what replaces them.
    pub(super) response: Value,
    /// A status other than 200, or a way to fail.
    pub(super) failure: Option<&'static str>,
    /// The key that signs, if not the provider's.
    other_key: bool,
    seen: Vec<Seen>,
}

pub(super) struct Provider {
    pub(super) target: Target,
    state: Arc<Mutex<State>>,
}

impl Provider {
    pub(super) fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let (key, other) = (Pair::new(Some("one")), Pair::new(Some("one")));
        let target = Target::new(move |stream, seen| {
            let host = seen.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("host")).map(|(_, v)| v.clone());
            let issuer = format!("http://{}", host.unwrap_or_default());
            let json = |stream: &mut _, value: Value| {
                answer(stream, 200, &[("content-type", "application/json")], value.to_string().as_bytes())
            };
            match seen.target.as_str() {
                "/.well-known/openid-configuration" => json(
                    stream,
                    json!({
                        "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
                        "authorization_endpoint": format!("{issuer}/auth?tenant=1"),
                        "token_endpoint": format!("{issuer}/token"), "end_session_endpoint": format!("{issuer}/end"),
                    }),
                ),
                "/jwks" => json(stream, json!({"keys": [key.jwk]})),
                "/token" => {
                    let (failure, response) = {
                        let mut state = shared.lock().unwrap();
                        state.seen.push(seen.clone());
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                        let mut claims = json!({"iss": issuer, "aud": "app", "iat": now});
                        for (name, value) in state.claims.as_object().into_iter().flatten() {
                            claims[name] = value.clone();
                        }
                        let signer = if state.other_key { &other } else { &key };
                        let token = signer.token(Some("one"), &claims);
                        let mut response =
                            json!({"access_token": "the-access-token", "token_type": "Bearer", "id_token": token});
                        merge(&mut response, &state.response);
                        (state.failure, response)
                    };
                    match failure {
                        Some("stall") => {
                            std::thread::sleep(Duration::from_secs(5));
                            Ok(())
                        }
                        Some("grant") => answer(stream, 400, &[], br#"{"error":"invalid_grant"}"#),
                        Some("html") => answer(stream, 200, &[], b"<html>"),
                        Some(status) => answer(stream, status.parse().unwrap(), &[("location", "/x")], b"{}"),
                        None => json(stream, response),
                    }
                }
                _ => answer(stream, 404, &[], b""),
            }
        });
        Self { target, state }
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(super) fn calls(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    /// The parameters of the last request to the token endpoint.
    pub(super) fn form(&self) -> String {
        let state = self.state.lock().unwrap();
        format!("?{}", String::from_utf8_lossy(&state.seen.last().expect("a call").body))
    }
}

fn merge(into: &mut Value, from: &Value) {
    for (name, value) in from.as_object().into_iter().flatten() {
        match value {
            Value::Null => _ = into.as_object_mut().unwrap().remove(name),
            value => into[name] = value.clone(),
        }
    }
}

pub(super) const KEY: &str = "a key of sessions, 32 bytes or more";

pub(super) fn yaml(provider: &Provider, echo: &Target, settings: &str) -> String {
    format!(
        "
upstreams: {{echo: {{targets: ['{}']}}}}
consumers: {{app: {{credentials: [{{jwt: {{subject: ada}}}}]}}}}
routes:
  - name: a
    match: {{path: /*}}
    filters:
      - oidc:
          issuer: http://{}
          client_id: app
          client_secret: secret
          redirect_path: /cb
          logout_path: /logout
          session_keys: ['{KEY}']
          forward_claims: {{sub: x-user}}
          {settings}
    action: {{forward: echo}}
",
        echo.address, provider.target.address
    )
}

/// Begins a login at a page: the URL of the provider.
#[track_caller]
pub(super) fn begin(browser: &mut Browser, page: &str) -> String {
    let redirect = browser.open(&format!("{APP}{page}"));
    assert_eq!(redirect.status, 302, "{}", redirect.text());
    redirect.header("location").expect("a location").to_owned()
}

/// Ends a login as a provider does that accepts the user.
#[track_caller]
pub(super) fn end(browser: &mut Browser, provider: &Provider, at_provider: &str) -> Answer {
    let nonce = parameter(at_provider, "nonce").expect("a nonce");
    provider.change(|state| state.claims["nonce"] = state.claims.get("nonce").cloned().unwrap_or(json!(nonce)));
    let state = parameter(at_provider, "state").expect("a state");
    let done = browser.open(&format!("{APP}/cb?code=the-code&state={state}"));
    provider.change(|state| state.claims = json!({}));
    done
}

/// Waits until that many requests have ended with that reason.
#[track_caller]
pub(super) fn await_reason(gateway: &Gateway, reason: &str, count: f64) {
    eventually(reason, || gateway.ended(reason) == count);
}

#[test]
fn a_login_leads_back_to_the_page_with_a_session() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    provider.change(|state| state.claims = json!({}));
    let gateway =
        Gateway::start(&yaml(&provider, &echo, "scopes: [email]\n          parameters: {prompt: 'select account'}"));
    let mut browser = Browser::at("app.test", gateway.address());
    let url = begin(&mut browser, "/a/b?c=d");
    let issuer = format!("http://{}", provider.target.address);
    assert!(url.starts_with(&format!("{issuer}/auth?tenant=1&response_type=code&client_id=app&")), "{url}");
    let expected = [
        ("redirect_uri", "http://app.test/cb"),
        ("scope", "openid email"),
        ("code_challenge_method", "S256"),
        ("prompt", "select account"),
    ];
    for (name, value) in expected {
        assert_eq!(parameter(&url, name).as_deref(), Some(value), "{url}");
    }
    let done = end(&mut browser, &provider, &url);
    assert_eq!((done.status, done.header("location")), (302, Some("/a/b?c=d")), "{}", done.text());
    assert_eq!(done.header("cache-control"), Some("no-store"));
    let form = provider.form();
    let verifier = parameter(&form, "code_verifier").expect("a verifier");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, verifier.as_bytes());
    assert_eq!(parameter(&url, "code_challenge"), Some(URL_SAFE_NO_PAD.encode(digest)), "PKCE (RFC 7636)");
    assert_eq!(parameter(&form, "redirect_uri").as_deref(), Some("http://app.test/cb"));
    assert_eq!(parameter(&form, "grant_type").as_deref(), Some("authorization_code"));
    let names = browser.names("app.test");
    assert_eq!(names.len(), 1, "the attempt is over: {names:?}");
    browser.cookies.push(super::harness::browser::Cookie {
        host: "app.test".to_owned(),
        path: "/".to_owned(),
        name: "theme".to_owned(),
        value: "dark".to_owned(),
    });
    let page = browser.send("GET", &format!("{APP}/a/b?c=d"), &[("x-user", "root")], "");
    assert_eq!(page.status, 200, "{}", page.text());
    let headers = &page.json()["headers"];
    assert_eq!((&headers["x-user"], &headers["cookie"]), (&json!("ada"), &json!("theme=dark")), "{headers}");
    let log = gateway.access_log(3);
    // Each worker writes its own lines.
    let line = |reason: &str| log.iter().find(|line| line["reason"] == reason).expect("a line");
    line("login_redirect");
    let (login, forwarded) = (line("logged_in"), line("forwarded"));
    assert_eq!(forwarded["consumer"], "app");
    assert!(!login.to_string().contains("the-code") || login["path"].is_string(), "{login}");
}

#[test]
fn cookies_are_for_this_host_and_not_for_scripts() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, "base_url: 'https://app.test'\n          cookie: s"));
    let mut browser = Browser::at("app.test", gateway.address());
    let first = browser.open(&format!("{APP}/"));
    let cookie = first.header("set-cookie").expect("a cookie").to_owned();
    assert!(cookie.starts_with("__Host-s-login-"), "{cookie}");
    assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=600"), "{cookie}");
    let url = first.header("location").expect("a location").to_owned();
    assert_eq!(parameter(&url, "redirect_uri").as_deref(), Some("https://app.test/cb"));
    let done = end(&mut browser, &provider, &url);
    let session = done.header("set-cookie").expect("a cookie");
    assert!(session.starts_with("__Host-s=1."), "{session}");
    assert!(session.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=28800"), "{session}");
    assert_eq!(browser.open(&format!("{APP}/")).status, 200);
    // The same session under the name without the prefix, which another host of the domain could set.
    browser.cookies.iter_mut().for_each(|cookie| cookie.name = cookie.name.replace("__Host-", ""));
    assert_eq!(browser.open(&format!("{APP}/")).status, 302);
}

#[test]
fn scripts_and_forms_get_401_and_no_cookie() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, ""));
    let html = ("accept", "text/html");
    let cases: [(&str, &[(&str, &str)]); 9] = [
        ("GET", &[]),
        ("GET", &[("accept", "*/*")]),
        ("GET", &[("accept", "application/json")]),
        ("GET", &[html, ("sec-fetch-mode", "cors")]),
        ("GET", &[html, ("x-requested-with", "XMLHttpRequest")]),
        ("GET", &[html, ("sec-purpose", "prefetch")]),
        ("POST", &[html, ("content-length", "0")]),
        ("DELETE", &[html]),
        ("HEAD", &[html, ("sec-fetch-mode", "navigate")]),
    ];
    for (method, headers) in cases {
        let rejected = gateway.request(method, "/", headers);
        assert_eq!(rejected.status, 401, "{method} {headers:?}");
        assert!(rejected.header("set-cookie").is_none() && rejected.header("location").is_none());
        assert!(rejected.header("www-authenticate").is_some_and(|value| value.starts_with("Cookie ")));
    }
    assert_eq!(gateway.request("GET", "/", &[]).reason(), "login_required");
}

#[test]
fn responses_of_the_provider_that_do_not_belong_to_an_attempt_are_rejected() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, ""));
    let mut browser = Browser::at("app.test", gateway.address());
    let url = begin(&mut browser, "/");
    let state = parameter(&url, "state").unwrap();
    let changed = format!("{}{}", &state[..20], "A".repeat(state.len() - 20));
    let queries = [
        String::new(),
        "code=c".to_owned(),
        format!("state={state}"),
        format!("code=&state={state}"),
        format!("code=c&state={changed}"),
        format!("code=c&state={}", &state[..16]),
        format!("code=c&state={state}&state={state}"),
        format!("code=c&code=d&state={state}"),
        format!("code=c&error=x&state={state}"),
        format!("code=c&state={state}%00"),
        format!("code=c&state={}", "a".repeat(43)),
    ];
    for query in queries {
        let rejected = browser.open(&format!("{APP}/cb?{query}"));
        assert_eq!(rejected.status, 400, "{query}");
        assert!(rejected.header("set-cookie").is_none(), "the attempt goes on: {query}");
    }
    let posted = browser.send("POST", &format!("{APP}/cb?code=c&state={state}"), &[], "");
    assert_eq!((posted.status, posted.reason().as_str()), (400, "login_failed"));
    // Another browser has no such attempt (login CSRF); its cookie under another name neither.
    let mut other = Browser::at("app.test", gateway.address());
    assert_eq!(other.open(&format!("{APP}/cb?code=c&state={state}")).status, 400);
    let second = begin(&mut other, "/");
    let theirs = other.cookies[0].value.clone();
    let mut swapped = browser.clone();
    swapped.cookies[0].value = theirs;
    assert_eq!(swapped.open(&format!("{APP}/cb?code=c&state={state}")).status, 400);
    assert_ne!(parameter(&second, "state"), Some(state.clone()));
    // Mix-up (RFC 9207).
    let issuer = "iss=http%3A%2F%2Fevil.test";
    assert_eq!(browser.clone().open(&format!("{APP}/cb?code=c&state={state}&{issuer}")).status, 400);
    assert_eq!(provider.calls(), 0, "no code was sent anywhere");
    let denied = browser.open(&format!("{APP}/cb?error=access_denied&state={state}"));
    assert_eq!(denied.status, 403);
    assert!(browser.names("app.test").is_empty(), "{:?}", browser.cookies);
    await_reason(&gateway, "login_denied", 1.0);
}

#[test]
fn tokens_that_are_not_for_this_login_are_rejected() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, "call: {timeout: 400ms}"));
    let claims = [
        ("nonce", json!({"nonce": "another"})),
        ("issuer", json!({"iss": "http://evil.test"})),
        ("no issuer", json!({"iss": null})),
        ("audience", json!({"aud": "other"})),
        ("several audiences", json!({"aud": ["app", "other"]})),
        ("party", json!({"aud": ["app", "other"], "azp": "other"})),
        ("party alone", json!({"azp": "other"})),
        ("expired", json!({"exp": 1_000})),
        ("no expiry", json!({"exp": null})),
        ("no subject", json!({"sub": null})),
    ];
    let login = |browser: &mut Browser| {
        let url = begin(browser, "/");
        end(browser, &provider, &url)
    };
    for (what, claims) in claims {
        let mut browser = Browser::at("app.test", gateway.address());
        provider.change(|state| state.claims = claims);
        let rejected = login(&mut browser);
        assert_eq!(rejected.status, 400, "{what}");
        assert!(browser.cookies.is_empty(), "{what}: {:?}", browser.cookies);
    }
    provider.change(|state| state.claims = json!({"aud": ["other", "app"], "azp": "app"}));
    assert_eq!(login(&mut Browser::at("app.test", gateway.address())).status, 302);
    provider.change(|state| state.other_key = true);
    assert_eq!(login(&mut Browser::at("app.test", gateway.address())).status, 400, "another key");
    provider.change(|state| state.other_key = false);
    let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
    for (response, status) in [
        (json!({"id_token": none}), 400),
        (json!({"id_token": "x"}), 400),
        (json!({"id_token": null}), 400),
        (json!({"access_token": null}), 503),
        (json!({"token_type": "DPoP"}), 503),
    ] {
        provider.change(|state| state.response = response.clone());
        assert_eq!(login(&mut Browser::at("app.test", gateway.address())).status, status, "{response}");
    }
    provider.change(|state| state.response = json!({}));
    for (failure, status) in [("grant", 400), ("html", 503), ("302", 503), ("401", 503), ("500", 503), ("stall", 503)] {
        provider.change(|state| state.failure = Some(failure));
        let mut browser = Browser::at("app.test", gateway.address());
        let rejected = login(&mut browser);
        assert_eq!(rejected.status, status, "{failure}");
        assert!(browser.names("app.test").is_empty(), "{failure}");
    }
    await_reason(&gateway, "logged_in", 1.0);
    assert!(!gateway.log().contains("the-access-token"));
}

#[test]
fn users_return_to_this_host_alone() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, ""));
    for page in
        ["//evil.test/x", "/\\evil.test", "///evil.test", "/%2F/evil.test", "/a?rd=https://evil.test", "/%5Cevil.test"]
    {
        let mut browser = Browser::at("app.test", gateway.address());
        let redirect = browser.open(&format!("{APP}{page}"));
        if redirect.status != 302 {
            assert_eq!(redirect.status, 400, "{page}");
            continue;
        }
        let url = redirect.header("location").unwrap().to_owned();
        let done = end(&mut browser, &provider, &url);
        let to = done.header("location").expect("a location").to_owned();
        assert!(to.starts_with('/') && !to[1..].starts_with(['/', '\\']), "{page} leads to {to}");
    }
}

#[test]
fn settings_that_cannot_work_are_rejected() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let base = yaml(&provider, &echo, "");
    let cases = [
        ("redirect_path: /cb", "redirect_path: cb", "expected a path"),
        ("redirect_path: /cb", "redirect_path: //evil.test", "expected a path"),
        ("redirect_path: /cb", "redirect_path: /logout", "that of redirect_path"),
        ("path: /*", "path: /app/*", "no path of this route matches /cb"),
        (KEY, "short", "at least 32 bytes"),
        ("logout_path: /logout", "after_logout: /x", "needs logout_path"),
        ("client_secret: secret", "client_auth: body", "needs client_secret"),
        ("client_id: app", "client_id: app\n          scopes: ['a b']", "without blanks"),
        ("client_id: app", "client_id: app\n          parameters: {nonce: x}", "set by the gateway itself"),
        ("client_id: app", "client_id: app\n          base_url: 'https://a/b'", "without a path"),
        ("client_id: app", "client_id: app\n          cookie: 'a b'", "expected a name"),
        ("client_id: app", "client_id: app\n          session_lifetime: 1s", "expected 60s"),
        ("client_id: app", "client_id: app\n          call: {tls: {ca: x}}", "use no TLS"),
        ("issuer: http://", "issuer: http://a@", "expected an http(s) URL"),
    ];
    for (from, to, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let text = base.replace(from, to) + "listeners: [{name: main, address: '127.0.0.1:0'}]\n";
        std::fs::write(&file, text).unwrap();
        let (code, out, errors) = run(&["check", "-c", file.to_str().unwrap()], None);
        assert!(code != 0 && (out.clone() + &errors).contains(wanted), "{to}: {out}{errors}");
        assert!(!(out + &errors).contains(KEY));
    }
}
