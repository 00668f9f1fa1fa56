//! Clients that try to break things: smuggling, floods, slowness.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

fn echoing(target: &Target, rest: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, match: {{path: /*}}, action: {{forward: echo}}}}]\n{rest}",
        target.address
    ))
}

#[test]
fn requests_that_two_readers_could_read_differently_are_refused() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let cases: &[(&str, &str)] = &[
        ("bare LF", "GET / HTTP/1.1\nHost: a\n\n"),
        ("one bare LF", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
        ("no Host", "GET / HTTP/1.1\r\n\r\n"),
        ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("CL and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (
            "TE and CL in odd case",
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\ncOntent-lEngth: 3\r\n\r\n0\r\n\r\n",
        ),
        ("gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        (
            "chunked twice",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        ("xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc"),
        ("a signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc"),
        ("space before colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("folded line", "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
        ("NUL", "GET / HTTP/1.1\r\nHost: a\r\nX: y\0z\r\n\r\n"),
        ("no slash", "GET abc HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("another Host than the target's", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("a host that is none", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        ("TE on HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    ];
    for (what, bytes) in cases {
        let answer = Connection::open(gateway.address()).ask(bytes);
        assert!(matches!(answer.status, 400 | 405), "{what}: {} {}", answer.status, answer.text());
    }
    assert_eq!(target.count(), 0, "a target saw one of them");
    // What follows a request that two readers could read differently is not read at all.
    let mut connection = Connection::open(gateway.address());
    connection.send("GET / HTTP/1.1\nHost: a\n\nGET /second HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(connection.receive().status, 400);
    assert!(connection.rest().is_empty());
    for (path, framing) in [
        ("/p", "Connection: content-length\r\nContent-Length: 34"),
        ("/p%20q", "Connection: content-length\r\nContent-Length: 34"),
        ("/%20", "Connection: close, Content-Length\r\nContent-Length: 34"),
        ("/p%20q", "Connection: x\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked"),
        ("/p", "Connection: upgrade, content-length\r\nUpgrade: websocket\r\nContent-Length: 34"),
    ] {
        let mut connection = Connection::open(gateway.address());
        connection.send(format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
        ));
        assert_eq!(connection.receive().status, 400, "{path}: {framing}");
        let rest = connection.rest();
        assert!(rest.is_empty(), "{path}: {framing}: {}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(target.count(), 0, "a target saw what was hidden");
    // Also Pingora's own refusals have a reason, and not its name.
    let answer = Connection::open(gateway.address()).ask("rubbish\r\n\r\n");
    assert_eq!((answer.status, answer.reason().as_str(), answer.header("server")), (400, "bad_request", None));
    // And nobody else is harmed.
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_body_with_broken_chunks_is_answered_and_not_taken_as_whole() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let mut connection = Connection::open(gateway.address());
    let answer = connection.ask("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
    assert_eq!((answer.status, answer.reason().as_str()), (400, "bad_request"));
    assert!(connection.is_closed());
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_second_request_hidden_in_a_body_is_not_seen() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let mut connection = Connection::open(gateway.address());
    let inner = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = connection.ask(head("POST", "/outer", &[("content-length", &inner.len().to_string())]) + inner);
    assert_eq!(answer.json()["body"], inner);
    assert_eq!(connection.ask(head("GET", "/next", &[])).json()["target"], "/next");
    assert_eq!(target.count(), 2);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let mut connection = Connection::open(gateway.address());
    connection.send((0..5).map(|i| head("GET", &format!("/{i}"), &[])).collect::<String>());
    for i in 0..5 {
        assert_eq!(connection.receive().json()["target"], format!("/{i}"));
    }
}

#[test]
fn slow_heads_are_cut_and_slow_bodies_are_not() {
    let target = Target::echo("a");
    let limits = "listeners: [{name: main, address: 127.0.0.1:0, limits: {header_time: 600ms, idle_time: 1s, body_idle_time: 1s}}]";
    let gateway = echoing(&target, limits);
    // A head that drips: cut after its time, however busy it looks.
    let mut drip = Connection::open(gateway.address());
    let begun = Instant::now();
    let mut cut = None;
    for byte in "GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".bytes().chain(std::iter::repeat(b'x')) {
        if drip.stream.write_all(&[byte]).is_err() || begun.elapsed() > Duration::from_secs(10) {
            cut = Some(begun.elapsed());
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
        if begun.elapsed() > Duration::from_millis(500) {
            drip.stream.set_read_timeout(Some(Duration::from_millis(1))).expect("set");
            if let Ok(answer) = drip.try_receive(false) {
                assert_eq!(answer.status, 408);
                cut = Some(begun.elapsed());
                break;
            }
        }
    }
    let cut = cut.expect("it is cut");
    assert!(cut > Duration::from_millis(500) && cut < Duration::from_secs(5), "{cut:?}");
    // Nothing at all: closed as well. An idle kept connection too.
    let mut silent = Connection::open(gateway.address());
    assert!(silent.is_closed());
    let mut idle = Connection::open(gateway.address());
    assert_eq!(idle.ask(head("GET", "/", &[])).status, 200);
    assert!(idle.is_closed());
    // A body that takes longer than any head may, but keeps moving, passes.
    let mut upload = Connection::open(gateway.address());
    upload.send(head("POST", "/", &[("content-length", "20")]));
    for _ in 0..20 {
        upload.send("x");
        std::thread::sleep(Duration::from_millis(60));
    }
    assert_eq!(upload.receive().json()["length"], 20);
    // One that stops is answered with 408.
    let mut stalled = Connection::open(gateway.address());
    stalled.send(head("POST", "/", &[("content-length", "20")]) + "half");
    assert_eq!(stalled.receive().status, 408);
    assert!(gateway.metric("portcullis_connections_refused_total{cause=\"head\"}") >= 1.0);
}

#[test]
fn floods_of_headers_are_refused() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "");
    let many: String = (0..300).map(|i| format!("x-{i}: y\r\n")).collect();
    let answer = Connection::open(gateway.address()).ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"));
    assert_eq!(answer.status, 400);
    let long = "y".repeat(2 << 20);
    let mut connection = Connection::open(gateway.address());
    let _ = connection.stream.write_all(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n").as_bytes());
    assert!(connection.try_receive(false).map_or(true, |a| a.status == 400));
    let large = "y".repeat(70_000);
    let answer = gateway.request("GET", "/", &[("x-large", &large)]);
    assert_eq!((answer.status, answer.reason().as_str()), (431, "headers_too_large"));
    let path = "/".to_owned() + &"a".repeat(20_000);
    assert_eq!(gateway.get(&path).status, 414);
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn connections_over_the_limit_wait() {
    let target = Target::named("echo", "a");
    let gateway = echoing(&target, "listeners: [{name: main, address: 127.0.0.1:0, limits: {connections: 2}}]");
    let mut first = Connection::open(gateway.address());
    let mut second = Connection::open(gateway.address());
    // Neither is idle.
    first.send(head("GET", "/hold", &[]));
    second.send(head("GET", "/hold", &[]));
    eventually("the target has both", || target.count() == 2);
    let mut third = Connection::open(gateway.address());
    third.send(head("GET", "/", &[]));
    third.stream.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    assert!(third.try_receive(false).is_err(), "the third was served beside the two");
    target.release();
    assert_eq!(first.receive().status, 200);
    third.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    assert_eq!(third.receive().status, 200);
}

#[test]
fn the_shield_holds_back_one_address_and_not_the_others() {
    let target = Target::echo("a");
    let gateway = echoing(&target, "shield: {requests_per_address: 1/s}");
    let mut connection = Connection::open(gateway.address());
    let answers: Vec<_> = (0..200).map(|_| connection.ask(head("GET", "/", &[]))).collect();
    let refused: Vec<_> = answers.iter().filter(|a| a.status == 429).collect();
    assert!(refused.len() >= 100, "{}", refused.len());
    assert_eq!(refused[0].reason(), "shielded");
    let other = std::net::Ipv4Addr::new(127, 0, 0, 7);
    assert_eq!(Connection::open_from(gateway.address(), other).ask(head("GET", "/", &[])).status, 200);
}

#[test]
fn a_panic_is_not_the_process() {
    // Nesting beyond the bound is the nearest that a target comes to breaking a filter.
    let deep: &'static [u8] = "[".repeat(5_000).leak().as_bytes();
    let target = Target::fixed(200, &[("content-type", "application/json")], deep);
    let gateway = Gateway::start(&format!(
        "upstreams: {{deep: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, filters: [{{strip_fields: {{response: [a]}}}}], action: {{forward: deep}}}}]",
        target.address
    ));
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]));
    // The head may have gone out: then the body is broken off, never ended as if it were whole.
    assert!(connection.try_receive(false).map_or(true, |a| a.status == 502));
    assert_eq!(gateway.access_log(1)[0]["reason"], "response_opaque");
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let cut = Arc::new(AtomicBool::new(false));
    let noticed = Arc::clone(&cut);
    let target = Target::new(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        let part = [b'x'; 64 * 1024];
        while stream.write_all(&part).is_ok() {}
        noticed.store(true, Ordering::Release);
        Ok(())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{endless: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: endless}}}}]\nlisteners: [{{name: main, address: 127.0.0.1:0, limits: {{body_idle_time: 300ms}}}}]",
        target.address
    ));
    let mut slow = Connection::open(gateway.address());
    slow.send(head("GET", "/", &[]));
    // It reads a little every now and then, for longer than the limit, and is served.
    for _ in 0..10 {
        let mut some = vec![0; 1 << 20];
        std::io::Read::read_exact(&mut slow.stream, &mut some).expect("some of it");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!cut.load(Ordering::Acquire));
    // And then nothing any more.
    eventually("the target is let go", || cut.load(Ordering::Acquire));
    assert_eq!(gateway.access_log(1)[0]["reason"], "client_gone");
}

/// What was read behind a request is the next one: it is answered without a further byte.
#[test]
fn pipelined_requests_are_all_answered() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        target.address
    ));
    let next = head("GET", "/n", &[]);
    // A target that is encoded is longer in Pingora's hands than it was on the wire, by two octets a quotation mark.
    for quotes in 1..=next.len() {
        let first = format!("GET /r?{}x HTTP/1.1\r\nHost: a\r\n\r\n", "\"".repeat(quotes));
        let mut connection = Connection::open(gateway.address());
        connection.send(first + &next);
        let statuses = [connection.receive().status, connection.receive().status];
        assert!(statuses == [200, 200], "{quotes} quotation marks: {statuses:?}");
    }
    // A part of the next request comes with the first, and the rest of it with one that is as long as that part.
    for part in [1, next.len() / 2, next.len() - 1] {
        let third = head("GET", &format!("/{}", "t".repeat(200 + part)), &[]);
        let second = head("GET", &format!("/{}", "s".repeat(third.len())), &[]);
        for cut in [third.len() - 1, third.len(), third.len() + 1] {
            let mut connection = Connection::open(gateway.address());
            connection.send(head("GET", "/first", &[]) + &second[..cut]);
            assert_eq!(connection.receive().status, 200);
            connection.send(second[cut..].to_owned() + &third);
            assert_eq!([connection.receive().status, connection.receive().status], [200, 200], "cut at {cut}");
        }
    }
}

/// The rest of a head that has begun has the time for heads, also where it began behind another request.
#[test]
fn a_head_that_began_behind_a_request_has_no_more_time() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "listeners: [{{name: main, address: '127.0.0.1:0', limits: {{header_time: 300ms, idle_time: 1h}}}}]
upstreams: {{pool: {{targets: [\"{}\"]}}}}
routes: [{{name: all, action: {{forward: pool}}}}]",
        target.address
    ));
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[]) + "GET / HTTP/1.1\r\nHo");
    assert_eq!(connection.receive().status, 200);
    assert_eq!(connection.receive().status, 408);
}
