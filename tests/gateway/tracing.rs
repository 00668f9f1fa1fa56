//! Trace context that comes in several lines (W3C Trace Context, section 3).

use super::harness::client::Connection;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

const ONE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01";

#[test]
fn several_traceparents_start_a_new_trace_and_several_tracestates_are_one() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: ['{}']}}}}\nroutes: [{{name: all, action: {{forward: echo}}}}]",
        target.address
    ));
    let seen = |lines: &str| {
        let response = Connection::open(gateway.address()).ask(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        let headers = response.json()["headers"].clone();
        (
            headers["traceparent"].as_str().unwrap_or_default().to_owned(),
            headers["tracestate"].as_str().map(str::to_owned),
        )
    };
    let (parent, state) = seen(&format!("traceparent: {ONE}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"));
    assert!(parent.starts_with(&ONE[..36]) && !parent.contains("00f067aa0ba902b7"), "{parent}");
    assert_eq!(state.as_deref(), Some("a=1,b=2"));
    for second in [ONE, OTHER] {
        let (parent, state) = seen(&format!("traceparent: {ONE}\r\ntraceparent: {second}\r\ntracestate: a=1\r\n"));
        assert!(parent.len() == 55 && !parent.contains(&ONE[3..35]) && !parent.contains(&OTHER[3..35]), "{parent}");
        assert_eq!(state, None);
    }
}
