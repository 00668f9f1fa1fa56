//! Requests and responses are changed over real sockets: in parts of every size, over HTTP/1 and HTTP/2, compressed, in
//! bounded memory, and never half changed.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use portcullis::parts::{Coding, CompressionLevel, Encoder, Step};

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::{Seen, Target, answer};

const BOTH: &str = "\nlisteners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}]";

fn forwarding(target: &Target, transform: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes: [{{name: all, body: 64MiB, filters: [{{transform: {transform}}}], action: {{forward: one}}}}]{BOTH}",
        target.address
    ))
}

fn packed(coding: &str, body: &[u8]) -> Vec<u8> {
    let coding = Coding::of(coding).expect("a coding");
    let mut out = Vec::new();
    let mut encoder = Encoder::new(coding, CompressionLevel::Fast, false).expect("memory");
    encoder.push(body, true, &mut out).expect("encoded");
    out
}

/// Sends a body in chunks of so many bytes.
fn chunked(stream: &mut TcpStream, headers: &str, body: &[u8], size: usize) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").as_bytes())?;
    for part in body.chunks(size) {
        stream.write_all(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())?;
    }
    stream.write_all(b"0\r\n\r\n")
}

const EDITS: &str = "json: {remove: ['$..internal'], mask: [{field: 'items[].card', keep_last: 4}], \
                     set: {'items[].ok': true, /note: '{{ request.method }}'}, rename: {'items[].name': first}}";

fn document() -> String {
    let member = |at: usize| {
        format!(r#"{{"id":{at}, "name":"Ada","card":"411111111111{:04}","internal":{{"n":{at}}}}}"#, at % 9999)
    };
    format!(r#"{{"items": [{}]}}"#, (0..800).map(member).collect::<Vec<_>>().join(",\n"))
}

fn edited(method: &str) -> String {
    let member = |at: usize| format!(r#"{{"id":{at}, "first":"Ada","card":"***{:04}","ok":true}}"#, at % 9999);
    format!(r#"{{"items": [{}],"note":"{method}"}}"#, (0..800).map(member).collect::<Vec<_>>().join(",\n"))
}

#[test]
fn responses_in_parts_and_codings() {
    let target = Target::new(|stream, seen| {
        let (body, json) = (document(), "content-type: application/json\r\n");
        match seen.target.split('/').nth(1).unwrap_or_default() {
            "parts" => chunked(stream, json, body.as_bytes(), seen.target[7..].parse().expect("a size")),
            "coded" => {
                let coding = &seen.target[7..];
                let headers = format!("{json}content-encoding: {coding}\r\n");
                chunked(stream, &headers, &packed(coding, body.as_bytes()), 500)
            }
            _ => answer(stream, 200, &[("content-type", "application/json"), ("etag", "\"v1\"")], body.as_bytes()),
        }
    });
    let gateway = forwarding(&target, &format!("{{response: {{{EDITS}}}}}"));
    let wanted = edited("GET");
    for path in
        ["/whole", "/parts/1", "/parts/7", "/parts/700", "/parts/100000", "/coded/gzip", "/coded/br", "/coded/zstd"]
    {
        let answer = gateway.request("GET", path, &[("accept-encoding", "gzip"), ("range", "bytes=0-9")]);
        assert_eq!((answer.status, answer.header("content-encoding")), (200, None), "{path}");
        assert!(answer.text() == wanted, "{path}: {}", &answer.text()[..200]);
    }
    for path in ["/whole", "/parts/33", "/coded/zstd"] {
        let url = format!("http://{}{path}", gateway.address());
        let Ok(output) = Command::new("curl").args(["-sS", "--http2-prior-knowledge", &url]).output() else { return };
        assert!(String::from_utf8_lossy(&output.stdout) == wanted, "{path} over HTTP/2");
    }
}

#[test]
fn requests_in_parts_and_codings() {
    let target = Target::echo("a");
    let gateway = forwarding(&target, &format!("{{max_size: 8MiB, request: {{{EDITS}}}}}"));
    let (body, wanted) = (document(), edited("POST"));
    let check = |answer: &serde_json::Value, what: &str| {
        assert!(answer["body"] == wanted, "{what}: {}", &answer["body"].to_string()[..200]);
        let headers = &answer["headers"];
        assert_eq!(headers["content-length"], wanted.len().to_string(), "{what}");
        assert!(headers["transfer-encoding"].is_null() && headers["content-encoding"].is_null(), "{what}");
        assert!(headers["content-digest"].is_null(), "{what}");
    };
    let mut connection = Connection::open(gateway.address());
    for size in [1, 9, 1000, 100_000] {
        let headers =
            [("content-type", "application/json"), ("transfer-encoding", "chunked"), ("content-digest", "sha-256=:x:")];
        let parts: Vec<u8> = body
            .as_bytes()
            .chunks(size)
            .flat_map(|part| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())
            .collect();
        let request = [head("POST", "/", &headers).as_bytes(), &parts, b"0\r\n\r\n"].concat();
        check(&connection.ask(request).json(), &format!("in parts of {size}"));
    }
    for coding in ["gzip", "br", "zstd"] {
        let coded = packed(coding, body.as_bytes());
        let length = coded.len().to_string();
        let headers = [("content-type", "application/json"), ("content-encoding", coding), ("content-length", &length)];
        let request = [head("POST", "/", &headers).as_bytes(), &coded].concat();
        check(&connection.ask(request).json(), coding);
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &body).expect("written");
    let data = format!("@{}", file.path().display());
    let url = format!("http://{}/", gateway.address());
    let curl = ["-sS", "--http2-prior-knowledge", "-H", "content-type: application/json", "--data-binary", &data, &url];
    let Ok(output) = Command::new("curl").args(curl).output() else { return };
    check(&serde_json::from_slice(&output.stdout).expect("JSON"), "over HTTP/2");
}

#[test]
fn the_target_may_speak_http_2() {
    let target = Target::echo("a");
    let behind = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]{BOTH}",
        target.address
    ));
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], protocol: http2}}}}
routes:
  - {{name: edit, match: {{path: /edit}}, filters: [{{transform: {{request: {{json: {{set: {{a: 1}}}}}}, response: {{json: {{set: {{edited: true}}}}}}}}}}], action: {{forward: one}}}}
  - {{name: made, match: {{path: /made}}, filters: [{{transform: {{request: {{method: POST, body: {{template: '{{\"made\": true}}'}}}}}}}}], action: {{forward: one}}}}",
        behind.address()
    ));
    let mut connection = Connection::open(gateway.address());
    let headers = [("content-type", "application/json"), ("content-length", "7")];
    let answer = connection.ask(head("POST", "/edit", &headers) + r#"{"b":2}"#).json();
    assert_eq!((answer["body"].as_str(), answer["edited"].as_bool()), (Some(r#"{"b":2,"a":1}"#), Some(true)));
    let answer = connection.ask(head("GET", "/made", &[])).json();
    assert_eq!((answer["method"].as_str(), answer["body"].as_str()), (Some("POST"), Some(r#"{"made": true}"#)));
}

#[test]
fn a_body_that_is_changed_is_sent_again_to_another_target() {
    let (held, dead) = super::harness::target::refused();
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{balance: round_robin, targets: [\"{dead}\", \"{}\"], retry: {{attempts: 3}}}}}}
routes: [{{name: all, filters: [{{transform: {{request: {{json: {{remove: [a]}}}}}}}}], action: {{forward: one}}}}]",
        target.address
    ));
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.address());
        let headers = [("content-type", "application/json"), ("content-length", "13")];
        let answer = connection.ask(head("PUT", "/", &headers) + r#"{"a":1,"b":2}"#);
        assert_eq!(answer.json()["body"], r#"{"b":2}"#);
    }
    drop(held);
}

/// What a target sends of a document that never ends: one element after the other.
fn endless(stream: &mut TcpStream, _: &Seen, elements: usize) -> std::io::Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n",
    )?;
    let element = br#"{"name":"Ada","ssn":"078-05-1120","card":4111111111111111,"deep":[{"internal":[1,2,3]}]},"#;
    let part = element.repeat(100);
    let chunk = [format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat();
    for _ in 0..elements / 100 {
        stream.write_all(&chunk)?;
    }
    stream.write_all(b"2\r\n0]\r\n0\r\n\r\n")
}

fn peak_memory(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).expect("the status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
}

#[test]
fn a_large_array_is_edited_in_bounded_memory() {
    // 1,200,000 elements of 88 bytes are 105 MB.
    let elements = 1_200_000;
    let target = Target::new(move |stream, seen| endless(stream, seen, elements));
    let edits = "{response: {json: {remove: [ssn, '$..internal'], rename: {name: n}, mask: [card], \
                 hash: {fields: ['$[0].n']}, set: {'[].x': 1}}}}";
    let gateway = forwarding(&target, edits);
    let before = peak_memory(&gateway);
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]));
    let (mut total, mut end, mut start) = (0, Vec::new(), Vec::new());
    while !end.ends_with(b"\r\n0\r\n\r\n") {
        let part = connection.some().expect("more of it");
        total += part.len();
        if start.len() < 1000 {
            start.extend_from_slice(&part);
        }
        end.extend_from_slice(&part);
        end.drain(..end.len().saturating_sub(200));
    }
    let start = String::from_utf8_lossy(&start).into_owned();
    assert!(start.contains(r#""card":"***","deep":[{}],"x":1}"#) && !start.contains("ssn"), "{start}");
    assert!(total > elements * 40, "{total}");
    let grown = peak_memory(&gateway) - before;
    assert!(grown < 32, "{grown} MiB for a document of 105 MB");
}

#[test]
fn a_response_that_is_too_large_to_be_changed_never_looks_complete() {
    let target = Target::new(|stream, seen| match seen.target.as_str() {
        "/known" => answer(stream, 200, &[("content-type", "application/json")], &document().into_bytes()),
        _ => chunked(stream, "content-type: application/json\r\n", document().as_bytes(), 5000),
    });
    let gateway = forwarding(&target, "{max_size: 16KiB, response: {json: {move: {items: list}}}}");
    let known = gateway.get("/known");
    assert_eq!((known.status, known.reason().as_str()), (502, "response_opaque"));
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/chunked", &[]));
    let answer = connection.try_receive(false).expect("a whole response");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "response_opaque"));
    // One that fails at its end neither.
    let broken = Target::new(|stream, _| chunked(stream, "content-type: application/json\r\n", b"{\"a\":1", 3));
    let gateway = forwarding(&broken, "{response: {json: {move: {a: b}}}}");
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]));
    let answer = connection.try_receive(false).expect("a whole response");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "response_opaque"));
    let xml = Target::new(|stream, _| chunked(stream, "content-type: application/xml\r\n", b"<a><b></a>", 3));
    let answer = forwarding(&xml, "{response: {convert: {from: xml, to: json}}}").get("/");
    assert_eq!((answer.status, answer.reason().as_str()), (502, "response_opaque"));
}

#[test]
fn documents_of_a_stream_pass_as_they_come() {
    let (send, next) = channel::<&'static str>();
    let next = std::sync::Mutex::new(next);
    let target = Target::new(move |stream, _| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        let next = next.lock().expect("the gate");
        while let Ok(event) = next.recv_timeout(Duration::from_secs(20)) {
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        }
        Ok(())
    });
    let gateway = forwarding(&target, "{response: {json: {set: {n: 1}, remove: [secret]}}}");
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]));
    for (event, wanted) in
        [("{\"a\":1,\"secret\":2}\n", r#"{"a":1,"n":1}"#), ("{\"n\":0,\"secret\":3}\n", r#"{"n":1}"#)]
    {
        send.send(event).expect("sent");
        let mut seen = String::new();
        while !seen.contains(wanted) {
            seen.push_str(&String::from_utf8_lossy(&connection.some().expect("an event")));
        }
    }
    drop(send);
}

#[test]
fn what_is_not_changed_is_not_held() {
    let target = Target::echo("a");
    let gateway = forwarding(&target, "{max_size: 1KiB, request: {json: {remove: [a]}}}");
    let text = "x".repeat(100_000);
    let length = text.len().to_string();
    let mut connection = Connection::open(gateway.address());
    let headers = [("content-type", "text/plain"), ("content-length", length.as_str())];
    assert_eq!(connection.ask(head("POST", "/", &headers) + &text).json()["length"], text.len());
    let mut connection = Connection::open(gateway.address());
    let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
    connection.send(head("POST", "/", &headers));
    let answer = connection.receive();
    assert_eq!((answer.status, answer.reason().as_str()), (413, "body_too_large"));
}

#[test]
fn the_log_has_the_status_that_the_client_got() {
    let target = Target::fixed(404, &[("content-type", "application/json")], b"{}");
    let gateway = forwarding(&target, "{response: {status: {404: 410}}}");
    assert_eq!(gateway.get("/").status, 410);
    assert_eq!(gateway.access_log(1)[0]["status"], 410);
}

/// What the targets of the example send, and what they have seen.
fn old_services(stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
    let echoed = format!("{} {}", seen.method, seen.target);
    let xml = "<b:invoice xmlns:b=\"u\"><b:no>7</b:no><b:total>1.50</b:total><b:line>x</b:line><b:note/></b:invoice>";
    match seen.target.split(['/', '?']).nth(1).unwrap_or_default() {
        "services" => answer(stream, 200, &[("content-type", "application/xml"), ("x-seen", &echoed)], xml.as_bytes()),
        "commands" => {
            let headers = [("content-type", "application/json"), ("x-result", "not-found"), ("set-cookie", "a=1")];
            answer(stream, 200, &headers, &seen.body)
        }
        _ => {
            let body = r#"{"people":[{"mail":"a@b","card":"4111111111111111","internal":1}],"password":"x"}"#;
            answer(stream, 200, &[("content-type", "application/json")], body.as_bytes())
        }
    }
}

#[test]
fn the_example_does_what_it_says() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/transformation.yaml");
    let text = std::fs::read_to_string(example).expect("the example").replace(":8080", ":0");
    let target = Target::new(old_services);
    let address = target.address.to_string();
    let replaced = |text: String, port: &str| text.replace(&format!("127.0.0.1:{port}"), &address);
    let gateway = Gateway::start(&["9001", "9002", "9003"].into_iter().fold(text, replaced));
    let invoice = gateway.get("/v2/invoices/7?lang=de");
    let wanted = r#"{"invoice":{"number":"7","line":["x"],"note":null},"total":{"amount":"1.50","currency":"EUR"}}"#;
    assert_eq!((invoice.text().as_str(), invoice.header("content-type")), (wanted, Some("application/json")));
    assert_eq!(invoice.header("x-seen"), Some("GET /services/billing?locale=de&invoice=7"));
    let body = r#"{"reason":"la\"te"}"#;
    let length = body.len().to_string();
    let headers = [("content-type", "application/json"), ("content-length", length.as_str())];
    let cancelled = Connection::open(gateway.address()).ask(head("POST", "/v2/orders/8/cancel", &headers) + body);
    assert_eq!((cancelled.status, cancelled.header("x-result")), (404, None));
    assert_eq!(cancelled.header("set-cookie"), Some("a=1; Secure; HttpOnly; SameSite=Strict"));
    assert_eq!((&cancelled.json()["order"], &cancelled.json()["reason"]), (&"8".into(), &"la\"te".into()));
    let people = gateway.get("/export/all").json();
    assert_eq!(people["people"][0]["card"], "***1111");
    assert_eq!(people["people"][0]["mail"].as_str().map(str::len), Some(64));
    assert!(people["password"].is_null() && people["people"][0]["internal"].is_null());
}
