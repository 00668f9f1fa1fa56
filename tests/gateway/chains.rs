//! Both orders of a balancer and a gateway: the client's address and its trace reach the service.

use super::harness::client::Connection;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// Starts an example with other addresses.
fn example(name: &str, addresses: &[(&str, String)]) -> Gateway {
    let path = format!("{}/conf/examples/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut text = std::fs::read_to_string(path).expect("the example");
    for (from, to) in addresses {
        assert!(text.contains(from), "{name} has no {from}");
        text = text.replace(from, to);
    }
    Gateway::start(&text)
}

/// Sends a request through a chain, and returns the headers that the service gets.
fn headers_at_service(first: &Gateway) -> serde_json::Value {
    let mut connection = Connection::open_from(first.address(), [127, 0, 0, 77].into());
    let head =
        format!("GET /api/v1/users/7 HTTP/1.1\r\nHost: a.test\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01\r\n\r\n");
    let response = connection.ask(head);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["target"], "/7");
    response.json()["headers"].clone()
}

fn check(headers: &serde_json::Value) {
    let text = |name: &str| headers[name].as_str().unwrap_or_default().to_owned();
    assert_eq!(text("x-forwarded-for"), "127.0.0.77");
    assert!(text("traceparent").contains(TRACE), "{headers}");
    assert_eq!(text("host"), "a.test");
}

#[test]
fn a_balancer_before_a_gateway() {
    let targets = [Target::echo("a"), Target::echo("b")];
    let gateway = example(
        "gateway-behind.yaml",
        &[
            ("127.0.0.1:8081", "127.0.0.1:0".into()),
            ("127.0.0.1:9001", targets[0].address.to_string()),
            ("127.0.0.1:9002", targets[1].address.to_string()),
        ],
    );
    let balancer = example(
        "balancer-first.yaml",
        &[("127.0.0.1:8080", "127.0.0.1:0".into()), ("127.0.0.1:8081", gateway.address().to_string())],
    );
    check(&headers_at_service(&balancer));
}

#[test]
fn a_gateway_before_a_balancer() {
    let targets = [Target::echo("a"), Target::echo("b")];
    let balancer = example(
        "balancer-behind.yaml",
        &[
            ("127.0.0.1:8082", "127.0.0.1:0".into()),
            ("127.0.0.1:9001", targets[0].address.to_string()),
            ("127.0.0.1:9002", targets[1].address.to_string()),
        ],
    );
    let gateway = example(
        "gateway-first.yaml",
        &[("127.0.0.1:8080", "127.0.0.1:0".into()), ("127.0.0.1:8082", balancer.address().to_string())],
    );
    check(&headers_at_service(&gateway));
}
