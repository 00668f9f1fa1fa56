//! Key sets of token issuers: what a reload fetches anew, what operators see, and tokens that name no key.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{Gateway, complete};
use super::harness::target::{Target, answer};

pub(super) struct Pair {
    pub(super) signing: EncodingKey,
    pub(super) jwk: Value,
}

impl Pair {
    pub(super) fn new(kid: Option<&str>) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let raw = pair.public_key_raw();
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({"kty": "EC", "crv": "P-256", "use": "sig", "x": part(&raw[1..33]), "y": part(&raw[33..])});
        if let Some(kid) = kid {
            jwk["kid"] = json!(kid);
        }
        Self { signing: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("PEM"), jwk }
    }

    /// A token with these claims beside the usual ones.
    pub(super) fn token(&self, kid: Option<&str>, more: &Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let mut claims = json!({"sub": "ada", "iss": "https://id.test", "exp": now + 600});
        more.as_object().into_iter().flatten().for_each(|(name, value)| claims[name] = value.clone());
        let head = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        encode(&head, &claims, &self.signing).expect("a token")
    }
}

/// An issuer that serves a key set, or 500 for null.
fn issuer(keys: &Arc<Mutex<Value>>) -> Target {
    let keys = Arc::clone(keys);
    Target::new(move |stream, _| match keys.lock().expect("keys").clone() {
        Value::Null => answer(stream, 500, &[], b""),
        keys => answer(stream, 200, &[], keys.to_string().as_bytes()),
    })
}

fn config(issuer: &Target, more: &str) -> String {
    format!(
        "routes: [{{name: all, filters: [{{jwt: {{jwks: 'http://user:zq9x7@{}/jwks?key=zq9x7', issuer: 'https://id.test', refresh: 1h{more}}}}}], action: {{respond: {{body: ok}}}}}}]",
        issuer.address
    )
}

pub(super) fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway.request("GET", "/", &[("authorization", &format!("Bearer {token}"))]).status
}

#[test]
fn a_reload_fetches_key_sets_anew_and_outlives_their_issuer() {
    let (one, two) = (Pair::new(Some("one")), Pair::new(Some("two")));
    let keys = Arc::new(Mutex::new(json!({"keys": [one.jwk, two.jwk]})));
    let issuer = issuer(&keys);
    let gateway = Gateway::start(&config(&issuer, ""));
    let (first, second) = (one.token(Some("one"), &json!({})), two.token(Some("two"), &json!({})));
    assert_eq!((status(&gateway, &first), status(&gateway, &second)), (200, 200));
    let views = client::get(gateway.admin, "/key_sets").json();
    let view = &views[0];
    assert_eq!(view["source"], format!("http://{}/jwks", issuer.address));
    assert_eq!((&view["usable"], &view["keys"], &view["error"]), (&json!(true), &json!(2), &Value::Null));
    assert!(view["age_seconds"].as_f64().is_some_and(|age| (0.0..600.0).contains(&age)), "{views}");
    // A key is withdrawn: what it signed is good until the next fetch, which a reload makes.
    *keys.lock().expect("keys") = json!({"keys": [two.jwk]});
    assert_eq!(status(&gateway, &first), 200);
    assert_eq!(gateway.reload().status, 200);
    assert_eq!((status(&gateway, &first), status(&gateway, &second)), (401, 200));
    assert_eq!(client::get(gateway.admin, "/key_sets").json()[0]["keys"], 1);
    // The issuer is down: the reload succeeds, and the keys stay.
    *keys.lock().expect("keys") = Value::Null;
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(status(&gateway, &second), 200);
    let view = client::get(gateway.admin, "/key_sets").json()[0].clone();
    assert_eq!(view["usable"], true);
    assert!(view["error"].as_str().is_some_and(|why| why.contains("500")), "{view}");
    let series = format!("portcullis_jwks_age_seconds{{source=\"http://{}/jwks\"}}", issuer.address);
    assert!(gateway.metric(&series) > 0.0);
    let all =
        [client::get(gateway.admin, "/key_sets").text(), client::get(gateway.admin, "/metrics").text(), gateway.log()];
    assert!(all.iter().all(|text| !text.contains("zq9x7")), "{all:?}");
    eventually("the log has it", || gateway.log().contains("could not be fetched anew"));
}

#[test]
fn a_token_without_a_key_id_is_tried_with_all_keys() {
    let pairs: Vec<Pair> = (0..40).map(|n| Pair::new((n % 2 == 0).then(|| format!("k{n}")).as_deref())).collect();
    let jwks: Vec<Value> = pairs.iter().map(|pair| pair.jwk.clone()).collect();
    let keys = Arc::new(Mutex::new(json!({"keys": jwks})));
    let issuer = issuer(&keys);
    let gateway = Gateway::start(&config(&issuer, ""));
    for pair in &pairs {
        assert_eq!(status(&gateway, &pair.token(None, &json!({}))), 200);
    }
    assert_eq!(status(&gateway, &Pair::new(None).token(None, &json!({}))), 401);
    // More keys than are tried are no key set.
    *keys.lock().expect("keys") = json!({"keys": vec![pairs[0].jwk.clone(); 257]});
    assert_eq!(gateway.reload().status, 200);
    let view = client::get(gateway.admin, "/key_sets").json()[0].clone();
    assert!(view["error"].as_str().is_some_and(|why| why.contains("257 keys are too many: at most 256")), "{view}");
    assert_eq!(status(&gateway, &pairs[39].token(None, &json!({}))), 200);
}

#[test]
fn an_issuer_is_one_text() {
    let pair = Pair::new(None);
    let keys = Arc::new(Mutex::new(json!({"keys": [pair.jwk]})));
    let issuer = issuer(&keys);
    let gateway = Gateway::start(&config(&issuer, ""));
    assert_eq!(status(&gateway, &pair.token(None, &json!({}))), 200);
    for wrong in [
        json!(["https://id.test"]),
        json!(["https://id.test", "https://other.test"]),
        json!({"a": 1}),
        json!(7),
        Value::Null,
    ] {
        assert_eq!(status(&gateway, &pair.token(None, &json!({"iss": wrong}))), 401, "{wrong}");
    }
    // Also where no issuer is asked for.
    let open = config(&issuer, "").replace(", issuer: 'https://id.test'", "");
    std::fs::write(gateway.config(), complete(&open)).expect("written");
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(status(&gateway, &pair.token(None, &json!({"iss": ["https://id.test"]}))), 401);
    assert_eq!(status(&gateway, &pair.token(None, &json!({"iss": "https://else.test"}))), 200);
}
