//! Requests octet by octet: chunk lines, request targets, and where a connection ends or goes on.

use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};
use super::websocket::{UPGRADE, reflecting};

fn echoing(target: &Target, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, match: {{path: /*}}, action: {{forward: echo}}}}]\n{rest}",
        target.address
    ))
}

const CHUNKED: &str = "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[test]
fn a_chunk_line_that_two_readers_could_read_differently_is_rejected() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let bodies = [
        "5;\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5;\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;a b\r\nhello\r\n0\r\n\r\n",
        "5;a=\"x\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0;\n\r\n\r\n",
        "5\r\nhello\r\n0\r\nTrailer\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
    ];
    for body in bodies {
        // In the same segment as the head, and behind it.
        for apart in [false, true] {
            let mut connection = Connection::open(gateway.address());
            if apart {
                connection.send(format!("{CHUNKED}1"));
                std::thread::sleep(Duration::from_millis(20));
                connection.send(format!("\r\na\r\n{body}GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"));
            } else {
                connection.send(format!("{CHUNKED}{body}GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"));
            }
            let got = connection.receive();
            assert_eq!((got.status, got.reason().as_str()), (400, "bad_request"), "{body:?} {apart}");
            assert!(connection.rest().is_empty(), "{body:?} {apart}");
        }
    }
    assert_eq!(target.count(), 0, "a target had a complete request");
    assert_eq!(gateway.get("/").status, 200);
    let lines = gateway.access_log(bodies.len() * 2 + 1);
    let rejected = lines.iter().filter(|l| l["reason"] == "bad_request" && l["status"] == 400).count();
    assert_eq!(rejected, bodies.len() * 2);
    assert!(gateway.ended("bad_request") >= (bodies.len() * 2) as f64);
}

#[test]
fn chunks_of_every_lawful_form_pass_and_the_connection_goes_on() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let whole = [
        format!("{CHUNKED}5;a=b;c=\"d;\\\"\";e\r\nhello\r\n1\r\n!\r\n0;last\r\nTrailer: x\r\n\r\n"),
        "GET /second HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "POST /third HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        format!("{CHUNKED}000\r\n\r\n"),
        "GET /last?q=\"<`>\" HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ]
    .concat();
    let expected =
        [("/up", "hello!"), ("/second", ""), ("/third", "abc"), ("/up", ""), ("/last?q=%22%3C%60%3E%22", "")];
    // All at once, in two parts at every place, and octet by octet.
    let mut cuts: Vec<usize> = (0..whole.len()).step_by(7).collect();
    cuts.push(0);
    for cut in cuts {
        let mut connection = Connection::open(gateway.address());
        let (first, second) = whole.split_at(cut);
        connection.send(first);
        if cut > 0 {
            std::thread::sleep(Duration::from_millis(3));
        }
        connection.send(second);
        for (path, body) in expected {
            let got = connection.receive();
            assert_eq!(
                (got.status, got.json()["target"].as_str(), got.json()["body"].as_str()),
                (200, Some(path), Some(body)),
                "cut at {cut}"
            );
        }
    }
    let mut connection = Connection::open(gateway.address());
    for byte in whole.bytes() {
        connection.send([byte]);
    }
    for (path, body) in expected {
        let got = connection.receive();
        assert_eq!((got.json()["target"].as_str(), got.json()["body"].as_str()), (Some(path), Some(body)));
    }
    // Many more than are read in one go.
    let count = 2000;
    let mut connection = Connection::open(gateway.address());
    let mut writer = connection.stream.try_clone().expect("a handle");
    let sending = std::thread::spawn(move || {
        for index in 0..count {
            let body = format!("{:x};n={index}\r\n{}\r\n0\r\n\r\n", 10 + index % 300, "x".repeat(10 + index % 300));
            writer
                .write_all(format!("{}{body}", CHUNKED.replace("/up", &format!("/{index}"))).as_bytes())
                .expect("sent");
        }
    });
    for index in 0..count {
        let got = connection.receive().json();
        assert_eq!(
            (got["target"].as_str(), got["length"].as_u64()),
            (Some(format!("/{index}").as_str()), Some(10 + index as u64 % 300))
        );
    }
    sending.join().expect("sent");
}

#[test]
fn odd_characters_in_a_target_are_encoded_or_rejected() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let seen = |request: &str| {
        let got = Connection::open(gateway.address()).ask(format!("GET {request} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(got.status, 200, "{request}");
        got.json()["target"].as_str().expect("a target").to_owned()
    };
    assert_eq!(seen("/s?q=\"a\"<b>^`{c}|d"), "/s?q=%22a%22%3Cb%3E^%60{c}|d");
    assert_eq!(seen("/\"<>^`{|}"), "/%22%3C%3E%5E%60%7B%7C%7D");
    assert_eq!(seen("/%22%3c%5e"), "/%22%3C%5E");
    let rejected = |bytes: &[u8], status, reason: &str| {
        let got = Connection::open(gateway.address()).ask(bytes);
        assert_eq!((got.status, got.reason().as_str()), (status, reason), "{}", String::from_utf8_lossy(bytes));
    };
    let before = target.count();
    rejected(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request");
    rejected(b"GET /?a b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request");
    rejected(b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request");
    rejected(b"GET /?\xe9 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request");
    rejected(b"GET /?a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request");
    rejected(b"rubbish\r\n\r\n", 400, "bad_request");
    rejected(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 400, "bad_request");
    rejected(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, "bad_request");
    rejected(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(17_000)).as_bytes(), 414, "uri_too_long");
    rejected(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(70_000)).as_bytes(), 414, "uri_too_long");
    assert_eq!(target.count(), before);
    // Each of them is in the log, whoever rejected it.
    let lines = gateway.access_log(13);
    let count = |reason: &str| lines.iter().filter(|l| l["reason"] == reason).count();
    assert_eq!((count("bad_request"), count("uri_too_long"), count("forwarded")), (8, 2, 3));
    assert_eq!(gateway.ended("bad_request"), 8.0);
}

#[test]
fn minor_versions_hosts_and_the_asterisk() {
    let target = Target::echo("a");
    let routes = "upstreams: {echo: {targets: [\"ADDRESS\"]}}
routes:
  - {name: away, match: {path: /away}, action: {redirect: {to: \"https://{host}/x\"}}}
  - {name: all, match: {path: /*}, action: {forward: echo}}
";
    let gateway = Gateway::start(&routes.replace("ADDRESS", &target.address.to_string()));
    let ask = |bytes: &str| Connection::open(gateway.address()).ask(bytes);
    assert_eq!(ask("GET /x HTTP/1.2\r\nHost: a\r\n\r\n").status, 200);
    assert_eq!(ask("GET /x HTTP/1.9\r\nHost: a\r\n\r\n").status, 200);
    let mut connection = Connection::open(gateway.address());
    let got = connection.ask("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((got.status, got.body.len()), (200, 0));
    assert_eq!(connection.ask(head("GET", "/next", &[])).status, 200, "the connection goes on");
    for host in ["", "a..", "[a]", "a:80:80", "..", "a b", "[::1"] {
        let got = ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((got.status, got.reason().as_str()), (400, "bad_request"), "{host:?}");
    }
    for host in ["a.", "A.b:8080", "[::1]:80", "127.0.0.1"] {
        assert_eq!(ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status, 200, "{host:?}");
    }
    let got = ask("GET /away HTTP/1.0\r\n\r\n");
    assert_eq!((got.status, got.header("location")), (400, None));
    let got = ask("GET /away HTTP/1.0\r\nHost: b\r\n\r\n");
    assert_eq!((got.status, got.header("location")), (308, Some("https://b/x")));
    let empty = ask("POST /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(empty.json()["headers"]["content-length"], "0");
    let get = ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(get.json()["headers"]["content-length"].is_null());
}

#[test]
fn what_a_response_says_of_its_own_connection_stays_there() {
    let target = Target::fixed(
        200,
        &[
            ("Connection", "keep-alive, X-Hop"),
            ("Keep-Alive", "timeout=5"),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Upgrade", "h2c"),
            ("X-Hop", "1"),
            ("X-End", "2"),
            ("Proxy-Authenticate", "Basic"),
        ],
        b"hello",
    );
    let hedged = format!(
        "upstreams: {{echo: {{targets: [\"{}\"], retry: {{hedge_after: 5s}}}}}}\nroutes: [{{name: all, action: {{forward: echo}}}}]",
        target.address
    );
    for gateway in [echoing(&target, ""), Gateway::start(&hedged)] {
        let mut connection = Connection::open(gateway.address());
        for _ in 0..2 {
            let got = connection.ask(head("GET", "/", &[]));
            assert_eq!(got.text(), "hello");
            for gone in ["keep-alive", "proxy-connection", "te", "upgrade", "x-hop"] {
                assert_eq!(got.header(gone), None, "{gone}");
            }
            assert_eq!((got.header("x-end"), got.header("proxy-authenticate")), (Some("2"), Some("Basic")));
        }
    }
}

#[test]
fn a_websocket_handshake_with_a_length_of_0_is_one() {
    let target = reflecting();
    let gateway = echoing(&target, "");
    let mut connection = Connection::open(gateway.address());
    let headers: Vec<_> = UPGRADE.iter().copied().chain([("content-length", "0")]).collect();
    // Its first frame is sent with it.
    connection.send(head("GET", "/", &headers) + "frame");
    let got = connection.receive();
    assert_eq!(
        (got.status, got.header("upgrade"), got.header("connection")),
        (101, Some("websocket"), Some("Upgrade"))
    );
    let mut seen = Vec::new();
    while seen.len() < 10 {
        seen.extend(connection.some().expect("bytes"));
    }
    assert_eq!(seen, b"helloframe");
    let large = vec![b'x'; 1 << 20];
    let mut writer = connection.stream.try_clone().expect("a handle");
    let sent = large.clone();
    let sending = std::thread::spawn(move || writer.write_all(&sent).expect("sent"));
    let mut seen = Vec::new();
    while seen.len() < large.len() {
        seen.extend(connection.some().expect("bytes"));
    }
    assert!(seen == large);
    sending.join().expect("sent");
    // With a body it is none, and goes on without the upgrade.
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let with_body: Vec<_> = UPGRADE.iter().copied().chain([("content-length", "3")]).collect();
    assert_ne!(Connection::open(gateway.address()).ask(head("GET", "/", &with_body) + "abc").status, 101);
}

const GUARDED: &str = "
consumers: {a: {credentials: [{api_key: {value: secret-of-a-0123456789}}]}}
upstreams: {echo: {targets: [\"ADDRESS\"]}}
routes:
  - {name: keyed, match: {path: /keyed}, filters: [{api_key: {header: x-key}}], action: {forward: echo}}
  - {name: small, match: {path: /small}, body: 1KiB, action: {forward: echo}}
";

#[test]
fn a_rejection_is_written_before_the_body_has_come() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&GUARDED.replace("ADDRESS", &target.address.to_string()));
    // A short body that has not come yet: the response does not wait for it, and the connection is kept.
    let mut connection = Connection::open(gateway.address());
    let begun = Instant::now();
    let got = connection.ask(head("POST", "/keyed", &[("content-length", "5")]));
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!((got.status, got.header("connection")), (401, Some("keep-alive")));
    connection.send("hello");
    assert_eq!(connection.ask(head("GET", "/keyed", &[("x-key", "secret-of-a-0123456789")])).status, 200);
    // One that never comes costs the connection in the end.
    let mut connection = Connection::open(gateway.address());
    assert_eq!(connection.ask(head("POST", "/keyed", &[("content-length", "5")])).status, 401);
    assert!(connection.is_closed());
    // One that waits for its 100 is told to close.
    let mut connection = Connection::open(gateway.address());
    let got = connection.ask(head("POST", "/keyed", &[("content-length", "5"), ("expect", "100-continue")]));
    assert_eq!((got.status, got.header("connection")), (401, Some("close")));
    assert_eq!(target.count(), 1);
}

#[test]
fn a_client_that_is_still_sending_can_read_its_rejection() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&GUARDED.replace("ADDRESS", &target.address.to_string()));
    let size = 10 << 20;
    let chunked = |size: usize| format!("{size:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(size));
    for (path, headers, body, status) in [
        ("/keyed", vec![("content-length", size.to_string())], "x".repeat(size), 401),
        ("/small", vec![("content-length", size.to_string())], "x".repeat(size), 413),
        ("/small", vec![("transfer-encoding", "chunked".to_owned())], chunked(size), 413),
        ("/keyed", vec![("transfer-encoding", "chunked".to_owned())], chunked(size), 401),
        ("/small", vec![("transfer-encoding", "chunked".to_owned())], format!("5;\n{}", chunked(size)), 400),
    ] {
        let mut connection = Connection::open(gateway.address());
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        connection.send(head("POST", path, &headers));
        // All of it is sent before anything is read, as many clients do.
        connection.stream.write_all(body.as_bytes()).unwrap_or_else(|error| panic!("{path} {status}: {error}"));
        let got = connection.receive();
        assert_eq!(got.status, status, "{path}");
        assert_eq!(got.header("connection"), Some("close"));
        assert!(connection.rest().is_empty());
    }
    // A client that goes on for ever is left.
    let mut connection = Connection::open(gateway.address());
    connection.send(head("POST", "/keyed", &[("transfer-encoding", "chunked")]));
    let begun = Instant::now();
    while connection.stream.write_all(b"1\r\nx\r\n").is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(gateway.get("/keyed").status, 401);
}

#[test]
fn a_probe_that_posts_says_that_it_has_no_body() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = Target::on(listener, |stream, seen| {
        let length =
            seen.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length")).map(|(_, v)| v.as_str());
        answer(stream, if length == Some("0") { 200 } else { 411 }, &[], b"")
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"], health: {{active: {{path: /p, method: POST, interval: 100ms}}}}}}}}\nroutes: [{{name: all, action: {{forward: echo}}}}]",
        target.address
    ));
    super::harness::eventually("a probe", || target.count() > 1);
    assert_eq!(gateway.request("POST", "/", &[]).status, 200);
}

#[test]
fn headers_that_say_what_was_asked_for_come_from_trusted_proxies_alone() {
    let target = Target::echo("a");
    let headers = [
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-forwarded-port", "1"),
        ("x-original-uri", "/kept"),
    ];
    for trusted in [false, true] {
        let listener = format!(
            "listeners: [{{name: main, address: 127.0.0.1:0{}}}]",
            if trusted { ", trusted_proxies: [127.0.0.0/8]" } else { "" }
        );
        let gateway = echoing(&target, &listener);
        let seen = gateway.request("GET", "/", &headers).json();
        // Of the port the gateway says itself what is right.
        let port = gateway.address().port().to_string();
        for (name, value) in headers {
            let expected = match name {
                _ if trusted => serde_json::json!(value),
                "x-original-uri" => serde_json::json!(value),
                "x-forwarded-port" => serde_json::json!(port),
                _ => serde_json::Value::Null,
            };
            assert_eq!(seen["headers"][name], expected, "{name}");
        }
    }
}

#[test]
fn an_answer_that_is_not_json_is_rejected_where_that_is_asked_for() {
    let json = Target::named("user", "a");
    let text = Target::named("text", "b");
    let empty = Target::fixed(200, &[("content-type", "text/plain")], b"");
    let gateway = Gateway::start(&format!(
        "upstreams: {{json: {{targets: [\"{}\"]}}, text: {{targets: [\"{}\"]}}, empty: {{targets: [\"{}\"]}}}}
routes:
  - {{name: json, match: {{path: /json}}, filters: [{{strip_fields: {{response: [ssn], other: reject}}}}], action: {{forward: json}}}}
  - {{name: text, match: {{path: /text}}, filters: [{{strip_fields: {{response: [ssn], other: reject}}}}], action: {{forward: text}}}}
  - {{name: empty, match: {{path: /empty}}, filters: [{{strip_fields: {{response: [ssn], other: reject}}}}], action: {{forward: empty}}}}
  - {{name: kept, match: {{path: /kept}}, filters: [{{strip_fields: {{response: [ssn]}}}}], action: {{forward: text}}}}",
        json.address, text.address, empty.address
    ));
    let got = gateway.get("/json");
    assert!(got.status == 200 && got.json()["name"] == "Ada" && got.json()["ssn"].is_null());
    let got = gateway.get("/text");
    assert_eq!((got.status, got.reason().as_str()), (502, "response_opaque"));
    assert!(!got.text().contains("ssn"));
    assert_eq!(gateway.get("/empty").status, 200);
    assert!(gateway.get("/kept").text().contains("ssn"));
}

#[test]
fn a_route_around_one_that_authenticates_is_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |paths: &str| {
        let yaml = format!(
            "listeners: [{{name: main, address: 127.0.0.1:0}}]
consumers: {{a: {{credentials: [{{api_key: {{value: secret-of-a}}}}]}}}}
upstreams: {{one: {{targets: [\"127.0.0.1:1\"]}}, two: {{targets: [\"127.0.0.1:2\"]}}}}
{paths}
routes:
  - {{name: keyed, match: {{path: /keyed/*}}, filters: [{{api_key: {{}}}}], action: {{forward: one}}}}
  - {{name: other, match: {{path: /x/*}}, action: {{forward: one}}}}
  - {{name: elsewhere, match: {{host: b, path: /*}}, action: {{forward: one}}}}
  - {{name: open, match: {{path: /*}}, action: {{forward: one}}}}
  - {{name: harmless, match: {{path: /*, methods: [PUT]}}, action: {{forward: two}}}}
"
        );
        let file = folder.path().join("portcullis.yaml");
        std::fs::write(&file, yaml).expect("written");
        let (code, out, err) = super::harness::gateway::run(&["check", "-c", "portcullis.yaml"], Some(folder.path()));
        assert_eq!(code, 0, "{out}{err}");
        out + &err
    };
    let said = check("");
    let warnings: Vec<&str> = said.lines().filter(|l| l.contains("may read as")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("routes[3]") && warnings[0].contains("\"keyed\""), "{said}");
    assert!(!check("paths: {encoded_slash: reject, parameters: reject}").contains("may read as"));
}

#[test]
fn an_http2_target_never_has_the_end_of_a_malformed_body() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    let (ended, ends) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let ended = ended.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let ended = ended.clone();
                        tokio::spawn(async move {
                            let (mut body, mut whole) = (request.into_body(), true);
                            while let (true, Some(part)) = (whole, body.data().await) {
                                whole = part.is_ok();
                            }
                            let _ = ended.send(whole);
                            let _ = respond.send_response(http::Response::new(()), true);
                        });
                    }
                });
            }
        });
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{two: {{targets: [\"{address}\"], protocol: http2}}}}\nroutes: [{{name: all, action: {{forward: two}}}}]"
    ));
    let mut connection = Connection::open(gateway.address());
    connection.send(format!("{CHUNKED}5\r\nhello\r\n"));
    std::thread::sleep(Duration::from_millis(50));
    connection.send("5;\nhello\r\n0\r\n\r\n");
    assert_eq!(connection.receive().status, 400);
    assert_eq!(ends.recv_timeout(Duration::from_secs(10)), Ok(false), "the target has a whole request");
    let mut connection = Connection::open(gateway.address());
    assert_eq!(connection.ask(format!("{CHUNKED}5\r\nhello\r\n0\r\n\r\n")).status, 200);
    assert_eq!(ends.recv_timeout(Duration::from_secs(10)), Ok(true));
}
