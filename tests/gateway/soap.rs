//! SOAP to JSON and back.

use serde_json::json;

use super::harness::client::{Answer, Connection};
use super::harness::gateway::{Gateway, run};
use super::harness::lambda::header;
use super::harness::target::{Seen, Target, answer, refused};
use std::sync::{Arc, Mutex};

const V11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
const V12: &str = "http://www.w3.org/2003/05/soap-envelope";

fn envelope(namespace: &str, body: &str) -> String {
    format!("<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"{namespace}\"><s:Body>{body}</s:Body></s:Envelope>")
}

fn send(gateway: &Gateway, line: &str, headers: &str, body: &str) -> Answer {
    let head = format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len());
    Connection::open(gateway.address()).ask(head)
}

/// A target with its responses by a word in the request, and the requests that came.
fn target(
    respond: impl Fn(&str) -> (u16, &'static str, String) + Send + Sync + 'static,
) -> (Target, Arc<Mutex<Vec<Seen>>>) {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let target = Target::new(move |stream, request| {
        noted.lock().unwrap().push(request.clone());
        let text = format!("{} {}", request.target, String::from_utf8_lossy(&request.body));
        let (status, kind, body) = respond(&text);
        answer(stream, status, &[("content-type", kind)], body.as_bytes())
    });
    (target, seen)
}

fn soap_service(namespace: &'static str) -> (Target, Arc<Mutex<Vec<Seen>>>) {
    target(move |text| {
        let is_new = namespace == V12;
        let kind = if is_new { "application/soap+xml" } else { "text/xml" };
        let fault = |code: &str, why: &str| {
            if is_new {
                format!(
                    "<s:Fault><s:Code><s:Value>s:{code}</s:Value><s:Subcode><s:Value xmlns:m='urn:m'>m:OutOfStock\
                     </s:Value></s:Subcode></s:Code><s:Reason><s:Text xml:lang='en'>{why}</s:Text></s:Reason></s:Fault>"
                )
            } else {
                format!(
                    "<s:Fault><faultcode>s:{code}</faultcode><faultstring>{why}</faultstring>\
                     <detail><m:trace xmlns:m='urn:m'>secret</m:trace></detail></s:Fault>"
                )
            }
        };
        let client = if is_new { "Sender" } else { "Client" };
        let (status, body) = match text {
            text if text.contains("<id>0</id>") => (500, fault(client, "no such order")),
            text if text.contains("<id>1</id>") => (500, fault("Server", "it broke")),
            text if text.contains("<id>2</id>") => (200, "<m:Other xmlns:m='urn:m'/>".to_owned()),
            text if text.contains("<id>3</id>") => return (503, "text/html", "<html>".to_owned()),
            text if text.contains("<id>4</id>") => return (202, kind, String::new()),
            text if text.contains("<id>5</id>") => {
                return (
                    200,
                    kind,
                    format!("<!DOCTYPE a>{}", envelope(namespace, "<a/>").replace("<?xml version=\"1.0\"?>", "")),
                );
            }
            _ => (
                200,
                "<m:GetOrderResponse xmlns:m='urn:m'><m:order m:kind='x'><m:id>7</m:id><m:paid>true</m:paid><m:note/>\
                 <m:lines><m:line>a &amp; b</m:line></m:lines></m:order></m:GetOrderResponse>"
                    .to_owned(),
            ),
        };
        (status, kind, envelope(namespace, &body))
    })
}

fn json_client(target: &Target, version: &str) -> Gateway {
    Gateway::start(&format!(
        "
upstreams: {{soap: {{targets: ['{}']}}}}
routes:
  - name: api
    match: {{path: /*}}
    action:
      forward:
        upstream: soap
        translate:
          - json_to_soap:
              version: '{version}'
              path: /services/orders
              namespace: urn:m
              fault_status: {{OutOfStock: 409}}
              operations:
                - method: GET
                  path: '/orders/{{id}}'
                  action: urn:m/GetOrder
                  element: GetOrder
                  response_element: GetOrderResponse
                  result: order
                  arrays: [order.lines.line]
                  numbers: [order.id]
                  booleans: [order.paid]
                - method: POST
                  path: /orders
                  element: AddOrder
                  fields:
                    - {{name: customer, from: query.customer}}
                    - {{name: line, from: body.lines}}
                    - {{name: note, default: none}}
",
        target.address
    ))
}

#[test]
fn json_clients_use_a_service_of_soap_1_1() {
    let (service, seen) = soap_service(V11);
    let gateway = json_client(&service, "1.1");
    let got = gateway.get("/orders/7");
    assert_eq!(got.status, 200, "{}", got.text());
    let expected = json!({"@kind": "x", "id": 7, "paid": true, "note": "", "lines": {"line": ["a & b"]}});
    assert_eq!((got.json(), got.header("content-type")), (expected, Some("application/json")));
    let call = seen.lock().unwrap()[0].clone();
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/services/orders"));
    assert_eq!(header(&call, "soapaction").as_deref(), Some("\"urn:m/GetOrder\""));
    assert_eq!(header(&call, "content-type").as_deref(), Some("text/xml; charset=utf-8"));
    let body = String::from_utf8_lossy(&call.body).into_owned();
    assert!(
        body.contains(&format!("<soap:Envelope xmlns:soap=\"{V11}\"><soap:Body><GetOrder xmlns=\"urn:m\"><id>7</id>")),
        "{body}"
    );
    let json = "content-type: application/json\r\n";
    let text = r#"{"note": null, "lines": [{"sku": "a<b"}, {"sku": 2}], "ignored": 1}"#;
    assert_eq!(send(&gateway, "POST /orders?customer=7", json, text).status, 200);
    let body = String::from_utf8_lossy(&seen.lock().unwrap()[1].body).into_owned();
    let fields =
        "<customer>7</customer><line><sku>a&lt;b</sku></line><line><sku>2</sku></line><note>none</note></AddOrder>";
    assert!(body.contains(fields), "{body}");
    let line = gateway.access_log(2).into_iter().find(|line| line["operation"] == "GetOrder").expect("a line");
    assert_eq!(line["target_status"], "200");
}

#[test]
fn faults_become_problems() {
    for (version, namespace, codes) in
        [("1.1", V11, ["Client", "Server"]), ("1.2", V12, ["Sender.OutOfStock", "Server.OutOfStock"])]
    {
        let (service, _) = soap_service(namespace);
        let gateway = json_client(&service, version);
        let got = gateway.get("/orders/0");
        assert_eq!(got.status, if version == "1.1" { 400 } else { 409 }, "{}", got.text());
        assert_eq!(got.header("content-type"), Some("application/problem+json"));
        let problem = got.json();
        assert_eq!((&problem["faultcode"], &problem["faultstring"]), (&json!(codes[0]), &json!("no such order")));
        assert!(!got.text().contains("secret"));
        let got = gateway.get("/orders/1");
        assert_eq!(
            (got.status, &got.json()["faultcode"]),
            (if version == "1.1" { 502 } else { 409 }, &json!(codes[1]))
        );
        for wrong in [2, 3, 5] {
            let got = gateway.get(&format!("/orders/{wrong}"));
            assert_eq!((got.status, got.reason().as_str()), (502, "response_untranslatable"), "{wrong}");
        }
        assert_eq!(gateway.get("/orders/4").status, 204);
    }
}

#[test]
fn requests_that_cannot_be_xml_are_rejected() {
    let (service, seen) = soap_service(V11);
    let gateway = json_client(&service, "1.1");
    let json = "content-type: application/json\r\n";
    for (headers, body, status) in [
        (json, "{", 400),
        (json, r#"{"lines": {"a b": 1}}"#, 400),
        (json, r#"{"lines": {"@xmlns": "urn:x"}}"#, 400),
        (json, r#"{"lines": {"x:y": 1}}"#, 400),
        (json, r#"{"lines": "\u0001"}"#, 400),
        (json, r#"{"lines": 1, "lines": 2}"#, 400),
        ("content-type: text/plain\r\n", "a", 415),
    ] {
        let got = send(&gateway, "POST /orders", headers, body);
        assert_eq!(got.status, status, "{body}: {}", got.text());
    }
    assert!(seen.lock().unwrap().is_empty());
}

fn soap_client(target: std::net::SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "
upstreams: {{json: {{targets: ['{target}']}}}}
routes:
  - name: ws
    match: {{path: /ws}}
    action:
      forward:
        upstream: json
        translate:
          - soap_to_json:
              namespace: urn:m
              understood: ['urn:known']
              operations:
                - {{element: GetOrder, method: GET, path: '/orders/{{id}}', result: order}}
                - {{element: AddOrder, action: 'urn:m/Add', method: POST, path: /orders, arrays: [line], numbers: [n]}}
                - {{element: List, method: GET, path: /orders, item: order}}
"
    ))
}

fn json_service() -> (Target, Arc<Mutex<Vec<Seen>>>) {
    target(|text| {
        let (status, kind, body) = match text {
            text if text.starts_with("/orders/0") => {
                (404, "application/problem+json", r#"{"title":"Not found","detail":"no order <0>","status":404}"#)
            }
            text if text.starts_with("/orders/1") => (500, "text/plain", "secret"),
            text if text.starts_with("/orders/2") => (200, "text/plain", "no JSON"),
            text if text.starts_with("/orders/3") => (200, "application/json", r#"{"a b": 1}"#),
            text if text.starts_with("/orders/") => {
                (200, "application/json", r#"{"id":7,"lines":["a","b"],"note":null}"#)
            }
            text if text.starts_with("/orders?") => (200, "application/json", r#"[{"id":1},{"id":2}]"#),
            _ => (204, "application/json", ""),
        };
        (status, kind, body.to_owned())
    })
}

fn call(gateway: &Gateway, namespace: &str, headers: &str, body: &str) -> Answer {
    let kind = if namespace == V12 { "application/soap+xml" } else { "text/xml" };
    send(gateway, "POST /ws", &format!("content-type: {kind}; charset=utf-8\r\n{headers}"), &envelope(namespace, body))
}

#[test]
fn soap_clients_use_a_service_of_json() {
    let (service, seen) = json_service();
    let gateway = soap_client(service.address);
    for namespace in [V11, V12] {
        let got =
            call(&gateway, namespace, "", "<m:GetOrder xmlns:m='urn:m'><m:id>a/b</m:id><m:x>1 2</m:x></m:GetOrder>");
        assert_eq!(got.status, 200, "{}", got.text());
        let expected = "<GetOrderResponse xmlns=\"urn:m\"><order><id>7</id><lines>a</lines><lines>b</lines>\
             <note xsi:nil=\"true\"></note></order>";
        assert!(got.text().contains(namespace) && got.text().contains(expected), "{}", got.text());
        let kind = if namespace == V12 { "application/soap+xml; charset=utf-8" } else { "text/xml; charset=utf-8" };
        assert_eq!(got.header("content-type"), Some(kind));
    }
    let last = seen.lock().unwrap().last().expect("a request").clone();
    assert_eq!((last.method.as_str(), last.target.as_str()), ("GET", "/orders/a%2Fb?x=1%202"));
    assert!(header(&last, "soapaction").is_none() && header(&last, "content-type").is_none());
    let add = "<AddOrder xmlns='urn:m'><n>3</n><line>a</line></AddOrder>";
    let got = call(&gateway, V11, "soapaction: \"urn:m/Add\"\r\n", add);
    assert!(
        got.status == 200 && got.text().contains("<AddOrderResponse xmlns=\"urn:m\"></AddOrderResponse>"),
        "{}",
        got.text()
    );
    let last = seen.lock().unwrap().last().expect("a request").clone();
    assert_eq!(String::from_utf8_lossy(&last.body), r#"{"n":3,"line":["a"]}"#);
    let got = call(&gateway, V11, "", "<List xmlns='urn:m'><p>1</p></List>");
    assert!(got.text().contains("<order><id>1</id></order><order><id>2</id></order>"), "{}", got.text());
}

#[test]
fn errors_are_faults_of_the_clients_version() {
    let (service, seen) = json_service();
    let gateway = soap_client(service.address);
    let get = |id: u8| format!("<GetOrder xmlns='urn:m'><id>{id}</id></GetOrder>");
    for (namespace, codes, statuses) in
        [(V11, ["Client", "Server"], [500, 500]), (V12, ["Sender", "Receiver"], [400, 500])]
    {
        let got = call(&gateway, namespace, "", &get(0));
        assert_eq!(got.status, statuses[0], "{}", got.text());
        assert!(got.text().contains(codes[0]) && got.text().contains("no order &lt;0&gt;"), "{}", got.text());
        assert!(got.text().contains("<status>404</status>"), "{}", got.text());
        for id in [1, 2, 3] {
            let got = call(&gateway, namespace, "", &get(id));
            assert_eq!(got.status, statuses[1], "{id}: {}", got.text());
            assert!(got.text().contains(codes[1]) && !got.text().contains("secret"), "{id}: {}", got.text());
        }
    }
    let before = seen.lock().unwrap().len();
    let fault = |got: Answer, status: u16, code: &str| {
        assert_eq!(got.status, status, "{}", got.text());
        assert!(got.text().contains(&format!("<faultcode>soap:{code}</faultcode>")), "{}", got.text());
    };
    fault(call(&gateway, V11, "", "<Other xmlns='urn:m'/>"), 400, "Client");
    fault(call(&gateway, V11, "", "<GetOrder xmlns='urn:other'><id>1</id></GetOrder>"), 400, "Client");
    fault(call(&gateway, V11, "", "<AddOrder xmlns='urn:m'/>"), 400, "Client");
    fault(call(&gateway, V11, "", "<GetOrder xmlns='urn:m'/>"), 400, "Client");
    fault(call(&gateway, V11, "", "<GetOrder xmlns='urn:m'><id>..</id></GetOrder>"), 400, "Client");
    let xml = "content-type: text/xml\r\n";
    fault(send(&gateway, "POST /ws", xml, "<a/>"), 400, "Client");
    fault(send(&gateway, "POST /ws", xml, "<s:Envelope xmlns:s='urn:s'/>"), 500, "VersionMismatch");
    let bomb =
        format!("<!DOCTYPE a [<!ENTITY x 'y'>]><s:Envelope xmlns:s='{V11}'><s:Body><a>&x;</a></s:Body></s:Envelope>");
    fault(send(&gateway, "POST /ws", xml, &bomb), 400, "Client");
    let head = |namespace: &str| {
        format!(
            "<s:Envelope xmlns:s='{V11}'><s:Header><h:a xmlns:h='{namespace}' s:mustUnderstand='1'/></s:Header><s:Body>{}\
             </s:Body></s:Envelope>",
            get(7)
        )
    };
    fault(send(&gateway, "POST /ws", xml, &head("urn:unknown")), 500, "MustUnderstand");
    let related = "content-type: multipart/related; boundary=x\r\n";
    fault(send(&gateway, "POST /ws", related, "--x--"), 415, "Client");
    assert_eq!(seen.lock().unwrap().len(), before);
    assert_eq!(send(&gateway, "POST /ws", xml, &head("urn:known")).status, 200);
    let (_held, nobody) = refused();
    fault(call(&soap_client(nobody), V11, "", &get(7)), 500, "Server");
}

#[test]
fn rejections_by_filters_are_faults_too() {
    let (service, seen) = json_service();
    let gateway = Gateway::start(&format!(
        "
upstreams: {{json: {{targets: ['{}']}}}}
consumers: {{shop: {{credentials: [{{api_key: {{value: a-key-of-the-shop}}}}]}}}}
routes:
  - name: ws
    match: {{path: /ws}}
    filters: [{{api_key: {{}}}}]
    action:
      forward:
        upstream: json
        translate: [{{soap_to_json: {{operations: [{{element: List, method: GET, path: /orders/9}}]}}}}]
",
        service.address
    ));
    let got = call(&gateway, V12, "", "<List/>");
    assert_eq!((got.status, got.header("www-authenticate").is_some()), (401, true));
    assert!(got.text().contains("<soap:Value>soap:Sender</soap:Value>"), "{}", got.text());
    assert_eq!(got.header("content-type"), Some("application/soap+xml; charset=utf-8"));
    // What is no SOAP gets a problem document.
    assert_eq!(gateway.get("/ws").reason(), "api_key_missing");
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(call(&gateway, V12, "x-api-key: a-key-of-the-shop\r\n", "<List/>").status, 200);
}

#[test]
fn settings_that_cannot_work_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.yaml");
    let text = "
listeners: [{name: main, address: 127.0.0.1:0}]
upstreams: {a: {targets: ['127.0.0.1:1']}}
routes:
  - name: a
    action:
      forward:
        upstream: a
        translate:
          - json_to_soap:
              path: soap
              fault_status: {Client: 200}
              namespaces: {soap: 'urn:x', xsi: 'urn:x'}
              operations:
                - {method: GET, path: '/a/{id}', element: 'a b', fields: [{name: x, from: path.ix}, {name: y, from: z}]}
          - soap_to_json:
              operations:
                - {element: A, method: GET, path: 'a'}
                - {element: B, method: GET, path: '/a/{'}
                - {element: C, method: GET, path: '/c'}
                - {element: C, method: GET, path: '/d'}
          - soap_to_json: {operations: []}
";
    std::fs::write(&file, text).expect("written");
    let (code, out, err) = run(&["check", "-c", file.to_str().expect("a path")], Some(folder.path()));
    let all = format!("{out}{err}");
    assert_ne!(code, 0, "{all}");
    for wanted in [
        "expected a path such as /soap",
        "the prefix xsi is that of http://www.w3.org/2001/XMLSchema-instance",
        "expected a status of 400 to 599",
        "expected a prefix of letters and digits",
        "expected the name of an element",
        "the path has no parameter {ix}",
        "expected path.NAME, query.NAME",
        "expected a path such as /orders/{id}",
        "expected a name and a }",
        "it is never reached",
        "expected at least one operation",
    ] {
        assert!(all.contains(wanted), "{wanted}: {all}");
    }
}
