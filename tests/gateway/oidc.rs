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

const APP: &str = "http://app.test";

/// What the provider does at its token endpoint, and what it has seen there.
#[derive(Default)]
struct State {
    /// Claims of the ID tokens besides the usual ones, or what replaces them.
    claims: Value,
    /// The token response besides the usual members, or what replaces them.
    response: Value,
    /// A status other than 200, or a way to fail.
    failure: Option<&'static str>,
    /// The key that signs, if not the provider's.
    other_key: bool,
    seen: Vec<Seen>,
}

struct Provider {
    target: Target,
    state: Arc<Mutex<State>>,
}

impl Provider {
    fn start() -> Self {
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

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn calls(&self) -> usize {
        self.state.lock().unwrap().seen.len()
    }

    /// The parameters of the last request to the token endpoint.
    fn form(&self) -> String {
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

const KEY: &str = "a key of sessions, 32 bytes or more";

fn yaml(provider: &Provider, echo: &Target, settings: &str) -> String {
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
fn begin(browser: &mut Browser, page: &str) -> String {
    let redirect = browser.open(&format!("{APP}{page}"));
    assert_eq!(redirect.status, 302, "{}", redirect.text());
    redirect.header("location").expect("a location").to_owned()
}

/// Ends a login as a provider does that accepts the user.
#[track_caller]
fn end(browser: &mut Browser, provider: &Provider, at_provider: &str) -> Answer {
    let nonce = parameter(at_provider, "nonce").expect("a nonce");
    provider.change(|state| state.claims["nonce"] = state.claims.get("nonce").cloned().unwrap_or(json!(nonce)));
    let state = parameter(at_provider, "state").expect("a state");
    let done = browser.open(&format!("{APP}/cb?code=the-code&state={state}"));
    provider.change(|state| state.claims = json!({}));
    done
}

/// Waits until that many requests have ended with that reason.
#[track_caller]
fn await_reason(gateway: &Gateway, reason: &str, count: f64) {
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
    assert_eq!((&log[0]["reason"], &log[1]["reason"]), (&json!("login_redirect"), &json!("logged_in")));
    assert_eq!(log[2]["consumer"], "app");
    assert!(!log[1].to_string().contains("the-code") || log[1]["path"].is_string(), "{}", log[1]);
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
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("GET", &[]),
        ("GET", &[("accept", "*/*")]),
        ("GET", &[("accept", "application/json")]),
        ("GET", &[html, ("sec-fetch-mode", "cors")]),
        ("GET", &[html, ("x-requested-with", "XMLHttpRequest")]),
        ("GET", &[html, ("sec-purpose", "prefetch")]),
        ("POST", &[html, ("content-length", "0")]),
        ("DELETE", &[html]),
    ];
    for (method, headers) in cases {
        let rejected = gateway.request(method, "/", headers);
        assert_eq!(rejected.status, 401, "{method} {headers:?}");
        assert!(rejected.header("set-cookie").is_none() && rejected.header("location").is_none());
        assert!(rejected.header("www-authenticate").is_some_and(|value| value.starts_with("Cookie ")));
    }
    assert_eq!(gateway.request("GET", "/", &[]).reason(), "login_required");
    assert_eq!(gateway.request("HEAD", "/", &[html, ("sec-fetch-mode", "navigate")]).status, 302);
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
fn sessions_that_were_changed_or_sealed_by_others_are_none() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let text = yaml(&provider, &echo, "");
    let gateway = Gateway::start(&text);
    let mut browser = Browser::at("app.test", gateway.address());
    let url = begin(&mut browser, "/");
    let attempt = browser.clone();
    assert_eq!(end(&mut browser, &provider, &url).status, 302);
    let open = |browser: &Browser| browser.clone().open(&format!("{APP}/")).status;
    assert_eq!(open(&browser), 200);
    let value = browser.cookies[0].value.clone();
    let changed = [
        value[..value.len() - 1].to_owned(),
        value.replacen('.', ".A", 1),
        value.replacen("1.", "2.", 1),
        format!("{}AAAA", value),
        String::new(),
        // An attempt is no session.
        format!("1.{}", attempt.cookies[0].value),
    ];
    for value in changed {
        let mut other = browser.clone();
        other.cookies[0].value.clone_from(&value);
        assert_eq!(open(&other), 302, "{value}");
    }
    // Rotation: a new key seals, the old one still opens, until it is removed.
    let both = format!("['another key of sessions, of 32 bytes', '{KEY}']");
    gateway.write_config(&text.replace(&format!("['{KEY}']"), &both));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(open(&browser), 200);
    let mut newer = Browser::at("app.test", gateway.address());
    let url = begin(&mut newer, "/");
    assert_eq!(end(&mut newer, &provider, &url).status, 302);
    gateway.write_config(&text.replace(KEY, "another key of sessions, of 32 bytes"));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!((open(&browser), open(&newer)), (302, 200));
    // The same key, but for another client.
    let other = text
        .replace("client_id: app", "client_id: other")
        .replace("/cb", "/cb")
        .replace("forward_claims", &format!("cookie: {}\n          forward_claims", browser.cookies[0].name));
    gateway.write_config(&other);
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(open(&browser), 302);
}

#[test]
fn tabs_log_in_at_a_time_and_attempts_are_bounded() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, ""));
    let mut browser = Browser::at("app.test", gateway.address());
    let tabs: Vec<String> = (0..3).map(|n| begin(&mut browser, &format!("/tab{n}"))).collect();
    for (number, url) in tabs.iter().enumerate().rev() {
        let done = end(&mut browser, &provider, url);
        assert_eq!(done.header("location"), Some(format!("/tab{number}").as_str()));
    }
    // The second time a response comes it belongs to no attempt.
    assert_eq!(end(&mut browser, &provider, &tabs[0]).status, 400);
    let mut lost = Browser::at("app.test", gateway.address());
    let urls: Vec<String> = (0..10).map(|_| begin(&mut lost, "/")).collect();
    assert_eq!(lost.names("app.test").len(), 4);
    assert_eq!(end(&mut lost, &provider, &urls[0]).status, 400, "the oldest has gone");
    assert_eq!(end(&mut lost, &provider, &urls[9]).status, 302);
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
fn logging_out_removes_the_session_here_and_at_the_provider() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway = Gateway::start(&yaml(&provider, &echo, "after_logout: /bye"));
    let mut browser = Browser::at("app.test", gateway.address());
    let nobody = browser.open(&format!("{APP}/logout"));
    assert_eq!((nobody.status, nobody.header("location")), (302, Some("/bye")));
    let url = begin(&mut browser, "/");
    end(&mut browser, &provider, &url);
    let out = browser.open(&format!("{APP}/logout"));
    let to = out.header("location").expect("a location").to_owned();
    assert!(to.starts_with(&format!("http://{}/end?client_id=app&", provider.target.address)), "{to}");
    assert_eq!(parameter(&to, "post_logout_redirect_uri").as_deref(), Some("http://app.test/bye"));
    assert!(parameter(&to, "id_token_hint").is_some_and(|token| token.split('.').count() == 3), "{to}");
    assert!(browser.cookies.is_empty(), "{:?}", browser.cookies);
    assert_eq!(browser.open(&format!("{APP}/")).status, 302);
    await_reason(&gateway, "logged_out", 2.0);
}

#[test]
fn refreshes_are_made_once_and_end_the_session_when_the_provider_says_so() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let gateway =
        Gateway::start(&yaml(&provider, &echo, "forward_access_token: true\n          call: {timeout: 400ms}"));
    let login = |refresh: &str, expires: u64| {
        let mut browser = Browser::at("app.test", gateway.address());
        provider.change(|state| {
            state.failure = None;
            state.response = json!({"refresh_token": refresh, "expires_in": expires});
        });
        let url = begin(&mut browser, "/");
        assert_eq!(end(&mut browser, &provider, &url).status, 302);
        browser
    };
    // Expired at once.
    let browser = login("first", 0);
    provider.change(|state| {
        state.response =
            json!({"access_token": "refreshed", "refresh_token": "second", "expires_in": 600, "id_token": null});
    });
    let calls = provider.calls();
    let open = |browser: &Browser| {
        let mut browser = browser.clone();
        let page = browser.send(
            "GET",
            &format!("{APP}/"),
            &[("accept", "application/json"), ("authorization", "Bearer own")],
            "",
        );
        (page, browser)
    };
    let pages: Vec<(Answer, Browser)> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..20).map(|_| scope.spawn(|| open(&browser))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    for (page, _) in &pages {
        assert_eq!(page.status, 200, "{}", page.text());
        assert_eq!(page.json()["headers"]["authorization"], "Bearer refreshed");
        assert!(page.header("set-cookie").is_some());
    }
    assert_eq!(provider.calls(), calls + 1, "one refresh for all");
    assert_eq!(parameter(&provider.form(), "refresh_token").as_deref(), Some("first"));
    // A request that comes late with the cookie before it does not use the old token again.
    assert_eq!(open(&browser).0.status, 200);
    let refreshed = &pages[0].1;
    let page = open(refreshed).0;
    assert_eq!((page.status, page.header("set-cookie")), (200, None));
    assert_eq!(provider.calls(), calls + 1);

    // The provider does not accept it any more, or says that it is another user: the session is over.
    for (failure, claims) in [(Some("grant"), json!({})), (None, json!({"sub": "eve"}))] {
        let browser = login("third", 0);
        provider.change(|state| (state.failure, state.claims) = (failure, claims.clone()));
        let rejected = open(&browser).0;
        assert_eq!((rejected.status, rejected.reason().as_str()), (401, "login_required"), "{claims}");
        assert!(rejected.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
        provider.change(|state| state.claims = json!({}));
    }
    // It cannot be reached: 503, but not while the tokens are valid.
    let (expired, due) = (login("fourth", 0), login("fifth", 5));
    provider.change(|state| state.failure = Some("500"));
    assert_eq!(open(&expired).0.status, 503);
    assert_eq!(open(&due).0.status, 200);
    // Without a refresh token the session ends with the access token that the target would get.
    provider.change(|state| (state.failure, state.response) = (None, json!({"expires_in": 0})));
    let mut browser = Browser::at("app.test", gateway.address());
    let url = begin(&mut browser, "/");
    end(&mut browser, &provider, &url);
    assert_eq!(open(&browser).0.status, 401);
}

#[test]
fn a_provider_that_is_not_there_stops_logins_and_not_sessions() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let text = yaml(&provider, &echo, "");
    let gateway = Gateway::start(&text);
    let mut browser = Browser::at("app.test", gateway.address());
    let url = begin(&mut browser, "/");
    end(&mut browser, &provider, &url);
    let (_held, dead) = super::harness::target::refused();
    let other = Gateway::start(&text.replace(&provider.target.address.to_string(), &dead.to_string()));
    let mut lost = Browser::at("app.test", other.address());
    let rejected = lost.open(&format!("{APP}/"));
    assert_eq!(rejected.status, 503);
    assert!(lost.cookies.is_empty());
    drop(provider);
    assert_eq!(browser.open(&format!("{APP}/")).status, 200);
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
