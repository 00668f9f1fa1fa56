//! Room at a full listener: idle connections make room, and no address takes all of it.

use std::io::Write;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

fn echoing(target: &Target, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: echo}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, {limits}}}]",
        target.address
    ))
}

#[test]
fn the_connection_that_is_idle_for_longest_makes_room() {
    let target = Target::named("echo", "a");
    let gateway = echoing(&target, "limits: {connections: 4}");
    // One that is under way, one that has had a request, one that has said nothing, and one that has begun a head.
    let mut busy = Connection::open(gateway.address());
    busy.send(head("GET", "/hold", &[]));
    eventually("the target has it", || target.count() == 1);
    let mut used = Connection::open(gateway.address());
    assert_eq!(used.ask(head("GET", "/", &[])).status, 200);
    let silent = Connection::open(gateway.address());
    eventually("three are open", || gateway.metric("portcullis_connections_open") == 3.0);
    std::thread::sleep(Duration::from_millis(150));
    let mut begun = Connection::open(gateway.address());
    begun.send("GET / HT");
    eventually("all places are taken", || gateway.metric("portcullis_connections_open") == 4.0);
    let begin = Instant::now();
    let mut fresh: Vec<Connection> = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(gateway.address());
        assert_eq!(connection.ask(head("GET", "/", &[])).status, 200);
        fresh.push(connection);
    }
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    let mut silent = silent;
    assert!(used.is_closed() && silent.is_closed());
    begun.send("TP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(begun.receive().status, 200);
    target.release();
    assert_eq!(busy.receive().status, 200);
    assert_eq!(gateway.metric("portcullis_connections_refused_total{cause=\"idle\"}"), 2.0);
    // Many more than there are places, one after another.
    for _ in 0..50 {
        let mut connection = Connection::open(gateway.address());
        assert_eq!(connection.ask(head("GET", "/", &[])).status, 200);
        fresh.push(connection);
    }
}

#[test]
fn handshakes_and_http2_make_room_too() {
    let target = Target::echo("a");
    let gateway =
        echoing(&target, "protocols: [http1, http2], limits: {connections: 2, header_time: 1h, idle_time: 1h}");
    // One of which nobody knows yet what it speaks, and one without streams.
    let mut silent = Connection::open(gateway.address());
    let mut http2 = TcpStream::connect(gateway.address()).expect("a connection");
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("sent");
    eventually("both are open", || gateway.metric("portcullis_connections_open") == 2.0);
    for _ in 0..6 {
        let mut connection = Connection::open(gateway.address());
        assert_eq!(connection.ask(head("GET", "/", &[])).status, 200);
        std::mem::forget(connection);
    }
    assert!(silent.is_closed());
    http2.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    // It is closed, or reset.
    let _ = std::io::copy(&mut http2, &mut std::io::sink());
}

#[test]
fn an_address_has_its_share_of_the_places() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "limits: {connections: 100, connections_per_address: 3}");
    let other = Ipv4Addr::new(127, 0, 0, 9);
    let mut first: Vec<Connection> = (0..3).map(|_| Connection::open(gateway.address())).collect();
    for connection in &mut first {
        assert_eq!(connection.ask(head("GET", "/", &[])).status, 200);
    }
    let mut fourth = Connection::open(gateway.address());
    assert!(fourth.is_closed());
    assert_eq!(Connection::open_from(gateway.address(), other).ask(head("GET", "/", &[])).status, 200);
    assert_eq!(gateway.metric("portcullis_connections_refused_total{cause=\"address\"}"), 1.0);
    first.pop();
    eventually("its place is free again", || {
        let mut again = Connection::open(gateway.address());
        again.stream.write_all(head("GET", "/", &[]).as_bytes()).is_ok()
            && again.try_receive(false).is_ok_and(|got| got.status == 200)
    });
    // Behind a trusted proxy are many clients.
    let gateway =
        echoing(&target, "trusted_proxies: [127.0.0.1], limits: {connections: 100, connections_per_address: 3}");
    let mut all: Vec<Connection> = (0..10).map(|_| Connection::open(gateway.address())).collect();
    for connection in &mut all {
        assert_eq!(connection.ask(head("GET", "/", &[])).status, 200);
    }
}

#[test]
fn an_address_has_its_share_of_the_new_connections() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "limits: {new_connections_per_address: 3/s}");
    let other = Ipv4Addr::new(127, 0, 0, 9);
    eventually("one too many is closed", || {
        let mut one = Connection::open(gateway.address());
        one.stream.write_all(head("GET", "/", &[]).as_bytes()).is_err() || one.try_receive(false).is_err()
    });
    assert_eq!(Connection::open_from(gateway.address(), other).ask(head("GET", "/", &[])).status, 200);
    assert!(gateway.metric("portcullis_connections_refused_total{cause=\"rate\"}") >= 1.0);
    // What is closed takes no place, and a second later there is room again.
    eventually("the address is served again", || {
        std::thread::sleep(Duration::from_millis(400));
        let mut one = Connection::open(gateway.address());
        one.stream.write_all(head("GET", "/", &[]).as_bytes()).is_ok()
            && one.try_receive(false).is_ok_and(|got| got.status == 200)
    });
}

#[test]
fn operators_find_room_beside_strangers() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "limits: {connections: 10}");
    let mut strangers: Vec<Connection> = (0..300).map(|_| Connection::open(gateway.admin)).collect();
    for connection in &mut strangers {
        let _ = connection.stream.write_all(b"GET /healthz HT");
    }
    let begin = Instant::now();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(super::harness::client::get(gateway.admin, path).status, 200, "{path}");
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}
