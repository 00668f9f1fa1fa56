//! Responses that are merged of the results of several calls.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Seen, Target, answer, refused};

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// A gateway with an upstream for each target, and one route `/page/{id}` of those calls.
pub fn gateway(targets: &[(&str, &Target)], action: &str) -> Gateway {
    gateway_with(targets, action, "")
}

fn gateway_with(targets: &[(&str, &Target)], action: &str, more: &str) -> Gateway {
    let upstreams: Vec<String> =
        targets.iter().map(|(name, target)| format!("{name}: {{targets: ['{}']}}", target.address)).collect();
    Gateway::start(&format!(
        "
upstreams: {{{}}}
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]
routes:
  - name: page
    match: {{path: '/page/{{id}}'}}
    action: {{aggregate: {{{action}}}}}
    {more}
",
        upstreams.join(", ")
    ))
}

/// A target that responds to everything with that JSON, after some milliseconds.
fn json_after(millis: u64, body: &'static str) -> Target {
    Target::new(move |stream, _| {
        std::thread::sleep(Duration::from_millis(millis));
        answer(stream, 200, JSON, body.as_bytes())
    })
}

/// A target that keeps what it sees, and echoes it.
fn recorder() -> (Target, Arc<Mutex<Vec<Seen>>>) {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let target = Target::new(move |stream, request| {
        noted.lock().unwrap().push(request.clone());
        answer(stream, 200, JSON, format!("{{\"target\":{}}}", json!(request.target)).as_bytes())
    });
    (target, seen)
}

fn headers_of(seen: &Seen) -> BTreeMap<String, String> {
    seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

/// A target that responds with that JSON once three requests have come to all that share `begun`.
fn json_together(begun: &Arc<AtomicUsize>, body: &'static str) -> Target {
    let begun = Arc::clone(begun);
    Target::new(move |stream, _| {
        let round = begun.fetch_add(1, Ordering::AcqRel) / 3;
        eventually("all three calls run at a time", || begun.load(Ordering::Acquire) >= 3 * (round + 1));
        answer(stream, 200, JSON, body.as_bytes())
    })
}

#[test]
fn calls_run_at_the_same_time_and_values_pass_byte_for_byte() {
    let begun = Arc::default();
    let a = json_together(&begun, r#" {"id": 7.00, "n":"\u00e9"} "#);
    let (b, c) = (json_together(&begun, "[1e400 , {}]"), json_together(&begun, "12345678901234567890123"));
    let calls =
        "calls: [{name: a, upstream: a, path: /}, {name: b, upstream: b, path: /}, {name: c, upstream: c, path: /}]";
    let gateway = gateway(&[("a", &a), ("b", &b), ("c", &c)], calls);
    for _ in 0..5 {
        let got = gateway.get("/page/1");
        let wanted = r#"{"a":{"id": 7.00, "n":"\u00e9"},"b":[1e400 , {}],"c":12345678901234567890123}"#;
        assert_eq!((got.status, got.text().as_str()), (200, wanted));
        assert_eq!(got.header("content-type"), Some("application/json"));
        assert_eq!((got.header("x-partial"), got.header("cache-control")), (None, None));
    }
    assert_eq!(gateway.ended("aggregated"), 5.0);
    let series = r#"portcullis_aggregate_calls_total{call="a",outcome="completed",route="page"}"#;
    assert_eq!(gateway.metric(series), 5.0);
}

#[test]
fn a_later_call_uses_what_an_earlier_one_returned() {
    let user = Target::fixed(200, &[("etag", "\"v1\""), ("x-team", "red")], br#"{"id":"a/b","list":[{"n":1.50}]}"#);
    let (echo, seen) = recorder();
    let calls = r#"calls: [
      {name: order, upstream: echo, path: '/orders/{calls.user.body.id}/{id}', method: POST, query: {team: '{calls.user.header.x-team}', none: '{query.none}', s: '{calls.user.status}'},
       forward_query: [page], headers: {x-n: '{calls.user.body.list.0.n}'}, body: '{"user":{calls.user.body},"id":"{calls.user.body.id}"}'},
      {name: user, upstream: user, path: '/u'},
      {name: key, upstream: user, path: '/key', in_result: false},
      {name: copy, upstream: echo, path: /copy, method: PUT, body: client, forward_headers: [cookie, x-chosen]}],
      response_headers: [{call: user, header: etag, name: x-version}, {call: user, header: x-team}]"#;
    let gateway = gateway(&[("user", &user), ("echo", &echo)], calls);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut connection = Connection::open(gateway.address());
    let request = head(
        "POST",
        "/page/x%20y?page=2&other=3&page=4",
        &[
            ("cookie", "a=1"),
            ("accept-language", "de"),
            ("x-chosen", "yes"),
            ("authorization", "Bearer t"),
            ("traceparent", trace),
            ("x-request-id", "id-1"),
            ("content-type", "text/csv"),
            ("content-length", "3"),
        ],
    );
    let got = connection.ask(format!("{request}1,2"));
    assert_eq!((got.header("x-version"), got.header("x-team")), (Some("\"v1\""), Some("red")));
    let order = "/orders/a%2Fb/x%20y?page=2&page=4&s=200&team=red";
    assert_eq!(got.json()["order"]["target"], order);
    assert_eq!(got.header("vary"), Some("accept-language, cookie, x-chosen"), "what calls send on");
    assert_eq!(got.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["order", "user", "copy"]);
    let seen = seen.lock().unwrap();
    let of = |start: &str| seen.iter().find(|seen| seen.target.starts_with(start)).expect(start);
    let (order, copy) = (of("/orders"), of("/copy"));
    assert_eq!(String::from_utf8_lossy(&order.body), r#"{"user":{"id":"a/b","list":[{"n":1.50}]},"id":"a/b"}"#);
    let (first, second) = (headers_of(order), headers_of(copy));
    let get = |headers: &BTreeMap<String, String>, name: &str| headers.get(name).cloned().unwrap_or_default();
    assert_eq!([get(&first, "x-n"), get(&first, "accept-language"), get(&first, "cookie")], ["1.50", "de", ""]);
    assert_eq!([get(&first, "authorization"), get(&first, "content-type")], ["", "application/json"]);
    assert_eq!([get(&second, "cookie"), get(&second, "x-chosen"), get(&second, "accept-language")], ["a=1", "yes", ""]);
    assert_eq!((copy.body.as_slice(), get(&second, "content-type").as_str()), (&b"1,2"[..], "text/csv"));
    for headers in [&first, &second] {
        assert!(get(headers, "x-request-id").len() > 3);
        assert_eq!(get(headers, "x-forwarded-for"), "127.0.0.1");
        assert_eq!(get(headers, "host"), echo.address.to_string());
        assert!(get(headers, "traceparent").starts_with("00-0af7651916cd43dd8448eb211c80319c-"));
    }
    assert_ne!(get(&first, "traceparent"), get(&second, "traceparent"), "each call is a span of its own");
}

#[test]
fn what_failed_is_marked_and_the_rest_is_there() {
    let good = json_after(0, r#"{"a":1}"#);
    let (failing, text, large) = (
        Target::fixed(500, JSON, b"secret"),
        Target::fixed(200, &[], b"<a>"),
        Target::fixed(200, JSON, b"[1234567890]"),
    );
    let calls = "max_part: 10B, calls: [
      {name: first, upstream: failing, path: /x, required: false},
      {name: good, upstream: good, path: /},
      {name: text, upstream: text, path: /, fallback: {items: []}},
      {name: large, upstream: large, path: /, required: false},
      {name: none, upstream: good, path: /, take: b.c, required: false},
      {name: needs, upstream: good, path: '/{calls.first.body.id}', required: false},
      {name: not, upstream: good, path: /, when: calls.first.ok},
      {name: after, upstream: good, path: '/{calls.not.body.a}'},
      {name: default, upstream: good, path: '/{calls.first.body.id|x}'}]";
    let gateway = gateway(&[("good", &good), ("failing", &failing), ("text", &text), ("large", &large)], calls);
    let got = gateway.get("/page/1");
    let wanted = json!({
        "good": {"a": 1}, "text": {"items": []}, "default": {"a": 1},
        "errors": [
            {"call": "first", "status": 500, "reason": "status"},
            {"call": "text", "status": 200, "reason": "not_json"},
            {"call": "large", "status": 200, "reason": "too_large"},
            {"call": "none", "status": 200, "reason": "value_missing"},
            {"call": "needs", "reason": "input_missing"},
        ],
    });
    assert_eq!((got.status, got.json()), (200, wanted));
    assert_eq!(got.header("x-partial"), Some("first, text, large, none, needs"));
    assert_eq!(got.header("cache-control"), Some("no-store"));
    let line = gateway.access_log(1).remove(0);
    assert_eq!(line["reason"], "aggregated_in_part");
    assert!(line["detail"].as_str().unwrap().starts_with("first: status 500; text: not_json 200; "), "{line}");
    for (call, outcome) in [("first", "failed"), ("not", "skipped"), ("after", "skipped"), ("good", "completed")] {
        let series =
            format!("portcullis_aggregate_calls_total{{call=\"{call}\",outcome=\"{outcome}\",route=\"page\"}}");
        assert_eq!(gateway.metric(&series), 1.0, "{call}");
    }
    // Without a condition, a call that is not accepted is none; the next request is whole again.
    assert!(!got.text().contains("secret"));
}

#[test]
fn without_a_required_call_there_is_no_result() {
    let (good, missing, silent) = (json_after(0, "{}"), Target::fixed(404, JSON, b"{}"), Target::named("stall", "s"));
    let (_socket, nobody) = refused();
    let targets = [("good", &good), ("missing", &missing), ("silent", &silent)];
    for (call, settings, status, reason) in [
        ("upstream: missing", "", 502, "call_failed"),
        ("upstream: missing", ", failure_status: call", 404, "call_failed"),
        ("upstream: silent, timeout: 50ms", "", 504, "route_timeout"),
        ("upstream: silent", ", timeout: 1s", 504, "route_timeout"),
        ("upstream: good, take: a", ", failure_status: call", 502, "call_failed"),
    ] {
        let calls =
            format!("calls: [{{name: good, upstream: good, path: /}}, {{name: part, {call}, path: /}}]{settings}");
        let gateway = gateway(&targets, &calls);
        let got = gateway.get("/page/1");
        assert_eq!((got.status, got.reason().as_str()), (status, reason), "{call}{settings}");
        assert_eq!(got.header("content-type"), Some("application/problem+json"));
        assert!(got.json()["detail"].as_str().unwrap().starts_with("call part: "), "{}", got.text());
        assert!(!got.text().contains("127.0.0.1"), "no address of a target leaves: {}", got.text());
    }
    let yaml = format!(
        "upstreams: {{none: {{targets: ['{nobody}'], retry: {{attempts: 1}}}}}}\nroutes: [{{name: a, action: {{aggregate: {{calls: [{{name: part, upstream: none, path: /}}]}}}}}}]"
    );
    let gateway = Gateway::start(&yaml);
    let got = gateway.get("/");
    assert_eq!((got.status, got.reason().as_str()), (502, "connect_refused"));
    assert!(!got.text().contains("127.0.0.1"), "{}", got.text());
    assert!(gateway.access_log(1)[0]["detail"].as_str().unwrap().contains(&nobody.to_string()));
}

#[test]
fn calls_are_retried_and_stopped_as_forwarded_requests_are() {
    let (broken, good) = (Target::named("reset", "b"), json_after(0, "1"));
    let yaml = format!(
        "
upstreams:
  two: {{targets: ['{}', '{}'], balance: round_robin}}
  broken: {{targets: ['{}'], retry: {{attempts: 1}}, breaker: {{failures: 1, cool_down: 60s}}}}
routes:
  - {{name: retried, match: {{path: /retried}}, action: {{aggregate: {{calls: [{{name: a, upstream: two, path: /}}]}}}}}}
  - {{name: once, match: {{path: /once}}, action: {{aggregate: {{calls: [{{name: a, upstream: broken, path: /, required: false}}]}}}}}}
",
        broken.address, good.address, broken.address
    );
    let gateway = Gateway::start(&yaml);
    for _ in 0..4 {
        assert_eq!(gateway.get("/retried").text(), r#"{"a":1}"#);
    }
    assert!(gateway.metric(r#"portcullis_upstream_retries_total{outcome="begun",upstream="two"}"#) > 0.0);
    eventually("the breaker opens", || {
        gateway.get("/once").text() == r#"{"errors":[{"call":"a","reason":"breaker_open"}]}"#
    });
    let before = broken.count();
    assert_eq!(gateway.get("/once").header("x-partial"), Some("a"));
    assert_eq!(broken.count(), before, "an open breaker costs the upstream nothing");
}

#[test]
fn a_client_that_leaves_ends_all_calls() {
    let (begun, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (b, e) = (Arc::clone(&begun), Arc::clone(&ended));
    let silent = Target::new(move |stream, _| {
        b.fetch_add(1, Ordering::AcqRel);
        // The gateway closes the connection.
        let mut byte = [0];
        let gone = !matches!(stream.read(&mut byte), Ok(1));
        e.fetch_add(usize::from(gone), Ordering::AcqRel);
        Err(std::io::ErrorKind::ConnectionReset.into())
    });
    let calls = "timeout: 50s, calls: [{name: a, upstream: silent, path: /}, {name: b, upstream: silent, path: /}]";
    let gateway = gateway(&[("silent", &silent)], calls);
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/page/1", &[]));
    eventually("both calls run", || begun.load(Ordering::Acquire) == 2);
    drop(connection);
    eventually("both calls are ended", || ended.load(Ordering::Acquire) == 2);
    eventually("it is logged", || gateway.ended("client_gone") == 1.0);
    assert_eq!(gateway.metric(r#"portcullis_upstream_requests_in_flight{upstream="silent"}"#), 0.0);
}

#[test]
fn a_required_call_that_fails_ends_the_others() {
    let ended = Arc::new(AtomicBool::new(false));
    let e = Arc::clone(&ended);
    let silent = Target::new(move |stream, _| {
        let mut byte = [0];
        e.store(!matches!(stream.read(&mut byte), Ok(1)), Ordering::Release);
        Err(std::io::ErrorKind::ConnectionReset.into())
    });
    let failing = json_after(50, "no JSON");
    let calls = "timeout: 50s, calls: [{name: a, upstream: silent, path: /}, {name: b, upstream: failing, path: /}]";
    let gateway = gateway(&[("silent", &silent), ("failing", &failing)], calls);
    assert_eq!(gateway.get("/page/1").status, 502);
    eventually("the other is ended", || ended.load(Ordering::Acquire));
}

#[test]
fn a_call_is_made_for_each_element_of_a_list() {
    let (active, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (a, m) = (Arc::clone(&active), Arc::clone(&most));
    let item = Target::new(move |stream, seen| {
        m.fetch_max(a.fetch_add(1, Ordering::AcqRel) + 1, Ordering::AcqRel);
        std::thread::sleep(Duration::from_millis(5));
        a.fetch_sub(1, Ordering::AcqRel);
        if seen.target == "/item/3" {
            return answer(stream, 404, &[], b"");
        }
        answer(stream, 200, JSON, format!("\"{}\"", seen.target).as_bytes())
    });
    let list = json_after(0, r#"{"ids":[5,4,3,2,1],"none":[],"no":7}"#);
    let calls = "concurrency: 2, calls: [
      {name: list, upstream: list, path: /},
      {name: items, upstream: item, path: '/item/{item}', for_each: calls.list.body.ids, required: false},
      {name: none, upstream: item, path: '/item/{item}', for_each: calls.list.body.none},
      {name: no, upstream: item, path: '/item/{item}', for_each: calls.list.body.no, required: false},
      {name: many, upstream: item, path: '/item/{item}', for_each: calls.list.body.ids, max_items: 4, required: false}]";
    let gateway = gateway(&[("list", &list), ("item", &item)], calls);
    let got = gateway.get("/page/1").json();
    assert_eq!(got["items"], json!(["/item/5", "/item/4", null, "/item/2", "/item/1"]));
    assert_eq!(got["none"], json!([]));
    let errors = json!([
        {"call": "items", "item": 2, "status": 404, "reason": "status"},
        {"call": "no", "reason": "not_a_list"},
        {"call": "many", "reason": "too_many_items"},
    ]);
    assert_eq!(got["errors"], errors);
    assert_eq!(most.load(Ordering::Acquire), 2, "as many at a time as the configuration says");
}

#[test]
fn coded_results_are_decoded_and_all_together_have_a_limit() {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(br#"{"z":"0000000000000000000000000000000000000000"}"#).unwrap();
    let coded: &'static [u8] = coder.finish().unwrap().leak();
    let (gzip, odd) = (
        Target::fixed(200, &[("content-encoding", "gzip")], coded),
        Target::fixed(200, &[("content-encoding", "odd")], b"{}"),
    );
    let targets = [("gzip", &gzip), ("odd", &odd)];
    let calls =
        "calls: [{name: a, upstream: gzip, path: /, take: z}, {name: b, upstream: odd, path: /, required: false}]";
    let got = gateway(&targets, calls).get("/page/1").json();
    assert_eq!(got["a"], "0".repeat(40));
    assert_eq!(got["errors"], json!([{"call": "b", "status": 200, "reason": "undecodable"}]));
    let calls = "max_part: 50B, max_size: 60B, calls: [
      {name: a, upstream: gzip, path: /}, {name: b, upstream: gzip, path: '/{calls.a.status}', required: false}]";
    let got = gateway(&targets, calls).get("/page/1").json();
    assert_eq!(got["errors"], json!([{"call": "b", "status": 200, "reason": "too_large_together"}]));
}

#[test]
fn results_are_merged_flat_and_pass_the_filters_of_responses() {
    let (one, two) = (json_after(0, r#"{"a":1.0,"ssn":2,"c":{"d":[],"e":1}}"#), json_after(0, r#"{"c":4,"b":5}"#));
    let targets = [("one", &one), ("two", &two)];
    let filters = "filters: [select_fields: {}, strip_fields: {response: [ssn]}, compress: {min_size: 1B}]";
    let calls = |merge: &str| {
        format!("merge: {merge}, calls: [{{name: x, upstream: one, path: /}}, {{name: y, upstream: two, path: /}}]")
    };
    for (merge, wanted) in
        [("flat_first", r#"{"a":1.0,"c":{"d":[],"e":1},"b":5}"#), ("flat_last", r#"{"a":1.0,"c":4,"b":5}"#)]
    {
        assert_eq!(gateway_with(&targets, &calls(merge), filters).get("/page/1").text(), wanted);
    }
    let rejected = gateway_with(&targets, &calls("flat_distinct"), filters).get("/page/1");
    assert_eq!((rejected.status, rejected.reason().as_str()), (502, "call_failed"));
    let template = r#"template: '{"sum": {{ calls.x.body.a + calls.y.body.b }}, "c": {{ calls.x.body.c }}, "t": "{{ calls.y.status }} {{ errors | length }}"}', "#;
    let by_template = calls("named").replace("merge: named, ", template);
    let wanted = r#"{"sum": 6.0, "c": {"d":[],"e":1}, "t": "200 0"}"#;
    assert_eq!(gateway_with(&targets, &by_template, filters).get("/page/1").text(), wanted);
    let gateway = gateway_with(&targets, &calls("flat_first"), filters);
    assert_eq!(gateway.get("/page/1?fields=c.d,b").text(), r#"{"c":{"d":[]},"b":5}"#);
    assert_eq!(gateway.get("/page/1?fields=c(").reason(), "fields_invalid");
    let coded = gateway.request("GET", "/page/1", &[("accept-encoding", "gzip")]);
    assert_eq!((coded.header("content-encoding"), coded.header("content-length")), (Some("gzip"), None));
    let mut connection = Connection::open(gateway.address());
    connection.send(head("HEAD", "/page/1", &[]));
    let bodiless = connection.try_receive(true).expect("a response");
    assert_eq!((bodiless.status, bodiless.body.len()), (200, 0));
    let old = Connection::open(gateway.address()).ask("GET /page/1 HTTP/1.0\r\nhost: a\r\n\r\n");
    assert_eq!((old.status, old.text().as_str()), (200, r#"{"a":1.0,"c":{"d":[],"e":1},"b":5}"#));
    assert_eq!(over_http2(&gateway, "/page/1?fields=b"), (200, json!({"b": 5})));
}

/// One request over h2c.
fn over_http2(gateway: &Gateway, path: &str) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let address = gateway.address();
        let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        let request = http::Request::get(format!("http://{address}{path}")).body(()).expect("a request");
        let (response, _) = client.send_request(request, true).expect("it is sent");
        let (head, mut body) = response.await.expect("a response").into_parts();
        let mut whole = Vec::new();
        while let Some(part) = body.data().await {
            whole.extend_from_slice(&part.expect("a part"));
        }
        (head.status.as_u16(), serde_json::from_slice(&whole).expect("JSON"))
    })
}

#[test]
fn a_value_cannot_lead_to_another_path() {
    let (echo, seen) = recorder();
    let user = json_after(0, r#"{"up":"..","text":"a b/?#"}"#);
    let calls = "calls: [
      {name: user, upstream: user, path: '/{id}'},
      {name: up, upstream: echo, path: '/a/{calls.user.body.up}/b', required: false},
      {name: text, upstream: echo, path: '/a/{calls.user.body.text}'}]";
    let gateway = gateway(&[("user", &user), ("echo", &echo)], calls);
    let got = gateway.get("/page/1").json();
    assert_eq!(got["errors"], json!([{"call": "up", "reason": "input_invalid"}]));
    assert_eq!(got["text"]["target"], "/a/a%20b%2F%3F%23");
    assert_eq!(seen.lock().unwrap().len(), 1);
    for path in ["/page/a%2Fb", "/page/%2e%2e%2Fb"] {
        assert_eq!(gateway.get(path).status, 400, "{path}");
    }
}

#[test]
fn the_example_serves_its_screens() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/aggregation.yaml");
    let users = Target::new(|stream, seen| match seen.target.as_str() {
        "/users/ada" => {
            answer(stream, 200, &[("etag", "\"7\"")], br#"{"id":7,"name":"Ada","kind":"staff","team":"x y"}"#)
        }
        "/teams/x%20y" => answer(stream, 200, JSON, br#"{"size":3,"internal":1}"#),
        _ => answer(stream, 404, JSON, b"{}"),
    });
    let orders = Target::new(|stream, seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("GET", "/orders?limit=20&user=7") => answer(stream, 200, JSON, br#"{"items":[{"sku":"a"},{"sku":"b"}]}"#),
        ("POST", "/orders") => answer(stream, 201, JSON, br#"{"id":"o1","total":12.50}"#),
        _ => answer(stream, 200, JSON, br#"{"sku":"a","price":0}"#),
    });
    let prices = Target::new(|stream, seen| match seen.target.as_str() {
        "/prices/b" => answer(stream, 500, JSON, b""),
        "/payments" => {
            answer(stream, 200, JSON, format!("{{\"got\":{}}}", String::from_utf8_lossy(&seen.body)).as_bytes())
        }
        _ => answer(stream, 200, JSON, br#"{"price":9.90}"#),
    });
    let mut example = std::fs::read_to_string(path).expect("the example").replace("127.0.0.1:8080", "127.0.0.1:0");
    for (written, target) in [("9001, 127.0.0.1:9002", &users), ("9003", &orders), ("9004", &prices)] {
        example = example.replace(&format!("127.0.0.1:{written}"), &format!("\"{}\"", target.address));
    }
    let gateway = Gateway::start(&example);
    let home = gateway.get("/v1/home/ada");
    let wanted = json!({
        "user": {"id": 7, "name": "Ada", "kind": "staff", "team": "x y"},
        "orders": [{"sku": "a"}, {"sku": "b"}],
        "prices": [{"price": 9.9}, null],
        "team": {"size": 3},
        "errors": [{"call": "prices", "item": 1, "status": 500, "reason": "status"}],
    });
    assert_eq!((home.json(), home.header("x-user-version")), (wanted, Some("\"7\"")));
    assert_eq!(gateway.get("/v1/home/ada?fields=user.name").text(), r#"{"user":{"name":"Ada"}}"#);
    assert_eq!(gateway.get("/v1/home/bob").status, 404);
    assert_eq!(gateway.get("/v1/products/a").text(), r#"{"sku":"a","price":0}"#);
    let order = format!(
        "{}{{}}",
        head("POST", "/v1/checkout", &[("content-type", "application/json"), ("content-length", "2")])
    );
    let paid = Connection::open(gateway.address()).ask(order);
    assert_eq!(paid.text(), r#"{"order":{"id":"o1","total":12.50},"payment":{"got":{"order": "o1", "total": 12.50}}}"#);
}

#[test]
fn whole_results_are_cached_and_others_are_not() {
    let (good, failing) = (json_after(30, r#"{"a":1}"#), Target::named("500", "f"));
    let yaml = format!(
        "
upstreams: {{good: {{targets: ['{}']}}, failing: {{targets: ['{}']}}}}
routes:
  - name: whole
    match: {{path: /whole}}
    filters: [cache: {{ttl: {{default: 60s}}}}]
    action: {{aggregate: {{calls: [{{name: a, upstream: good, path: /a}}, {{name: b, upstream: good, path: /b}}]}}}}
  - name: part
    match: {{path: /part}}
    filters: [cache: {{ttl: {{default: 60s}}}}]
    action: {{aggregate: {{calls: [{{name: a, upstream: failing, path: /, required: false}}]}}}}
",
        good.address, failing.address
    );
    let gateway = Gateway::start(&yaml);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(gateway.get("/whole").text(), r#"{"a":{"a":1},"b":{"a":1}}"#));
        }
    });
    assert_eq!(good.count(), 2, "eight requests at a time made the calls once");
    assert!(gateway.get("/whole").header("cache-status").is_some_and(|status| status.contains("hit")));
    assert_eq!(good.count(), 2);
    for calls in 1..4 {
        assert_eq!(gateway.get("/part").header("x-partial"), Some("a"));
        assert_eq!(failing.count(), calls, "what is not whole is not stored");
    }
}
