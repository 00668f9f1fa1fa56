//! Datagrams with PROXY headers, and the health of targets for datagrams, over sockets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;

use super::datagrams::{UdpTarget, ask, client, receive};
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};

/// A header of version 2 for datagrams of a client of 203.0.113.0/24 to 198.51.100.2:53, with further values.
fn header(command: u8, last: u8, port: u16, values: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x12]);
    header.extend((12 + values.len() as u16).to_be_bytes());
    header.extend([203, 0, 113, last, 198, 51, 100, 2]);
    header.extend(port.to_be_bytes());
    header.extend([0, 53]);
    header.extend(values);
    header
}

fn config(listener: &str, streams: &str, target: SocketAddr, upstream: &str) -> String {
    format!(
        "listeners: [{{name: dns, address: 127.0.0.1:0, kind: udp{listener}}}]\nstreams:\n{streams}- {{name: all, action: \
         {{forward: pool}}}}\nupstreams: {{pool: {{targets: [\"{target}\"]{upstream}}}}}\n"
    )
}

fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("portcullis_datagrams_dropped_total{{listener=\"dns\",reason=\"{reason}\"}}"))
}

#[test]
fn the_header_in_each_datagram_names_the_client() {
    let target = UdpTarget::echo("a");
    let denied = "- {name: denied, match: {client: [203.0.113.66/32]}, action: close}\n";
    let gateway = Gateway::start(&config(", proxy_protocol: {from: 127.0.0.1}", denied, target.address, ""));
    // A balancer with one socket for all clients: each has a flow of its own.
    let balancer = client(gateway.address());
    for (last, port, text) in [(7, 4_000, "one"), (7, 4_001, "two"), (8, 4_000, "three"), (7, 4_000, "four")] {
        balancer.send(&[&header(1, last, port, &[])[..], text.as_bytes()].concat()).expect("sent");
        assert_eq!(receive(&balancer), format!("a:{text}"));
    }
    let sources: std::collections::BTreeSet<_> =
        target.seen.lock().expect("seen").iter().map(|(from, _)| *from).collect();
    assert_eq!(sources.len(), 3);
    // The balancer goes on from another port: the flow is that of the client, and responses go to the new port.
    let other = client(gateway.address());
    other.send(&[&header(1, 8, 4_000, b"\x04\0\x01.")[..], b"five"].concat()).expect("sent");
    assert_eq!(receive(&other), "a:five");
    assert_eq!(gateway.metric("portcullis_stream_sessions_open{listener=\"dns\",stream=\"all\"}"), 3.0);
    // Rules see the client that is named, and the balancer where it speaks for itself.
    balancer.send(&[&header(1, 66, 1, &[])[..], b"x"].concat()).expect("sent");
    eventually("it is dropped", || dropped(&gateway, "closed") == 1.0);
    balancer.send(&[&header(0, 66, 1, &[])[..], b"local"].concat()).expect("sent");
    assert_eq!(receive(&balancer), "a:local");
    // None, a cut one, and one with a wrong checksum.
    let wrong = [b"plain".to_vec(), header(1, 7, 1, &[])[..20].to_vec(), header(1, 7, 1, b"\x03\0\x04abcd")];
    for (count, wrong) in (1..).zip(wrong) {
        balancer.send(&wrong).expect("sent");
        eventually("it is dropped", || dropped(&gateway, "proxy_header") == f64::from(count));
    }
}

#[test]
fn others_send_no_header() {
    let target = UdpTarget::echo("a");
    let gateway = Gateway::start(&config(", proxy_protocol: {from: 10.0.0.0/8}", "", target.address, ""));
    let text = ask(&client(gateway.address()), "x");
    assert_eq!(text, "a:x");
    let strict = ", proxy_protocol: {from: 10.0.0.0/8, others: reject}";
    let gateway = Gateway::start(&config(strict, "", target.address, ""));
    client(gateway.address()).send(b"x").expect("sent");
    eventually("it is dropped", || dropped(&gateway, "proxy_header") == 1.0);
}

#[test]
fn targets_get_a_header_in_each_datagram() {
    let target = UdpTarget::new(|bytes| vec![bytes[28..].to_vec()]);
    let gateway = Gateway::start(&config("", "", target.address, ", proxy_protocol: v2"));
    let socket = client(gateway.address());
    assert_eq!([ask(&socket, "x"), ask(&socket, "y")], ["x", "y"]);
    let local = socket.local_addr().expect("an address");
    for (_, bytes) in &*target.seen.lock().expect("seen") {
        assert_eq!(bytes[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x12\0\x0c");
        assert_eq!(bytes[16..24], [127, 0, 0, 1, 127, 0, 0, 1]);
        assert_eq!(bytes[24..26], local.port().to_be_bytes());
        assert_eq!(bytes[26..28], gateway.address().port().to_be_bytes());
    }
    // What a balancer in front has said goes on.
    let yaml = config(", proxy_protocol: {from: 127.0.0.1}", "", target.address, ", proxy_protocol: v2");
    let gateway = Gateway::start(&yaml);
    let (balancer, said) = (client(gateway.address()), header(1, 7, 4_000, &[]));
    balancer.send(&[&said[..], b"z"].concat()).expect("sent");
    assert_eq!(receive(&balancer), "z");
    assert_eq!(target.seen.lock().expect("seen").last().expect("one").1, [&said[..], b"z"].concat());
}

/// A name server that responds to every query with that code, and to nothing with 255.
fn name_server(code: &'static std::sync::atomic::AtomicU8) -> UdpTarget {
    UdpTarget::new(move |bytes| match code.load(Ordering::Acquire) {
        255 => Vec::new(),
        code => {
            let mut response = bytes.to_vec();
            (response[2], response[3]) = (0x84, code);
            // One with another id is not a response.
            let mut other = response.clone();
            (other[0], other[3]) = (!other[0], 0);
            vec![other, response]
        }
    })
}

#[test]
fn a_query_shows_whether_a_name_server_is_healthy() {
    static CODE: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
    let (bad, good) = (name_server(&CODE), UdpTarget::echo("good"));
    let health = ", health: {active: {dns: {name: example.com, type: SOA}, interval: 50ms, timeout: 100ms, fall: 1, \
        rise: 1}}";
    let yaml = config("", "", bad.address, health);
    let gateway = Gateway::start(&yaml);
    let healthy = |gateway: &Gateway, target: SocketAddr| {
        gateway.metric(&format!("portcullis_target_healthy{{target=\"{target}\",upstream=\"pool\"}}")) == 1.0
    };
    // NOERROR, SERVFAIL, NXDOMAIN, REFUSED, NXDOMAIN, and none at all.
    for (code, is_healthy) in [(0, true), (2, false), (3, true), (5, false), (3, true), (255, false)] {
        CODE.store(code, Ordering::Release);
        eventually("its health follows", || healthy(&gateway, bad.address) == is_healthy);
    }
    let seen = bad.seen.lock().expect("seen");
    assert!(seen.iter().all(|(_, bytes)| bytes[12..] == *b"\x07example\x03com\x00\x00\x06\x00\x01"));
    drop(seen);
    // A response that is no DNS message does not count.
    let gateway = Gateway::start(&config("", "", good.address, health));
    eventually("it is unhealthy", || !good.seen.lock().expect("seen").is_empty() && !healthy(&gateway, good.address));
}

#[test]
fn an_unhealthy_target_ends_its_flows() {
    let (one, two) = (UdpTarget::echo("one"), UdpTarget::echo("two"));
    let health =
        "health: {active: {udp: {send: ping, expect: \":ping\"}, interval: 50ms, timeout: 100ms, fall: 1, rise: 1}}";
    let targets = format!("\"{}\", \"{}\"", one.address, two.address);
    let yaml = |rule: &str| {
        config("", "", one.address, &format!(", {health}"))
            .replace(&format!("\"{}\"", one.address), &targets)
            .replace("forward: pool}", &format!("forward: pool}}{rule}"))
    };
    for (rule, moves) in [("", true), (", datagrams: {keep_unhealthy: true}", false)] {
        let gateway = Gateway::start(&yaml(rule));
        let sockets: Vec<UdpSocket> = (0..10).map(|_| client(gateway.address())).collect();
        let first: Vec<String> = sockets.iter().map(|socket| ask(socket, "x")).collect();
        one.responds.store(false, Ordering::Release);
        let series = format!("portcullis_target_healthy{{target=\"{}\",upstream=\"pool\"}}", one.address);
        eventually("one is unhealthy", || gateway.metric(&series) == 0.0);
        one.responds.store(true, Ordering::Release);
        for (socket, before) in sockets.iter().zip(&first) {
            let after = ask(socket, "x");
            // Once it is healthy again a flow may begin there.
            assert!(after == *before || moves && before == "one:x", "{before} {after}");
        }
        let ended = "portcullis_stream_sessions_total{listener=\"dns\",reason=\"target_unhealthy\",stream=\"all\"}";
        if !moves {
            assert_eq!(gateway.metric(ended), 0.0);
        }
    }
}

#[test]
fn what_datagrams_cannot_do_is_an_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let target: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    for (listener, upstream, text) in [
        ("", ", proxy_protocol: v1", "has proxy_protocol: v1, which is not for datagrams: use v2"),
        ("", ", tls: {}", "has tls, which is not spoken in datagrams"),
        (", limits: {new_connections_per_address: 1/s}", "", "an address may be forged"),
        (", limits: {header_time: 3s}", "", "on a listener of kind udp only those of connections"),
        ("", ", health: {active: {udp: {}}}", "expected send or send_hex"),
        ("", ", health: {active: {udp: {send_hex: abc}}}", "an even number of hexadecimal digits"),
        ("", ", health: {active: {udp: {send: a, send_hex: ab}}}", "at most one of send and send_hex"),
        ("", ", health: {active: {dns: {name: a..b}}}", "expected a name such as example.com"),
        ("", ", health: {active: {dns: {name: a}, path: /}}", "at most one of path, grpc, udp and dns"),
    ] {
        let file = folder.path().join("c.yaml");
        std::fs::write(&file, config(listener, "", target, upstream)).expect("written");
        let (code, _, errors) = run(&["check", "-c", file.to_str().expect("a path")], None);
        assert!(code != 0 && errors.contains(text), "{listener}{upstream}: {errors}");
    }
}
