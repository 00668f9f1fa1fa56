//! Tokens: what is accepted, and every way in which one is not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::harness::client::Answer;
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// A key pair of that kind: to sign with, its public key in PEM, and its JWK.
struct Pair {
    algorithm: Algorithm,
    signing: EncodingKey,
    pem: String,
    jwk: Value,
}

fn ec(kid: &str) -> Pair {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let raw = pair.public_key_raw();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Pair {
        algorithm: Algorithm::ES256,
        signing: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("PEM"),
        pem: pair.public_key_pem(),
        jwk: json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "x": part(&raw[1..33]), "y": part(&raw[33..])}),
    }
}

fn ed(kid: &str) -> Pair {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    Pair {
        algorithm: Algorithm::EdDSA,
        signing: EncodingKey::from_ed_pem(pair.serialize_pem().as_bytes()).expect("PEM"),
        pem: pair.public_key_pem(),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw())}),
    }
}

fn rsa(algorithm: Algorithm) -> Pair {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    let pem = |kind: &str, der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).expect("ASCII")).collect();
        format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"))
    };
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let private: Pkcs8V1Der<'_> = pair.as_der().expect("DER");
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().expect("DER");
    let private = pem("PRIVATE KEY", private.as_ref());
    Pair {
        algorithm,
        signing: EncodingKey::from_rsa_pem(private.as_bytes()).expect("PEM"),
        pem: pem("PUBLIC KEY", public.as_ref()),
        jwk: Value::Null,
    }
}

impl Pair {
    fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(self.algorithm) };
        encode(&header, claims, &self.signing).expect("a token")
    }
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({"sub": "ada", "iss": "https://id.example.com", "aud": "api", "exp": now() + 600});
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

fn bearer(gateway: &Gateway, path: &str, token: &str) -> Answer {
    gateway.request("GET", path, &[("authorization", &format!("Bearer {token}"))])
}

fn gateway(target: &Target, jwt: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         consumers: {{ada-inc: {{credentials: [{{jwt: {{subject: ada}}}}]}}}}\n\
         routes: [{{name: all, filters: [{{jwt: {jwt}}}], action: {{forward: echo}}}}]",
        target.address
    ))
}

#[test]
fn a_shared_secret_and_all_that_is_wrong_with_tokens() {
    let target = Target::echo("a");
    let gateway = gateway(
        &target,
        &format!(
            "{{issuer: 'https://id.example.com', audience: [api, other], secret: {SECRET}, required_claims: [nbf, tenant], query: tok, cookie: tok, forward_token: false, leeway: 5s, forward_claims: {{sub: x-user, roles: x-roles}}}}"
        ),
    );
    let pair = Pair {
        algorithm: Algorithm::HS256,
        signing: EncodingKey::from_secret(SECRET.as_bytes()),
        pem: String::new(),
        jwk: Value::Null,
    };
    let good = claims(json!({"nbf": now() - 10, "tenant": "t", "roles": ["a", "b"]}));
    let answer = gateway.request(
        "GET",
        "/",
        &[("authorization", &format!("bEaReR {}", pair.token(None, &good))), ("x-user", "root"), ("x-roles", "all")],
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["headers"]["x-user"], "ada");
    assert_eq!(answer.json()["headers"]["x-roles"], "a,b");
    assert_eq!(gateway.access_log(1)[0]["consumer"], "ada-inc");

    let with = |changes: Value| {
        let mut all = json!({"tenant": "t"});
        changes.as_object().expect("an object").iter().for_each(|(n, v)| all[n] = v.clone());
        pair.token(None, &claims(all))
    };
    // What the client's Connection names is gone before the filters, so it cannot take theirs away.
    let token = pair.token(None, &good);
    let nominating = [("authorization", format!("Bearer {token}")), ("connection", "x-user, close".to_owned())];
    let nominating: Vec<(&str, &str)> = nominating.iter().map(|(n, v)| (*n, v.as_str())).collect();
    assert_eq!(gateway.request("GET", "/", &nominating).json()["headers"]["x-user"], "ada");
    // A token in the query or a cookie is not passed on.
    let answer = gateway.get(&format!("/q?a=1&tok={token}"));
    assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/q?a=1")));
    let answer = gateway.request("GET", "/", &[("cookie", &format!("a=1; tok={token}"))]);
    assert_eq!((answer.status, answer.json()["headers"]["cookie"].as_str()), (200, Some("a=1")));
    let part = |v: &Value| URL_SAFE_NO_PAD.encode(v.to_string());
    let none = format!("{}.{}.", part(&json!({"alg": "none"})), part(&good));
    let mut tampered: Vec<String> = pair.token(None, &good).split('.').map(str::to_owned).collect();
    tampered[1] = part(&claims(json!({"nbf": 0, "sub": "root"})));
    let stronger = encode(&Header::new(Algorithm::HS512), &good, &pair.signing).expect("a token");
    let mut critical = Header::new(Algorithm::HS256);
    critical.crit = Some(vec!["b64".to_owned()]);
    let critical = encode(&critical, &good, &pair.signing).unwrap_or_default();
    for (what, token, reason) in [
        ("expired", with(json!({"nbf": 0, "exp": now() - 60})), "token_expired"),
        ("not yet", with(json!({"nbf": now() + 60})), "token_invalid"),
        ("another issuer", with(json!({"nbf": 0, "iss": "https://evil"})), "token_invalid"),
        ("another audience", with(json!({"nbf": 0, "aud": "web"})), "token_invalid"),
        ("no nbf although required", with(json!({})), "token_invalid"),
        ("no tenant although required", pair.token(None, &claims(json!({"nbf": 0}))), "token_invalid"),
        (
            "no exp",
            pair.token(
                None,
                &json!({"sub": "a", "nbf": 0, "tenant": "t", "aud": "api", "iss": "https://id.example.com"}),
            ),
            "token_invalid",
        ),
        ("alg none", none, "token_invalid"),
        ("tampered", tampered.join("."), "token_invalid"),
        ("an algorithm that is not allowed", stronger, "token_invalid"),
        ("a critical extension", critical, "token_invalid"),
        ("rubbish", "rubbish".to_owned(), "token_invalid"),
        ("dots", "..".to_owned(), "token_invalid"),
        ("too long", "x".repeat(9_000), "token_invalid"),
    ] {
        // Twice, so that nothing wrong is ever remembered as right.
        for _ in 0..2 {
            let answer = bearer(&gateway, "/", &token);
            assert_eq!((answer.status, answer.reason().as_str()), (401, reason), "{what}: {}", answer.text());
            assert!(answer.header("www-authenticate").is_some_and(|h| h.starts_with("Bearer ")), "{what}");
        }
    }
    let missing = gateway.get("/");
    assert_eq!(missing.reason(), "token_missing");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"portcullis\""));
    assert_eq!(gateway.request("GET", "/", &[("authorization", "Basic YTpi")]).reason(), "token_missing");
    let two = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    assert_eq!(gateway.request("GET", "/", &two).reason(), "token_invalid");
    // The protocol's shape changes nothing: an upgrade and a HEAD pass the same filter.
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
    ];
    assert_eq!(gateway.request("GET", "/", &upgrade).status, 401);
    assert_eq!(gateway.request("HEAD", "/", &[]).status, 401);
}

#[test]
fn every_kind_of_public_key() {
    let target = Target::echo("a");
    for pair in [ec("k"), ed("k"), rsa(Algorithm::RS256), rsa(Algorithm::PS384)] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("key.pem"), &pair.pem).expect("written");
        let yaml = format!(
            "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{jwt: {{public_key: \"${{file:key.pem}}\"}}}}], action: {{forward: echo}}}}]",
            target.address
        );
        let gateway = Gateway::start_in(folder, &yaml, &[]);
        let answer = bearer(&gateway, "/", &pair.token(None, &claims(json!({}))));
        assert_eq!(answer.status, 200, "{:?}: {}", pair.algorithm, answer.text());
        // A public key as if it were a shared secret: the oldest trick.
        let confused =
            encode(&Header::new(Algorithm::HS256), &claims(json!({})), &EncodingKey::from_secret(pair.pem.as_bytes()));
        assert_eq!(bearer(&gateway, "/", &confused.expect("a token")).status, 401);
        assert_eq!(bearer(&gateway, "/", &ec("k").token(None, &claims(json!({})))).status, 401);
    }
}

/// A target that serves a key set which can be changed.
fn issuer(keys: &Arc<Mutex<Value>>) -> Target {
    let keys = Arc::clone(keys);
    Target::new(move |stream, _| {
        let text = keys.lock().expect("keys").to_string();
        if text == "null" {
            return answer(stream, 500, &[], b"");
        }
        answer(stream, 200, &[("content-type", "application/json")], text.as_bytes())
    })
}

#[test]
fn keys_by_url_rotate_and_outlive_their_issuer() {
    let target = Target::echo("a");
    let (one, two) = (ec("one"), ed("two"));
    let keys = Arc::new(Mutex::new(json!({"keys": [one.jwk, {"kty": "future", "kid": "x"}]})));
    let issuer = issuer(&keys);
    let gateway =
        gateway(&target, &format!("{{jwks: 'http://{}/jwks', refresh: 1h, refetch_after: 100ms}}", issuer.address));
    assert_eq!(bearer(&gateway, "/", &one.token(Some("one"), &claims(json!({})))).status, 200);
    // An unknown key: refused after one fetch, and no second one within its time.
    let unknown = two.token(Some("two"), &claims(json!({})));
    assert_eq!(bearer(&gateway, "/", &unknown).reason(), "token_invalid");
    // The issuer rotates: the unknown key makes the gateway look again.
    *keys.lock().expect("keys") = json!({"keys": [two.jwk]});
    eventually("the new key is known", || bearer(&gateway, "/", &unknown).status == 200);
    // What the old key signed is good no more, although it was verified and remembered.
    assert_eq!(bearer(&gateway, "/", &one.token(Some("one"), &claims(json!({})))).status, 401);
    // The issuer breaks: its last keys go on serving.
    *keys.lock().expect("keys") = Value::Null;
    assert_eq!(bearer(&gateway, "/", &ed("three").token(Some("three"), &claims(json!({})))).status, 401);
    assert_eq!(bearer(&gateway, "/", &unknown).status, 200);
}

#[test]
fn all_who_meet_a_refetch_wait_for_it() {
    let target = Target::echo("a");
    let (one, two) = (ec("one"), ed("two"));
    let served = Arc::new(AtomicUsize::new(0));
    let (rotated, counter) = (json!({"keys": [two.jwk]}).to_string(), Arc::clone(&served));
    let first = json!({"keys": [one.jwk]}).to_string();
    let issuer = Target::new(move |stream, _| {
        if counter.fetch_add(1, Ordering::AcqRel) == 0 {
            return answer(stream, 200, &[], first.as_bytes());
        }
        // Long enough for every client to arrive while it is under way.
        std::thread::sleep(Duration::from_millis(500));
        answer(stream, 200, &[], rotated.as_bytes())
    });
    let gateway =
        gateway(&target, &format!("{{jwks: 'http://{}/jwks', refresh: 1h, refetch_after: 1h}}", issuer.address));
    let token = two.token(Some("two"), &claims(json!({})));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| bearer(&gateway, "/", &token).status)).collect();
        for client in clients {
            assert_eq!(client.join().expect("an answer"), 200);
        }
    });
    assert_eq!(served.load(Ordering::Acquire), 2);
}

#[test]
fn without_keys_nobody_passes() {
    let target = Target::echo("a");
    let keys = Arc::new(Mutex::new(Value::Null));
    let issuer = issuer(&keys);
    let gateway = gateway(&target, &format!("{{jwks: 'http://{}/jwks', refresh: 100ms}}", issuer.address));
    let pair = ec("one");
    let token = pair.token(Some("one"), &claims(json!({})));
    assert_eq!(bearer(&gateway, "/", &token).reason(), "auth_unavailable");
    *keys.lock().expect("keys") = json!({"keys": [pair.jwk]});
    eventually("the keys are there", || bearer(&gateway, "/", &token).status == 200);
}

#[test]
fn a_file_of_keys_is_followed() {
    let target = Target::echo("a");
    let (one, two) = (ec("one"), ec("two"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, json!({"keys": [one.jwk]}).to_string()).expect("written");
    let yaml = format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{jwt: {{jwks: 'file:jwks.json', known_consumers: true}}}}], action: {{forward: echo}}}}]\nconsumers: {{ada: {{credentials: [{{jwt: {{subject: ada, issuer: 'https://id.example.com'}}}}]}}}}",
        target.address
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    assert_eq!(bearer(&gateway, "/", &one.token(Some("one"), &claims(json!({})))).status, 200);
    assert_eq!(bearer(&gateway, "/", &one.token(Some("one"), &claims(json!({"sub": "eve"})))).status, 401);
    std::fs::write(&path, json!({"keys": [two.jwk]}).to_string()).expect("written");
    eventually("the new key is known", || {
        bearer(&gateway, "/", &two.token(Some("two"), &claims(json!({})))).status == 200
    });
    let known: BTreeMap<&str, u16> =
        BTreeMap::from([("one", bearer(&gateway, "/", &one.token(Some("one"), &claims(json!({})))).status)]);
    assert_eq!(known["one"], 401);
}
