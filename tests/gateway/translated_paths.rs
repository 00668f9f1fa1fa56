//! What translations make of paths, queries and bodies: the edits of the route, and values that come twice.

use serde_json::{Value, json};

use super::harness::client::{Answer, Connection};
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

/// A target that responds with what it was sent, in the body of an envelope.
fn soap_target() -> Target {
    Target::new(|stream, seen| {
        let sent = format!("{} {}", seen.target, String::from_utf8_lossy(&seen.body))
            .replace('&', "&amp;")
            .replace('<', "&lt;");
        let body = format!(
            "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'><s:Body>\
             <R><sent>{sent}</sent></R></s:Body>\
             </s:Envelope>"
        );
        answer(stream, 200, &[("content-type", "text/xml")], body.as_bytes())
    })
}

fn send(gateway: &Gateway, line: &str, body: &str) -> Answer {
    let fields = format!("host: a\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
    Connection::open(gateway.address()).ask(format!("{line} HTTP/1.1\r\n{fields}\r\n\r\n{body}"))
}

const TRANSLATE: &str = "[{json_to_soap: {path: /soap, namespace: 'urn:m', namespaces: {m: 'urn:m', o: 'urn:o'}, \
    operations: [{method: GET, path: '/stock/{sku}', element: GetStock}, \
    {method: PUT, path: '/stock/{sku}', element: PutStock}, {method: POST, path: /orders, element: Order, \
    fields: [{name: note}, {name: kind, default: plain}, {name: all, from: body}]}]}}]";

fn soap_gateway(target: &Target) -> Gateway {
    Gateway::start(&format!(
        "
upstreams: {{soap: {{targets: ['{}']}}}}
routes:
  - name: stripped
    match: {{path: /api/*}}
    filters: [{{transform: {{request: [{{query: {{set: {{tenant: own}}, remove: [debug]}}}}]}}}}]
    action:
      forward:
        upstream: soap
        strip_prefix: /api
        translate: {TRANSLATE}
  - name: rewritten
    match: {{path: '/items/{{id}}'}}
    action: {{forward: {{upstream: soap, rewrite: '/stock/x-{{id}}', translate: {TRANSLATE}}}}}
  - name: plain
    action: {{forward: {{upstream: soap, translate: {TRANSLATE}}}}}
",
        target.address
    ))
}

#[test]
fn a_name_has_one_value_in_an_envelope() {
    let target = soap_target();
    let gateway = soap_gateway(&target);
    for (line, body, named) in [
        ("GET /stock/mine?sku=victim", "", "sku"),
        ("GET /stock/mine?%73ku=victim", "", "sku"),
        ("GET /stock/mine?m:sku=victim", "", "sku"),
        ("GET /stock/mine?place=1&place=2", "", "place"),
        ("PUT /stock/mine", r#"{"sku": "victim"}"#, "sku"),
        ("PUT /stock/mine", r#"{"m:sku": "victim"}"#, "sku"),
        ("PUT /stock/mine?place=1", r#"{"place": 2}"#, "place"),
        ("PUT /stock/mine", r#"{"place": 1, "place": 2}"#, ""),
        ("GET /stock/mine?@kind=x", "", "@kind"),
        ("GET /stock/mine?%23text=x", "", "#text"),
    ] {
        let got = send(&gateway, line, body);
        assert_eq!((got.status, got.reason().as_str()), (400, "request_untranslatable"), "{line} {body}");
        assert!(got.json()["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{line}: {}", got.text());
    }
    assert_eq!(target.count(), 0);
    let got = send(&gateway, "PUT /stock/mine?place=1", r#"{"o:sku": 2, "amount": {"sku": 3}}"#);
    let sent = got.json()["sent"].as_str().expect("a text").to_owned();
    assert!(sent.contains("<sku>mine</sku><place>1</place><o:sku>2</o:sku><amount><sku>3</sku></amount>"), "{sent}");
}

#[test]
fn null_is_an_element_that_is_nil() {
    let target = soap_target();
    let gateway = soap_gateway(&target);
    let sent = |line: &str, body: &str| send(&gateway, line, body).json()["sent"].as_str().expect("a text").to_owned();
    let text = sent("PUT /stock/1", r#"{"place": null, "note": ""}"#);
    assert!(text.contains(" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soap:Body>"), "{text}");
    assert!(text.contains("<place xsi:nil=\"true\"></place><note></note>"), "{text}");
    let text = sent("POST /orders", r#"{"note": null, "kind": null}"#);
    assert!(text.contains("<note xsi:nil=\"true\"></note><kind>plain</kind><all>"), "{text}");
    let text = sent("POST /orders", "");
    assert!(text.contains("<Order xmlns=\"urn:m\"><kind>plain</kind></Order>"), "{text}");
}

#[test]
fn envelopes_have_the_edits_of_the_route() {
    let target = soap_target();
    let gateway = soap_gateway(&target);
    for (line, element) in [
        ("GET /api/stock/7?tenant=other&debug=1", "<sku>7</sku><tenant>own</tenant></GetStock>"),
        ("GET /items/7?place=1", "<sku>x-7</sku><place>1</place></GetStock>"),
        ("GET /stock/7", "<sku>7</sku></GetStock>"),
    ] {
        let got = send(&gateway, line, "");
        let sent = got.json()["sent"].as_str().expect("a text").to_owned();
        assert!(sent.contains(element), "{line}: {sent}");
    }
    // What is no operation is forwarded as it is, with the edits.
    let got = send(&gateway, "DELETE /api/stock/7", "");
    assert!(got.text().contains("<sent>/stock/7?tenant=own "), "{}", got.text());
}

#[test]
fn operations_of_graphql_have_the_edits_of_the_route() {
    let target = Target::new(|stream, seen| {
        let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
        let reply = json!({"data": {"target": seen.target, "variables": body["variables"]}}).to_string();
        answer(stream, 200, &[("content-type", "application/json")], reply.as_bytes())
    });
    let gateway = Gateway::start(&format!(
        "
upstreams: {{one: {{targets: ['{}']}}}}
routes:
  - name: stripped
    match: {{path: /api/*}}
    filters: [{{transform: {{request: [{{query: {{set: {{tenant: own}}}}}}]}}}}]
    action:
      forward:
        upstream: one
        strip_prefix: /api
        translate:
          - rest_to_graphql:
              operations:
                - method: GET
                  path: '/users/{{id}}'
                  query: 'query User($id: ID!, $tenant: String) {{ user(id: $id, tenant: $tenant) }}'
                  variables: {{id: {{from: path}}, tenant: {{from: query}}}}
",
        target.address
    ));
    let got = gateway.get("/api/users/7?tenant=other");
    let expected = json!({"target": "/graphql", "variables": {"id": "7", "tenant": "own"}});
    assert_eq!((got.status, got.json()), (200, expected));
}
