//! The signature of calls of AWS Lambda, recomputed by botocore.

use super::harness::gateway::Gateway;
use super::programs::{Server, run_one};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

#[test]
fn botocore_signs_the_same_call() {
    let api = Server::start("lambda_api.py", &[SECRET]);
    let gateway = Gateway::start(&format!(
        "
upstreams: {{aws: {{targets: ['{}']}}}}
routes:
  - name: function
    action:
      lambda:
        upstream: aws
        function: arn:aws:lambda:us-east-1:123456789012:function:my-function
        qualifier: live
        credentials: {{key: {{access_key_id: AKIDEXAMPLE, secret_access_key: {SECRET}, session_token: a-token}}}}
",
        api.address
    ));
    let got = gateway.request("POST", "/a%20b?x=%2F&x=~", &[("content-length", "0"), ("x-amz-target", "t")]);
    assert_eq!((got.status, got.text().as_str()), (200, "from botocore"));
    // Its own client calls the same path.
    let called = run_one("lambda_api.py", &["call", &api.address.to_string(), SECRET]);
    assert_eq!(called["status"], 200);
    let lines = api.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        assert_eq!((&line["valid"], &line["today"]), (&true.into(), &true.into()), "{line}");
    }
    assert_eq!(lines[0]["path"], lines[1]["path"]);
    assert_eq!(lines[0]["type"], lines[1]["type"]);
    assert!(lines[0]["signed"].as_str().is_some_and(|names| names.contains("x-amz-security-token")), "{lines:?}");
}
