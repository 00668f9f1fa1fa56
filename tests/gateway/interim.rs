//! Interim responses, expectations, copies of bodies, and targets that take their time.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::{TcpListener, TcpStream};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn gateway(address: SocketAddr, upstream: &str, route: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{address}\"]{upstream}}}}}
routes: [{{name: all, {route} action: {{forward: one}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]"
    ))
}

/// An HTTP/2 target that answers with the length of the body and whether it was asked to expect it.
fn http2_target() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        block(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, answer))) = connection.accept().await {
                        tokio::spawn(measure(request, answer));
                    }
                });
            }
        });
    });
    address
}

async fn measure(request: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>) {
    let expect = request.headers().contains_key("expect").to_string();
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(Ok(part)) = body.data().await {
        length += part.len();
        let _ = body.flow_control().release_capacity(part.len());
    }
    let head = Response::builder().header("x-length", length).header("x-expect", expect);
    let _ = answer.send_response(head.body(()).expect("a head"), true);
}

#[test]
fn the_gateway_itself_takes_a_body_for_http2_targets() {
    let gateway = gateway(http2_target(), ", protocol: http2", "");
    let mut client = Connection::open(gateway.address());
    for _ in 0..2 {
        client.send(head("POST", "/", &[("content-length", "5"), ("expect", "100-continue")]));
        assert_eq!(client.receive().status, 100);
        client.send("hello");
        let answer = client.receive();
        assert_eq!(
            (answer.status, answer.header("x-length"), answer.header("x-expect")),
            (200, Some("5"), Some("false"))
        );
    }
    // Who does not wait is told once as well, and what has no body expects nothing.
    let mut client = Connection::open(gateway.address());
    assert_eq!(client.ask(head("POST", "/", &[("content-length", "0"), ("expect", "100-continue")])).status, 200);
}

#[test]
fn curl_uploads_to_http2_targets_without_a_pause() {
    let gateway = gateway(http2_target(), ", protocol: http2", "");
    let url = format!("http://{}/", gateway.address());
    let body = "x".repeat(2_000_000);
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &body).expect("written");
        let begun = Instant::now();
        let output = Command::new("curl")
            .args([
                "-sS",
                version,
                "--expect100-timeout",
                "60",
                "-H",
                "Expect: 100-continue",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--data-binary",
            ])
            .args([format!("@{}", file.path().display()), url.clone()])
            .output();
        let Ok(output) = output else { return };
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "200", "{version}: {errors}");
        // It waits for a minute where nothing comes.
        assert!(begun.elapsed() < Duration::from_secs(30), "{version}: {:?}", begun.elapsed());
    }
}

#[test]
fn http_1_0_clients_get_no_interim_response() {
    let target = Target::new(|stream, seen| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")?;
        let expect = seen.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("expect")).to_string();
        answer(stream, 200, &[("x-expect", expect.as_str())], b"ok")
    });
    for retry in ["", ", retry: {hedge_after: 1s}"] {
        let gateway = gateway(target.address, retry, "");
        for old in [
            "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
        ] {
            let mut client = Connection::open(gateway.address());
            client.send(old);
            let answer = client.receive();
            assert_eq!((answer.status, answer.header("x-expect")), (200, Some("false")), "{retry} {old}");
        }
        // Others do, and their connection is kept.
        let mut client = Connection::open(gateway.address());
        for _ in 0..2 {
            let hint = client.ask(head("GET", "/", &[]));
            assert_eq!((hint.status, hint.header("link")), (103, Some("</a.css>")), "{retry}");
            assert_eq!(client.receive().status, 200, "{retry}");
        }
    }
}

#[test]
fn interim_responses_are_bounded() {
    let target = Target::new(|stream, seen| {
        let count = seen.target.trim_start_matches('/').parse().unwrap_or(0);
        for _ in 0..count {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n")?;
        }
        answer(stream, 200, &[], b"ok")
    });
    for retry in [", retry: {attempts: 1}", ", retry: {attempts: 2, hedge_after: 10s, when: []}"] {
        let gateway = gateway(target.address, retry, "");
        for (count, status) in [(16, 200), (17, 502)] {
            let mut client = Connection::open(gateway.address());
            client.send(head("GET", &format!("/{count}"), &[]));
            let answer = loop {
                let answer = client.receive();
                if answer.status != 103 {
                    break answer;
                }
            };
            assert_eq!(answer.status, status, "{retry} {count}");
            if status == 502 {
                assert_eq!(answer.reason(), "target_protocol");
            }
        }
    }
}

#[test]
fn a_head_that_drips_is_bounded_as_a_whole() {
    let target = Target::new(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-drip: ")?;
        loop {
            stream.write_all(b"x")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    for retry in ["retry: {attempts: 1}", "retry: {attempts: 2, hedge_after: 10s, when: []}"] {
        let gateway = gateway(target.address, &format!(", timeouts: {{read: 400ms}}, {retry}"), "");
        let begun = Instant::now();
        let answer = gateway.get("/");
        assert_eq!((answer.status, answer.reason().as_str()), (504, "target_timeout"), "{retry}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{retry}");
    }
}

/// A target that keeps the bodies it gets.
fn keeping() -> (Target, Arc<std::sync::Mutex<Vec<usize>>>) {
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = Arc::clone(&bodies);
    let target = Target::new(move |stream, seen| {
        kept.lock().expect("the bodies").push(seen.body.len());
        answer(stream, 200, &[], b"ok")
    });
    (target, bodies)
}

#[test]
fn bodies_of_several_parts_are_mirrored() {
    let (copies, lengths) = keeping();
    let http1 = Target::echo("a");
    for one in
        [format!("targets: [\"{}\"]", http1.address), format!("targets: [\"{}\"], protocol: http2", http2_target())]
    {
        lengths.lock().expect("the bodies").clear();
        let gateway = Gateway::start(&format!(
            "upstreams: {{one: {{{one}}}, copies: {{targets: [\"{}\"]}}}}
routes: [{{name: all, action: {{forward: {{upstream: one, mirror: {{upstream: copies}}}}}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}}]",
            copies.address
        ));
        // In chunks, and of a length that is known; the parts come one by one.
        let chunk = format!("7530\r\n{}\r\n", "x".repeat(30_000));
        let part = "x".repeat(30_000);
        for (field, value, part, last) in
            [("transfer-encoding", "chunked", &chunk, "0\r\n\r\n"), ("content-length", "60000", &part, "")]
        {
            let mut client = Connection::open(gateway.address());
            client.send(head("POST", "/", &[(field, value)]));
            client.send(part);
            std::thread::sleep(Duration::from_millis(50));
            client.send(part);
            client.send(last);
            assert_eq!(client.receive().status, 200);
        }
        // Over HTTP/2.
        block(async {
            let stream = TcpStream::connect(gateway.address()).await.expect("a connection");
            let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = Request::builder()
                .method("POST")
                .uri(format!("http://{}/", gateway.address()))
                .body(())
                .expect("a request");
            let (answer, mut send) = client.send_request(request, false).expect("sent");
            for end in [false, true] {
                send.send_data(Bytes::from_static(&[b'x'; 20_000]), end).expect("sent");
            }
            assert_eq!(answer.await.expect("an answer").status(), 200);
        });
        // Without a body; and with one that is too long, which is counted.
        assert_eq!(gateway.get("/").status, 200);
        let long = "x".repeat(70_000);
        let answer = Connection::open(gateway.address()).ask(head("POST", "/", &[("content-length", "70000")]) + &long);
        assert_eq!(answer.status, 200);
        eventually("the copies are there", || lengths.lock().expect("the bodies").len() == 4);
        let mut all = lengths.lock().expect("the bodies").clone();
        all.sort_unstable();
        assert_eq!(all, [0, 40_000, 60_000, 60_000], "{one}");
        let outcome = |outcome: &str| {
            gateway.metric(&format!("portcullis_mirrored_total{{outcome=\"{outcome}\",upstream=\"copies\"}}"))
        };
        eventually("all are counted", || outcome("answered") > 3.5 && outcome("failed") > 0.5);
    }
}

#[test]
fn a_body_that_is_sent_again_is_mirrored_once() {
    let (copies, lengths) = keeping();
    let failures = AtomicUsize::new(0);
    let failing = Target::new(move |stream, _| {
        let status = if failures.fetch_add(1, Ordering::AcqRel) == 0 { 503 } else { 200 };
        answer(stream, status, &[], b"")
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], retry: {{statuses: \"503\", backoff: 1ms}}}}, copies: {{targets: [\"{}\"]}}}}
routes: [{{name: all, action: {{forward: {{upstream: one, mirror: {{upstream: copies}}}}}}}}]",
        failing.address, copies.address
    ));
    let answer = Connection::open(gateway.address()).ask(head("PUT", "/", &[("content-length", "5")]) + "hello");
    assert_eq!((answer.status, failing.count()), (200, 2));
    eventually("the copy is there", || *lengths.lock().expect("the bodies") == [5]);
}

#[test]
fn a_get_is_sent_again_after_a_time_out() {
    let (slow, fast) = (Target::named("stall", "a"), Target::echo("b"));
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\", \"{}\"], timeouts: {{read: 200ms}}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]",
        slow.address, fast.address
    ));
    for _ in 0..4 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(slow.count() > 0);
    // What may have had an effect is not.
    let statuses: Vec<u16> = (0..4).map(|_| gateway.request("POST", "/", &[("content-length", "0")]).status).collect();
    assert!(statuses.contains(&504), "{statuses:?}");
}

#[test]
fn a_stopped_target_comes_back_when_it_answers() {
    for (probe, comes_back) in
        [("{interval: 30ms, timeout: 10s}", false), ("{path: /healthz, interval: 30ms, timeout: 10s}", true)]
    {
        let stopped = Arc::new(AtomicBool::new(true));
        let is_stopped = Arc::clone(&stopped);
        let target = Target::new(move |stream, seen| {
            // The probe of this target is answered in any case: it is a request that hangs.
            while seen.target != "/healthz" && is_stopped.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
            }
            answer(stream, 200, &[], b"ok")
        });
        let other = Target::echo("b");
        let gateway = Gateway::start(&format!(
            "upstreams: {{one: {{targets: [\"{}\", \"{}\"], timeouts: {{read: 400ms}}, retry: {{attempts: 1}},
  health: {{active: {probe}, passive: {{failures: 1, gateway_failures: 1, ejection: 1h, max_ejection: 1h, max_ejected: 50}}}}}}}}
routes: [{{name: all, action: {{forward: one}}}}]",
            target.address, other.address
        ));
        let ejected =
            || gateway.metric("portcullis_target_ejections_total{reason=\"consecutive_failures\",upstream=\"one\"}");
        eventually("it is out", || {
            gateway.get("/");
            ejected() > 0.5
        });
        let before = ejected();
        if comes_back {
            eventually("it is out once more", || {
                gateway.get("/");
                ejected() > before + 0.5
            });
        } else {
            // Some twenty probes connect to it meanwhile.
            std::thread::sleep(Duration::from_millis(600));
            for _ in 0..10 {
                assert_eq!(gateway.get("/").status, 200);
            }
            assert!((ejected() - before).abs() < 0.5);
        }
        stopped.store(false, Ordering::Release);
    }
}

/// Bytes of memory that a process has.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") * 1024
}

#[test]
fn a_response_that_is_not_read_is_not_read_ahead() {
    const CLIENTS: u64 = 200;
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let target = Target::new(move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n")?;
        let part = [b'x'; 50_000];
        for _ in 0..400 {
            stream.write_all(&part)?;
            counted.fetch_add(part.len(), Ordering::AcqRel);
        }
        Ok(())
    });
    let gateway = gateway(target.address, "", "");
    let mut clients = Vec::new();
    let mut wait = || {
        for _ in 0..CLIENTS {
            let mut client = Connection::open(gateway.address());
            socket2::SockRef::from(&client.stream).set_recv_buffer_size(4096).expect("set");
            client.send(head("GET", "/", &[]));
            clients.push(client);
        }
        let still = || {
            let then = sent.load(Ordering::Acquire);
            std::thread::sleep(Duration::from_millis(300));
            then > 0 && then == sent.load(Ordering::Acquire)
        };
        eventually("nothing moves any more", still);
        memory(gateway.child.id())
    };
    // What there is once for all of them is there with the first.
    let before = wait();
    let each = wait().saturating_sub(before) / CLIENTS;
    println!("{each} bytes for a response that waits");
    assert!(each < 200 * 1024, "{each} bytes for a response that waits");
    // One that reads after a pause gets all of it.
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/", &[("connection", "close")]));
    eventually("nothing moves any more", || {
        let then = sent.load(Ordering::Acquire);
        std::thread::sleep(Duration::from_millis(300));
        then == sent.load(Ordering::Acquire)
    });
    assert_eq!(client.receive().body.len(), 20_000_000);
}
