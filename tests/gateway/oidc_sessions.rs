//! Sessions after a login: their cookies, their refresh, their end.

use serde_json::json;

use super::harness::browser::{Browser, parameter};
use super::harness::client::Answer;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, refused};
use super::oidc::{APP, KEY, Provider, await_reason, begin, end, yaml};

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
        format!("{value}AAAA"),
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
    let (_held, dead) = refused();
    let other = Gateway::start(&text.replace(&provider.target.address.to_string(), &dead.to_string()));
    let mut lost = Browser::at("app.test", other.address());
    let rejected = lost.open(&format!("{APP}/"));
    assert_eq!(rejected.status, 503);
    assert!(lost.cookies.is_empty());
    drop(provider);
    assert_eq!(browser.open(&format!("{APP}/")).status, 200);
}

#[test]
fn browsers_have_sessions_and_scripts_have_tokens_on_one_route() {
    let (provider, echo) = (Provider::start(), Target::echo("a"));
    let text = yaml(&provider, &echo, "forward_access_token: true");
    let (head, rest) = text.split_once("      - oidc:\n").expect("the filter");
    let (settings, action) = rest.split_once("    action:").expect("the action");
    let settings: String = settings.lines().map(|line| format!("    {line}\n")).collect();
    let secret = "a secret of tokens, of 32 bytes or more";
    let gateway = Gateway::start(&format!(
        "{head}      - any_of:\n          - oidc:\n{settings}          - jwt: {{secret: '{secret}', forward_claims: {{sub: x-user}}}}\n    action:{action}"
    ));
    // A browser is redirected, and its session accepted; the token that it may have beside that was not verified.
    let mut browser = Browser::at("app.test", gateway.address());
    let url = begin(&mut browser, "/");
    assert_eq!(end(&mut browser, &provider, &url).status, 302);
    let page = browser.send("GET", &format!("{APP}/"), &[("authorization", "Bearer forged")], "");
    assert_eq!(page.status, 200, "{}", page.text());
    assert_eq!(page.json()["headers"]["authorization"], "Bearer the-access-token");
    // A script is accepted with a token, and the cookies of a session go no further.
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let claims = json!({"sub": "robot", "exp": 4_000_000_000_u64});
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).expect("a token");
    let cookie = format!("{}=1.forged; theme=dark", browser.cookies[0].name);
    let bearer = format!("Bearer {token}");
    let page = gateway.request("GET", "/", &[("authorization", &bearer), ("cookie", &cookie)]);
    assert_eq!(page.status, 200, "{}", page.text());
    let headers = &page.json()["headers"];
    assert_eq!((&headers["x-user"], &headers["cookie"]), (&json!("robot"), &json!("theme=dark")), "{headers}");
    // With neither, a script gets the challenges of both.
    let rejected = gateway.get("/");
    let challenges = rejected.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    assert_eq!((rejected.status, challenges.count()), (401, 2));
}
