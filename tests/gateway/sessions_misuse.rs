//! What clients and targets of layer 4 cannot do to others, and what a reset must not take with it.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::sessions::{Server, connect, gateway, word};

/// The bytes that a client reads slowly: less than what the systems on the way keep.
const AMOUNT: usize = 400_000;

#[test]
fn a_slow_client_gets_all_bytes_before_the_reset_of_a_target() {
    let resets = Arc::new(AtomicBool::new(false));
    let may_reset = Arc::clone(&resets);
    let server = Server::new(move |mut stream| {
        let _ = stream.write_all(&vec![b'x'; AMOUNT]);
        eventually("it may reset", || may_reset.load(Ordering::Acquire));
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    });
    let gateway = gateway(&[server.address], "", "", "");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("set");
    socket.connect(&gateway.address().into()).expect("a connection");
    let mut stream = std::net::TcpStream::from(socket);
    let sent = "portcullis_stream_bytes_total{direction=\"out\",listener=\"main\",stream=\"all\"}";
    eventually("all is on its way", || gateway.metric(sent) == AMOUNT as f64);
    resets.store(true, Ordering::Release);
    // It takes longer than a second.
    let (mut buffer, mut count, begun) = ([0; 8 << 10], 0, Instant::now());
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        count += read;
        while begun.elapsed().as_millis() < count as u128 * 2_000 / AMOUNT as u128 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(count, AMOUNT);
}

#[test]
fn a_request_for_tls_of_postgres_says_nothing_about_other_targets() {
    let server = Server::new(|mut stream| {
        // As a server of HTTPS does with what it does not understand.
        let _ = stream.read(&mut [0; 64]);
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], breaker: {{failures: 2}}}}, two: {{targets: [\"{}\"]}}}}\n\
         streams: [{{name: named, match: {{server_name: a.test}}, action: {{forward: one}}}}, \
         {{name: rest, action: {{forward: two}}}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}]\n",
        server.address,
        Server::named("two").address
    ));
    for _ in 0..5 {
        let mut stream = connect(gateway.address());
        stream.write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]).expect("sent");
        stream.read_exact(&mut [0]).expect("a response");
        stream.write_all(&super::harness::bytes::hello(Some("a.test"), &[], 0, 16_000)).expect("sent");
        let _ = stream.read(&mut [0; 8]);
    }
    let lines = gateway.access_log(5);
    assert!(lines.iter().all(|line| line["reason"] == "target_tls"), "{lines:?}");
}

#[test]
fn a_client_alone_does_not_take_a_target_from_others() {
    let server = Server::new(|mut stream| {
        let mut first = [0; 4];
        if stream.read_exact(&mut first).is_ok() && first == *b"good" {
            let _ = stream.write_all(b"yes");
        }
    });
    let gateway = gateway(
        &[server.address],
        "breaker: {failures: 3}, health: {passive: {failures: 3}}, retry: {attempts: 1}",
        "",
        "",
    );
    for _ in 0..10 {
        let mut stream = connect(gateway.address());
        stream.write_all(b"junk").expect("sent");
        assert_eq!(stream.read(&mut [0; 8]).expect("an end"), 0);
    }
    let mut good = connect(gateway.address());
    good.write_all(b"good").expect("sent");
    assert_eq!(word(&mut good), "yes");
}

#[test]
fn a_transfer_that_takes_too_long_does_not_end_in_order() {
    let server = Server::new(|mut stream| while stream.write_all(&[b'x'; 1024]).is_ok() {});
    let gateway = gateway(&[server.address], "", "total_time: 300ms, rate: {sent: 64KiB},", "");
    let mut stream = connect(gateway.address());
    let end = stream.read_to_end(&mut Vec::new()).expect_err("a reset");
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_client_that_ends_its_direction_first_still_hears_the_server() {
    let server = Server::named("one");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\n\
         streams: [{{name: named, match: {{server_name: a.test}}, action: close}}, \
         {{name: rest, action: {{forward: one}}}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}]\n",
        server.address
    ));
    let mut stream = connect(gateway.address());
    stream.shutdown(std::net::Shutdown::Write).expect("ended");
    assert_eq!(word(&mut stream), "one");
}
