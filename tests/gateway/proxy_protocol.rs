//! The PROXY protocol on listeners, and `Forwarded` of trusted proxies.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client_certificates::{BOTH, client};
use super::harness::client::head;
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::tls::{block, certificate, write};

const ROUTES: &str = "routes: [{name: all, action: {respond: {body: \"{client} {scheme} {proxy.authority|-} \
    {proxy.0xEA|-} {header.x-forwarded-host|-}\"}}}]\n";

/// A header of version 2 for those addresses, with further values.
fn version_2(command: u8, from: [u8; 4], values: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x20 | command, 0x11]);
    header.extend((12 + values.len() as u16).to_be_bytes());
    header.extend(from);
    header.extend([198, 51, 100, 2, 0x10, 0, 1, 0xbb]);
    header.extend(values);
    header
}

fn request() -> Vec<u8> {
    head("GET", "/", &[("connection", "close")]).into_bytes()
}

/// Sends bytes in parts of that length, and returns the body of the response; nothing when there is none.
fn send(to: SocketAddr, bytes: &[u8], part: usize) -> String {
    let mut stream = TcpStream::connect(to).expect("a connection");
    stream.set_nodelay(true).expect("set");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    for part in bytes.chunks(part) {
        // Closed before all of it was sent.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    text.rsplit("\r\n\r\n").next().unwrap_or_default().to_owned()
}

fn refused(gateway: &Gateway, cause: &str) -> f64 {
    gateway.metric(&format!("portcullis_connections_refused_total{{cause=\"{cause}\"}}"))
}

#[test]
fn the_header_names_the_client() {
    let gateway = Gateway::start(&format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2], proxy_protocol: {{from: \
         127.0.0.1}}}}]\n"
    ));
    let to = gateway.address();
    let v1 = b"PROXY TCP4 203.0.113.7 198.51.100.2 4096 443\r\n".to_vec();
    let v6 = b"PROXY TCP6 2001:db8::7 2001:db8::1 4096 443\r\n".to_vec();
    let v2 = version_2(1, [203, 0, 113, 8], b"\x02\x00\x06a.test\xea\x00\x03\x01ab\x04\x00\x02xx");
    let local = version_2(0, [203, 0, 113, 8], &[]);
    for part in [1, 7, 10_000] {
        for (header, body) in [
            (&v1, "203.0.113.7 http - - -"),
            (&v6, "2001:db8::7 http - - -"),
            (&v2, "203.0.113.8 http a.test 016162 -"),
            (&local, "127.0.0.1 http - - -"),
            (&b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1 http - - -"),
        ] {
            assert_eq!(send(to, &[&header[..], &request()].concat(), part), body, "{part}");
        }
    }
    assert_eq!(refused(&gateway, "proxy_header"), 0.0);
    // A load balancer that only connects, or that says nothing more than LOCAL, is no error.
    drop(TcpStream::connect(to).expect("a connection"));
    let mut probe = TcpStream::connect(to).expect("a connection");
    probe.write_all(&local).expect("sent");
    drop(probe);
    // None, a second one, and malformed ones.
    for (wrong, count) in [
        (request(), 1.0),
        (b"PROXY TCP4 203.0.113.7 198.51.100.2 04096 443\r\n".to_vec(), 2.0),
        (version_2(1, [203, 0, 113, 8], b"\x03\x00\x04abcd"), 3.0),
        (version_2(1, [203, 0, 113, 8], b"\x02\x00\x60a.test"), 4.0),
    ] {
        assert_eq!(send(to, &[&wrong[..], &request()].concat(), 10_000), "");
        eventually("it is counted", || refused(&gateway, "proxy_header") >= count);
    }
    assert!(send(to, &[&v1[..], &v1, &request()].concat(), 10_000).contains("bad_request"));
    assert_eq!(refused(&gateway, "proxy_header"), 4.0);
}

#[test]
fn others_send_none() {
    let gateway = Gateway::start(&format!(
        "{ROUTES}listeners:\n  - {{name: main, address: 127.0.0.1:0, proxy_protocol: {{from: [10.0.0.0/8]}}}}\n  - \
         {{name: strict, address: 127.0.0.1:0, proxy_protocol: {{from: [10.0.0.0/8], others: reject}}}}\n"
    ));
    let (main, strict) = (gateway.listeners[0].1, gateway.listeners[1].1);
    assert_eq!(send(main, &request(), 10_000), "127.0.0.1 http - - -");
    let forged = [&b"PROXY TCP4 203.0.113.7 198.51.100.2 4096 443\r\n"[..], &request()].concat();
    assert!(send(main, &forged, 10_000).contains("bad_request"));
    assert_eq!(send(strict, &request(), 10_000), "");
    assert_eq!(send(strict, &forged, 10_000), "");
}

#[test]
fn connections_are_counted_by_the_client_that_the_header_names() {
    let gateway = Gateway::start(&format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, proxy_protocol: {{from: 127.0.0.1}}, limits: \
         {{connections_per_address: 1}}}}]\n"
    ));
    let line = |last: u8| format!("PROXY TCP4 203.0.113.{last} 198.51.100.2 1 443\r\n").into_bytes();
    let keep = |last: u8| {
        let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
        stream.write_all(&[line(last), head("GET", "/", &[]).into_bytes()].concat()).expect("sent");
        let mut start = [0; 12];
        stream.read_exact(&mut start).map(|()| stream)
    };
    let one = keep(1).expect("a response");
    let _two = keep(2).expect("a response");
    assert!(keep(1).is_err());
    assert_eq!(refused(&gateway, "address"), 1.0);
    // Its place is free again.
    drop(one);
    eventually("its place is free", || keep(1).is_ok());
}

#[test]
fn a_header_that_does_not_come_ends_the_connection() {
    let gateway = Gateway::start(&format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, proxy_protocol: {{from: 127.0.0.1}}, limits: \
         {{header_time: 300ms}}}}]\n"
    ));
    assert_eq!(send(gateway.address(), b"PROXY TCP4 203.0.113.7", 10_000), "");
    assert_eq!(refused(&gateway, "proxy_header"), 1.0);
}

#[test]
fn the_header_comes_before_tls() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = certificate(&["a.test"]);
    write(folder.path(), "own", &own);
    let yaml = format!(
        "{ROUTES}listeners: [{{name: main, address: 127.0.0.1:0, proxy_protocol: {{from: 127.0.0.1}}, tls: \
         {{certificates: [{{cert: own.pem, key: own.key}}]}}}}]\n"
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let header = version_2(1, [203, 0, 113, 9], b"\x02\x00\x06b.test");
    let text = block(async {
        let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
        stream.write_all(&header).await.expect("sent");
        let config = client(&own.0, None, BOTH, &[]);
        let name = rustls::pki_types::ServerName::try_from("a.test").expect("a name");
        let mut stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.expect("a handshake");
        stream.write_all(&request()).await.expect("sent");
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    });
    assert!(text.ends_with("203.0.113.9 https b.test - -"), "{text}");
}

#[test]
fn one_family_of_forwarding_headers_is_trusted() {
    let target = super::harness::target::Target::echo("one");
    let gateway = Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, match: {{path: /t}}, action: {{forward: \
         echo}}}}, {{name: own, action: {{respond: {{body: \"{{client}}\"}}}}}}]\nlisteners: [{{name: main, address: \
         127.0.0.1:0, trusted_proxies: 127.0.0.1, client_address: forwarded}}]\n",
        target.address
    ));
    let ask = |headers: &[(&str, &str)]| gateway.request("GET", "/", headers).text();
    assert_eq!(ask(&[("forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:80\"")]), "2001:db8::7");
    assert_eq!(ask(&[("x-forwarded-for", "203.0.113.7")]), "127.0.0.1");
    assert_eq!(ask(&[("forwarded", "for=203.0.113.8"), ("x-forwarded-for", "203.0.113.7")]), "203.0.113.8");
    let seen = gateway.request(
        "GET",
        "/t",
        &[
            ("forwarded", "for=203.0.113.8;proto=https;host=a.test"),
            ("x-forwarded-for", "203.0.113.7"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/forged"),
        ],
    );
    let seen: serde_json::Value = serde_json::from_str(&seen.text()).expect("JSON");
    let header = |name: &str| seen["headers"][name].as_str().unwrap_or_default().to_owned();
    assert_eq!(header("x-forwarded-for"), "203.0.113.8, 127.0.0.1");
    assert_eq!((header("x-forwarded-proto"), header("x-forwarded-host")), ("https".to_owned(), "a.test".to_owned()));
    assert_eq!([header("x-real-ip"), header("forwarded"), header("x-forwarded-prefix")], ["203.0.113.8", "", ""]);
}
