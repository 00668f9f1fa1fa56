//! SOAP between clients and services of other people: zeep, and lxml with the schema of a WSDL.

use serde_json::json;

use super::harness::client::Connection;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};
use super::programs::{Server, run};

#[test]
fn zeep_uses_a_service_of_json() {
    let target = Target::new(|stream, request| {
        let order = |id: u64, lines: &str, customer: &str| {
            format!(r#"{{"id":{id},"customer":"{customer}","line":{lines},"paid":true}}"#)
        };
        let json = [("content-type", "application/json")];
        match request.target.as_str() {
            "/orders/404" => answer(stream, 404, &json, br#"{"detail":"no order 404"}"#),
            "/orders/500" => answer(stream, 500, &json, b"{}"),
            "/orders" => {
                let body: serde_json::Value = serde_json::from_slice(&request.body)?;
                let fine = body == json!({"customer": "Ada & Co", "line": [{"sku": "a<b", "quantity": 2}]});
                let text = order(8, &body["line"].to_string(), "Ada & Co");
                answer(stream, if fine { 200 } else { 400 }, &json, text.as_bytes())
            }
            _ => answer(stream, 200, &json, order(7, r#"[{"sku":"x","quantity":1}]"#, "Ada").as_bytes()),
        }
    });
    let gateway = Gateway::start(&format!(
        "
upstreams: {{orders: {{targets: ['{}']}}}}
routes:
  - name: ws
    match: {{path: /ws}}
    action:
      forward:
        upstream: orders
        translate:
          - soap_to_json:
              namespace: urn:example:orders
              operations:
                - {{element: GetOrder, action: 'urn:example:orders/GetOrder', method: GET, path: '/orders/{{id}}', result: order}}
                - {{element: AddOrder, method: POST, path: /orders, arrays: [line], numbers: [line.quantity], result: order}}
",
        target.address
    ));
    let lines = run("soap.py", &["client", &gateway.address().to_string()]);
    assert_eq!(lines.len(), 8, "{lines:?}");
    for line in &lines {
        let is_old = line["version"] == "11";
        match line["call"].as_str().expect("a call") {
            "get" => {
                let order = json!({"id": 7, "customer": "Ada", "line": [{"sku": "x", "quantity": 1}], "paid": true});
                assert_eq!(line["result"], order, "{line}");
            }
            "add" => {
                let lines = json!([{"sku": "a<b", "quantity": 2}]);
                assert_eq!(
                    (&line["result"]["customer"], &line["result"]["line"]),
                    (&json!("Ada & Co"), &lines),
                    "{line}"
                );
            }
            "missing" => {
                assert_eq!(line["fault"]["message"], "no order 404", "{line}");
                let code = line["fault"]["code"].as_str().expect("a code");
                assert!(code.ends_with(if is_old { "Client" } else { "Sender" }), "{line}");
            }
            _ => {
                let code = line["fault"]["code"].as_str().expect("a code");
                assert!(code.ends_with(if is_old { "Server" } else { "Receiver" }), "{line}");
            }
        }
    }
}

#[test]
fn envelopes_are_valid_by_the_schema_of_a_wsdl() {
    for version in ["1.1", "1.2"] {
        let service = Server::start("soap.py", &["server"]);
        let gateway = Gateway::start(&format!(
            "
upstreams: {{soap: {{targets: ['{}']}}}}
routes:
  - name: orders
    match: {{path: [/orders, /orders/*]}}
    action:
      forward:
        upstream: soap
        translate:
          - json_to_soap:
              version: '{version}'
              path: /ws
              namespace: urn:example:orders
              operations:
                - method: GET
                  path: '/orders/{{id}}'
                  action: urn:example:orders/GetOrder
                  element: GetOrder
                  result: order
                  numbers: [order.id, order.line.quantity]
                  booleans: [order.paid]
                  arrays: [order.line]
                - method: POST
                  path: /orders
                  action: urn:example:orders/AddOrder
                  element: AddOrder
                  fields: [{{name: customer}}, {{name: line, from: body.lines}}]
                  result: order
                  numbers: [order.id, order.line.quantity]
                  booleans: [order.paid]
                  arrays: [order.line]
",
            service.address
        ));
        let got = gateway.get("/orders/7");
        assert_eq!((got.status, got.json()), (200, json!({"id": 7, "customer": "Ada", "paid": true})), "{version}");
        let body = r#"{"lines": [{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}], "customer": "Ada & Co"}"#;
        let head = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
        let got =
            Connection::open(gateway.address()).ask(format!("{head}content-length: {}\r\n\r\n{body}", body.len()));
        let lines = json!([{"sku": "a", "quantity": 1}, {"sku": "b", "quantity": 2}]);
        assert_eq!(got.status, 200, "{}", got.text());
        assert_eq!((&got.json()["customer"], &got.json()["line"]), (&json!("Ada & Co"), &lines), "{}", got.text());
        let got = gateway.get("/orders/404");
        assert_eq!((got.status, &got.json()["faultstring"]), (400, &json!("no order 404")), "{version}");
        let lines = service.lines();
        assert!(lines.len() == 3 && lines.iter().all(|line| line["fine"] == true), "{lines:?}");
    }
}
