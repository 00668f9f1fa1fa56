//! Logins, refreshes, logouts and introspection at oidc-provider, a certified OpenID provider for Node.js.

use std::time::Duration;

use crate::harness::browser::{Browser, Page, parameter};
use crate::harness::client::Answer;
use crate::harness::eventually;
use crate::harness::gateway::Gateway;
use crate::harness::target::Target;

use super::programs::Server;

const APP: &str = "http://app.test";

struct Setting {
    provider: Server,
    gateway: Gateway,
    _echo: Target,
}

impl Setting {
    /// A gateway before an echo, for that client of the provider.
    fn start(client: &str, settings: &[&str]) -> Self {
        let (provider, echo) = (Server::start("oidc_provider.mjs", &[]), Target::echo("echo"));
        let secret = if client == "public" { "" } else { "client_secret: the secret of the app" };
        let gateway = Gateway::start(&format!(
            "
upstreams: {{echo: {{targets: ['{echo}']}}}}
routes:
  - name: api
    match: {{path: /api/*}}
    filters:
      - introspection:
          url: http://{issuer}/token/introspection
          client_id: app
          client_secret: the secret of the app
          scopes: [read]
          consumer_claim: client_id
          cache: 0s
          forward_claims: {{client_id: x-client, scope: x-scope}}
    action: {{forward: echo}}
  - name: pages
    match: {{path: /*}}
    filters:
      - oidc:
          issuer: http://{issuer}
          client_id: {client}
          {secret}
          redirect_path: /login/callback
          logout_path: /logout
          after_logout: /bye
          session_keys: ['a key of sessions, 32 bytes or more']
          forward_claims: {{sub: x-user, email: x-email}}
          {}
    action: {{forward: echo}}
",
            settings.join("\n          "),
            echo = echo.address,
            issuer = provider.address,
        ));
        Self { provider, gateway, _echo: echo }
    }

    fn browser(&self) -> Browser {
        Browser::at("app.test", self.gateway.address())
    }

    /// The number of grants of that kind.
    fn grants(&self, kind: &str) -> usize {
        self.provider.lines().iter().filter(|line| line["grant"] == kind && line["refused"].is_null()).count()
    }
}

/// Fills in the forms of the provider until it sends the browser back, whose URL is not opened.
#[track_caller]
fn pass_provider(browser: &mut Browser, from: &str, user: &str) -> String {
    let answer = browser.open(from);
    let is_back = |url: &str| url.starts_with(APP);
    let mut page = browser.follow(from.to_owned(), answer, is_back);
    for _ in 0..4 {
        if is_back(&page.url) {
            return page.url;
        }
        let text = page.answer.text();
        let prompt = text.split("name=\"prompt\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
        let prompt = prompt.unwrap_or_else(|| panic!("no form at {}: {} {text}", page.url, page.answer.status));
        let body = format!("prompt={prompt}&login={user}&password=any");
        let answer = browser.send("POST", &page.url.clone(), &[("accept", "text/html")], &body);
        page = browser.follow(page.url, answer, is_back);
    }
    panic!("the provider does not send the browser back from {}", page.url);
}

/// Opens a page, logs in, and returns what the browser gets in the end.
#[track_caller]
fn log_in(browser: &mut Browser, page: &str, user: &str) -> Page {
    let url = format!("{APP}{page}");
    let redirect = browser.open(&url);
    assert_eq!(redirect.status, 302, "{}", redirect.text());
    let back = pass_provider(browser, redirect.header("location").expect("a location"), user);
    let answer = browser.open(&back);
    browser.follow(back, answer, |_| false)
}

fn ajax(browser: &Browser, path: &str) -> (Answer, Browser) {
    let mut browser = browser.clone();
    let answer = browser.send("GET", &format!("{APP}{path}"), &[("accept", "application/json")], "");
    (answer, browser)
}

#[test]
fn a_login_from_the_first_page_to_the_last() {
    let setting = Setting::start("app", &["scopes: [email]"]);
    let mut browser = setting.browser();
    let page = log_in(&mut browser, "/reports?year=2026", "ada");
    assert_eq!((page.url.as_str(), page.answer.status), ("http://app.test/reports?year=2026", 200));
    let headers = &page.answer.json()["headers"];
    assert_eq!((&headers["x-user"], &headers["x-email"]), (&"ada".into(), &"ada@app.test".into()), "{headers}");
    assert!(headers["cookie"].is_null(), "{headers}");
    assert_eq!(browser.names("app.test").len(), 1, "{:?}", browser.cookies);
    assert_eq!(ajax(&browser, "/x").0.status, 200);
    assert_eq!(setting.grants("authorization_code"), 1);
}

#[test]
fn the_provider_sees_pkce_and_takes_a_code_once() {
    let setting = Setting::start("app", &[]);
    let mut browser = setting.browser();
    let redirect = browser.open(&format!("{APP}/"));
    let url = redirect.header("location").expect("a location").to_owned();
    // Without it this provider does not go on.
    let without = url.replace("&code_challenge=", "&x=").replace("&code_challenge_method=S256", "");
    let mut other = browser.clone();
    let answer = other.open(&without);
    let refused = other.follow(without, answer, |url| url.starts_with(APP));
    assert_eq!(parameter(&refused.url, "error").as_deref(), Some("invalid_request"), "{}", refused.url);
    assert_eq!(other.open(&refused.url).status, 400);

    let back = pass_provider(&mut browser, &url, "ada");
    let mut thief = browser.clone();
    assert_eq!(browser.open(&back).status, 302);
    // The same response again: by the same browser, and by one that has the attempt still.
    assert_eq!(browser.open(&back).status, 400);
    let replayed = thief.open(&back);
    assert_eq!(replayed.status, 400, "{}", replayed.text());
    assert_eq!(ajax(&thief, "/").0.status, 401);
    setting.provider.await_line("the code was refused", |line| line["refused"] == "invalid_grant");
}

#[test]
fn a_user_who_aborts_is_not_logged_in() {
    let setting = Setting::start("app", &[]);
    let mut browser = setting.browser();
    let redirect = browser.open(&format!("{APP}/"));
    let url = redirect.header("location").expect("a location").to_owned();
    let answer = browser.open(&url);
    let form = browser.follow(url, answer, |url| url.starts_with(APP));
    let abort = format!("{}/abort", form.url);
    let answer = browser.open(&abort);
    let back = browser.follow(abort, answer, |url| url.starts_with(APP));
    assert_eq!(parameter(&back.url, "error").as_deref(), Some("access_denied"));
    let denied = browser.open(&back.url);
    assert_eq!((denied.status, browser.names("app.test").len()), (403, 0));
}

#[test]
fn tabs_in_parallel_both_arrive() {
    let setting = Setting::start("app", &[]);
    let mut browser = setting.browser();
    let begin = |browser: &mut Browser, page: &str| {
        let redirect = browser.open(&format!("{APP}{page}"));
        redirect.header("location").expect("a location").to_owned()
    };
    let (one, two) = (begin(&mut browser, "/one"), begin(&mut browser, "/two"));
    let back_of_two = pass_provider(&mut browser, &two, "ada");
    let back_of_one = pass_provider(&mut browser, &one, "ada");
    for (back, page) in [(back_of_two, "/two"), (back_of_one, "/one")] {
        let answer = browser.open(&back);
        assert_eq!(answer.header("location"), Some(page));
        assert_eq!(browser.follow(back, answer, |_| false).answer.status, 200);
    }
}

#[test]
fn tokens_are_refreshed_once_by_many_requests() {
    let setting = Setting::start(
        "short",
        &["scopes: [offline_access]", "parameters: {prompt: consent}", "forward_access_token: true"],
    );
    let mut browser = setting.browser();
    let page = log_in(&mut browser, "/", "ada");
    let token = |answer: &Answer| answer.json()["headers"]["authorization"].as_str().unwrap_or_default().to_owned();
    let first = token(&page.answer);
    assert!(first.starts_with("Bearer "), "{}", page.answer.text());
    // The provider's access tokens last for two seconds.
    std::thread::sleep(Duration::from_millis(2_100));
    let answers: Vec<(Answer, Browser)> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..12).map(|_| scope.spawn(|| ajax(&browser, "/x"))).collect();
        all.into_iter().map(|one| one.join().expect("an answer")).collect()
    });
    let tokens: std::collections::BTreeSet<String> = answers.iter().map(|(answer, _)| token(answer)).collect();
    assert!(answers.iter().all(|(answer, _)| answer.status == 200), "{answers:?}");
    assert_eq!((tokens.len(), tokens.contains(&first)), (1, false), "{tokens:?}");
    eventually("one refresh is there", || setting.grants("refresh_token") == 1);
    // The token that was rotated away is not used again: this provider would end the session.
    assert_eq!(ajax(&browser, "/x").0.status, 200);
    std::thread::sleep(Duration::from_millis(2_100));
    assert_eq!(ajax(&answers[0].1, "/x").0.status, 200);
    eventually("the second refresh is there", || setting.grants("refresh_token") == 2);
}

#[test]
fn a_logout_is_one_at_the_provider_too() {
    let setting = Setting::start("app", &[]);
    let mut browser = setting.browser();
    log_in(&mut browser, "/", "ada");
    // At the provider she is still known: no form is needed.
    let mut again = browser.clone();
    again.cookies.retain(|cookie| cookie.host != "app.test");
    let redirect = again.open(&format!("{APP}/"));
    let url = redirect.header("location").expect("a location").to_owned();
    let answer = again.open(&url);
    let back = again.follow(url, answer, |url| url.starts_with(APP));
    assert!(parameter(&back.url, "code").is_some(), "{}", back.url);

    let out = browser.open(&format!("{APP}/logout"));
    assert!(browser.names("app.test").is_empty());
    let url = out.header("location").expect("a location").to_owned();
    let form = browser.open(&url);
    let text = form.text();
    let field = |name: &str| {
        let rest = text.split(&format!("name=\"{name}\" value=\"")).nth(1);
        rest.and_then(|rest| rest.split('"').next()).map(str::to_owned)
    };
    let xsrf = field("xsrf").unwrap_or_else(|| panic!("no form: {} {text}", form.status));
    let issuer = setting.provider.address;
    let confirm = format!("http://{issuer}/session/end/confirm");
    let answer = browser.send("POST", &confirm, &[("accept", "text/html")], &format!("xsrf={xsrf}&logout=yes"));
    let back = browser.follow(confirm, answer, |url| url.starts_with(APP));
    assert_eq!(back.url.split('?').next(), Some("http://app.test/bye"));
    let redirect = browser.open(&format!("{APP}/"));
    let url = redirect.header("location").expect("a location").to_owned();
    let answer = browser.open(&url);
    let page = browser.follow(url, answer, |url| url.starts_with(APP));
    assert!(page.answer.text().contains("value=\"login\""), "she has to log in again: {}", page.url);
}

#[test]
fn a_large_session_is_in_several_cookies() {
    let setting = Setting::start("large", &["forward_access_token: true"]);
    let mut browser = setting.browser();
    let page = log_in(&mut browser, "/", "ada");
    assert_eq!(page.answer.status, 200);
    let names = browser.names("app.test");
    assert!(names.len() >= 3, "{names:?}");
    assert!(page.answer.json()["headers"]["cookie"].is_null());
    browser.open(&format!("{APP}/logout"));
    assert!(browser.names("app.test").is_empty());
}

#[test]
fn clients_without_a_secret_and_with_one_in_the_body() {
    for (client, settings) in [("public", ""), ("body", "client_auth: body")] {
        let setting = Setting::start(client, &[settings]);
        let page = log_in(&mut setting.browser(), "/a", "ada");
        assert_eq!((page.url.as_str(), page.answer.status), ("http://app.test/a", 200), "{client}");
    }
}

#[test]
fn real_tokens_are_introspected() {
    let setting = Setting::start("app", &["scopes: [read]", "forward_access_token: true"]);
    let mut browser = setting.browser();
    let page = log_in(&mut browser, "/", "ada");
    let of_user = page.answer.json()["headers"]["authorization"].as_str().expect("a token").to_owned();
    let issuer = setting.provider.address;
    let post = |path: &str, body: &str| {
        let mut client = Browser::default();
        // `app:the secret of the app`, each part as in a form.
        let basic = ("authorization", "Basic YXBwOnRoZSUyMHNlY3JldCUyMG9mJTIwdGhlJTIwYXBw");
        client.send("POST", &format!("http://{issuer}{path}"), &[basic], body)
    };
    let grant = |scope: &str| {
        let answer = post("/token", &format!("grant_type=client_credentials&scope={scope}"));
        format!("Bearer {}", answer.json()["access_token"].as_str().unwrap_or_else(|| panic!("{}", answer.text())))
    };
    let call = |token: &str| setting.gateway.request("GET", "/api/x", &[("authorization", token)]);
    let (reading, writing) = (grant("read"), grant("write"));
    let accepted = call(&reading);
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    assert_eq!(accepted.json()["headers"]["x-client"], "app");
    assert_eq!(accepted.json()["headers"]["x-scope"], "read");
    assert_eq!(call(&writing).reason(), "insufficient_scope");
    assert_eq!(call(&of_user).json()["headers"]["x-scope"], "openid read");
    assert_eq!(call("Bearer unknown").reason(), "token_invalid");
    let token = reading.strip_prefix("Bearer ").expect("a token");
    assert_eq!(post("/token/revocation", &format!("token={token}")).status, 200);
    assert_eq!(call(&reading).status, 401, "it is revoked");
}
