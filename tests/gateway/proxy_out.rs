//! PROXY headers for targets: in requests of HTTP, in streams, in probes.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex};

use super::harness::bytes::{ByteTarget, hello};
use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::{Gateway, complete, run};
use super::tls::{block, certificate, get, write};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header at the start of a connection.
fn read_header(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut header = vec![0; 16];
    // The shortest one of version 1 has 15 octets.
    stream.read_exact(&mut header[..15])?;
    if header.starts_with(SIGNATURE) {
        stream.read_exact(&mut header[15..])?;
        let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
        header.resize(16 + length, 0);
        stream.read_exact(&mut header[16..])?;
        return Ok(header);
    }
    header.truncate(15);
    while !header.ends_with(b"\r\n") {
        let mut next = [0];
        stream.read_exact(&mut next)?;
        header.push(next[0]);
    }
    Ok(header)
}

/// A target for HTTP that keeps connections open, and what it has read at the start of each.
fn http_target() -> (ByteTarget, Arc<Mutex<Vec<Vec<u8>>>>) {
    let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let target = ByteTarget::new(move |mut stream| {
        let header = read_header(&mut stream)?;
        kept.lock().expect("what was seen").push(header);
        let mut came = Vec::new();
        loop {
            let mut next = [0];
            stream.read_exact(&mut next)?;
            came.push(next[0]);
            if came.ends_with(b"\r\n\r\n") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")?;
                came.clear();
            }
        }
    });
    (target, seen)
}

fn gateway_for(target: &ByteTarget, upstream: &str, listener: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, {listener}}}]\nupstreams: {{one: {{targets: [\"{}\"], \
         {upstream}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\n",
        target.address
    ))
}

fn last(seen: &Mutex<Vec<Vec<u8>>>) -> Vec<u8> {
    seen.lock().expect("what was seen").last().cloned().expect("a header")
}

/// Returns the values of a header of version 2 for IPv4.
fn values(header: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let (mut rest, mut out) = (&header[28..], Vec::new());
    while let [kind, high, low, more @ ..] = rest {
        let (value, behind) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        out.push((*kind, value.to_vec()));
        rest = behind;
    }
    out
}

#[test]
fn each_request_has_a_connection_that_names_its_client() {
    let (target, seen) = http_target();
    let gateway = gateway_for(&target, "proxy_protocol: v1", "trusted_proxies: [127.0.0.9]");
    let mut client = Connection::open(gateway.address());
    let (from, to) = (client.stream.local_addr().expect("an address"), gateway.address());
    for _ in 0..3 {
        assert_eq!(client.ask(head("GET", "/", &[])).text(), "ok");
        let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n", from.port(), to.port());
        assert_eq!(String::from_utf8_lossy(&last(&seen)), line);
    }
    assert_eq!(target.count(), 3);
    // The client that a trusted proxy names: its port is unknown.
    let mut proxy = Connection::open_from(gateway.address(), "127.0.0.9".parse().expect("an address"));
    assert_eq!(proxy.ask(head("GET", "/", &[("x-forwarded-for", "192.0.2.7")])).text(), "ok");
    let line = format!("PROXY TCP4 192.0.2.7 127.0.0.1 0 {}\r\n", to.port());
    assert_eq!(String::from_utf8_lossy(&last(&seen)), line);
}

#[test]
fn values_are_what_the_gateway_knows() {
    let (target, seen) = http_target();
    let own = certificate(&["own.test"]);
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "own", &own);
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "listeners:\n  - {{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: own.pem, key: \
             own.key}}]}}}}\n  - {{name: behind, address: 127.0.0.1:0, proxy_protocol: {{from: 127.0.0.0/8}}}}\nupstreams: \
             {{one: {{targets: [\"{}\"], proxy_protocol: {{version: v2, values: [authority, alpn, unique_id, tls, \
             checksum]}}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\n",
            target.address
        ),
        &[],
    );
    block(async { get(gateway.address(), "own.test", &[b"http/1.1"], &[&own.0]).await.expect("a response") });
    let header = last(&seen);
    assert_eq!(header[12..14], [0x21, 0x11]);
    let found = values(&header);
    assert_eq!(found[0], (1, b"http/1.1".to_vec()));
    assert_eq!(found[1], (2, b"own.test".to_vec()));
    assert_eq!((found[2].0, found[2].1.is_empty()), (5, false));
    assert_eq!(found[3], (0x20, b"\x01\0\0\0\x01\x21\0\x07TLSv1.3".to_vec()));
    let mut without = header.clone();
    let end = without.len();
    without[end - 4..].fill(0);
    assert_eq!(found[4], (3, crc32c::crc32c(&without).to_be_bytes().to_vec()));
    // What a load balancer in front said goes on; the connection that it made is the one that is named.
    let mut client = Connection::open(gateway.listeners[1].1);
    let said = b"\x21\x11\0\x25\xc0\0\x02\x07\xc6\x33\x64\x02\x10\0\x01\xbb\x20\0\x0f\x01\0\0\0\0\x21\0\x07TLSv1.2\x02\0\x04a.de";
    client.send([SIGNATURE, said].concat());
    assert_eq!(client.ask(head("GET", "/", &[("host", "b.test")])).text(), "ok");
    let header = last(&seen);
    assert_eq!(header[16..28], said[4..16]);
    let found = values(&header);
    assert!(found.contains(&(0x20, b"\x01\0\0\0\0\x21\0\x07TLSv1.2".to_vec())), "{found:?}");
}

#[test]
fn probes_and_requests_of_every_way_have_one() {
    let (target, seen) = http_target();
    let probed = "proxy_protocol: v2, health: {active: {path: /health, interval: 20ms}}, retry: {hedge_after: 5s}";
    let gateway = gateway_for(&target, probed, "");
    eventually("a probe came", || !seen.lock().expect("what was seen").is_empty());
    let local = [SIGNATURE, b"\x20\0\0\0"].concat();
    assert!(seen.lock().expect("what was seen").iter().all(|header| *header == local));
    // A request that is hedged does not go through Pingora's proxy.
    let mut client = Connection::open(gateway.address());
    for _ in 0..2 {
        assert_eq!(client.ask(head("GET", "/", &[])).text(), "ok");
    }
    let from = client.stream.local_addr().expect("an address").port().to_be_bytes();
    let named = |header: &&Vec<u8>| header[12..14] == [0x21, 0x11] && header[24..26] == from;
    assert_eq!(seen.lock().expect("what was seen").iter().filter(named).count(), 2);
    // A connection without a request, and version 1.
    let (target, seen) = http_target();
    let _gateway = gateway_for(&target, "proxy_protocol: v1, health: {active: {interval: 20ms}}", "");
    eventually("a probe came", || !seen.lock().expect("what was seen").is_empty());
    assert_eq!(last(&seen), b"PROXY UNKNOWN\r\n");
}

#[test]
fn streams_begin_with_one() {
    let target = ByteTarget::new(|mut stream| {
        let header = read_header(&mut stream)?;
        stream.write_all(&header)?;
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, &mut stream)?;
        stream.shutdown(Shutdown::Write)
    });
    let gateway = Gateway::start(&format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}]\nupstreams: {{one: {{targets: [\"{}\"], \
         proxy_protocol: {{version: v2, values: [authority, alpn]}}}}}}\nstreams: [{{name: all, match: {{server_name: \
         a.test}}, action: {{forward: one}}}}]\n",
        target.address
    ));
    let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
    let hello = hello(Some("a.test"), &["h2"], 0, 16_000);
    stream.write_all(&hello).expect("sent");
    stream.shutdown(Shutdown::Write).expect("closed");
    let header = read_header(&mut stream).expect("a header");
    assert_eq!(values(&header), [(1, b"h2".to_vec()), (2, b"a.test".to_vec())]);
    let from = stream.local_addr().expect("an address").port().to_be_bytes();
    assert_eq!(header[24..28], [from, gateway.address().port().to_be_bytes()].concat());
    let mut came = Vec::new();
    stream.read_to_end(&mut came).expect("the rest");
    assert_eq!(came, hello);
}

#[test]
fn what_cannot_have_an_effect_is_rejected() {
    for (upstream, text) in [
        ("protocol: http2, proxy_protocol: v1", "connections of HTTP/2 are shared"),
        ("proxy_protocol: {version: v1, values: [alpn]}", "only version v2 has values"),
        ("proxy_protocol: v3", "v1"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let yaml = format!(
            "upstreams: {{one: {{targets: [\"127.0.0.1:1\"], {upstream}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\n"
        );
        std::fs::write(folder.path().join("portcullis.yaml"), complete(&yaml)).expect("written");
        let (code, out, errors) = run(&["check", "-c", "portcullis.yaml"], Some(folder.path()));
        assert_ne!(code, 0, "{out}{errors}");
        assert!(format!("{out}{errors}").contains(text), "{out}{errors}");
    }
}
