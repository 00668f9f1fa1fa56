//! WebSockets whose other side speaks HTTP or events, and limits of their messages.

use std::io::{Read, Write};
use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;

use super::harness::client::{Answer, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{Gateway, complete, run};
use super::harness::target::{Target, answer};
use super::websocket::UPGRADE;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Returns a frame of a client, which is masked with zeros, or of a server.
fn frame(opcode: u8, payload: &[u8], is_client: bool) -> Vec<u8> {
    let mask = if is_client { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(mask | short as u8),
        long => {
            frame.push(mask | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(if is_client { &[0; 4] } else { &[] });
    frame.extend_from_slice(payload);
    frame
}

fn read_frame(stream: &mut impl Read) -> std::io::Result<(u8, Vec<u8>)> {
    let mut two = [0; 2];
    stream.read_exact(&mut two)?;
    let mut length = usize::from(two[1] & 0x7f);
    if length == 126 {
        let mut long = [0; 2];
        stream.read_exact(&mut long)?;
        length = usize::from(u16::from_be_bytes(long));
    }
    let mut mask = [0; 4];
    if two[1] & 0x80 != 0 {
        stream.read_exact(&mut mask)?;
    }
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload)?;
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((two[0] & 0x0f, payload))
}

/// A WebSocket of a client.
struct Socket(Connection, Vec<u8>);

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_empty() {
            // What came with the head is in the connection.
            self.1 = self.0.some()?;
        }
        let count = self.1.len().min(into.len());
        into[..count].copy_from_slice(&self.1[..count]);
        self.1.drain(..count);
        Ok(count)
    }
}

impl Socket {
    fn open(address: SocketAddr, path: &str) -> Self {
        let mut connection = Connection::open(address);
        connection.send(head("GET", path, UPGRADE));
        let answer = connection.try_receive(false).expect("a response");
        assert_eq!(answer.status, 101, "{}", answer.text());
        assert_eq!(answer.header("sec-websocket-accept"), Some("HSmrc0sMlYUkAGmm5OPpG2HaGWk="));
        Self(connection, Vec::new())
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) {
        self.0.send(frame(opcode, payload, true));
    }

    fn frame(&mut self) -> (u8, Vec<u8>) {
        read_frame(self).expect("a frame")
    }

    fn text(&mut self) -> String {
        let (opcode, payload) = self.frame();
        assert_eq!(opcode, TEXT);
        String::from_utf8(payload).expect("a text")
    }

    fn ends_with(&mut self, code: u16) {
        assert_eq!(self.frame(), (CLOSE, code.to_be_bytes().to_vec()));
    }
}

fn gateway(target: SocketAddr, forward: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{target}\"]}}}}
routes:
  - name: all
    filters: [{{headers: {{request: {{set: {{x-filter: here}}}}, response: {{set: {{x-edge: here}}}}}}}}]
    action: {{forward: {{upstream: one, {forward}}}}}"
    ))
}

#[test]
fn messages_become_requests() {
    let target = Target::new(|stream, seen| {
        let text = String::from_utf8_lossy(&seen.body).into_owned();
        match text.as_str() {
            "bytes" => answer(stream, 200, &[("content-type", "application/octet-stream")], b"\xff\x00"),
            "nothing" => answer(stream, 204, &[], b""),
            "fail" => answer(stream, 500, &[("content-type", "text/plain")], b"failed"),
            "cut" => Err(std::io::ErrorKind::ConnectionReset.into()),
            _ => {
                let header = |name: &str| {
                    let found = seen.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
                    found.map_or("-", |(_, value)| value.as_str()).to_owned()
                };
                let line = format!(
                    "{} {} {text} {} {} {}",
                    seen.method,
                    seen.target,
                    header("content-type"),
                    header("x-filter"),
                    header("sec-websocket-key")
                );
                answer(stream, 200, &[("content-type", "application/json")], line.as_bytes())
            }
        }
    });
    let gateway = gateway(target.address, "strip_prefix: /api, translate: [{websocket_to_http: {max_message: 2KiB}}]");
    let mut socket = Socket::open(gateway.address(), "/api/things?x=1");
    for number in 0..20 {
        socket.send(TEXT, format!("m{number}").as_bytes());
        assert_eq!(socket.text(), format!("POST /things?x=1 m{number} application/json here -"));
    }
    socket.send(BINARY, b"b");
    assert_eq!(socket.text(), "POST /things?x=1 b application/octet-stream here -");
    socket.send(TEXT, b"bytes");
    assert_eq!(socket.frame(), (BINARY, b"\xff\x00".to_vec()));
    socket.send(TEXT, b"nothing");
    assert_eq!(socket.text(), "");
    socket.send(PING, b"p");
    assert_eq!(socket.frame(), (PONG, b"p".to_vec()));
    socket.send(TEXT, b"fail");
    assert_eq!(socket.text(), "failed");
    socket.send(TEXT, b"cut");
    let problem: serde_json::Value = serde_json::from_str(&socket.text()).expect("JSON");
    assert_eq!(problem["reason"], "target_reset");
    socket.send(CLOSE, &1000_u16.to_be_bytes());
    socket.ends_with(1000);
    let line = &gateway.access_log(1)[0];
    assert_eq!((&line["status"], &line["translated"]), (&101.into(), &"websocket to http".into()), "{line}");
    // A request that is no handshake is forwarded as it is.
    let plain = gateway.request("POST", "/api/x", &[("content-length", "0")]);
    assert_eq!((plain.status, plain.text().starts_with("POST /x ")), (200, true));
}

#[test]
fn messages_before_the_end_become_requests_and_there_is_one_close_frame() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = std::sync::Arc::clone(&seen);
    let target = Target::new(move |stream, request| {
        noted.lock().expect("the lock").push(String::from_utf8_lossy(&request.body).into_owned());
        answer(stream, 204, &[], b"")
    });
    let gateway = gateway(target.address, "translate: [{websocket_to_http: {}}]");
    let mut socket = Socket::open(gateway.address(), "/");
    socket.send(TEXT, b"first");
    assert_eq!(socket.frame(), (TEXT, Vec::new()), "an empty response is an empty message");
    let mut all = Vec::new();
    for number in 0..5 {
        all.extend(frame(TEXT, format!("m{number}").as_bytes(), true));
    }
    all.extend(frame(CLOSE, &1000_u16.to_be_bytes(), true));
    socket.0.send(all);
    eventually("all are sent", || seen.lock().expect("the lock").len() == 6);
    assert_eq!(*seen.lock().expect("the lock"), ["first", "m0", "m1", "m2", "m3", "m4"]);
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    assert_eq!(rest, frame(CLOSE, &1000_u16.to_be_bytes(), false));
}

#[test]
fn a_socket_that_exceeds_a_limit_is_closed_with_its_code() {
    let (held, release) = std::sync::mpsc::channel::<()>();
    let release = std::sync::Mutex::new(release);
    let target = Target::new(move |stream, _| {
        let _ = release.lock().expect("the lock").recv();
        answer(stream, 200, &[], b"done")
    });
    let gateway = gateway(target.address, "translate: [{websocket_to_http: {max_message: 10B, queue: 2}}]");
    let mut socket = Socket::open(gateway.address(), "/");
    socket.send(TEXT, b"12345678901");
    socket.ends_with(1009);
    let mut socket = Socket::open(gateway.address(), "/");
    socket.0.send([0x81, 0x81, 0, 0, 0, 0, 0xff]);
    socket.ends_with(1007);
    let mut socket = Socket::open(gateway.address(), "/");
    socket.0.send(frame(TEXT, b"not masked", false));
    socket.ends_with(1002);
    // The first is with the target, two wait, one is too many.
    let mut socket = Socket::open(gateway.address(), "/");
    socket.send(TEXT, b"0");
    eventually("the first is with the target", || target.count() == 1);
    (1..4).for_each(|number: u8| socket.send(TEXT, &[b'0' + number]));
    socket.ends_with(1013);
    drop(held);
    for (headers, status) in [(&UPGRADE[..3], 400), (&[UPGRADE[0], UPGRADE[1], UPGRADE[3]][..], 426)] {
        assert_eq!(gateway.request("GET", "/", headers).status, status);
    }
}

#[test]
fn what_could_never_work_is_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c.yaml");
    for (translation, wanted) in [
        ("websocket_to_http: {queue: 0}", "queue: expected 1 or more"),
        ("websocket_to_http: {timeout: 0s}", "timeout: expected a time longer than nothing"),
        ("websocket_to_http: {max_message: 0B}", "max_message: expected a size"),
        ("http_to_websocket: {timeout: 0s}", "timeout: expected a time"),
        ("sse_to_websocket: {heartbeat: 0s}", "heartbeat: expected a time"),
        ("websocket_to_sse: {idle_time: 0s}", "idle_time: expected a time"),
    ] {
        let yaml = format!(
            "upstreams: {{one: {{targets: [\"127.0.0.1:1\"]}}}}
routes: [{{name: all, action: {{forward: {{upstream: one, translate: [{{{translation}}}]}}}}}}]"
        );
        std::fs::write(&path, complete(&yaml)).expect("written");
        let (code, _, error) = run(&["check", "-c", path.to_str().expect("a path")], None);
        assert!(code == 2 && error.contains(wanted), "{translation}: {error}");
    }
}

/// A target that speaks WebSocket: it reverses texts, and repeats them as often as the path says.
fn socket_target() -> Target {
    Target::new(|stream, seen| {
        let header = |name: &str| {
            let found = seen.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map_or("", |(_, value)| value.as_str())
        };
        if seen.target.starts_with("/declined") {
            return answer(stream, 403, &[("x-own", "yes")], b"not you");
        }
        assert_eq!((header("upgrade"), header("sec-websocket-version")), ("websocket", "13"));
        let accept = match seen.target.as_str() {
            "/wrong" => "wrong".to_owned(),
            _ => portcullis_accept(header("sec-websocket-key")),
        };
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: \
             {accept}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        loop {
            let (opcode, payload) = read_frame(stream)?;
            match opcode {
                CLOSE => {
                    stream.write_all(&frame(CLOSE, &payload, false))?;
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                PONG => continue,
                _ => {}
            }
            if payload == b"silence" {
                continue;
            }
            let turned: Vec<u8> = payload.iter().rev().copied().collect();
            let count: usize = seen.target.trim_start_matches('/').parse().unwrap_or(1);
            stream.write_all(&frame(PING, b"there?", false))?;
            for _ in 0..count {
                stream.write_all(&frame(opcode, &turned, false))?;
            }
            if count > 1 {
                stream.write_all(&frame(CLOSE, &1000_u16.to_be_bytes(), false))?;
            }
        }
    })
}

/// Returns the accepted key by a second implementation.
fn portcullis_accept(key: &str) -> String {
    use base64::Engine as _;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

fn post(gateway: &Gateway, path: &str, body: &str) -> Answer {
    let mut connection = Connection::open(gateway.address());
    connection.ask(format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
}

#[test]
fn a_request_becomes_a_message() {
    let target = socket_target();
    let gateway = gateway(target.address, "translate: [{http_to_websocket: {timeout: 300ms, max_message: 1KiB}}]");
    let replied = post(&gateway, "/x", "olleh");
    assert_eq!((replied.status, replied.text().as_str()), (200, "hello"));
    assert_eq!(replied.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(replied.header("x-edge"), Some("here"));
    assert_eq!(post(&gateway, "/x", "]2,1[").header("content-type"), Some("application/json"));
    let late = post(&gateway, "/x", "silence");
    assert_eq!((late.status, late.reason().as_str()), (504, "route_timeout"));
    let wrong = post(&gateway, "/wrong", "x");
    assert_eq!((wrong.status, wrong.reason().as_str()), (502, "target_protocol"));
    let declined = post(&gateway, "/declined", "x");
    assert_eq!((declined.status, declined.header("x-own"), declined.text().as_str()), (403, Some("yes"), "not you"));
    assert_eq!(post(&gateway, "/x", &"x".repeat(1025)).status, 413);
    let log = gateway.access_log(6);
    assert!(log.iter().all(|line| line["translated"] == "http to websocket"), "{log:?}");
    eventually("no place is held", || {
        gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"one\"}") == 0.0
    });
}

#[test]
fn messages_become_events() {
    let target = socket_target();
    let yaml = "translate: [{sse_to_websocket: {first: cba, heartbeat: 100ms}}]";
    let gateway = gateway(target.address, yaml);
    let events = gateway.request("GET", "/3", &[("accept", "text/event-stream")]);
    assert_eq!((events.status, events.header("content-type")), (200, Some("text/event-stream")));
    assert_eq!(events.text().replace(": \n\n", ""), "data: abc\n\n".repeat(3));
    // A client that leaves ends the WebSocket.
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/x", &[("accept", "text/event-stream")]));
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(": \n\n") {
        seen.extend(connection.some().expect("a part"));
    }
    drop(connection);
    eventually("no place is held", || {
        gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"one\"}") == 0.0
    });
}

#[test]
fn events_become_messages() {
    let target = Target::new(|stream, seen| match seen.target.as_str() {
        "/none" => answer(stream, 404, &[], b"no such stream"),
        "/json" => answer(stream, 200, &[("content-type", "application/json")], b"{}"),
        _ => {
            let body = b": hello\n\ndata: one\nid: 7\nevent: add\n\ndata: two\ndata: lines\n\n";
            answer(stream, 200, &[("content-type", "text/event-stream")], body)
        }
    });
    let plain = gateway(target.address, "translate: [{websocket_to_sse: {}}]");
    let mut socket = Socket::open(plain.address(), "/");
    assert_eq!((socket.text().as_str(), socket.text().as_str()), ("one", "two\nlines"));
    socket.ends_with(1000);
    assert_eq!(plain.request("GET", "/none", UPGRADE).text(), "no such stream");
    let wrong = plain.request("GET", "/json", UPGRADE);
    assert_eq!((wrong.status, wrong.reason().as_str()), (502, "response_untranslatable"));
    let wrapped = gateway(target.address, "translate: [{websocket_to_sse: {envelope: true}}]");
    let mut socket = Socket::open(wrapped.address(), "/");
    assert_eq!(socket.text(), r#"{"event":"add","id":"7","data":"one"}"#);
    assert_eq!(socket.text(), r#"{"event":"message","id":null,"data":"two\nlines"}"#);
}

#[test]
fn messages_of_a_forwarded_websocket_have_limits() {
    let target = socket_target();
    let gateway = gateway(target.address, "websocket: {max_message: 10B, messages: 5/h, idle_time: 10m}");
    let mut socket = Socket::open(gateway.address(), "/");
    for _ in 0..4 {
        socket.send(TEXT, b"1234567890");
        assert_eq!(socket.frame(), (PING, b"there?".to_vec()));
        assert_eq!(socket.text(), "0987654321");
    }
    socket.send(TEXT, b"1234567890a");
    socket.ends_with(1009);
    let mut socket = Socket::open(gateway.address(), "/");
    for _ in 0..5 {
        socket.send(TEXT, b"1");
        assert_eq!(socket.frame().0, PING);
        assert_eq!(socket.text(), "1");
    }
    socket.send(TEXT, b"1");
    socket.ends_with(1008);
}

#[test]
fn a_websocket_over_http2_reaches_its_target() {
    let target = socket_target();
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]
routes:
  - name: all
    filters: [{{headers: {{response: {{set: {{x-edge: here}}}}}}}}]
    action: {{forward: {{upstream: one, websocket: {{max_message: 10KiB}}}}}}",
        target.address
    ));
    block(async {
        let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
        let (mut h2, connection) = h2::client::handshake(stream).await.expect("a handshake");
        tokio::spawn(connection);
        eventually_enabled(&mut h2).await;
        let mut request = Request::builder()
            .method("CONNECT")
            .uri(format!("http://{}/x", gateway.address()))
            .header("sec-websocket-version", "13")
            .body(())
            .expect("a request");
        request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        let (response, mut send) = h2.send_request(request, false).expect("sent");
        let response = response.await.expect("a response");
        assert_eq!((response.status().as_u16(), response.headers().get("x-edge").is_some()), (200, true));
        assert!(!response.headers().contains_key("sec-websocket-accept"));
        let mut body = response.into_body();
        let large = vec![b'x'; 9000];
        send.send_data(Bytes::from(frame(TEXT, &large, true)), false).expect("sent");
        let wanted = [frame(PING, b"there?", false), frame(TEXT, &large, false)].concat();
        let mut seen = Vec::new();
        while seen.len() < wanted.len() {
            let part = body.data().await.expect("a part").expect("a part");
            let _ = body.flow_control().release_capacity(part.len());
            seen.extend_from_slice(&part);
        }
        assert_eq!(seen, wanted);
        send.send_data(Bytes::from(frame(CLOSE, &1000_u16.to_be_bytes(), true)), false).expect("sent");
        let end = body.data().await.expect("a part").expect("a part");
        assert_eq!(end, frame(CLOSE, &1000_u16.to_be_bytes(), false));
        send.send_data(Bytes::new(), true).expect("sent");
        while let Some(part) = body.data().await {
            assert_eq!(part.expect("the end"), "", "the target closes");
        }
    });
    let line = &gateway.access_log(1)[0];
    assert_eq!((&line["status"], &line["protocol"]), (&101.into(), &"HTTP/2".into()), "{line}");
}

#[test]
fn what_is_no_websocket_over_http2_does_not_look_open() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]
routes:
  - {{name: own, match: {{path: /own}}, action: {{respond: {{body: ok}}}}}}
  - {{name: forbidden, match: {{path: /forbidden}}, action: {{respond: {{status: 403}}}}}}
  - {{name: all, action: {{forward: one}}}}",
        target.address
    ));
    block(async {
        for (path, status) in [("/own", 501), ("/x", 501), ("/forbidden", 403)] {
            let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
            let (mut h2, connection): (h2::client::SendRequest<Bytes>, _) =
                h2::client::handshake(stream).await.expect("a handshake");
            tokio::spawn(connection);
            eventually_enabled(&mut h2).await;
            let mut request =
                Request::builder().method("CONNECT").uri(format!("http://{}{path}", gateway.address())).body(());
            let extensions = request.as_mut().expect("a request").extensions_mut();
            extensions.insert(h2::ext::Protocol::from_static("websocket"));
            let (response, _send) = h2.send_request(request.expect("a request"), false).expect("sent");
            assert_eq!(response.await.expect("a response").status().as_u16(), status, "{path}");
        }
    });
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

/// Waits until the settings of the server have arrived.
async fn eventually_enabled(h2: &mut h2::client::SendRequest<Bytes>) {
    while !h2.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
}
