//! Routes of layer 4 by what clients say in TLS: passed on or ended on one port, hellos in parts, clients without one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::harness::bytes::{ByteTarget, hello};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::tls::{block, certificate, get, tls_target, write};

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_nodelay(true).expect("set");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

/// Sends parts and closes that direction, and returns everything that comes.
fn exchange(to: SocketAddr, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = connect(to);
    for part in parts {
        // Closed before all of it was sent.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    all
}

fn refused(gateway: &Gateway, cause: &str) -> f64 {
    gateway.metric(&format!("portcullis_connections_refused_total{{cause=\"{cause}\"}}"))
}

/// A gateway with rules for two names and, unless it is empty, a further one.
fn by_name(one: &ByteTarget, two: &ByteTarget, further: &str, limits: &str) -> Gateway {
    Gateway::start(&format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, limits: {{{limits}}}}}]\nupstreams:\n  one: \
         {{targets: [\"{}\"]}}\n  two: {{targets: [\"{}\"]}}\nstreams:\n  - {{name: one, match: {{server_name: \
         one.test}}, action: {{forward: one}}}}\n  - {{name: two, match: {{server_name: \"*.two.test\", alpn: [b, c]}}, \
         action: {{forward: two}}}}\n{further}",
        one.address, two.address
    ))
}

#[test]
fn a_hello_in_any_parts_takes_its_rule_and_arrives_as_it_was_sent() {
    let (one, two) = (ByteTarget::echo("1"), ByteTarget::echo("2"));
    let gateway = by_name(&one, &two, "", "");
    let to = gateway.address();
    let small = hello(Some("One.Test"), &[], 0, 16_000);
    // Each cut, the bytes behind the hello included.
    let with_more = [&small[..], b"more"].concat();
    for cut in 0..=with_more.len() {
        let came = exchange(to, &[&with_more[..cut], &with_more[cut..]]);
        assert_eq!(came, [b"1", &with_more[..]].concat(), "{cut}");
    }
    // Larger than a segment, in many records, and octet by octet.
    for (padding, record) in [(1_216, 16_000), (9_000, 16_000), (9_000, 100), (300, 1)] {
        let large = hello(Some("a.two.test"), &["a", "c"], padding, record);
        assert_eq!(
            exchange(to, &[&large[..1_000], &large[1_000..]]),
            [b"2", &large[..]].concat(),
            "{padding} {record}"
        );
    }
    let octets: Vec<&[u8]> = small.chunks(1).collect();
    assert_eq!(exchange(to, &octets), [b"1", &small[..]].concat());
    assert_eq!((refused(&gateway, "no_rule"), refused(&gateway, "opening")), (0.0, 0.0));
}

#[test]
fn without_a_rule_a_client_is_closed_with_an_alert() {
    let (one, two) = (ByteTarget::echo("1"), ByteTarget::echo("2"));
    let gateway = by_name(&one, &two, "", "header_time: 1s, hello_time: 500ms");
    let to = gateway.address();
    let unrecognized_name = [21, 3, 3, 0, 2, 2, 112];
    for (name, alpn) in [(Some("other.test"), &[][..]), (None, &[]), (Some("a.two.test"), &["a"])] {
        assert_eq!(exchange(to, &[&hello(name, alpn, 0, 16_000)]), unrecognized_name, "{name:?}");
    }
    let decode_error = [21, 3, 3, 0, 2, 2, 50];
    assert_eq!(exchange(to, &[b"\x16\x03\x01\0\x04\x02\0\0\0"]), decode_error);
    let endless = hello(Some("one.test"), &[], 17_000, 16_000);
    assert_eq!(exchange(to, &[&endless]), decode_error);
    assert_eq!(exchange(to, &[b"GET / HTTP/1.1\r\n\r\n"]), b"");
    assert_eq!(exchange(to, &[b""]), b"");
    eventually("they are counted", || (refused(&gateway, "no_rule"), refused(&gateway, "opening")) == (4.0, 2.0));
    // One that goes on too slowly, and one that says nothing.
    let (mut slow, mut silent) = (connect(to), connect(to));
    slow.write_all(&hello(Some("one.test"), &[], 0, 16_000)[..40]).expect("sent");
    for stream in [&mut slow, &mut silent] {
        assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    }
    eventually("they are counted", || refused(&gateway, "tls_timeout") >= 2.0);
    assert_eq!(one.count() + two.count(), 0);
    let lines = gateway.access_log(4);
    assert!(lines.iter().all(|line| line["reason"] == "no_stream_rule"), "{lines:?}");
    assert!(lines.iter().any(|line| line["server_name"] == "a.two.test" && line["alpn"] == "a"), "{lines:?}");
}

#[test]
fn clients_without_tls_take_the_rule_without_conditions() {
    let (one, two) = (ByteTarget::echo("1"), ByteTarget::echo("2"));
    let greeting = ByteTarget::echo("220 ready\r\n");
    let further = "  - {name: rest, action: {forward: rest}}\n";
    let gateway = Gateway::start(&format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, limits: {{hello_time: 300ms}}}}]\nupstreams:\n  one: \
         {{targets: [\"{}\"]}}\n  rest: {{targets: [\"{}\"]}}\nstreams:\n  - {{name: one, match: {{server_name: \
         one.test}}, action: {{forward: one}}}}\n{further}",
        one.address, greeting.address
    ));
    let to = gateway.address();
    // The server speaks first.
    let mut silent = connect(to);
    let begun = Instant::now();
    let mut line = [0; 11];
    silent.read_exact(&mut line).expect("a greeting");
    assert_eq!(&line, b"220 ready\r\n");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    // Another protocol is known by its first octet, and an unknown name is one without a rule of its own.
    assert_eq!(exchange(to, &[b"EHLO\r\n"]), b"220 ready\r\nEHLO\r\n");
    let other = hello(Some("other.test"), &[], 0, 16_000);
    assert_eq!(exchange(to, &[&other]), [b"220 ready\r\n", &other[..]].concat());
    // Once the first octet has come, the hello has all the time.
    let mut slow = connect(to);
    let bytes = hello(Some("one.test"), &[], 0, 16_000);
    slow.write_all(&bytes[..1]).expect("sent");
    std::thread::sleep(Duration::from_millis(600));
    slow.write_all(&bytes[1..]).expect("sent");
    let mut first = [0];
    slow.read_exact(&mut first).expect("a name");
    assert_eq!(&first, b"1");
    drop(two);
}

#[test]
fn tls_is_passed_on_and_ended_on_one_port() {
    let folder = tempfile::tempdir().expect("a folder");
    let (passed, ended) = (certificate(&["passed.test"]), certificate(&["ended.test"]));
    write(folder.path(), "ended", &ended);
    let plain = ByteTarget::new(|mut stream| {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nplain")
    });
    let behind = tls_target(&passed);
    let gateway = Gateway::start_in(
        folder,
        &format!(
            "listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, tls: {{certificates: [{{cert: ended.pem, key: \
             ended.key}}]}}}}]\nupstreams:\n  passed: {{targets: [\"{behind}\"]}}\n  plain: {{targets: \
             [\"{}\"]}}\nstreams:\n  - {{name: passed, match: {{server_name: passed.test}}, tls: pass, action: {{forward: \
             passed}}}}\n  - {{name: ended, match: {{server_name: ended.test}}, action: {{forward: plain}}}}\n",
            plain.address
        ),
        &[],
    );
    let to = gateway.address();
    block(async {
        let (text, _, _) = get(to, "passed.test", &[], &[&passed.0]).await.expect("a response encrypted");
        assert!(text.ends_with("encrypted"), "{text}");
        let (text, _, protocol) = get(to, "ended.test", &[b"http/1.1"], &[&ended.0]).await.expect("a response");
        assert!(text.ends_with("plain"), "{text}");
        // The only protocol that a client offers is accepted; which of several is spoken is not known here.
        assert_eq!(protocol.as_deref(), Some(&b"http/1.1"[..]));
        let (_, _, protocol) = get(to, "ended.test", &[b"a", b"b"], &[&ended.0]).await.expect("a response");
        assert_eq!(protocol, None);
        // A client without TLS does not get around it.
        assert!(get(to, "other.test", &[], &[&ended.0]).await.is_err());
    });
    assert_eq!(exchange(to, &[b"GET / HTTP/1.1\r\n\r\n"]), b"");
    assert_eq!(plain.count(), 2);
}

#[test]
fn connections_that_never_say_anything_do_not_keep_out_others() {
    let one = ByteTarget::echo("1");
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{name: main, address: 127.0.0.1:0, kind: tcp, limits: {{header_time: 60s}}}}\n  - {{name: behind, \
         address: 127.0.0.1:0, kind: tcp, proxy_protocol: {{from: 127.0.0.0/8}}, limits: {{header_time: \
         60s}}}}\nupstreams: {{one: {{targets: [\"{}\"]}}}}\nstreams: [{{name: one, match: {{server_name: one.test}}, \
         action: {{forward: one}}}}]\n",
        one.address
    ));
    let (main, behind) = (gateway.listeners[0].1, gateway.listeners[1].1);
    let bytes = hello(Some("one.test"), &[], 0, 16_000);
    let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n".to_vec();
    let with_line = [&line[..], &bytes].concat();
    let count = if std::env::var_os("LONG_TESTS").is_some() { 2_000 } else { 400 };
    let stuck: Vec<TcpStream> = (0..count)
        .map(|at| {
            let mut stream = connect(if at % 2 == 0 { main } else { behind });
            let part: &[u8] = if at % 2 == 0 { &bytes } else { &with_line };
            stream.write_all(&part[..at % 70]).expect("sent");
            stream
        })
        .collect();
    eventually("they are open", || gateway.metric("portcullis_connections_open") >= f64::from(count as u32));
    for _ in 0..50 {
        assert_eq!(exchange(main, &[&bytes]), [b"1", &bytes[..]].concat());
        assert_eq!(exchange(behind, &[&line, &bytes]), [b"1", &bytes[..]].concat());
    }
    drop(stuck);
    eventually("their places are free", || gateway.metric("portcullis_connections_open") == 0.0);
}
