//! What `${env:…}` and `${file:…}` stand for is in no message, wherever in a configuration it is.

use std::path::Path;

use serde_yaml::Value;

use portcullis::parts::{Configuration, install_provider};

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};

/// Values of every form that some key takes as far as it parses, each with a mark that no message may have.
const SECRETS: &[&str] = &[
    "zq9x7-Secret with spaces\nand a second line",
    "zq9x7",
    "zq9x7:80",
    "/zq9x7/{zq9x7}/*",
    "https://zq9x7.test/{zq9x7}?key=zq9x7",
    "~^/zq9x7(",
    "{zq9x7}",
    "*.zq9x7",
    "file:zq9x7/none",
    "zq9x7s",
    "1zq9x7",
];

/// Keys that `conf/portcullis.yaml` only has in comments.
const FURTHER: &str = r#"
listeners:
  - {name: tls, address: "127.0.0.1:0", tls: {certificates: [{cert: a, key: b}], min_version: "1.2"}, protocols: [http1]}
upstreams:
  a:
    targets: ["127.0.0.1:1"]
    protocol: auto
    tls: {verify: true, name: x, ca: x}
    discovery: {srv: _http._tcp.x}
    health: {active: {grpc: x, expect_header: x}}
    limits: {adaptive: {min: 5, max: 10, window: 1s}}
    retry: {hedge_after: 1s}
    sticky: {header: {name: x, ttl: 1h}}
  b: {targets: ["127.0.0.1:1"], discovery: {file: x}, balance: {hash: {by: {query: x}}}, sticky: {address: {ttl: 1h}}}
routes:
  - name: a
    filters:
      - jwt: {jwks: "https://x.test/jwks", algorithms: [ES256], cookie: x, type: x, ca: x, refresh: 1m, required_claims: [x]}
    action: {forward: {split: [{upstream: a, weight: 1}], strip_prefix: /a}}
  - {name: b, match: {path: /b}, filters: [{jwt: {jwks: "file:x", query: x}}], action: {forward: {upstream: b}}}
  - {name: c, match: {path: /c}, filters: [{jwt: {public_key: x}}], action: {respond: {headers: {x-a: b}}}}
admin: {address: "127.0.0.1:0", token: x}
log: {access: {output: file, file: x, format: text}}
process: {upgrade_socket: x, watch: 1s, zone: x, dns_servers: ["127.0.0.1:53"]}
"#;

/// Calls `change` once for each scalar, which it may change, and `done` with the whole.
fn each_scalar(document: &Value, done: &mut impl FnMut(&Value, &str)) {
    fn count(value: &Value) -> usize {
        match value {
            Value::Sequence(items) => items.iter().map(count).sum(),
            Value::Mapping(members) => members.values().map(count).sum(),
            _ => 1,
        }
    }
    fn replace(value: &mut Value, at: &mut usize, place: &str) -> Option<String> {
        match value {
            Value::Sequence(items) => {
                items.iter_mut().enumerate().find_map(|(i, item)| replace(item, at, &format!("{place}[{i}]")))
            }
            Value::Mapping(members) => members
                .iter_mut()
                .find_map(|(key, below)| replace(below, at, &format!("{place}.{}", key.as_str().unwrap_or_default()))),
            scalar if *at == 0 => {
                *scalar = Value::String("${file:secret}".to_owned());
                *at = usize::MAX;
                Some(place.to_owned())
            }
            _ => {
                *at -= 1;
                None
            }
        }
    }
    for number in 0..count(document) {
        let mut changed = document.clone();
        let place = replace(&mut changed, &mut number.clone(), "").expect("a scalar");
        done(&changed, &place);
    }
}

#[test]
fn no_message_repeats_what_a_reference_stands_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = std::fs::read_to_string(root.join("conf/portcullis.yaml")).expect("the file");
    install_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let (mut told, mut named) = (0, 0);
    for text in [documented.as_str(), FURTHER] {
        let document: Value = serde_yaml::from_str(text).expect("YAML");
        for (turn, secret) in SECRETS.iter().enumerate() {
            std::fs::write(folder.path().join("secret"), secret).expect("written");
            let mut number = turn;
            each_scalar(&document, &mut |changed, place| {
                // Each value is replaced by every third of the secrets, and its neighbours by others.
                number += 1;
                if !number.is_multiple_of(3) {
                    return;
                }
                let changed = serde_yaml::to_string(changed).expect("YAML");
                let read = Configuration::read(&changed, folder.path());
                let shown = read.as_ref().map(Configuration::shown).unwrap_or_default();
                let (Ok(messages) | Err(messages)) = read.and_then(|read| read.compile());
                for message in messages.iter().chain(&shown) {
                    assert!(!message.to_ascii_lowercase().contains("zq9x7"), "{place} with {secret:?}: {message}");
                }
                let at = place.trim_start_matches('.');
                let about: Vec<_> = messages.iter().filter(|m| m.contains(&format!(" {at}: expected"))).collect();
                told += about.len();
                named += about.iter().filter(|m| m.contains("${file:secret}")).count();
            });
        }
    }
    assert!(told > 500, "{told} messages are about the value that came by a reference");
    assert!(named * 10 > told * 8, "{named} of {told} name the reference");
}

#[test]
fn a_file_that_is_no_configuration_is_not_quoted() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let rest = "listeners: [{name: a, address: 127.0.0.1:0}]\nroutes: [{name: a, action: {respond: {}}}]\n";
    for (content, place) in [
        ("-----BEGIN PRIVATE KEY-----\nzq9x7zq9x7\n-----END PRIVATE KEY-----\n", "other:"),
        ("zq9x7: zq9x7\nzq9x7b: x\n", "other:1:1"),
        ("zq9x7: a\nzq9x7: b\n", "other:1:1"),
        ("# x\n\n  [zq9x7, b\n", "other:"),
        ("12345977\n", "other:1:1"),
        ("root:zq9x7:0:0:root:/root:/bin/sh\n\tzq9x7\n", "other:"),
        ("%zq9x7\n", "other:"),
        ("a: @zq9x7\n", "other:1:4"),
        ("a: \"\\zq9x7\"\n", "other:1:"),
        ("{zq9x7: {zq9x7: *zq9x7}}\n", "other:1:"),
    ] {
        write("other", content);
        write("c.yaml", &format!("include: [other]\n{rest}"));
        let (code, out, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
        assert!(code == 2 && told.contains(place), "{content:?}: {told}");
        assert!(!told.contains("zq9x7") && !told.contains("12345977") && !out.contains("zq9x7"), "{content:?}: {told}");
    }
    write("other", "routs: []\nupstreams: {}\n");
    let (_, _, told) = run(&["check", "-c", "c.yaml"], Some(folder.path()));
    assert!(told.contains("unknown key; did you mean \"routes\"?"), "of a configuration, keys are quoted: {told}");
}

#[test]
fn neither_the_response_of_a_reload_nor_the_log_repeats_it() {
    let config =
        |body: &str| format!("routes: [{{name: a, match: {{path: '/*'}}, action: {{respond: {{{body}}}}}}}]\n");
    let gateway = Gateway::start(&config("body: ok"));
    std::fs::write(gateway.folder.path().join("secret"), "zq9x7zq9x7").expect("written");
    gateway.write_config(&config("status: '${file:secret}'").replace("'/*'", "'${file:secret}'"));
    let response = gateway.reload();
    assert!(response.status == 422 && response.text().contains("${file:secret}"), "{}", response.text());
    let ready = client::get(gateway.admin, "/readyz");
    eventually("it is logged", || gateway.log().contains("${file:secret}"));
    let log = gateway.log();
    for text in [response.text(), ready.text(), log.clone()] {
        assert!(!text.contains("zq9x7"), "{text}");
    }
    // `explain` and `diff` show names and paths.
    gateway.write_config(
        &config("body: '${file:secret}'")
            .replace("'/*'", "'/${file:secret}/*'")
            .replace("name: a", "name: '${file:secret}'"),
    );
    let admin = gateway.admin.to_string();
    let file = gateway.folder.path().join("portcullis.yaml").display().to_string();
    for arguments in
        [vec!["explain", "-c", &file, "GET", "/zq9x7zq9x7/x"], vec!["diff", "-c", &file, "--admin", &admin]]
    {
        let (code, out, told) = run(&arguments, None);
        assert_eq!(code, 0, "{told}");
        let lines: String = out.lines().filter(|l| !l.starts_with("GET ") && !l.starts_with("/zq9x7")).collect();
        assert!(out.contains("${file:secret}") && !lines.contains("zq9x7"), "{out}{told}");
    }
}
