//! Targets that die, come back, and change.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer, refused};

fn config(addresses: &[std::net::SocketAddr], rest: &str) -> String {
    let targets: Vec<String> = addresses.iter().map(|a| format!("\"{a}\"")).collect();
    format!(
        "upstreams: {{pool: {{targets: [{}], {rest}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]",
        targets.join(", ")
    )
}

#[test]
fn a_target_that_fails_its_probes_is_out_and_comes_back() {
    let up = std::sync::Arc::new(AtomicBool::new(true));
    let probed = std::sync::Arc::clone(&up);
    let sick = Target::new(move |stream, seen| {
        let status = if seen.target == "/healthz" && !probed.load(Ordering::Acquire) { 500 } else { 200 };
        answer(stream, status, &[("x-target", "sick")], b"")
    });
    let well = Target::new(|stream, _| answer(stream, 200, &[("x-target", "well")], b""));
    let health = "health: {active: {path: /healthz, interval: 50ms, fall: 2, rise: 2}}";
    let gateway = Gateway::start(&config(&[sick.address, well.address], health));
    let sick_gets = || (0..10).any(|_| gateway.get("/").header("x-target") == Some("sick"));
    assert!(sick_gets());
    up.store(false, Ordering::Release);
    eventually("it is out", || !sick_gets());
    let state = client::get(gateway.admin, "/upstreams").json();
    let of_sick =
        state[0]["targets"].as_array().expect("targets").iter().find(|t| t["address"] == sick.address.to_string());
    let of_sick = of_sick.expect("the target");
    assert_eq!(of_sick["health"]["status"], "unhealthy");
    assert!(of_sick["health"]["reason"].as_str().is_some_and(|r| r.contains("500")), "{of_sick}");
    let series = format!("portcullis_target_healthy{{target=\"{}\",upstream=\"pool\"}}", sick.address);
    assert!(gateway.metric(&series) < 0.5);
    up.store(true, Ordering::Release);
    eventually("it is back", sick_gets);
}

#[test]
fn the_first_probe_decides() {
    let (_held, refused) = refused();
    let well = Target::echo("well");
    let health = "health: {active: {interval: 1h, timeout: 10s, fall: 3}}";
    let gateway = Gateway::start(&config(&[refused, well.address], health));
    assert!((0..20).all(|_| gateway.get("/").status == 200));
    assert_eq!(gateway.access_log(20).iter().filter(|l| l["tries"].is_number()).count(), 0, "a dead target was tried");
}

#[test]
fn dying_targets_cost_no_get() {
    let survivor = Target::echo("b");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = Gateway::start(&config(
        &[address, survivor.address],
        "health: {active: {interval: 100ms, timeout: 10s, fall: 1, rise: 1}}",
    ));
    let (stop, errors, fine) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                while !stop.load(Ordering::Acquire) {
                    connection.send(head("GET", "/", &[]));
                    let status = connection.try_receive(false).map_or(0, |a| a.status);
                    if status == 0 {
                        connection = Connection::open(gateway.address());
                    }
                    let counter = if status == 200 { &fine } else { &errors };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // The target resets whatever it has, again and again, and is gone for a while.
        let mut first = Some(listener);
        for _ in 0..5 {
            let listener = first.take().unwrap_or_else(|| rebind(address));
            let dying = AtomicUsize::new(0);
            let target = Target::on(listener, move |stream, _| {
                if dying.fetch_add(1, Ordering::Relaxed) > 50 {
                    socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
                answer(stream, 200, &[("x-target", "a")], b"")
            });
            let before = target.count();
            eventually("the target dies under load", || target.count() > before + 60);
            drop(target);
        }
        stop.store(true, Ordering::Release);
    });
    let wrong: Vec<_> = gateway.access_log(300).into_iter().filter(|l| l["reason"] != "forwarded").collect();
    assert_eq!(errors.into_inner(), 0, "{wrong:#?}");
    assert!(fine.into_inner() > 300);
}

fn rebind(address: std::net::SocketAddr) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("set");
    eventually("the port is free again", || socket.bind(&address.into()).is_ok());
    socket.listen(128).expect("listening");
    socket.into()
}

#[test]
fn a_post_is_not_sent_twice() {
    let seen = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&seen);
    let closing = move |stream: &mut std::net::TcpStream, _: &super::harness::target::Seen| {
        counted.fetch_add(1, Ordering::AcqRel);
        socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
        Err(std::io::ErrorKind::ConnectionReset.into())
    };
    let (a, b) = (Target::new(closing.clone()), Target::new(closing));
    let gateway = Gateway::start(&config(&[a.address, b.address], ""));
    let answer = gateway.request("POST", "/", &[("content-length", "0")]);
    assert_eq!((answer.status, answer.reason().as_str()), (502, "target_reset"));
    assert_eq!(seen.load(Ordering::Acquire), 1);
    // A GET is: to the other one, and once more when there is none that was not tried.
    assert_eq!(gateway.get("/").status, 502);
    assert_eq!(seen.load(Ordering::Acquire), 4);
    assert!(a.count() >= 1 && b.count() >= 1);
}

#[test]
fn a_body_that_is_sent_again_counts_once() {
    let closing = Target::named("close", "close");
    let well = Target::echo("well");
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\", \"{}\"]}}}}\nroutes: [{{name: all, body: 10KB, action: {{forward: pool}}}}]",
        closing.address, well.address
    ));
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.address());
        connection.send(head("PUT", "/", &[("content-length", "8000")]) + &"x".repeat(8_000));
        let answer = connection.receive();
        assert_eq!((answer.status, answer.json()["length"].as_u64()), (200, Some(8_000)), "{}", answer.text());
    }
}

#[test]
fn a_pool_that_replaces_another_has_probes_of_its_own() {
    let up = std::sync::Arc::new(AtomicBool::new(true));
    let probed = std::sync::Arc::clone(&up);
    let sick = Target::new(move |stream, seen| {
        if seen.target == "/held" {
            std::thread::sleep(Duration::from_secs(8));
        }
        let status = if seen.target == "/healthz" && !probed.load(Ordering::Acquire) { 500 } else { 200 };
        answer(stream, status, &[("x-target", "sick")], b"")
    });
    let well = Target::new(|stream, _| answer(stream, 200, &[("x-target", "well")], b""));
    let health = |read: &str| {
        format!("timeouts: {{read: {read}}}, health: {{active: {{path: /healthz, interval: 50ms, fall: 1, rise: 1}}}}")
    };
    let gateway = Gateway::start(&config(&[sick.address, well.address], &health("20s")));
    // Requests that hold the old pool while a reload replaces it.
    let held: Vec<Connection> = (0..4)
        .map(|_| {
            let mut connection = Connection::open(gateway.address());
            connection.send(head("GET", "/held", &[]));
            connection
        })
        .collect();
    gateway.write_config(&config(&[sick.address, well.address], &health("21s")));
    assert_eq!(gateway.reload().status, 200);
    let sick_gets = || (0..10).any(|_| gateway.get("/").header("x-target") == Some("sick"));
    for _ in 0..3 {
        up.store(false, Ordering::Release);
        eventually("it is out", || !sick_gets());
        up.store(true, Ordering::Release);
        eventually("it is back", sick_gets);
    }
    drop(held);
}

#[test]
fn least_connections_leaves_the_busy_one_alone() {
    let (release, hold) = channel::<()>();
    let hold = std::sync::Arc::new(std::sync::Mutex::new(hold));
    let busy = Target::new(move |stream, _| {
        let _ = hold.lock().expect("the gate").recv_timeout(Duration::from_secs(20));
        answer(stream, 200, &[("x-target", "busy")], b"")
    });
    let idle = Target::new(|stream, _| answer(stream, 200, &[("x-target", "idle")], b""));
    let gateway = Gateway::start(&config(&[busy.address, idle.address], "balance: least_connections"));
    let held = loop {
        let before = idle.count();
        let mut connection = Connection::open(gateway.address());
        connection.send(head("GET", "/", &[]));
        eventually("a target has it", || busy.count() == 1 || idle.count() > before);
        if busy.count() == 1 {
            break connection;
        }
        connection.receive();
    };
    let others: Vec<_> = (0..10).map(|_| gateway.get("/").header("x-target").map(str::to_owned)).collect();
    assert!(others.iter().all(|t| t.as_deref() == Some("idle")), "{others:?}");
    let series = format!("portcullis_target_requests_in_flight{{target=\"{}\",upstream=\"pool\"}}", busy.address);
    assert!((gateway.metric(&series) - 1.0).abs() < 0.1);
    // The client goes away: the count goes with it.
    drop(held);
    let _ = release.send(());
    eventually("nothing is in flight", || gateway.metric(&series) < 0.5);
}

#[test]
fn a_host_name_is_looked_up() {
    let target = Target::echo("a");
    let yaml = format!(
        "upstreams: {{pool: {{targets: [\"localhost:{}\"]}}}}\nroutes: [{{name: all, action: {{forward: {{upstream: pool, host: target}}}}}}]",
        target.address.port()
    );
    let gateway = Gateway::start(&yaml);
    let answer = gateway.get("/");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["headers"]["host"], format!("localhost:{}", target.address.port()));
}
