//! HTTP/2 requests that RFC 9113 §8.1.1 calls malformed: a stream error of the type PROTOCOL_ERROR, and no
//! target gets them as a complete request.

use serde_json::Value;

use super::programs::{Server, before, before_http2, curl, run_one};

const PROTOCOL_ERROR: u64 = 1;
const KINDS: &[&str] = &[
    "data_after_length_0",
    "longer_than_body",
    "longer_than_no_body",
    "longer_than_empty_data",
    "shorter_than_body",
    "shorter_than_parts",
    "pseudo_header_in_trailers",
    "status_in_trailers",
    "pseudo_header_after_field",
    "upper_case",
    "connection_field",
    "transfer_encoding",
    "te_of_another_kind",
    "two_lengths",
    "length_of_letters",
];

fn assert_never_forwarded(target: &Server, address: &str) {
    let mut wrong = Vec::new();
    for kind in KINDS {
        let line = run_one("h2_client.py", &["malformed", address, kind, &format!("/{kind}")]);
        if [&line["reset"], &line["goaway"]].iter().all(|code| code.as_u64() != Some(PROTOCOL_ERROR)) {
            wrong.push(format!("{kind}: the client got {}", line["frames"]));
        }
    }
    // What came before this is at the target, or never will be.
    let next = curl(&["-w", "%{http_code}", "-o", "/dev/null", &format!("http://{address}/next")]);
    assert_eq!(next.out, "200", "{next:?}");
    target.await_line("a request", |l| l["target"] == "/next" && l["method"] == "GET");
    let complete = |l: &Value| l["incomplete"].is_null() && l["aborted"].is_null() && l["method"] == "POST";
    for line in target.lines().iter().filter(|l| complete(l)) {
        wrong.push(format!("{}: the target got all of it: {:?}", line["target"], line["body"]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn malformed_requests_never_reach_http1_targets() {
    let target = Server::recorder();
    let gateway = before(target.address);
    assert_never_forwarded(&target, &gateway.address().to_string());
}

#[test]
fn malformed_requests_never_reach_http2_targets() {
    let target = Server::node("http2");
    let gateway = before_http2(target.address);
    assert_never_forwarded(&target, &gateway.address().to_string());
}
