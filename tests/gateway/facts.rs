//! What follows from the types of keys: files whose content counts, and values that nothing shows.

use serde_json::json;

use super::harness::gateway::{Gateway, run};
use super::harness::{client, eventually};
use super::key_sets::{Pair, status};

/// A certificate for 127.0.0.1 that is its own authority, with its key.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// An issuer of tokens that serves its keys over TLS, and the certificate to trust it by.
fn issuer(pair: &Pair) -> (Gateway, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = certificate();
    std::fs::write(folder.path().join("own.pem"), &cert).expect("written");
    std::fs::write(folder.path().join("own.key"), key).expect("written");
    let keys = json!({"keys": [pair.jwk]});
    let yaml = format!(
        "listeners: [{{name: main, address: '127.0.0.1:0', tls: {{certificates: [{{cert: own.pem, key: own.key}}]}}}}]
routes: [{{name: keys, action: {{respond: {{body: '{keys}'}}}}}}]"
    );
    (Gateway::start_in(folder, &yaml, &[]), cert)
}

fn verifying(issuer: &Gateway, process: &str) -> String {
    format!(
        "routes: [{{name: all, filters: [{{jwt: {{jwks: 'https://{}/', ca: ca.pem, refresh: 1h}}}}], action: {{respond: {{body: ok}}}}}}]
process: {{threads: 1{process}}}",
        issuer.address()
    )
}

fn start(issuer: &Gateway, process: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    // Another one's certificate: the issuer cannot be verified.
    std::fs::write(folder.path().join("ca.pem"), certificate().0).expect("written");
    Gateway::start_in(folder, &verifying(issuer, process), &[])
}

#[test]
fn a_reload_takes_what_is_in_the_ca_file_of_a_key_set_now() {
    let pair = Pair::new(None);
    let (issuer, trusted) = issuer(&pair);
    let gateway = start(&issuer, "");
    let token = pair.token(None, &json!({}));
    assert_eq!(status(&gateway, &token), 503);
    std::fs::write(gateway.folder.path().join("ca.pem"), &trusted).expect("written");
    let config = gateway.config().display().to_string();
    let (code, out, _) = run(&["diff", "-c", &config, "--admin", &gateway.admin.to_string()], None);
    assert!(
        code == 0 && out.starts_with("~ file ") && out.contains("ca.pem: (content ") && out.contains("\n1 change\n"),
        "{out}"
    );
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(status(&gateway, &token), 200);
    // Where the next fetch fails for another content of the file, the keys of before hold for as long as they would
    // have.
    std::fs::write(gateway.folder.path().join("ca.pem"), certificate().0).expect("written");
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(status(&gateway, &token), 200);
    let view = client::get(gateway.admin, "/key_sets").json()[0].clone();
    assert!(
        view["usable"] == true && view["error"].as_str().is_some_and(|why| why.contains("cannot be reached")),
        "{view}"
    );
}

#[test]
fn the_ca_file_of_a_key_set_is_watched() {
    let pair = Pair::new(None);
    let (issuer, trusted) = issuer(&pair);
    let gateway = start(&issuer, ", watch: 50ms");
    let token = pair.token(None, &json!({}));
    assert_eq!(status(&gateway, &token), 503);
    std::fs::write(gateway.folder.path().join("ca.pem"), &trusted).expect("written");
    eventually("the new authority is taken", || status(&gateway, &token) == 200);
}

#[test]
fn certificates_are_watched() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |folder: &std::path::Path| {
        let (cert, key) = certificate();
        std::fs::write(folder.join("own.key"), key).expect("written");
        std::fs::write(folder.join("own.pem"), cert).expect("written");
    };
    write(folder.path());
    let yaml = "listeners: [{name: main, address: '127.0.0.1:0', tls: {certificates: [{cert: own.pem, key: own.key}]}}]
routes: [{name: all, action: {respond: {}}}]
process: {threads: 1, watch: 50ms}";
    let gateway = Gateway::start_in(folder, yaml, &[]);
    write(gateway.folder.path());
    eventually("the new certificate is loaded", || gateway.log().contains("the configuration was reloaded"));
}

#[test]
fn what_a_type_hides_no_difference_shows() {
    let yaml = |secret: &str| {
        format!(
            "routes:
  - {{name: url, match: {{path: /u, headers: {{X-Api-Key: {secret}}}}}, filters: [{{jwt: {{jwks: 'http://u:{secret}@127.0.0.1:1/keys'}}}}], action: {{respond: {{}}}}}}
  - {{name: query, match: {{path: /q}}, filters: [{{jwt: {{jwks: 'http://127.0.0.1:1/keys?key={secret}'}}}}], action: {{respond: {{}}}}}}
  - {{name: shared, match: {{path: /s}}, filters: [{{jwt: {{secret: {secret}-{secret}-{secret}-{secret}}}}}], action: {{respond: {{headers: {{set-cookie: {secret}}}}}}}}}
consumers: {{ada: {{credentials: [{{api_key: {{value: {secret}}}}}]}}}}
upstreams: {{u: {{targets: ['127.0.0.1:1'], sticky: {{cookie: {{name: s, secret: {secret}}}}}, health: {{active: {{path: /, headers: {{authorization: {secret}}}}}}}}}}}
process: {{threads: 1}}"
        )
    };
    let gateway = Gateway::start(&yaml("firsts3cret"));
    gateway.write_config(&yaml("others3cret"));
    let config = gateway.config().display().to_string();
    let (code, out, error) = run(&["diff", "-c", &config, "--admin", &gateway.admin.to_string()], None);
    assert_eq!(code, 0, "{error}");
    let hidden = out.lines().filter(|line| line.ends_with(": (secret) -> (secret)")).count();
    assert_eq!(hidden, 8, "{out}");
    assert!(out.ends_with("\n8 changes\n") && !out.contains("s3cret"), "{out}");
}
