//! What a reload changes, and what it leaves alone.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, complete, run};
use super::harness::target::{Target, answer, refused};
use super::websocket::{UPGRADE, reflecting};

pub fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address")
}

/// `portcullis COMMAND -c … --admin …`
pub fn operate(gateway: &Gateway, command: &[&str]) -> (i32, String, String) {
    let config = gateway.folder.path().join("portcullis.yaml").display().to_string();
    let admin = gateway.admin.to_string();
    run(&[command, &["-c", &config, "--admin", &admin]].concat(), None)
}

#[test]
fn state_is_untouched() {
    let (_held, dead) = refused();
    // One that keeps its connections, and counts them.
    let connections = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let seen = Arc::clone(&connections);
    let kept = Target::new(move |stream, _| {
        seen.lock().expect("the set").insert(stream.peer_addr().expect("a peer"));
        answer(stream, 200, &[], b"kept")
    });
    let yaml = |n: usize| {
        format!(
            "upstreams:
  dead: {{targets: [\"{dead}\"], retry: {{attempts: 1}}, breaker: {{failures: 2, cool_down: 1h}}}}
  kept: {{targets: [\"{}\"], health: {{active: {{interval: 1h}}}}}}
  other{n}: {{targets: [\"{dead}\"]}}
routes:
  - {{name: limited, match: {{path: /limited}}, filters: [{{rate_limit: {{limit: 10/h, by: address}}}}], action: {{respond: {{body: ok}}}}}}
  - {{name: dead, match: {{path: /dead}}, action: {{forward: dead}}}}
  - {{name: kept, match: {{path: /kept}}, action: {{forward: kept}}}}
  - {{name: r{n}, match: {{path: /r{n}}}, action: {{forward: other{n}}}}}
process: {{threads: 1, drain_time: 10s}}",
            kept.address
        )
    };
    let gateway = Gateway::start(&yaml(0));
    eventually("the breaker opens", || gateway.get("/dead").reason() == "breaker_open");
    assert_eq!(gateway.get("/kept").text(), "kept");
    let probes = connections.lock().expect("the set").len();
    for n in 1..=20 {
        gateway.write_config(&yaml(n));
        assert_eq!(gateway.reload().status, 200);
        assert_eq!(gateway.get("/limited").status, if n <= 10 { 200 } else { 429 }, "request {n}");
        assert_eq!(gateway.get("/dead").reason(), "breaker_open");
        assert_eq!(gateway.get("/kept").text(), "kept");
    }
    assert_eq!(connections.lock().expect("the set").len(), probes, "a connection or a probe was made anew");
}

#[test]
fn streams_and_websockets_live_through_reloads() {
    let (sockets, go_on) = (reflecting(), Arc::new(AtomicUsize::new(0)));
    let events = Arc::clone(&go_on);
    let stream = Target::new(move |stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for event in 0.. {
            eventually("the next event", || events.load(Ordering::Acquire) >= event);
            stream.write_all(b"9\r\ndata: x\n\n\r\n")?;
        }
        Ok(())
    });
    let yaml = |n: usize| {
        format!(
            "upstreams: {{sockets: {{targets: [\"{}\"]}}, stream: {{targets: [\"{}\"]}}}}
routes:
  - {{name: events{n}, match: {{path: /events}}, action: {{forward: stream}}}}
  - {{name: all{n}, action: {{forward: sockets}}}}",
            sockets.address, stream.address
        )
    };
    let gateway = Gateway::start(&yaml(0));
    let mut socket = Connection::open(gateway.address());
    assert_eq!(socket.ask(head("GET", "/", UPGRADE)).status, 101);
    assert_eq!(socket.some().expect("the first frame"), b"hello");
    let mut events = Connection::open(gateway.address());
    events.send(head("GET", "/events", &[]));
    eventually("the stream has begun", || events.some().is_ok_and(|b| b.ends_with(b"data: x\n\n\r\n")));
    for n in 1..=20 {
        gateway.write_config(&yaml(n));
        assert_eq!(gateway.reload().status, 200);
        socket.send(b"again");
        assert_eq!(socket.some().expect("a frame"), b"again");
        go_on.store(n, Ordering::Release);
        assert!(events.some().expect("an event").ends_with(b"data: x\n\n\r\n"));
    }
}

#[test]
fn listeners_are_renamed_and_change_protocol_in_place() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("c.key"), made.signing_key.serialize_pem()).expect("written");
    let address = free();
    let yaml = |body: &str, name: &str, tls: &str| {
        format!(
            "routes: [{{name: all, action: {{respond: {{body: {body}}}}}}}]\nlisteners: [{{name: {name}, address: \"{address}\"{tls}}}]"
        )
    };
    let gateway = Gateway::start_in(folder, &yaml("one", "main", ""), &[]);
    let mut kept = Connection::open(address);
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "one");
    gateway.write_config(&yaml("two", "renamed", ""));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "two");
    assert_eq!(client::get(address, "/").text(), "two");
    gateway.write_config(&yaml("three", "renamed", ", tls: {certificates: [{cert: c.pem, key: c.key}]}"));
    assert_eq!(gateway.reload().status, 200);
    // Who is connected speaks on as before; whoever connects now has to speak TLS.
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "three");
    let mut plain = Connection::open(address);
    plain.send(head("GET", "/", &[]));
    assert!(plain.try_receive(false).map_or(true, |answer| answer.status != 200));
    gateway.write_config(&yaml("four", "renamed", ""));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(client::get(address, "/").text(), "four");
}

#[test]
fn connections_of_a_removed_listener_end_with_their_request() {
    let (address, other) = (free(), free());
    let yaml = |body: &str, address: SocketAddr| {
        format!(
            "routes: [{{name: all, action: {{respond: {{body: {body}}}}}}}]\nlisteners: [{{name: stays, address: \"{other}\"}}, {{name: x, address: \"{address}\"}}]"
        )
    };
    let gateway = Gateway::start(&yaml("before", address));
    let mut kept = Connection::open(address);
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "before");
    gateway.write_config(&yaml("after", free()).replace("name: x", "name: y"));
    assert_eq!(gateway.reload().status, 200);
    // A request that was on its way is served as it would have been, and told that it was the last.
    let last = kept.ask(head("GET", "/", &[]));
    assert_eq!((last.text().as_str(), last.header("connection")), ("before", Some("close")));
    eventually("nobody listens", || Connection::try_open(address).is_err());
    assert_eq!(client::get(other, "/").text(), "after");
}

/// A listener is where it is, and not what it is called.
#[test]
fn a_name_that_goes_to_another_listener_takes_no_connection_with_it() {
    let (one, two) = (free(), free());
    let yaml = |when: &str, names: &[(&str, SocketAddr)]| {
        let listeners: Vec<String> =
            names.iter().map(|(name, address)| format!("{{name: {name}, address: \"{address}\"}}")).collect();
        format!(
            "routes:\n  - {{name: a, listeners: [x], action: {{respond: {{body: {when}-of-x}}}}}}\n  - {{name: b, listeners: [y], action: {{respond: {{body: {when}-of-y}}}}}}\nlisteners: [{}]",
            listeners.join(", ")
        )
    };
    let gateway = Gateway::start(&yaml("first", &[("x", one), ("y", two)]));
    let mut kept = Connection::open(one);
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "first-of-x");
    gateway.write_config(&yaml("then", &[("y", one), ("x", two)]));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "then-of-y");
    // It is removed, and another has its name from now on: who is connected is served as before.
    gateway.write_config(&yaml("last", &[("y", two), ("x", free())]));
    assert_eq!(gateway.reload().status, 200);
    let last = kept.ask(head("GET", "/", &[]));
    assert_eq!((last.text().as_str(), last.header("connection")), ("then-of-y", Some("close")));
    assert_eq!(client::get(two, "/").text(), "last-of-y");
}

/// Names come and go while requests are under way on connections that stay.
#[test]
fn renaming_answers_every_request() {
    let address = free();
    let yaml = |n: usize| {
        let upstreams: Vec<String> = (0..100).map(|i| format!("u{i}: {{targets: [\"127.0.0.1:9\"]}}")).collect();
        let routes: Vec<String> =
            (0..100).map(|i| format!("{{name: r{i}, match: {{path: /{i}}}, action: {{forward: u{i}}}}}")).collect();
        format!(
            "upstreams: {{{}}}\nroutes: [{{name: all, action: {{respond: {{body: fine}}}}}}, {}]\nlisteners: [{{name: n{n}, address: \"{address}\"}}]",
            upstreams.join(", "),
            routes.join(", ")
        )
    };
    let gateway = Gateway::start(&yaml(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = Connection::open(address);
                    let mut count = 0;
                    while !stop.load(Ordering::Acquire) {
                        assert_eq!(connection.ask(head("GET", "/", &[])).text(), "fine");
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        for n in 1..=20 {
            gateway.write_config(&yaml(n));
            assert_eq!(gateway.reload().status, 200);
        }
        stop.store(true, Ordering::Release);
        assert!(clients.into_iter().all(|client| client.join().expect("every answer is fine") > 0));
    });
}

#[test]
fn a_limit_that_changes_goes_on_with_what_was_counted() {
    let yaml = |limit: &str| {
        format!(
            "routes: [{{name: a, filters: [{{rate_limit: {{limit: {limit}, by: address}}}}], action: {{respond: {{body: ok}}}}}}]"
        )
    };
    let gateway = Gateway::start(&yaml("3/h"));
    assert_eq!([1, 2, 3, 4].map(|_| gateway.get("/").status), [200, 200, 200, 429]);
    for (limit, left) in [("3/h, burst: 3", 0), ("5/h", 2), ("4/h", 0), ("100/h", 96)] {
        gateway.write_config(&yaml(limit));
        assert_eq!(gateway.reload().status, 200);
        let passed = (0..left).filter(|_| gateway.get("/").status == 200).count();
        assert_eq!((passed, gateway.get("/").status), (left, 429), "{limit}");
    }
    gateway.write_config(&yaml("3/h"));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.get("/").status, 429, "of more than all of it, all is spent");
    // Of an hour's debt nothing is left where three come back each second.
    gateway.write_config(&yaml("3/s"));
    assert_eq!(gateway.reload().status, 200);
    for _ in 0..3 {
        eventually("what is spent comes back at the new rate", || gateway.get("/").status == 200);
    }
}

#[test]
fn watched_files_are_loaded_and_a_bad_one_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("routes")).expect("a folder");
    let part = |name: &str, body: &str| {
        std::fs::write(
            folder.path().join("routes").join(name),
            format!("routes: [{{name: {body}, match: {{path: /{body}}}, action: {{respond: {{body: {body}}}}}}}]"),
        )
        .expect("written");
    };
    part("a.yaml", "a");
    let yaml = "include: [routes/*.yaml]\nprocess: {threads: 1, watch: 50ms}";
    let path = folder.path().to_path_buf();
    let config = path.join("portcullis.yaml");
    std::fs::write(&config, complete(yaml)).expect("written");
    let mut command = Command::new(BINARY);
    command.args(["run", "-c"]).arg(config);
    let gateway = Gateway::start_by(tempfile::tempdir().expect("a folder"), command);
    assert_eq!(gateway.get("/a").text(), "a");
    // A file that is new, one that is changed, one that is wrong.
    part("b.yaml", "b");
    eventually("the new file is loaded", || gateway.get("/b").status == 200);
    part("b.yaml", "other");
    eventually("the change is loaded", || gateway.get("/other").status == 200 && gateway.get("/b").status == 404);
    std::fs::write(path.join("routes/c.yaml"), "routes: [{name: c, acton: x}]").expect("written");
    eventually("the bad file is named", || {
        let ready = client::get(gateway.admin, "/readyz");
        ready.json()["last_reload"]["files"][0].as_str().is_some_and(|f| f.ends_with("routes/c.yaml"))
    });
    let bad = path.join("routes/c.yaml").display().to_string();
    assert!(gateway.metric(&format!("portcullis_config_bad_file{{file=\"{bad}\"}}")) > 0.5);
    eventually("the log names it", || gateway.log().contains("routes/c.yaml:1:"));
    assert_eq!((gateway.get("/a").text(), gateway.get("/other").text()), ("a".to_owned(), "other".to_owned()));
    std::fs::remove_file(path.join("routes/c.yaml")).expect("removed");
    eventually("all is well again", || {
        client::get(gateway.admin, "/readyz").json()["last_reload"]["files"].as_array().is_some_and(Vec::is_empty)
    });
    assert!(gateway.metric(&format!("portcullis_config_bad_file{{file=\"{bad}\"}}")) < 0.5);
    // What goes away and comes back as it was is no mistake any more.
    let refused = || !client::get(gateway.admin, "/readyz").json()["last_reload"]["refused"].is_null();
    for name in ["portcullis.yaml", "routes"] {
        std::fs::rename(path.join(name), path.join("away")).expect("moved");
        eventually("it is missed", refused);
        std::fs::rename(path.join("away"), path.join(name)).expect("moved");
        eventually("it is back", || !refused());
    }
}

#[test]
fn a_reload_goes_on_when_nobody_waits_for_it() {
    let gateway = Gateway::start("routes: [{name: all, action: {respond: {body: before}}}]");
    let target = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    gateway.write_config(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], health: {{active: {{path: /, timeout: 9s, interval: 10s}}}}}}}}
routes: [{{name: one, match: {{path: /one}}, action: {{forward: one}}}}, {{name: all, action: {{respond: {{body: after}}}}}}]",
        target.local_addr().expect("an address")
    ));
    let mut asking = Connection::open(gateway.admin);
    asking.send("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let probe = target.accept().expect("the first probe, which the reload waits for");
    drop(asking);
    assert_eq!(gateway.get("/").text(), "before");
    // The thread that answers these has seen the end of that connection as well.
    (0..20).for_each(|_| assert_eq!(client::get(gateway.admin, "/readyz").status, 200));
    drop((probe, target));
    eventually("the reload is done", || gateway.get("/").text() == "after");
}

#[test]
fn a_reload_that_is_under_way_opens_nothing_in_a_process_that_ends() {
    let held = Target::named("echo", "one");
    let yaml = |more: &str| {
        format!(
            "upstreams: {{held: {{targets: [\"{}\"]}}{more}}}
routes: [{{name: held, action: {{forward: held}}}}]
process: {{threads: 1, drain_time: 20s}}",
            held.address
        )
    };
    let mut gateway = Gateway::start(&yaml(""));
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/hold", &[]));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let further = format!(
        ", one: {{targets: [\"{}\"], health: {{active: {{path: /, timeout: 9s, interval: 10s}}}}}}",
        silent.local_addr().expect("an address")
    );
    let listeners = "\nlisteners: [{name: main, address: 127.0.0.1:0}, {name: further, address: 127.0.0.1:0}]";
    gateway.write_config(&(yaml(&further) + listeners));
    let mut asking = Connection::open(gateway.admin);
    asking.send("POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let probe = silent.accept().expect("the first probe, which the reload waits for");
    gateway.signal("-TERM");
    eventually("it drains", || gateway.log().contains("draining"));
    drop((probe, silent));
    assert!(asking.receive().text().contains("this process is ending"));
    let (code, _, error) = operate(&gateway, &["reload"]);
    assert!(code == 1 && error.contains("this process is ending"), "it is no mistake of the configuration: {error}");
    held.release();
    assert_eq!(client.receive().status, 200);
    assert_eq!(gateway.wait(), Some(0));
    assert!(!gateway.log().contains("listener further"), "{}", gateway.log());
}

#[test]
fn memory_returns_after_many_reloads() {
    let yaml = |n: usize| {
        let routes: Vec<String> = (0..300)
            .map(|i| format!("{{name: r{i}-{n}, match: {{path: /r{i}/{n}}}, filters: [{{rate_limit: {{limit: 5/s, by: address}}}}], action: {{forward: u}}}}"))
            .collect();
        format!(
            "upstreams: {{u: {{targets: [\"127.0.0.1:1\"]}}}}\nroutes: [{}]\nprocess: {{threads: 1}}",
            routes.join(", ")
        )
    };
    let gateway = Gateway::start(&yaml(0));
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).expect("the status");
        let line = status.lines().find(|l| l.starts_with("RssAnon")).expect("a line").to_owned();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let reload = |n: usize| {
        gateway.write_config(&yaml(n));
        assert_eq!(gateway.reload().status, 200);
    };
    (1..=20).for_each(reload);
    let early = memory();
    (21..=120).for_each(reload);
    let late = memory();
    assert!(late < early + early / 4 + 4_096, "{early} KiB after 20 reloads, {late} KiB after 120");
    // And the background work of configurations that serve no more has ended.
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.child.id())).expect("the threads").count();
    assert!(threads < 12, "{threads} threads");
}
