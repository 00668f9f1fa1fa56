//! Requests that are signed: AWS Signature Version 4, and HTTP message signatures (RFC 9421).

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::harness::client::{Answer, Connection};
use super::harness::gateway::Gateway;
use super::harness::target::Target;

const SECRET: &str = "only-for-this-test-0123456789abcdef";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(text: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, text).as_ref())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes()).as_ref().to_vec()
}

fn timestamp(seconds: u64) -> String {
    chrono::DateTime::from_timestamp(seconds as i64, 0).expect("a time").format("%Y%m%dT%H%M%SZ").to_string()
}

fn send(gateway: &Gateway, method: &str, target: &str, headers: &[(String, String)], body: &str) -> Answer {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: api.example.com\r\nConnection: close\r\n");
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
    Connection::open(gateway.address()).ask(format!("{text}\r\n{body}"))
}

/// A request that is signed as AWS does it; its canonical form is written out.
struct Aws<'a> {
    at: u64,
    path: &'a str,
    body: &'a str,
    /// The value of `x-amz-content-sha256`, if it is sent.
    hash: Option<String>,
    secret: &'a str,
    key: &'a str,
    service: &'a str,
}

impl Default for Aws<'_> {
    fn default() -> Self {
        Self { at: now(), path: "/orders", body: "", hash: None, secret: SECRET, key: "AKID", service: "execute-api" }
    }
}

impl Aws<'_> {
    fn headers(&self) -> Vec<(String, String)> {
        let date = timestamp(self.at);
        let scope = format!("{}/eu/{}/aws4_request", &date[..8], self.service);
        let hash = self.hash.clone().unwrap_or_else(|| sha256(self.body.as_bytes()));
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        let canonical =
            format!("{method}\n{}\n\nhost:api.example.com\nx-amz-date:{date}\n\nhost;x-amz-date\n{hash}", self.path);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let keys = [&date[..8], "eu", self.service, "aws4_request"];
        let key = keys.iter().fold(format!("AWS4{}", self.secret).into_bytes(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &text));
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-date, Signature={signature}",
            self.key
        );
        let mut headers = vec![("x-amz-date".to_owned(), date), ("authorization".to_owned(), authorization)];
        headers.extend(self.hash.clone().map(|hash| ("x-amz-content-sha256".to_owned(), hash)));
        headers
    }

    fn send(&self, gateway: &Gateway) -> Answer {
        let method = if self.body.is_empty() { "GET" } else { "POST" };
        send(gateway, method, self.path, &self.headers(), self.body)
    }
}

fn aws_gateway(target: &Target, hmac: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         consumers: {{shop: {{credentials: [{{hmac: {{key_id: AKID, secret: {SECRET}}}}}]}}}}\n\
         routes: [{{name: all, filters: [{{hmac: {hmac}}}], action: {{forward: echo}}}}]",
        target.address
    ))
}

#[test]
fn aws_signatures_and_bodies() {
    let target = Target::echo("a");
    let gateway = aws_gateway(&target, "{regions: [eu], services: [execute-api], max_skew: 1m}");
    let get = Aws::default().send(&gateway);
    assert_eq!(get.status, 200, "{}", get.text());
    assert!(get.json()["headers"].get("authorization").is_none(), "the target does not see it");
    assert_eq!(gateway.access_log(1)[0]["consumer"], "shop");
    let body = "{\"a\":1}";
    let hash = Some(sha256(body.as_bytes()));
    let post = Aws { body, hash: hash.clone(), ..Aws::default() };
    let sent = post.send(&gateway);
    assert_eq!((sent.status, sent.json()["body"].as_str()), (200, Some(body)), "{}", sent.text());
    // The hash is signed, and the body is another one.
    let other = send(&gateway, "POST", "/orders", &post.headers(), "{\"a\":2}");
    assert_eq!((other.status, other.reason()), (401, "signature_invalid".to_owned()));
    for (why, wrong) in [
        (
            "the signature is not that of this request",
            Aws { secret: "another-secret-of-some-length", ..Aws::default() },
        ),
        ("the key is not known", Aws { key: "OTHER", ..Aws::default() }),
        ("the signature has expired", Aws { at: now() - 90, ..Aws::default() }),
        ("the signature is not valid yet", Aws { at: now() + 90, ..Aws::default() }),
        ("the signature is for another service", Aws { service: "s3", ..Aws::default() }),
        ("x-amz-content-sha256 is missing", Aws { body, ..Aws::default() }),
        ("the body is not signed", Aws { body, hash: Some("UNSIGNED-PAYLOAD".to_owned()), ..Aws::default() }),
        (
            "the form of x-amz-content-sha256 is not known",
            Aws { body, hash: Some("STREAMING-AWS4-HMAC-SHA256-PAYLOAD".to_owned()), ..Aws::default() },
        ),
    ] {
        let answer = wrong.send(&gateway);
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (401, Some(why)));
        assert_eq!(answer.header("www-authenticate"), Some("AWS4-HMAC-SHA256 realm=\"portcullis\""));
    }
    let moved = send(&gateway, "GET", "/orders?all", &Aws::default().headers(), "");
    assert_eq!((moved.status, moved.reason()), (401, "signature_invalid".to_owned()));
    assert_eq!(gateway.get("/orders").reason(), "signature_missing");
    assert_eq!(gateway.get("/?X-Amz-Signature=x").json()["detail"], "the presigned URL lacks a part");
}

#[test]
fn bodies_whose_hash_is_computed_and_bodies_that_are_not_signed() {
    let target = Target::echo("a");
    let gateway = aws_gateway(&target, "{body_hash: computed, unsigned_body: true, forward: true}");
    let body = "{\"a\":1}";
    let post = Aws { body, ..Aws::default() };
    let sent = post.send(&gateway);
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert!(sent.json()["headers"]["authorization"].as_str().is_some_and(|value| value.starts_with("AWS4-")));
    assert_eq!(send(&gateway, "POST", "/orders", &post.headers(), "{\"a\":2}").reason(), "signature_invalid");
    assert_eq!(send(&gateway, "POST", "/orders", &post.headers(), "").status, 401);
    let unsigned = Aws { body, hash: Some("UNSIGNED-PAYLOAD".to_owned()), ..Aws::default() };
    assert_eq!(send(&gateway, "POST", "/orders", &unsigned.headers(), "whatever").status, 200);
    let large = "x".repeat((1 << 20) + 1);
    assert_eq!(send(&gateway, "POST", "/orders", &post.headers(), &large).status, 413);
}

/// A signer with a key of its own.
struct Signer(signature::Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        Self(signature::Ed25519KeyPair::generate().expect("a key"))
    }

    fn pem(&self) -> String {
        use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
        use aws_lc_rs::signature::KeyPair;
        let der: PublicKeyX509Der<'_> = self.0.public_key().as_der().expect("DER");
        format!("-----BEGIN PUBLIC KEY-----\\n{}\\n-----END PUBLIC KEY-----", STANDARD.encode(der.as_ref()))
    }

    /// The fields of a signature over these lines.
    fn fields(&self, lines: &[(&str, &str)], parameters: &str) -> Vec<(String, String)> {
        let names: Vec<String> = lines.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let input = format!("({}){parameters}", names.join(" "));
        let base: String = lines.iter().map(|(name, value)| format!("\"{name}\": {value}\n")).collect();
        let signature = self.0.sign(format!("{base}\"@signature-params\": {input}").as_bytes());
        vec![
            ("signature-input".to_owned(), format!("sig={input}")),
            ("signature".to_owned(), format!("sig=:{}:", STANDARD.encode(signature.as_ref()))),
        ]
    }
}

const TARGET: (&str, &str) = ("@target-uri", "http://api.example.com/orders?a=1");

#[test]
fn http_message_signatures() {
    let (target, signer) = (Target::echo("a"), Signer::new());
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         consumers:\n  shop: {{credentials: [{{http_signature: {{key_id: shop-1, algorithm: ed25519, public_key: \"{}\"}}}}]}}\n  hmac: {{credentials: [{{http_signature: {{key_id: shared, algorithm: hmac-sha256, secret: {SECRET}}}}}]}}\n\
         routes:\n- {{name: strict, filters: [{{http_signature: {{max_age: 1m, leeway: 5s}}}}], action: {{forward: echo}}}}\n\
         - {{name: nonce, match: {{path: /nonce}}, filters: [{{http_signature: {{components: ['@method'], nonce: required, tag: app, scheme: https}}}}], action: {{forward: echo}}}}",
        target.address,
        signer.pem()
    ));
    let good = |more: &str| format!(";created={};keyid=\"shop-1\"{more}", now());
    let get = |lines: &[(&str, &str)], parameters: &str| {
        send(&gateway, "GET", "/orders?a=1", &signer.fields(lines, parameters), "")
    };
    let method = ("@method", "GET");
    let sent = get(&[method, TARGET], &good(""));
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert!(sent.json()["headers"].get("signature").is_none(), "the target does not see it");
    assert_eq!(gateway.access_log(1)[0]["consumer"], "shop");
    let parts = [method, ("@authority", "api.example.com"), ("@path", "/orders"), ("@query", "?a=1")];
    assert_eq!(get(&parts, &good(";alg=\"ed25519\"")).status, 200);
    for (lines, parameters, why) in [
        (&[TARGET][..], good(""), "@method is not signed"),
        (&[method], good(""), "the target is not signed: @target-uri, or @authority, @path and @query"),
        (&parts[..3], good(""), "the target is not signed: @target-uri, or @authority, @path and @query"),
        (&[method, TARGET], good(";alg=\"hmac-sha256\""), "the algorithm is not that of the key"),
        (&[method, TARGET], format!(";created={};keyid=\"other\"", now()), "the key is not known"),
        (
            &[method, TARGET],
            format!(";created={};keyid=\"shared\"", now()),
            "the signature is not that of this request",
        ),
        (&[method, TARGET], format!(";created={}", now()), "the signature has no keyid"),
        (&[method, TARGET], format!(";created={};keyid=\"shop-1\"", now() - 70), "the signature has expired"),
        (&[method, TARGET], format!(";created={};keyid=\"shop-1\"", now() + 10), "the signature is not valid yet"),
        (&[method, TARGET], ";keyid=\"shop-1\"".to_owned(), "the signature does not say when it was created"),
        (&[("@method", "POST"), TARGET], good(""), "the signature is not that of this request"),
        (&[method, TARGET, ("x-none", "")], good(""), "a signed header is missing"),
    ] {
        let answer = get(lines, &parameters);
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (401, Some(why)));
        assert_eq!(answer.reason(), "signature_invalid");
    }
    let missing = gateway.get("/orders");
    assert_eq!((missing.status, missing.reason()), (401, "signature_missing".to_owned()));
    assert_eq!(missing.header("www-authenticate"), Some("Signature realm=\"portcullis\""));
    assert_eq!(
        missing.header("accept-signature"),
        Some("sig=(\"@method\" \"@target-uri\" \"content-digest\");created;keyid")
    );
}

#[test]
fn signed_bodies_and_nonces() {
    let (target, signer) = (Target::echo("a"), Signer::new());
    let config = format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         consumers: {{shop: {{credentials: [{{http_signature: {{key_id: shop-1, algorithm: ed25519, public_key: \"{}\"}}}}]}}}}\n\
         routes:\n- {{name: strict, filters: [{{http_signature: {{}}}}], action: {{forward: echo}}}}\n\
         - {{name: nonce, match: {{path: /nonce}}, filters: [{{http_signature: {{components: ['@method', '@scheme'], nonce: required, tag: app, scheme: https}}}}], action: {{forward: echo}}}}",
        target.address,
        signer.pem()
    );
    let gateway = Gateway::start(&config);
    let body = "{\"a\":1}";
    let digest_of = |body: &str| {
        format!("sha-256=:{}:", STANDARD.encode(digest::digest(&digest::SHA256, body.as_bytes()).as_ref()))
    };
    let lines = |digest: &str| {
        vec![
            ("@method", "POST".to_owned()),
            ("@target-uri", TARGET.1.to_owned()),
            ("content-digest", digest.to_owned()),
        ]
    };
    let post = |lines: &[(&str, String)], digest: Option<&str>, body: &str| {
        let lines: Vec<(&str, &str)> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let mut fields = signer.fields(&lines, &format!(";created={};keyid=\"shop-1\"", now()));
        fields.extend(digest.map(|digest| ("content-digest".to_owned(), digest.to_owned())));
        send(&gateway, "POST", "/orders?a=1", &fields, body)
    };
    let right = digest_of(body);
    let sent = post(&lines(&right), Some(&right), body);
    assert_eq!((sent.status, sent.json()["body"].as_str()), (200, Some(body)), "{}", sent.text());
    for (lines, digest, body, why) in [
        (lines(&right), Some(&*right), "{\"a\":2}", "Content-Digest is not that of the content"),
        (lines(&right)[..2].to_vec(), Some(&*right), body, "content-digest is not signed"),
        (lines(&right), None, body, "a signed header is missing"),
        (lines("md5=:AAAA:"), Some("md5=:AAAA:"), body, "Content-Digest has neither sha-256 nor sha-512"),
    ] {
        let answer = post(&lines, digest, body);
        assert_eq!((answer.status, answer.json()["detail"].as_str()), (401, Some(why)));
    }
    // A nonce is accepted once, and a forged signature does not use it up.
    let parameters = |nonce: &str| format!(";created={};keyid=\"shop-1\";tag=\"app\"{nonce}", now());
    let fields =
        |scheme: &str, nonce: &str| signer.fields(&[("@method", "GET"), ("@scheme", scheme)], &parameters(nonce));
    let nonce = |fields: &[(String, String)]| send(&gateway, "GET", "/nonce", fields, "");
    assert_eq!(nonce(&fields("http", ";nonce=\"1\"")).json()["detail"], "the signature is not that of this request");
    let once = fields("https", ";nonce=\"1\"");
    assert_eq!(nonce(&once).status, 200);
    assert_eq!(nonce(&once).json()["detail"], "the nonce has been used before");
    assert_eq!(nonce(&fields("https", ";nonce=\"2\"")).status, 200);
    assert_eq!(nonce(&fields("https", "")).json()["detail"], "the signature has no nonce");
    // A reload forgets none, wherever it moves the filter.
    gateway.write_config(&config.replace(
        "name: nonce, match: {path: /nonce}, filters: [",
        "name: other, match: {path: /nonce}, filters: [{guard: {}}, ",
    ));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(nonce(&once).json()["detail"], "the nonce has been used before");
    assert_eq!(nonce(&fields("https", ";nonce=\"3\"")).status, 200);
    let other = signer.fields(&[("@method", "GET")], &format!(";created={};keyid=\"shop-1\";tag=\"b\"", now()));
    assert_eq!(nonce(&other).reason(), "signature_missing", "a signature for another application");
}
