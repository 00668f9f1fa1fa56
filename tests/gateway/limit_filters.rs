//! Limits of concurrency, throttles, limits of bandwidth, and limits over reloads.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};

const HANDSHAKE: &[(&str, &str)] = &[
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
];

fn with(target: &Target, routes: &str) -> String {
    format!("upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes:\n{routes}", target.address)
}

/// Sends a request whose target holds its answer, once the target has it.
fn held(to: SocketAddr, target: &Target, path: &str) -> Connection {
    let before = target.count();
    let mut connection = Connection::open(to);
    connection.send(head("GET", path, &[]));
    eventually("the target has it", || target.count() > before);
    connection
}

#[test]
fn a_place_is_held_for_as_long_as_the_request_lives() {
    let target = Target::named("echo", "a");
    let gateway = Gateway::start(&with(
        &target,
        "  - {name: two, match: {path: /hold/*}, filters: [{concurrency: {limit: 2}}], action: {forward: echo}}
  - {name: full, match: {path: /hold-route}, filters: [{concurrency: {limit: 1, by: route}}], action: {forward: echo}}
  - {name: fixed, match: {path: /fixed}, filters: [{concurrency: {limit: 1}}], action: {respond: {body: ok}}}",
    ));
    let to = gateway.address();
    let (one, two) = (held(to, &target, "/hold/1"), held(to, &target, "/hold/2"));
    let rejected = gateway.get("/hold/3");
    assert_eq!((rejected.status, rejected.reason().as_str()), (429, "concurrency_limited"));
    assert_eq!(rejected.header("retry-after"), Some("1"));
    // Another client has its own places.
    let mut other = Connection::open_from(to, [127, 0, 0, 9].into());
    other.send(head("GET", "/hold/4", &[]));
    eventually("the other's request is there", || target.count() == 3);
    // A client that goes frees its place.
    drop(one);
    let third = std::cell::RefCell::new(None);
    eventually("the place is free", || {
        let mut connection = Connection::open(to);
        connection.send(head("GET", "/hold/5", &[]));
        let before = Instant::now();
        while target.count() < 4 && before.elapsed() < Duration::from_millis(200) {
            std::thread::yield_now();
        }
        let is_there = target.count() == 4;
        *third.borrow_mut() = Some(connection);
        is_there
    });
    let full = held(to, &target, "/hold-route");
    let rejected = gateway.get("/hold-route");
    assert_eq!((rejected.status, rejected.reason().as_str()), (503, "route_full"));
    target.release();
    for mut connection in [two, other, full, third.into_inner().expect("a request")] {
        assert_eq!(connection.receive().status, 200);
    }
    // Each response is followed by the next request on another connection: the place is free in time.
    for _ in 0..200 {
        assert_eq!(gateway.get("/fixed").status, 200);
        assert_eq!(gateway.get("/hold-route").status, 200);
    }
}

#[test]
fn a_websocket_holds_its_place() {
    let target = Target::new(|stream, _| {
        use std::io::{Read, Write};
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let _ = stream.read(&mut [0; 100])?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let gateway =
        Gateway::start(&with(&target, "  - {name: ws, filters: [{concurrency: {limit: 1}}], action: {forward: echo}}"));
    let mut socket = Connection::open(gateway.address());
    assert_eq!(socket.ask(head("GET", "/", HANDSHAKE)).status, 101);
    assert_eq!(gateway.request("GET", "/", HANDSHAKE).status, 429);
    socket.send("bye");
    assert!(socket.is_closed());
    drop(socket);
    eventually("the place is free", || gateway.request("GET", "/", HANDSHAKE).status == 101);
}

#[test]
fn a_throttle_delays_in_order_and_a_client_that_leaves_frees_its_turn() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&with(
        &target,
        "  - {name: paced, match: {path: /paced/*}, filters: [{throttle: {limit: 20/s, by: route}}], action: {forward: echo}}
  - {name: slow, match: {path: /slow/*}, filters: [{throttle: {limit: 1/2s, by: route, queue: 3, max_delay: 1m}}], action: {forward: echo}}",
    ));
    let to = gateway.address();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| assert_eq!(client::get(to, "/paced/x").status, 200));
        }
    });
    assert!(begun.elapsed() >= Duration::from_millis(450), "ten at 20/s took {:?}", begun.elapsed());
    let begun = Instant::now();
    assert_eq!(gateway.get("/slow/0").status, 200);
    let waiting = |path: &str| {
        let mut connection = Connection::open(to);
        connection.send(head("GET", path, &[]));
        connection
    };
    let mut all: Vec<Connection> = Vec::new();
    // The queue is full with three; which requests wait is seen by those that are rejected.
    eventually("three wait", || {
        let mut probe = waiting("/slow/w");
        probe.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time-out");
        match probe.try_receive(false) {
            Ok(rejected) => {
                assert_eq!((rejected.status, rejected.reason().as_str()), (429, "throttle_full"));
                assert!(rejected.header("retry-after").is_some());
                true
            }
            Err(_) => {
                all.push(probe);
                false
            }
        }
    });
    // All but the last leave: its turn is the first that comes.
    let mut last = all.pop().expect("one waits");
    drop(all);
    last.stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    assert_eq!(last.receive().status, 200);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_900) && took < Duration::from_millis(5_500), "{took:?}");
}

/// A body of 300,000 bytes at 200 KB/s, after a burst of 64 KiB, takes 1.17 s.
const SIZE: usize = 300_000;

fn at_least_a_second(what: &str, work: impl FnOnce()) {
    let begun = Instant::now();
    work();
    assert!(begun.elapsed() >= Duration::from_millis(1_100), "{what} took {:?}", begun.elapsed());
}

#[test]
fn bodies_keep_their_pace_on_every_way() {
    let target = Target::new(|stream, seen| {
        let body = if seen.method == "GET" { vec![b'x'; SIZE] } else { seen.body.len().to_string().into_bytes() };
        answer(stream, 200, &[], &body)
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("big.txt"), vec![b'x'; SIZE]).expect("written");
    let limit = "filters: [{bandwidth: {response: 200KB/s, request: 200KB/s}}]";
    let yaml = format!(
        "upstreams:
  one: {{targets: [\"{0}\"]}}
  hedged: {{targets: [\"{0}\"], retry: {{attempts: 2, hedge_after: 10s}}}}
routes:
  - {{name: forward, match: {{path: /forward}}, {limit}, action: {{forward: one}}}}
  - {{name: relayed, match: {{path: /relayed}}, {limit}, action: {{forward: hedged}}}}
  - {{name: files, match: {{path: /files/*}}, {limit}, action: {{files: {{root: {1}, strip_prefix: /files}}}}}}
  - {{name: together, match: {{path: /together}}, filters: [{{bandwidth: {{response: 400KB/s, by: route}}}}], action: {{forward: one}}}}
  - {{name: free, match: {{path: /free}}, action: {{forward: one}}}}",
        target.address,
        folder.path().display(),
    );
    let gateway = Gateway::start(&yaml);
    for path in ["/forward", "/relayed", "/files/big.txt"] {
        at_least_a_second(path, || {
            let response = gateway.get(path);
            assert_eq!((response.status, response.body.len()), (200, SIZE), "{path}");
        });
    }
    at_least_a_second("an upload", || {
        let length = SIZE.to_string();
        let mut connection = Connection::open(gateway.address());
        connection.send(head("POST", "/forward", &[("content-length", &length)]));
        connection.send(vec![b'x'; SIZE]);
        assert_eq!(connection.receive().text(), length);
    });
    // Two at a time share the rate: 600,000 bytes at 400 KB/s.
    at_least_a_second("two together", || {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert_eq!(gateway.get("/together").body.len(), SIZE));
            }
        });
    });
    let begun = Instant::now();
    assert_eq!(gateway.get("/free").body.len(), SIZE);
    assert!(begun.elapsed() < Duration::from_millis(1_100));
}

/// Sends requests on several connections until `stop`, and counts those that were admitted and rejected. A connection
/// that breaks is opened anew.
pub fn load(to: SocketAddr, clients: usize, stop: &AtomicBool, admitted: &AtomicUsize, rejected: &AtomicUsize) {
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    match Connection::try_open(to) {
                        Ok(connection) => ask_on(connection, stop, admitted, rejected),
                        Err(_) => std::thread::sleep(Duration::from_millis(1)),
                    }
                }
            });
        }
    });
}

fn ask_on(mut connection: Connection, stop: &AtomicBool, admitted: &AtomicUsize, rejected: &AtomicUsize) {
    use std::io::Write;
    while !stop.load(Ordering::Acquire) {
        if connection.stream.write_all(head("GET", "/", &[]).as_bytes()).is_err() {
            return;
        }
        let Ok(response) = connection.try_receive(false) else { return };
        match response.status {
            200 => _ = admitted.fetch_add(1, Ordering::AcqRel),
            429 => {
                rejected.fetch_add(1, Ordering::AcqRel);
                std::thread::sleep(Duration::from_millis(10));
            }
            other => panic!("{other}: {}", response.text()),
        }
    }
}

/// A hundred clients against a limit of 50, over reloads and upgrades.
fn exactly_fifty(reloads: usize, upgrades: usize) {
    let target = Target::echo("a");
    let yaml = |note: usize| {
        with(
            &target,
            &format!(
                "  - {{name: all, filters: [{{rate_limit: {{limit: [50/d, 5000/2d], by: route}}}}, {{headers: {{response: {{set: {{x-note: \"{note}\"}}}}}}}}], action: {{forward: echo}}}}{}\nadmin: {{address: 127.0.0.1:0}}",
                super::upgrade::PROCESS
            ),
        )
    };
    let gateway = Gateway::start(&yaml(0));
    let (to, stop, admitted, rejected) =
        (gateway.address(), AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let mut successors = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| load(to, 100, &stop, &admitted, &rejected));
        for step in 1..=reloads {
            gateway.write_config(&yaml(step));
            assert_eq!(gateway.reload().status, 200);
            if upgrades > 0 && step % (reloads / upgrades) == 0 {
                successors.push(super::upgrade::upgrade(&gateway).0);
            }
        }
        let until = rejected.load(Ordering::Acquire) + 200;
        eventually("all have been rejected since", || rejected.load(Ordering::Acquire) > until);
        stop.store(true, Ordering::Release);
    });
    assert_eq!((admitted.into_inner(), target.count(), successors.len()), (50, 50, upgrades));
}

/// With `LONG_TESTS=1` over more of them, which takes a while.
#[test]
fn a_limit_is_exact_over_reloads_and_upgrades() {
    let (reloads, upgrades) = if std::env::var_os("LONG_TESTS").is_some() { (21, 3) } else { (4, 1) };
    exactly_fifty(reloads, upgrades);
}
