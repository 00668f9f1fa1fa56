//! What is told about requests, and what never is.

use super::harness::client::{self, Connection};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

#[test]
fn a_line_for_every_request_with_its_secrets_masked() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\n\
         consumers: {{one: {{credentials: [{{api_key: {{value: very-secret-key}}}}]}}}}\n\
         routes: [{{name: keyed, match: {{path: /keyed}}, filters: [{{api_key: {{query: k}}}}], action: {{forward: echo}}}}]",
        target.address
    ));
    let answer = gateway.request(
        "GET",
        "/keyed?a=1&k=very-secret-key",
        &[("user-agent", "ua \"x\""), ("authorization", "Bearer hidden")],
    );
    assert_eq!(answer.status, 200);
    gateway.get("/unknown?k=very-secret-key");
    assert_eq!(gateway.get("/keyed?K=x&k=not-very-secret-key").status, 401);
    assert_eq!(Connection::open(gateway.address()).ask("GET / HTTP/1.1\r\n\r\n").status, 400);
    let lines = gateway.access_log(4);
    // Lines of several workers are in order only roughly.
    let by = |reason: &str| lines.iter().find(|l| l["reason"] == reason).expect("the line");
    let line = by("forwarded");
    assert_eq!(line["route"], "keyed");
    assert_eq!(line["upstream"], "echo");
    assert_eq!(line["target"], target.address.to_string());
    assert_eq!(line["consumer"], "one");
    assert_eq!(line["status"], 200);
    assert_eq!(line["user_agent"], "ua \"x\"");
    assert_eq!(line["query"], "a=1&k=***", "as the client sent it, without the credential");
    assert_eq!(Some(line["request_id"].as_str().expect("an id")), answer.header("x-request-id"));
    assert_eq!(answer.json()["headers"]["x-request-id"], line["request_id"]);
    let trace = answer.json()["headers"]["traceparent"].as_str().expect("a trace").to_owned();
    assert_eq!(trace.split('-').nth(1), line["trace_id"].as_str());
    assert!(by("route_not_found")["route"].is_null());
    assert_eq!(by("route_not_found")["query"], "k=***");
    assert_eq!(by("api_key_invalid")["query"], "K=***&k=***");
    assert_eq!(by("bad_request")["status"], 400);
    let everything = format!("{lines:?} {} {}", gateway.log(), client::get(gateway.admin, "/metrics").text());
    assert!(!everything.contains("very-secret-key") && !everything.contains("hidden"));
}

#[test]
fn metrics_count_and_are_bounded() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, match: {{path: /in/*}}, action: {{forward: echo}}}}]",
        target.address
    ));
    for i in 0..50 {
        gateway.get(&format!("/in/{i}"));
        gateway.get(&format!("/out/{i}"));
    }
    let is = |series: &str, wanted: f64| (gateway.metric(series) - wanted).abs() < 0.1;
    // A request is counted when it has ended, which is a moment after its answer.
    eventually("all are counted", || is("portcullis_requests_total{route=\"all\",status=\"2xx\"}", 50.0));
    eventually("all are counted", || {
        is("portcullis_requests_ended_total{reason=\"route_not_found\",route=\"(none)\"}", 50.0)
    });
    assert!((gateway.metric("portcullis_request_duration_seconds_count{route=\"all\"}") - 50.0).abs() < 0.1);
    assert!(is("portcullis_requests_ended_total{reason=\"forwarded\",route=\"all\"}", 50.0));
    assert!(is("portcullis_upstream_requests_total{status=\"2xx\",upstream=\"echo\"}", 50.0));
    let tries =
        format!("portcullis_target_requests_total{{outcome=\"good\",target=\"{}\",upstream=\"echo\"}}", target.address);
    assert!(is(&tries, 50.0));
    assert!(is("portcullis_upstream_targets{upstream=\"echo\"}", 1.0) && is("portcullis_ready", 1.0));
    assert!(is("portcullis_upstream_requests_limit{upstream=\"echo\"}", 10_000.0));
    assert!(gateway.metric("process_resident_memory_bytes") > 1e6 && gateway.metric("process_open_fds") > 3.0);
    assert!(gateway.metric("portcullis_upstream_response_seconds_count{upstream=\"echo\"}") >= 50.0);
    assert!(gateway.metric("portcullis_upstream_connections_total{upstream=\"echo\"}") >= 1.0);
    assert!(gateway.metric("portcullis_connections_total") >= 100.0);
    assert!(gateway.metric("portcullis_config_last_reload_successful") > 0.5);
    assert!(gateway.metric("portcullis_requests_in_flight{route=\"all\"}") < 0.5);
    let text = client::get(gateway.admin, "/metrics").text();
    assert!(!text.contains("/in/") && !text.contains("/out/"), "a path is a label");
}

#[test]
fn operators_need_their_token() {
    let gateway = Gateway::start("routes: []\nadmin: {address: 127.0.0.1:0, token: the-admin-token}");
    assert_eq!(client::get(gateway.admin, "/healthz").status, 200);
    assert_eq!(client::get(gateway.admin, "/readyz").json()["ready"], true);
    assert_eq!(client::get(gateway.admin, "/metrics").status, 401);
    assert_eq!(gateway.reload().status, 401);
    let with = |token: &str| client::request(gateway.admin, "GET", "/metrics", &[("authorization", token)]).status;
    assert_eq!((with("Bearer the-admin-token"), with("Bearer wrong"), with("the-admin-token")), (200, 401, 401));
    let page = [("authorization", "Bearer the-admin-token"), ("origin", "https://evil.example")];
    assert_eq!(client::request(gateway.admin, "GET", "/upstreams", &page).status, 401);
    assert_eq!(client::get(gateway.admin, "/readyz").status, 200);
}

#[test]
fn operators_without_a_token_ask_by_an_address() {
    let gateway = Gateway::start("routes: []");
    let by = |host: &str| client::request(gateway.admin, "GET", "/upstreams", &[("host", host)]).status;
    // Any page can have its own name stand for this address, and then reads what is here.
    assert_eq!((by("evil.example"), by("evil.example:9000"), by("127.0.0.1.evil.example")), (401, 401, 401));
    assert_eq!((by("evil example"), by("")), (401, 401), "what is no host at all");
    assert_eq!((by("127.0.0.1"), by("localhost:1"), by("[::1]:1"), by("10.0.0.1")), (200, 200, 200, 200));
    assert_eq!(client::request(gateway.admin, "GET", "/readyz", &[("host", "evil.example")]).status, 200);
}
