//! WebSockets: the handshake, the bytes, and that none is lost.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::Target;

pub const UPGRADE: &[(&str, &str)] = &[
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
];

/// Answers the handshake at once, and then sends back whatever comes.
pub fn reflecting() -> Target {
    Target::new(|stream, seen| {
        assert!(seen.headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("upgrade") && v == "websocket"));
        // The first frame rides with the handshake, as a busy server's does.
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello",
        )?;
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => stream.write_all(&buffer[..count])?,
            }
        }
    })
}

fn gateway(target: &Target) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{headers: {{response: {{set: {{x-edge: here}}}}}}}}], action: {{forward: one}}}}]",
        target.address
    ))
}

fn one(address: std::net::SocketAddr) -> std::io::Result<()> {
    let mut connection = Connection::try_open(address)?;
    connection.stream.write_all(head("GET", "/", UPGRADE).as_bytes())?;
    let answer = connection.try_receive(false)?;
    if answer.status != 101 || answer.header("x-edge") != Some("here") {
        return Err(std::io::Error::other(format!("{}", answer.status)));
    }
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.extend(connection.some()?);
    }
    connection.stream.write_all(b"frame")?;
    while seen.len() < 10 {
        seen.extend(connection.some()?);
    }
    if seen == b"helloframe" { Ok(()) } else { Err(std::io::Error::other("other bytes")) }
}

/// How many of `count` handshakes, by so many clients at a time, were lost.
fn lost(address: std::net::SocketAddr, count: usize, clients: usize) -> usize {
    let (next, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::Relaxed) < count {
                    if one(address).is_err() {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    lost.into_inner()
}

#[test]
fn no_upgrade_of_twelve_thousand_is_lost() {
    let target = reflecting();
    let gateway = gateway(&target);
    for clients in [1, 16, 128] {
        assert_eq!(lost(gateway.address(), 4_000, clients), 0, "with {clients} clients");
    }
}

#[test]
fn a_tunnel_half_closes_and_is_logged() {
    let target = Target::new(|stream, _| {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(format!("{} bytes", all.len()).as_bytes())?;
        Err(std::io::ErrorKind::UnexpectedEof.into())
    });
    let gateway = gateway(&target);
    let mut connection = Connection::open(gateway.address());
    assert_eq!(connection.ask(head("GET", "/", UPGRADE)).status, 101);
    connection.send(vec![7; 100_000]);
    connection.stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    assert_eq!(connection.rest(), b"100000 bytes");
    let line = &gateway.access_log(1)[0];
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(101), Some("upgraded")));
    assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(100_000), Some(12)));
}

#[test]
fn what_is_no_handshake_is_no_tunnel() {
    let target = Target::echo("a");
    let gateway = gateway(&target);
    let odd = [&[("content-length", "5")], UPGRADE].concat();
    let mut connection = Connection::open(gateway.address());
    connection.send(head("POST", "/", &odd) + "hello");
    let answer = connection.receive();
    assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some("hello")));
    assert!(answer.json()["headers"]["upgrade"].is_null());
}

#[test]
fn a_declined_upgrade_is_an_answer() {
    let target = Target::fixed(403, &[("x-why", "not today")], b"no");
    let gateway = gateway(&target);
    let answer = gateway.request("GET", "/", UPGRADE);
    assert_eq!((answer.status, answer.text().as_str(), answer.header("x-why")), (403, "no", Some("not today")));
    let none = Gateway::start(
        "routes: [{name: all, action: {forward: none}}]\nupstreams: {none: {targets: [\"127.0.0.1:1\"]}}",
    );
    assert_eq!(none.request("GET", "/", UPGRADE).reason(), "connect_refused");
}

#[test]
fn a_tunnel_begins_a_session() {
    let target = reflecting();
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], sticky: {{cookie: {{name: lb}}}}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]",
        target.address
    ));
    let answer = Connection::open(gateway.address()).ask(head("GET", "/", UPGRADE));
    assert_eq!(answer.status, 101);
    let cookie = answer.header("set-cookie").and_then(|c| c.split(';').next()).expect("a session").to_owned();
    let again = [UPGRADE, &[("cookie", cookie.as_str())]].concat();
    assert_eq!(Connection::open(gateway.address()).ask(head("GET", "/", &again)).header("set-cookie"), None);
}

#[test]
fn a_drain_tells_websockets_and_waits_for_their_answer() {
    // Whichever time is over first; clients have five seconds to answer.
    for times in ["drain_time: 20s, websocket_time: 300ms", "drain_time: 5300ms, websocket_time: 20s"] {
        drain(times);
    }
}

fn drain(times: &str) {
    // Sends frames without a pause: the close frame has to find its place between two of them.
    let target = Target::new(|stream, _| {
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let mut back = stream.try_clone()?;
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = back.read_to_end(&mut all);
            all
        });
        let frame = [&[0x82, 126, 1, 0][..], &[7; 256]].concat();
        while stream.write_all(&frame).is_ok() && !reader.is_finished() {}
        let seen = reader.join().expect("what came");
        // The masked close frame of a client that goes away.
        assert!(seen.ends_with(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe9]), "{seen:?}");
        Err(std::io::ErrorKind::UnexpectedEof.into())
    });
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\nprocess: {{threads: 1, {times}}}",
        target.address
    ));
    let mut socket = Connection::open(gateway.address());
    assert_eq!(socket.ask(head("GET", "/", UPGRADE)).status, 101);
    gateway.signal("-TERM");
    let (mut seen, mut followed) = (Vec::new(), portcullis::parts::WebSocketFrames::default());
    while !followed.is_closed() {
        let part = socket.some().expect("frames up to the close frame");
        followed.follow(&part);
        seen.extend(part);
    }
    assert!(followed.at_boundary() && seen.ends_with(&[0x88, 2, 0x03, 0xf4]), "it ends with 1012, between two frames");
    assert_eq!(gateway.child.try_wait().expect("a status"), None, "it waits for the answer");
    socket.send([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4]);
    let answered = std::time::Instant::now();
    assert_eq!(gateway.wait(), Some(0));
    assert!(answered.elapsed() < std::time::Duration::from_secs(4), "the drain ends with the last");
}
