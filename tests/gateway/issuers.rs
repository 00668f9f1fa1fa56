//! Several issuers of tokens in one filter, whose keys are found by their metadata.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

/// A key of an issuer.
struct Key {
    signing: EncodingKey,
    jwk: Value,
}

fn key(kid: &str) -> Key {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let raw = pair.public_key_raw();
    let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Key {
        signing: EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("PEM"),
        jwk: json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": part(&raw[1..33]), "y": part(&raw[33..])}),
    }
}

impl Key {
    fn token(&self, issuer: &str) -> String {
        let claims = json!({"sub": "ada", "iss": issuer, "aud": "api", "exp": 4_102_444_800_u64});
        format!("Bearer {}", encode(&Header::new(Algorithm::ES256), &claims, &self.signing).expect("a token"))
    }
}

/// A provider whose metadata and keys can be changed.
fn provider(state: &Arc<Mutex<(Value, Value)>>) -> Target {
    let state = Arc::clone(state);
    Target::new(move |stream, seen| {
        let (metadata, keys) = state.lock().expect("the state").clone();
        let document = if seen.target == "/.well-known/openid-configuration" { metadata } else { keys };
        if document.is_null() {
            return answer(stream, 500, &[], b"");
        }
        answer(stream, 200, &[("content-type", "application/json")], document.to_string().as_bytes())
    })
}

#[test]
fn tokens_are_verified_with_the_keys_of_their_issuer() {
    let (target, one, two) = (Target::echo("a"), key("one"), key("two"));
    let states = [(); 2].map(|()| Arc::new(Mutex::new((Value::Null, Value::Null))));
    let providers = states.each_ref().map(provider);
    let names = providers.each_ref().map(|provider| format!("http://{}", provider.address));
    let set = |place: usize, issuer: &str, key: &Key| {
        let metadata = json!({"issuer": issuer, "jwks_uri": format!("{}/keys", names[place])});
        *states[place].lock().expect("the state") = (metadata, json!({"keys": [key.jwk]}));
    };
    set(0, &names[0], &one);
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         routes: [{{name: all, filters: [{{jwt: {{refresh: 100ms, refetch_after: 10ms, issuers: [{{issuer: '{}', audience: api}}, {{issuer: '{}', audience: api}}]}}}}], action: {{forward: echo}}}}]",
        target.address, names[0], names[1]
    ));
    let ask = |token: &str| {
        let answer = gateway.request("GET", "/", &[("authorization", token)]);
        (answer.status, answer.reason())
    };
    let rejected = |reason: &str| (401, reason.to_owned());
    assert_eq!(ask(&one.token(&names[0])).0, 200);
    // The other provider does not respond: its tokens cannot be verified, those of the first can.
    assert_eq!(ask(&two.token(&names[1])), (503, "auth_unavailable".to_owned()));
    // Metadata that name another issuer are not taken.
    set(1, "http://other.example", &two);
    let before = providers[1].requests.load(Ordering::Acquire);
    eventually("the metadata are fetched", || providers[1].requests.load(Ordering::Acquire) > before + 1);
    assert_eq!(ask(&two.token(&names[1])), (503, "auth_unavailable".to_owned()));
    set(1, &names[1], &two);
    eventually("the keys are there", || ask(&two.token(&names[1])).0 == 200);
    // The key of one issuer verifies no token of the other, nor one of a third.
    assert_eq!(ask(&one.token(&names[1])), rejected("token_invalid"));
    assert_eq!(ask(&two.token(&names[0])), rejected("token_invalid"));
    assert_eq!(ask(&one.token("http://third.example")), rejected("token_invalid"));
    assert_eq!(ask(&one.token(&format!("{}/", names[0]))), rejected("token_invalid"));
    // A result that was cached does not outlive the keys of its own issuer; that of the other one stays.
    let other = key("three");
    set(1, &names[1], &other);
    eventually("the old key is forgotten", || ask(&two.token(&names[1])).0 == 401);
    assert_eq!(ask(&other.token(&names[1])).0, 200);
    assert_eq!(ask(&one.token(&names[0])).0, 200);
}
