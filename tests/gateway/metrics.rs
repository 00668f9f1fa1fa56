//! Metrics of what fails, and of certificates.

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::target::{Target, refused};

#[test]
fn tries_are_counted_by_target_and_outcome_over_a_reload() {
    let (_held, dead) = refused();
    let (good, bad) = (Target::echo("a"), Target::fixed(500, &[], b"no"));
    // Ejection has its own tally of the same outcomes.
    let yaml = format!(
        "upstreams:
  mixed: {{targets: [\"{}\", \"{}\"], retry: {{attempts: 1}}, health: {{passive: {{failures: 100, gateway_failures: 100}}}}}}
  dead: {{targets: [\"{dead}\"], retry: {{attempts: 1}}}}
routes:
  - {{name: dead, match: {{path: /dead}}, action: {{forward: dead}}}}
  - {{name: mixed, action: {{forward: mixed}}}}",
        good.address, bad.address
    );
    let gateway = Gateway::start(&yaml);
    let series = |outcome: &str, target: std::net::SocketAddr, upstream: &str| {
        format!("portcullis_target_requests_total{{outcome=\"{outcome}\",target=\"{target}\",upstream=\"{upstream}\"}}")
    };
    let is = |series: &str, wanted: f64| (gateway.metric(series) - wanted).abs() < 0.1;
    (0..10).for_each(|_| _ = gateway.get("/"));
    (0..3).for_each(|_| assert_eq!(gateway.get("/dead").status, 502));
    eventually("all are counted", || is("portcullis_upstream_requests_total{status=\"5xx\",upstream=\"dead\"}", 3.0));
    assert!(is(&series("good", good.address, "mixed"), 5.0) && is(&series("failed", bad.address, "mixed"), 5.0));
    assert!(is(&series("gateway_failed", dead, "dead"), 3.0) && is(&series("good", dead, "dead"), 0.0));
    assert!(is("portcullis_requests_ended_total{reason=\"connect_refused\",route=\"dead\"}", 3.0));
    // Nothing probes it: its first failure, and no other, is in the log.
    let first = format!("upstream dead: the first request to target {dead} has failed: gateway_failed");
    eventually("the first failure is logged", || gateway.log().contains(&first));
    assert_eq!(gateway.log().matches("the first request to target").count(), 1, "{}", gateway.log());
    assert_eq!(gateway.reload().status, 200);
    gateway.get("/dead");
    eventually("the count goes on", || is(&series("gateway_failed", dead, "dead"), 4.0));
}

#[test]
fn the_expiry_of_a_certificate_is_a_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("parameters");
    params.not_after = rcgen::date_time_ymd(2031, 2, 3);
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("a certificate");
    std::fs::write(folder.path().join("a.pem"), certificate.pem()).expect("written");
    std::fs::write(folder.path().join("a.key"), key.serialize_pem()).expect("written");
    let yaml = "listeners:
  - {name: plain, address: 127.0.0.1:0, limits: {connections: 123}}
  - {name: main, address: 127.0.0.1:0, tls: {certificates: [{cert: a.pem, key: a.key}]}}
routes: [{name: all, action: {respond: {body: one}}}]";
    let gateway = Gateway::start_in(folder, yaml, &[]);
    let series = "portcullis_certificate_expiry_timestamp_seconds{file=\"a.pem\",listener=\"main\"}";
    assert!((gateway.metric(series) - 1_927_843_200.0).abs() < 1.0);
    assert!((gateway.metric("portcullis_listener_connections_limit{listener=\"plain\"}") - 123.0).abs() < 0.1);
    let text = client::get(gateway.admin, "/metrics").text();
    assert!(text.contains("portcullis_build_info{commit=\""), "{text}");
}

#[test]
fn the_reference_page_is_current() {
    let (code, page, _) = run(&["reference"], None);
    assert_eq!(code, 0);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/reference.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &page).expect("written");
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == page, "run: portcullis reference > conf/reference.md");
}
