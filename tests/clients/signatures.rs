//! Requests that programs of other people sign: aws4 and http-message-signatures, of npm.

use serde_json::Value;

use super::programs::{run, run_one};
use crate::harness::gateway::Gateway;
use crate::harness::target::Target;

#[test]
fn what_aws4_and_http_message_signatures_sign_is_accepted() {
    let (target, keys) = (Target::echo("echo"), run_one("signers.js", &["keys"]));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    std::fs::write(&file, keys.to_string()).expect("written");
    let mut credentials = vec![serde_json::json!({"hmac": {"key_id": "AKID", "secret": keys["aws"]["private"]}})];
    for algorithm in ["ed25519", "ecdsa-p256-sha256", "rsa-pss-sha512", "rsa-v1_5-sha256", "hmac-sha256"] {
        let key = &keys[algorithm];
        let (name, value) = match key.get("public") {
            Some(public) => ("public_key", public),
            None => ("secret", &key["private"]),
        };
        let mut credential = serde_json::json!({"key_id": algorithm, "algorithm": algorithm});
        credential[name] = value.clone();
        credentials.push(serde_json::json!({"http_signature": credential}));
    }
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: ['{}']}}}}\nconsumers: {{shop: {{credentials: {}}}}}\nroutes:\n\
         - {{name: aws, match: {{path: /aws/*}}, filters: [{{hmac: {{presigned: true}}}}], action: {{forward: echo}}}}\n\
         - {{name: message, match: {{path: /message/*}}, filters: [{{http_signature: {{}}}}], action: {{forward: echo}}}}",
        target.address,
        Value::Array(credentials)
    ));
    let lines = run("signers.js", &["send", &gateway.address().to_string(), &file.display().to_string()]);
    assert_eq!(lines.len(), 5 * 2 + 2 + 5 * 6, "{lines:?}");
    for line in &lines {
        let expected = if line["wrong"] == Value::Bool(true) { 401 } else { 200 };
        // A signature whose body was another one has used up its nonce.
        assert_eq!(line["status"], expected, "{line}");
    }
}
