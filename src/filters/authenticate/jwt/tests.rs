//! Vectors of RFC 7515, 7520 and 8037, tokens that Node.js has signed with every algorithm, and every defect that RFC
//! 8725 names: none is wrongly accepted, and none wrongly rejected.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::filters::test_kit::{compile, request};

const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/jwt.json")).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// Returns the outcome for a token: `accepted`, or the text for the client.
fn outcome(settings: &str, token: &str) -> String {
    let mut kit =
        compile(&format!("[{{jwt: {settings}}}]")).unwrap_or_else(|error| panic!("{settings} is rejected: {error}"));
    match kit.on_request(request("GET /", &[("authorization", &format!("Bearer {token}"))])) {
        Ok(()) => "accepted".to_owned(),
        Err(rejection) => rejection.detail.into_owned(),
    }
}

/// Returns a key as it is written in YAML.
fn key_of(key: &str) -> String {
    let name = if key.contains("PUBLIC KEY") { "public_key" } else { "secret" };
    format!("{name}: {}", Value::from(key))
}

#[test]
fn every_algorithm_and_no_other() {
    let vectors = vectors();
    let all = vectors["algorithms"].as_array().expect("a list");
    assert_eq!(all.len(), 12);
    for one in all {
        let (algorithm, key, token) = (text(&one["algorithm"]), key_of(text(&one["key"])), text(&one["token"]));
        let with = |algorithms: &str| format!("{{{key}, algorithms: [{algorithms}], audience: api}}");
        assert_eq!(outcome(&with(algorithm), token), "accepted", "{algorithm}");
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        bytes[7] ^= 1;
        for wrong in [bytes.as_slice(), &bytes[1..], &[0; 64], &[]] {
            let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(wrong));
            assert_eq!(outcome(&with(algorithm), &forged), "the token's signature is wrong", "{algorithm}");
        }
        for other in all.iter().map(|other| text(&other["algorithm"])).filter(|other| *other != algorithm) {
            // A list that the key cannot be used with at all is rejected when it is compiled.
            if let Ok(mut kit) = compile(&format!("[{{jwt: {}}}]", with(other))) {
                let bearer = format!("Bearer {token}");
                let rejection = kit.on_request(request("GET /", &[("authorization", &bearer)])).expect_err("another");
                assert_eq!(rejection.detail, "the token's algorithm is not allowed", "{algorithm} as {other}");
            }
        }
    }
}

/// Their signatures are right; their contents are no claims, or have expired, which is only seen after that.
#[test]
fn vectors_of_the_standards() {
    let folder = tempfile::tempdir().expect("a folder");
    let vectors = vectors();
    for one in vectors["standards"].as_array().expect("a list") {
        let file = folder.path().join("keys.json");
        std::fs::write(&file, serde_json::json!({"keys": [one["jwk"]]}).to_string()).expect("written");
        let settings = format!("{{jwks: 'file:{}', algorithms: [{}]}}", file.display(), text(&one["algorithm"]));
        // Key sets are read in the background: the filter alone has none yet, so the key is checked by hand.
        let keys = crate::live::parse_jwks(&std::fs::read(&file).expect("the file")).expect("keys");
        assert!(compile(&format!("[{{jwt: {settings}}}]")).is_ok());
        let token = text(&one["token"]);
        let (signed, signature) = token.rsplit_once('.').expect("three parts");
        let algorithm = text(&one["algorithm"]).parse().expect("an algorithm");
        let verified = jsonwebtoken::crypto::verify(signature, signed.as_bytes(), &keys[0].key, algorithm);
        assert!(verified.is_ok_and(|verified| verified), "{}", one["name"]);
        let other = format!("{}x", &signed[..signed.len() - 1]);
        let verified = jsonwebtoken::crypto::verify(signature, other.as_bytes(), &keys[0].key, algorithm);
        assert!(verified.is_ok_and(|verified| !verified), "{}", one["name"]);
    }
}

/// Signs a head and claims, as they are written, with HS256.
fn signed(head: &[u8], claims: &[u8]) -> String {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()).as_ref()))
}

const HEAD: &[u8] = br#"{"alg":"HS256"}"#;

const ACCEPTED: &str = "accepted";
const MALFORMED: &str = "the token is malformed";
const ALGORITHM: &str = "the token's algorithm is not allowed";
const CRITICAL: &str = "the token has a critical extension that is not known";
const MISSING: &str = "the token lacks a required claim";
const EARLY: &str = "the token is not valid yet";
const EXPIRED: &str = "the token has expired";
const ISSUER: &str = "the token is from another issuer";
const AUDIENCE: &str = "the token is for another audience";
const TYPE: &str = "the token is of another type";

/// Heads of tokens whose signature is right, whatever they say of it.
#[test]
fn heads() {
    let secret = format!("{{secret: {SECRET}}}");
    for (head, expected) in [
        (r#"{"alg":"HS256"}"#, ACCEPTED),
        (r#" { "typ" : "JWT" , "alg" : "HS256" } "#, ACCEPTED),
        (r#"{"alg":"HS256","kid":"2027-01","x":1,"jwk":{"kty":"oct","k":"AAAA"},"jku":"https://evil.test"}"#, ACCEPTED),
        (r#"{"alg":"HS256","x5u":"https://evil.test","x5c":["AAAA"],"cty":"json"}"#, ACCEPTED),
        (r#"{"alg":"HS256","kid":"../../../dev/null"}"#, ACCEPTED),
        (r#"{"alg":"HS256","kid":"' UNION SELECT 'x"}"#, ACCEPTED),
        (r#"{"alg":"HS256","b64":true}"#, ACCEPTED),
        // Section 3.1: the algorithm is that of the configuration.
        (r#"{"alg":"none"}"#, ALGORITHM),
        (r#"{"alg":"None"}"#, ALGORITHM),
        (r#"{"alg":"nOnE"}"#, ALGORITHM),
        (r#"{"alg":""}"#, ALGORITHM),
        (r#"{"alg":"hs256"}"#, ALGORITHM),
        (r#"{"alg":"HS512"}"#, ALGORITHM),
        (r#"{"alg":"RS256"}"#, ALGORITHM),
        (r#"{"alg":"ES256"}"#, ALGORITHM),
        (r#"{"alg":"HS256 "}"#, ALGORITHM),
        (r#"{"alg":"A128KW"}"#, ALGORITHM),
        (r"{}", ALGORITHM),
        (r#"{"alg":256}"#, MALFORMED),
        (r#"{"alg":["HS256"]}"#, MALFORMED),
        (r#"{"alg":null}"#, MALFORMED),
        // RFC 7515, section 4.1.11, and RFC 7797.
        (r#"{"alg":"HS256","crit":["exp"],"exp":1}"#, CRITICAL),
        (r#"{"alg":"HS256","crit":[]}"#, CRITICAL),
        (r#"{"alg":"HS256","b64":false,"crit":["b64"]}"#, CRITICAL),
        (r#"{"alg":"HS256","b64":false}"#, CRITICAL),
        // Nested tokens, whose claims would be those of nobody.
        (r#"{"alg":"HS256","cty":"JWT"}"#, "the token holds another token"),
        (r#"{"alg":"HS256","cty":"application/jwt"}"#, "the token holds another token"),
        // Section 2.4 and RFC 7515, section 4: members that are there twice.
        (r#"{"alg":"HS256","alg":"none"}"#, MALFORMED),
        (r#"{"alg":"none","alg":"HS256"}"#, MALFORMED),
        (r#"{"alg":"HS256","x":{"a":1,"a":2}}"#, MALFORMED),
        (r#"{"alg":"HS256","kid":7}"#, MALFORMED),
        (r#"{"alg":"HS256","typ":7}"#, MALFORMED),
        (r#"["HS256"]"#, MALFORMED),
        (r#""HS256""#, MALFORMED),
        ("", MALFORMED),
        (r#"{"alg":"HS256"}{}"#, MALFORMED),
        (r#"{"alg":"HS256""#, MALFORMED),
    ] {
        let token = signed(head.as_bytes(), br#"{"sub":"ada","exp":4102444800}"#);
        assert_eq!(outcome(&secret, &token), expected, "{head}");
    }
    // UTF-16, a mark of the byte order, and bytes that are no text.
    let utf16: Vec<u8> = r#"{"alg":"HS256"}"#.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for head in [utf16.as_slice(), b"\xef\xbb\xbf{\"alg\":\"HS256\"}", b"{\"alg\":\"HS256\",\"x\":\"\xff\"}"] {
        assert_eq!(outcome(&secret, &signed(head, br#"{"exp":4102444800}"#)), MALFORMED);
    }
}

/// Claims of tokens whose signature is right.
#[test]
fn claims() {
    let settings = format!("{{secret: {SECRET}, issuer: 'https://id.test', audience: [api, other]}}");
    let huge = format!("{{\"iss\":\"https://id.test\",\"aud\":\"api\",\"exp\":1{}}}", "0".repeat(400));
    for (claims, expected) in [
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800}"#, ACCEPTED),
        (r#"{"iss":"https://id.test","aud":["x","other"],"exp":4102444800}"#, ACCEPTED),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800.5}"#, ACCEPTED),
        (r#"{"iss":"https://id.test","aud":"api","exp":1e12}"#, ACCEPTED),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"nbf":0,"iat":4102444800}"#, ACCEPTED),
        (r#"{"iss":"https:\/\/id.test","aud":"api","exp":4102444800,"x":{"y":[null,true,1.5,-2]}}"#, ACCEPTED),
        // Section 3.8: the issuer, exactly.
        (r#"{"iss":"https://id.test/","aud":"api","exp":4102444800}"#, ISSUER),
        (r#"{"iss":"https://ID.test","aud":"api","exp":4102444800}"#, ISSUER),
        (r#"{"aud":"api","exp":4102444800}"#, MISSING),
        (r#"{"iss":null,"aud":"api","exp":4102444800}"#, MISSING),
        (r#"{"iss":7,"aud":"api","exp":4102444800}"#, MISSING),
        (r#"{"iss":["https://id.test"],"aud":"api","exp":4102444800}"#, "the token's issuer is not a text"),
        // Section 3.9: the audience.
        (r#"{"iss":"https://id.test","aud":"another","exp":4102444800}"#, AUDIENCE),
        (r#"{"iss":"https://id.test","aud":"API","exp":4102444800}"#, AUDIENCE),
        (r#"{"iss":"https://id.test","aud":["another","x"],"exp":4102444800}"#, AUDIENCE),
        (r#"{"iss":"https://id.test","aud":[],"exp":4102444800}"#, AUDIENCE),
        (r#"{"iss":"https://id.test","exp":4102444800}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":7,"exp":4102444800}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":{"api":true},"exp":4102444800}"#, MISSING),
        // Times.
        (r#"{"iss":"https://id.test","aud":"api","exp":1300819380}"#, EXPIRED),
        (r#"{"iss":"https://id.test","aud":"api","exp":0}"#, EXPIRED),
        (r#"{"iss":"https://id.test","aud":"api"}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":"api","exp":null}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":"api","exp":"4102444800"}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":"api","exp":-1}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":"api","exp":[4102444800]}"#, MALFORMED),
        (r#"{"iss":"https://id.test","aud":"api","exp":true}"#, MISSING),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"nbf":4102444000}"#, EARLY),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"nbf":1e18}"#, EARLY),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"nbf":18446744073709551615}"#, EARLY),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"nbf":"0"}"#, MALFORMED),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"nbf":-5}"#, MALFORMED),
        (huge.as_str(), MALFORMED),
        // Members that are there twice: another reader may take the other one.
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"sub":"ada","sub":"root"}"#, MALFORMED),
        (r#"{"iss":"https://id.test","aud":"api","exp":1,"exp":4102444800}"#, MALFORMED),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"a":{"b":1,"b":2}}"#, MALFORMED),
        (r#"{"iss":"https://id.test","aud":"api","exp":4102444800,"a":[{"b":1,"\u0062":2}]}"#, MALFORMED),
        ("[]", MALFORMED),
        ("\"claims\"", MALFORMED),
        ("", MALFORMED),
        (r#"{"exp":4102444800"#, MALFORMED),
    ] {
        assert_eq!(outcome(&settings, &signed(HEAD, claims.as_bytes())), expected, "{claims}");
    }
    for claims in [b"{\"exp\":4102444800,\"sub\":\"\xc3\x28\"}".as_slice(), b"\xff\xfe{\0}\0"] {
        assert_eq!(outcome(&settings, &signed(HEAD, claims)), MALFORMED);
    }
}

/// Section 3.11: tokens of one kind are not taken for those of another.
#[test]
fn types() {
    for (kind, head, expected) in [
        ("at+jwt", r#"{"alg":"HS256","typ":"at+jwt"}"#, ACCEPTED),
        ("at+jwt", r#"{"alg":"HS256","typ":"AT+JWT"}"#, ACCEPTED),
        ("at+jwt", r#"{"alg":"HS256","typ":"application/at+jwt"}"#, ACCEPTED),
        ("application/at+jwt", r#"{"alg":"HS256","typ":"at+jwt"}"#, ACCEPTED),
        ("at+jwt", r#"{"alg":"HS256","typ":"JWT"}"#, TYPE),
        ("at+jwt", r#"{"alg":"HS256"}"#, TYPE),
        ("at+jwt", r#"{"alg":"HS256","typ":"application/application/at+jwt"}"#, TYPE),
        ("JWT", r#"{"alg":"HS256","typ":"logout+jwt"}"#, TYPE),
    ] {
        let token = signed(head.as_bytes(), br#"{"sub":"ada","exp":4102444800}"#);
        assert_eq!(outcome(&format!("{{secret: {SECRET}, type: '{kind}'}}"), &token), expected, "{kind} {head}");
    }
}

#[test]
fn forms_of_tokens() {
    let settings = format!("{{secret: {SECRET}}}");
    let good = signed(HEAD, br#"{"sub":"ada","exp":4102444800}"#);
    let (start, signature) = good.rsplit_once('.').expect("three parts");
    let encrypted = "the token is encrypted, and no key to decrypt it is known";
    let other_bits = format!("{start}.{}", &signature[..signature.len() - 1]);
    for (token, expected) in [
        (good.clone(), ACCEPTED),
        // Sections 2.3 and 2.5: encrypted tokens, of which none is expected.
        (format!("{}.a.b.c.d", good.split('.').next().expect("a head")), encrypted),
        ("eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAA.AAAA.AAAA".to_owned(), encrypted),
        (start.to_owned(), MALFORMED),
        (format!("{good}.x"), MALFORMED),
        (format!("{good}="), MALFORMED),
        (format!(".{good}"), MALFORMED),
        (good.replace('.', ".."), encrypted),
        (format!("{start}."), "the token's signature is wrong"),
        (format!("{start}.*"), MALFORMED),
        (other_bits, MALFORMED),
        (start.replace('.', ""), MALFORMED),
        ("a.b.c".to_owned(), MALFORMED),
        ("..".to_owned(), MALFORMED),
        ("x".repeat(9_000), "the token is too long"),
    ] {
        let found = outcome(&settings, &token);
        // Which of the two it is depends on the part that is read first.
        let fits = found == expected || (expected == MALFORMED && found == "the token's signature is wrong");
        assert!(fits, "{token}: {found}, and not {expected}");
    }
}

/// Sections 2.1, 3.2, 3.4 and 3.5: keys that must not be used, and signatures in another form.
#[test]
fn keys() {
    let vectors = vectors();
    let with = |name: &str, algorithm: &str| {
        let one = &vectors[name];
        outcome(&format!("{{{}, algorithms: [{algorithm}]}}", key_of(text(&one["key"]))), text(&one["token"]))
    };
    assert_eq!(with("public_key_as_secret", "RS256"), ALGORITHM, "a public key is no secret");
    assert_eq!(with("public_key_as_secret", "RS256, HS256"), "the token's key is not known");
    assert_ne!(with("small_rsa_key", "RS256"), ACCEPTED, "RFC 7518, section 3.3: at least 2048 bits");
    assert_ne!(with("signature_in_der", "ES256"), ACCEPTED, "RFC 7518, section 3.4: two numbers of 32 bytes");
    for (settings, why) in [
        ("{secret: short}", "at least 32 bytes"),
        ("{secret: 0123456789abcdef0123456789abcdef, algorithms: [HS384]}", "at least 48 bytes"),
        ("{secret: 0123456789abcdef0123456789abcdef, algorithms: [HS256, HS512]}", "at least 64 bytes"),
        ("{secret: 0123456789abcdef0123456789abcdef, algorithms: [RS256]}", "can be used safely"),
        ("{jwks: 'https://id.test/keys', algorithms: [HS256]}", "can be used safely"),
        ("{issuer: 'https://id.test', algorithms: [HS256, RS256]}", "can be used safely"),
        ("{issuer: id.test}", "expected exactly one of jwks, secret and public_key, or an issuer that is a URL"),
        ("{secret: 0123456789abcdef0123456789abcdef, leeway: 61s}", "at most 60s"),
        ("{secret: 0123456789abcdef0123456789abcdef, algorithms: [none]}", "unknown variant"),
    ] {
        let error = compile(&format!("[{{jwt: {settings}}}]")).err().unwrap_or_else(|| panic!("{settings}"));
        assert!(error.contains(why), "{settings}: {error}");
    }
}

#[test]
fn claims_with_values() {
    let settings = format!("{{secret: {SECRET}, required_claims: {{tenant: [acme, other], level: 3, a.b: x}}}}");
    let other = "a required claim has another value";
    for (claims, expected) in [
        (r#"{"exp":4102444800,"tenant":"acme","level":3,"a":{"b":"x"}}"#, ACCEPTED),
        (r#"{"exp":4102444800,"tenant":["x","other"],"level":3,"a.b":"x"}"#, ACCEPTED),
        (r#"{"exp":4102444800,"tenant":"evil","level":3,"a":{"b":"x"}}"#, other),
        (r#"{"exp":4102444800,"tenant":"acme","level":"3","a":{"b":"x"}}"#, other),
        (r#"{"exp":4102444800,"tenant":"acme","a":{"b":"x"}}"#, other),
    ] {
        assert_eq!(outcome(&settings, &signed(HEAD, claims.as_bytes())), expected, "{claims}");
    }
    let names = format!("{{secret: {SECRET}, required_claims: [tenant]}}");
    assert_eq!(outcome(&names, &signed(HEAD, br#"{"exp":4102444800,"tenant":"x"}"#)), ACCEPTED);
    assert_eq!(outcome(&names, &signed(HEAD, br#"{"exp":4102444800,"tenant":null}"#)), MISSING);
    assert_eq!(outcome(&names, &signed(HEAD, br#"{"exp":4102444800}"#)), MISSING);
}

/// Section 3.8: each issuer has keys of its own, and the token of one is not accepted as that of another.
#[test]
fn several_issuers() {
    let vectors = vectors();
    let rs256 = vectors["algorithms"].as_array().expect("a list").iter().find(|one| one["algorithm"] == "RS256");
    let rs256 = rs256.expect("the algorithm");
    let settings = format!(
        "{{issuers: [{{issuer: one, secret: {SECRET}, audience: api}}, {{issuer: 'https://id.example.com', {}}}, \
         {{issuer: three, secret: {}, algorithms: [HS256]}}]}}",
        key_of(text(&rs256["key"])),
        SECRET.replace('0', "9"),
    );
    let claims = |issuer: &str, more: &str| format!("{{\"iss\":{issuer},\"exp\":4102444800{more}}}");
    for (token, expected) in [
        (signed(HEAD, claims("\"one\"", ",\"aud\":\"api\"").as_bytes()), ACCEPTED),
        (text(&rs256["token"]).to_owned(), ACCEPTED),
        (signed(HEAD, claims("\"one\"", ",\"aud\":\"x\"").as_bytes()), AUDIENCE),
        // The key of the first issuer does not verify tokens of the others.
        (signed(HEAD, claims("\"three\"", "").as_bytes()), "the token's signature is wrong"),
        (signed(HEAD, claims("\"https://id.example.com\"", "").as_bytes()), ALGORITHM),
        (signed(HEAD, claims("\"four\"", "").as_bytes()), ISSUER),
        (signed(HEAD, claims("null", "").as_bytes()), ISSUER),
        (signed(HEAD, claims("[\"one\"]", ",\"aud\":\"api\"").as_bytes()), ISSUER),
        (signed(HEAD, br#"{"iss":"one","iss":"three","aud":"api","exp":4102444800}"#), ISSUER),
        (signed(HEAD, br#"{"aud":"api","exp":4102444800}"#), ISSUER),
    ] {
        assert_eq!(outcome(&settings, &token), expected, "{token}");
    }
    for (settings, why) in [
        ("{issuer: x, issuers: [{issuer: 'https://a.test'}]}", "belongs to each of issuers"),
        ("{issuers: [{issuer: 'https://a.test'}, {issuer: 'https://a.test'}]}", "a second time"),
        ("{issuers: [{issuer: a}]}", "an issuer that is a URL"),
        ("{issuers: [{secret: x}]}", "missing field"),
    ] {
        let error = compile(&format!("[{{jwt: {settings}}}]")).err().unwrap_or_else(|| panic!("{settings}"));
        assert!(error.contains(why), "{settings}: {error}");
    }
}
