//! `basic`: names and passwords, with curl and by hand.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::harness::client::{self, Connection, head};
use super::harness::gateway::{BINARY, Gateway, run};
use super::harness::target::Target;

/// Of `pässword:1`, cheap, and of the empty password, as OpenBSD has it.
const CHEAP: &str = "$2b$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";

/// What `portcullis hash` makes of a password.
fn hash(password: &str) -> String {
    let mut child =
        Command::new(BINARY).arg("hash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the binary");
    std::io::Write::write_all(&mut child.stdin.take().expect("its input"), password.as_bytes()).expect("written");
    String::from_utf8(child.wait_with_output().expect("its output").stdout).expect("text").trim().to_owned()
}

fn config(target: &Target, hash: &str, more: &str) -> String {
    format!(
        "upstreams: {{echo: {{targets: ['{}']}}}}
consumers:
  ada: {{credentials: [{{basic: {{username: ada, hash: '{hash}'}}}}]}}
  empty: {{credentials: [{{basic: {{username: empty, hash: '{CHEAP}'}}}}, {{api_key: {{value: key-of-one}}}}]}}
routes:
  - {{name: hidden, match: {{path: /hidden}}, filters: [{{basic: {{realm: 'the \"shop\"'}}}}, {{rate_limit: {{limit: 1000/h, by: consumer, name: all}}}}], action: {{forward: echo}}}}
  - {{name: shown, match: {{path: /shown}}, filters: [{{basic: {{forward: true}}}}], action: {{forward: echo}}}}
  - {{name: either, match: {{path: /either}}, filters: [{{any_of: [{{api_key: {{}}}}, {{basic: {{}}}}]}}], action: {{forward: echo}}}}
{more}",
        target.address
    )
}

fn curl(gateway: &Gateway, path: &str, arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}"]).args(arguments).arg(format!("http://{}{path}", gateway.address()));
    let output = command.output().expect("curl is needed");
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.to_owned(), body.to_owned())
}

fn credentials(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

#[test]
fn names_and_passwords_let_in_and_nothing_else_does() {
    let target = Target::echo("echo");
    let gateway = Gateway::start(&config(&target, &hash("pässword:1"), ""));
    for user in ["ada:pässword:1", "empty:"] {
        for _ in 0..2 {
            let (status, body) = curl(&gateway, "/hidden", &["-u", user]);
            assert_eq!(status, "200", "{user}: {body}");
            assert!(!body.to_ascii_lowercase().contains("authorization"), "{body}");
            let (status, body) = curl(&gateway, "/shown", &["-u", user]);
            assert!(status == "200" && body.contains(&credentials(user)), "{body}");
        }
    }
    for user in
        ["ada:password:1", "ada:", "ada:pässword", "Ada:pässword:1", "eve:pässword:1", "eve:", ":pässword:1", ":"]
    {
        for _ in 0..2 {
            let (status, body) = curl(&gateway, "/hidden", &["-u", user]);
            assert!(
                status == "401" && body.contains("password_invalid") && !body.contains("pässword"),
                "{user}: {status} {body}"
            );
        }
    }
    let answer = gateway.get("/hidden");
    assert_eq!((answer.status, answer.reason()), (401, "password_missing".to_owned()));
    assert_eq!(answer.header("www-authenticate"), Some(r#"Basic realm="the \"shop\"", charset="UTF-8""#));
    let with = |headers: &[(&str, &str)]| gateway.request("GET", "/hidden", headers);
    assert_eq!(with(&[("authorization", "Bearer abc")]).reason(), "password_missing");
    for wrong in ["Basic", "Basic !!", "Basic YWRh", "Basic /zph", "basic YWRhOgA="] {
        assert_eq!(with(&[("authorization", wrong)]).reason(), "password_invalid", "{wrong}");
    }
    // The target might look at the other one.
    let right = credentials("empty:");
    assert_eq!(with(&[("authorization", &right), ("authorization", &right)]).reason(), "password_invalid");
    assert_eq!(with(&[("authorization", &right.replace("Basic", "bAsIc"))]).status, 200);
    // Logs and metrics have the consumer's name, and no password.
    let log = gateway.access_log(30);
    assert!(log.iter().any(|line| line["consumer"] == "ada" && line["reason"] == "forwarded"), "{log:?}");
    let texts = [gateway.log(), client::get(gateway.admin, "/metrics").text(), format!("{log:?}")];
    assert!(texts.iter().all(|text| !text.contains("pässword")));
}

#[test]
fn with_others_the_challenges_are_joined_and_no_password_goes_on() {
    let target = Target::echo("echo");
    let gateway = Gateway::start(&config(&target, CHEAP, ""));
    let answer = gateway.get("/either");
    assert_eq!(answer.status, 401);
    let challenges: Vec<_> =
        answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate")).collect();
    assert_eq!(challenges.len(), 2, "{:?}", answer.headers);
    let right = credentials("ada:");
    let answer = gateway.request("GET", "/either", &[("authorization", &right)]);
    assert!(answer.status == 200 && !answer.text().contains(&right), "{}", answer.text());
    // Whoever comes with a key, and the target may have use for its own token.
    let answer = gateway.request("GET", "/either", &[("x-api-key", "key-of-one"), ("authorization", &right)]);
    assert!(answer.status == 200 && !answer.text().contains(&right), "{}", answer.text());
    let answer =
        gateway.request("GET", "/either", &[("x-api-key", "key-of-one"), ("authorization", "Bearer of-the-target")]);
    assert!(answer.status == 200 && answer.text().contains("Bearer of-the-target"), "{}", answer.text());
}

#[test]
fn a_reload_takes_a_new_password_at_once() {
    let target = Target::echo("echo");
    let gateway = Gateway::start(&config(&target, &hash("before"), ""));
    assert_eq!(
        (curl(&gateway, "/hidden", &["-u", "ada:before"]).0, curl(&gateway, "/hidden", &["-u", "ada:after"]).0),
        ("200".into(), "401".into())
    );
    gateway.write_config(&config(&target, &hash("after"), ""));
    let path = gateway.config().display().to_string();
    let (code, out, _) = run(&["diff", "-c", &path, "--admin", &gateway.admin.to_string()], None);
    assert_eq!((code, out.as_str()), (0, "~ consumers.ada.credentials.0.basic.hash: (secret) -> (secret)\n1 change\n"));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(
        (curl(&gateway, "/hidden", &["-u", "ada:before"]).0, curl(&gateway, "/hidden", &["-u", "ada:after"]).0),
        ("401".into(), "200".into())
    );
}

/// Guesses take half of the cores at most, and whoever is known, or needs no password, does not wait for them.
#[test]
fn guesses_are_held_back_and_hold_up_nobody_else() {
    let target = Target::echo("echo");
    let more =
        "  - {name: open, match: {path: /open}, action: {respond: {body: ok}}}\nprocess: {threads: 2, drain_time: 10s}";
    // 16 MiB, 24 passes: about a tenth of a second for each.
    let slow = "$argon2id$v=19$m=16384,t=24,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    let gateway = Gateway::start(&config(&target, slow, more));
    assert_eq!(curl(&gateway, "/hidden", &["-u", "empty:"]).0, "200");
    // A name that nobody has takes as long as one that somebody has: `eve` is as slow as one of the two, and always
    // that one.
    let time = |name: &str| {
        let one = |number: usize| {
            let begun = Instant::now();
            let answer =
                gateway.request("GET", "/hidden", &[("authorization", &credentials(&format!("{name}:{number}")))]);
            assert_eq!(answer.reason(), "password_invalid");
            begun.elapsed()
        };
        (0..3).map(one).min().expect("a time")
    };
    let (quick, slow) = (time("empty"), time("ada"));
    let strangers: Vec<Duration> = (0..8).map(|number| time(&format!("stranger{number}"))).collect();
    assert!(strangers.iter().all(|time| *time > quick / 3), "{quick:?} {slow:?} {strangers:?}");
    assert!(strangers.iter().any(|time| *time > slow / 3), "{quick:?} {slow:?} {strangers:?}");
    let mut guesses: Vec<Connection> = Vec::new();
    for number in 0..300 {
        let mut connection = Connection::open(gateway.address());
        connection.send(head("GET", "/hidden", &[("authorization", &credentials(&format!("ada:guess {number}")))]));
        guesses.push(connection);
    }
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(gateway.get("/open").status, 200);
        assert_eq!(gateway.request("GET", "/hidden", &[("authorization", &credentials("empty:"))]).status, 200);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let answers: Vec<_> = guesses.iter_mut().map(|connection| connection.receive()).collect();
    let count = |reason: &str| answers.iter().filter(|answer| answer.reason() == reason).count();
    let (wrong, busy) = (count("password_invalid"), count("auth_overloaded"));
    assert_eq!(wrong + busy, 300);
    assert!(busy >= 44 && wrong > 0, "{wrong} verified, {busy} turned away");
    let turned_away = answers.iter().find(|answer| answer.reason() == "auth_overloaded").expect("one");
    assert_eq!((turned_away.status, turned_away.header("retry-after")), (503, Some("1")));
    assert!(gateway.metric("portcullis_requests_total{route=\"hidden\",reason=\"auth_overloaded\"}") >= 0.0);
}

#[test]
fn hashes_are_made_and_checked() {
    assert!(hash("x").starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_ne!(hash("x"), hash("x"), "the salt is drawn");
    assert_eq!(hash("x\n").len(), hash("x").len());
    let folder = tempfile::tempdir().expect("a folder");
    let yaml = "listeners: [{name: main, address: '127.0.0.1:0'}]
routes: [{name: all, filters: [{basic: {realm: \"a\\tb\"}}], action: {respond: {}}}]
consumers:
  plain: {credentials: [{basic: {username: plain, hash: s3cret}}]}
  md5: {credentials: [{basic: {username: md5, hash: $apr1$s3cret$x}}]}
  colon: {credentials: [{basic: {username: 'a:b', hash: HASH}}]}
  twice: {credentials: [{basic: {username: one, hash: HASH}}, {basic: {username: one, hash: HASH}}]}
";
    std::fs::write(folder.path().join("c.yaml"), yaml.replace("HASH", &format!("'{CHEAP}'"))).expect("written");
    let (code, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert_eq!(code, 2);
    for part in [
        "c.yaml:4:57: consumers.plain.credentials[0].basic.hash: expected the hash of a password",
        "as `portcullis hash` and `htpasswd -nbBC 12 NAME PASSWORD` make it, and not the password itself\n",
        "htpasswd needs -B\n",
        "consumers.colon.credentials[0].basic.username: expected a name without colons",
        "consumers.twice.credentials[1]: this credential is there a second time",
        "routes[0].filters[0].basic.realm: expected visible ASCII characters and spaces",
    ] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    assert!(!told.contains("s3cret"), "{told}");
    std::fs::write(
        folder.path().join("c.yaml"),
        "listeners: [{name: main, address: '127.0.0.1:0'}]\nroutes: [{name: all, filters: [{basic: {}}], action: {respond: {}}}]",
    )
    .expect("written");
    let (_, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(told.contains("no consumer has a basic credential"), "{told}");
}
