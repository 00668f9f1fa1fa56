//! The hand-over to a successor: what it takes with it, and what happens when it fails.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, Orphan, complete, run};
use super::harness::target::{Target, refused};

pub const PROCESS: &str =
    "\nprocess: {threads: 1, upgrade_socket: upgrade.sock, drain_time: 10s, standby_time: 300ms, upgrade_time: 1s}";

/// Runs `portcullis upgrade`: the successor, and what was said.
pub fn upgrade(gateway: &Gateway) -> (Orphan, String) {
    let config = gateway.folder.path().join("portcullis.yaml").display().to_string();
    let (code, out, error) = run(&["upgrade", "-c", &config], None);
    assert_eq!(code, 0, "{out}{error}\n{}", gateway.log());
    let pid = out.lines().find_map(|l| l.strip_prefix("process ")?.split(' ').next()?.parse().ok());
    (Orphan(pid.expect("the successor's number")), out)
}

#[test]
fn everything_that_matters_goes_over() {
    let (_held, dead) = refused();
    let (one, two) = (Target::echo("one"), Target::echo("two"));
    let yaml = format!(
        "upstreams:
  broken: {{targets: [\"{dead}\"], retry: {{attempts: 1}}, breaker: {{failures: 3, cool_down: 1h}}}}
  pair: {{targets: [\"{}\", \"{}\"], sticky: {{cookie: {{name: lb}}}}}}
routes:
  - {{name: limited, match: {{path: /limited}}, filters: [{{rate_limit: {{limit: 40/h, by: address}}}}], action: {{respond: {{body: ok}}}}}}
  - {{name: broken, match: {{path: /broken}}, action: {{forward: broken}}}}
  - {{name: pair, match: {{path: /pair}}, action: {{forward: pair}}}}{PROCESS}
admin: {{address: 127.0.0.1:0}}",
        one.address, two.address
    );
    let mut old = Gateway::start(&yaml);
    let address = old.address();
    let admitted = |count: usize| (0..count).filter(|_| client::get(address, "/limited").status == 200).count();
    assert_eq!(admitted(15), 15);
    eventually("the breaker opens", || old.get("/broken").reason() == "breaker_open");
    let first = old.get("/pair");
    let cookie = first.header("set-cookie").and_then(|c| c.split(';').next()).expect("a session").to_owned();
    let served_by = first.json()["served_by"].clone();
    // An operator takes the other target out.
    let other = if served_by == "one" { &two } else { &one };
    let gone = client::request(old.admin, "DELETE", &format!("/upstreams/pair/targets/{}", other.address), &[]);
    assert_eq!(gone.status, 200, "{}", gone.text());

    let (successor, said) = upgrade(&old);
    assert!(said.contains("has settled") && said.contains(&format!("process {}", successor.0)), "{said}");
    assert_eq!(old.wait(), Some(0), "{}", old.log());
    // The old process is gone: what answers is the successor, on the same sockets.
    assert_eq!(admitted(60), 25, "a limit of 40 admits 40");
    assert_eq!(old.get("/broken").reason(), "breaker_open");
    for _ in 0..6 {
        let again = old.request("GET", "/pair", &[("cookie", &cookie)]);
        assert_eq!((again.json()["served_by"].clone(), again.header("set-cookie")), (served_by.clone(), None));
    }
    assert!((0..6).all(|_| old.get("/pair").json()["served_by"] == served_by), "an operator's change is lost");
    // And once more, from the successor to its own.
    let (third, _) = upgrade(&old);
    assert_ne!(third.0, successor.0);
    assert_eq!(admitted(5), 0);
    assert_eq!(old.get("/broken").reason(), "breaker_open");
}

#[test]
fn a_count_is_exact_while_both_serve() {
    let limit = "routes: [{name: limited, filters: [{rate_limit: {limit: 500/h, by: address}}], action: {respond: {body: ok}}}]";
    let old = Gateway::start(&format!("{limit}{PROCESS}\nadmin: {{address: 127.0.0.1:0}}"));
    let (address, stop) = (old.address(), std::sync::atomic::AtomicBool::new(false));
    let (ok, asked) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
    let orphans = std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Acquire) {
                    asked.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                    match client::get(address, "/").status {
                        200 => _ = ok.fetch_add(1, std::sync::atomic::Ordering::AcqRel),
                        429 => std::thread::sleep(Duration::from_millis(1)),
                        other => panic!("{other}"),
                    }
                }
            });
        }
        let orphans = [upgrade(&old).0, upgrade(&old).0];
        eventually("the limit is reached", || asked.load(std::sync::atomic::Ordering::Acquire) > 700);
        stop.store(true, std::sync::atomic::Ordering::Release);
        orphans
    });
    // 500 at once and one in each 7.2 s after that.
    let ok = ok.into_inner();
    assert!((500..=506).contains(&ok), "{ok} of a limit of 500 an hour");
    drop(orphans);
}

#[test]
fn two_hundred_listeners_go_over() {
    let listeners: Vec<String> = (0..200).map(|n| format!("{{name: l{n}, address: 127.0.0.1:0}}")).collect();
    let yaml = format!(
        "routes: [{{name: all, action: {{respond: {{body: ok}}}}}}]\nlisteners: [{}]\nadmin: {{address: 127.0.0.1:0}}{PROCESS}",
        listeners.join(", ")
    );
    let mut old = Gateway::start(&yaml);
    assert_eq!(old.listeners.len(), 200);
    let (_successor, _) = upgrade(&old);
    assert_eq!(old.wait(), Some(0));
    for (name, address) in &old.listeners {
        assert_eq!(client::get(*address, "/").text(), "ok", "{name}");
    }
}

#[test]
fn a_successor_that_cannot_start_is_told_of() {
    let old = Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{body: old}}}}}}]{PROCESS}\nadmin: {{address: 127.0.0.1:0}}"
    ));
    old.signal("-QUIT");
    eventually("it is refused", || old.log().contains("SIGQUIT is ignored"));
    old.write_config("routes: [{nam: x}]");
    let config = old.folder.path().join("portcullis.yaml").display().to_string();
    let (code, _, error) = run(&["upgrade", "-c", &config], None);
    assert_eq!(code, 2);
    assert!(error.contains("did you mean \"name\""), "{error}");
    old.signal("-USR2");
    eventually("it has failed", || old.log().contains("the upgrade failed, this process goes on serving"));
    assert!(old.log().contains("did you mean \"name\""), "{}", old.log());
    assert_eq!(old.get("/").text(), "old");
    // Without a socket there is nobody to ask.
    old.write_config("routes: [{name: all, action: {respond: {body: old}}}]");
    let (code, _, error) = run(&["upgrade", "-c", &config], None);
    assert_eq!(code, 2);
    assert!(error.contains("an upgrade_socket is missing"), "{error}");
}

#[test]
fn a_service_manager_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let manager = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let hears = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let count = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.lines().any(|l| l.starts_with(wanted)) {
                return text;
            }
        }
    };
    let config = folder.path().join("portcullis.yaml");
    let yaml = |route: &str| complete(&format!("routes: [{route}]{PROCESS}\nadmin: {{address: 127.0.0.1:0}}"));
    std::fs::write(&config, yaml("{name: all, action: {respond: {body: ok}}}")).expect("written");
    let mut command = Command::new(BINARY);
    command.args(["run", "-c"]).arg(&config).env("NOTIFY_SOCKET", folder.path().join("notify"));
    let mut gateway = Gateway::start_by(folder, command);
    hears("READY=1");
    gateway.signal("-HUP");
    assert!(hears("RELOADING=1").contains("MONOTONIC_USEC="));
    assert_eq!(hears("READY=1"), "READY=1\nSTATUS=serving");
    std::fs::write(&config, yaml("{}")).expect("written");
    gateway.signal("-HUP");
    hears("RELOADING=1");
    assert!(hears("READY=1").contains("rejected"));
    std::fs::write(&config, yaml("{name: all, action: {respond: {body: new}}}")).expect("written");
    let (successor, _) = upgrade(&gateway);
    assert_eq!(hears("MAINPID="), format!("MAINPID={}\nSTATUS=serving", successor.0));
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(gateway.get("/").text(), "new");
    let ended = Command::new("kill").arg(successor.0.to_string()).status().expect("kill");
    assert!(ended.success());
    hears("STOPPING=1");
}

#[test]
fn sockets_of_a_service_manager_are_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let bound = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = bound.local_addr().expect("an address");
    let config = folder.path().join("portcullis.yaml");
    // The configuration's own address is another: the name counts.
    let yaml =
        "routes: [{name: all, action: {respond: {body: activated}}}]\nlisteners: [{name: main, address: 127.0.0.1:1}]";
    std::fs::write(&config, complete(yaml)).expect("written");
    let mut command = Command::new("sh");
    let script = "exec env LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=main:other \"$0\" run -c \"$1\" 3<&0 4<&0";
    command.args(["-c", script, BINARY]).arg(&config).stdin(std::os::fd::OwnedFd::from(bound));
    let gateway = Gateway::start_by(folder, command);
    assert_eq!(gateway.address(), address);
    assert_eq!(client::get(address, "/").text(), "activated");
    let log = gateway.log();
    assert!(
        log.contains(&format!(
            "listener main is on {address}, where the service manager has its socket, and not on 127.0.0.1:1"
        )),
        "{log}"
    );
    assert!(log.contains(&format!("the service manager's socket \"other\" on {address} is for no listener")), "{log}");
}

#[test]
fn tls_sessions_are_resumed_by_the_successor() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("c.key"), made.signing_key.serialize_pem()).expect("written");
    let yaml = format!(
        "routes: [{{name: all, action: {{respond: {{body: ok}}}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: c.pem, key: c.key}}]}}}}]
admin: {{address: 127.0.0.1:0}}{PROCESS}"
    );
    let mut old = Gateway::start_in(folder, &yaml, &[]);
    portcullis::parts::install_provider();
    for (version, name) in [(&rustls::version::TLS13, "1.3"), (&rustls::version::TLS12, "1.2")] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("an authority");
        let config = rustls::ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = std::sync::Arc::new(config);
        assert_eq!(handshake(old.address(), &config), rustls::HandshakeKind::Full, "{name}");
        assert_eq!(handshake(old.address(), &config), rustls::HandshakeKind::Resumed, "{name}");
        if name == "1.3" {
            let (_successor, _) = upgrade(&old);
            assert_eq!(old.wait(), Some(0));
            assert_eq!(handshake(old.address(), &config), rustls::HandshakeKind::Resumed, "after the upgrade");
            old = Gateway::start_in(
                tempfile::TempDir::new_in(old.folder.path()).expect("a folder"),
                &yaml.replace("c.", "../c."),
                &[],
            );
        }
    }
}

/// One request over TLS, and how the handshake went.
fn handshake(address: std::net::SocketAddr, config: &std::sync::Arc<rustls::ClientConfig>) -> rustls::HandshakeKind {
    use std::io::{Read, Write};
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    let mut client = rustls::ClientConnection::new(std::sync::Arc::clone(config), name).expect("a client");
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    let mut tls = rustls::Stream::new(&mut client, &mut stream);
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    let _ = tls.read_to_string(&mut text);
    assert!(text.ends_with("ok"), "{text}");
    client.handshake_kind().expect("a handshake")
}

/// A gateway from a binary of its own, which the test may replace.
fn replaceable(yaml: &str) -> (Gateway, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let binary = folder.path().join("portcullis");
    std::fs::copy(BINARY, &binary).expect("a copy");
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(yaml)).expect("written");
    let mut command = Command::new(&binary);
    command.args(["run", "-c"]).arg(&config);
    (Gateway::start_by(folder, command), binary)
}

/// Puts a script in a binary's place.
fn replace(binary: &std::path::Path, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let beside = binary.with_extension("new");
    std::fs::write(&beside, format!("#!/bin/sh\n{script}\n")).expect("written");
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).expect("executable");
    std::fs::rename(&beside, binary).expect("replaced");
}

#[test]
fn a_slow_successor_has_its_time_and_a_second_upgrade_does_not_disturb_it() {
    let route = "routes: [{name: all, action: {respond: {body: ok}}}]\nadmin: {address: 127.0.0.1:0}";
    let process = PROCESS.replace("upgrade_time: 1s", "upgrade_time: 4s");
    let (mut gateway, binary) = replaceable(&format!("{route}{process}"));
    let begun_file = gateway.folder.path().join("begun");
    let config = gateway.folder.path().join("portcullis.yaml").display().to_string();
    // It never says a word.
    replace(&binary, "exec sleep 60");
    let begun = std::time::Instant::now();
    let (code, _, error) = run(&["upgrade", "-c", &config], None);
    assert_eq!(code, 1);
    assert!(error.contains("was not ready within") && begun.elapsed() < Duration::from_secs(20), "{error}");
    assert!(gateway.metric("portcullis_upgrades_total{outcome=\"failed\"}") > 0.5);
    // It takes a while, and meanwhile somebody else asks for the same.
    replace(&binary, &format!("touch {}\nsleep 1\nexec {BINARY} \"$@\"", begun_file.display()));
    let (code, out, error) = std::thread::scope(|scope| {
        let first = scope.spawn(|| run(&["upgrade", "-c", &config], None));
        eventually("the first is under way", || begun_file.exists());
        let (code, _, error) = run(&["upgrade", "-c", &config], None);
        assert_eq!(code, 1);
        assert!(error.contains("another upgrade is under way"), "{error}");
        first.join().expect("the first")
    });
    assert_eq!(code, 0, "{out}{error}\n{}", gateway.log());
    let pid = out.lines().find_map(|l| l.strip_prefix("process ")?.split(' ').next()?.parse().ok());
    let _successor = Orphan(pid.expect("the successor"));
    assert_eq!(gateway.wait(), Some(0));
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn a_process_that_leaves_has_neither_sockets_nor_a_say() {
    let target = super::websocket::reflecting();
    let yaml = |body: &str| {
        complete(&format!(
            "upstreams: {{ws: {{targets: [\"{}\"]}}}}
routes: [{{name: ws, match: {{path: /ws}}, action: {{forward: ws}}}}, {{name: all, action: {{respond: {{body: {body}}}}}}}]
process: {{threads: 1, upgrade_socket: upgrade.sock, drain_time: 30s, websocket_time: 30s, standby_time: 300ms, watch: 50ms}}
admin: {{address: 127.0.0.1:0}}",
            target.address
        ))
    };
    let old = Gateway::start(&yaml("one"));
    let mut socket = Connection::open(old.address());
    assert_eq!(socket.ask(head("GET", "/ws", super::websocket::UPGRADE)).status, 101);
    let mut operator = Connection::open(old.admin);
    assert_eq!(operator.ask(head("GET", "/readyz", &[])).status, 200);
    let (successor, _) = upgrade(&old);
    // The operators' kept connections end, so that they ask the process that serves.
    assert!(operator.is_closed());
    assert_eq!(client::get(old.admin, "/readyz").status, 200);
    // A change is the successor's to load, and a SIGHUP to the old process reaches it.
    old.write_config(&yaml("two"));
    eventually("the change is loaded", || old.get("/").text() == "two");
    old.signal("-HUP");
    eventually("the successor has reloaded", || old.metric("portcullis_reloads_total{outcome=\"taken\"}") > 1.5);
    assert!(old.log().contains("SIGHUP is passed on"), "{}", old.log());
    socket.send(b"still here");
    // The successor ends: nobody listens, and a fresh start has the ports.
    drop(successor);
    eventually("nobody listens", || {
        Connection::try_open(old.address()).is_err() && Connection::try_open(old.admin).is_err()
    });
    assert!(socket.some().is_ok_and(|bytes| bytes.ends_with(b"still here") || bytes == b"hello"));
}

#[test]
fn operators_are_answered_while_it_drains() {
    let target = super::websocket::reflecting();
    let gateway = Gateway::start(&format!(
        "upstreams: {{ws: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: ws}}}}]\nprocess: {{threads: 1, drain_time: 20s, websocket_time: 20s}}",
        target.address
    ));
    let mut socket = Connection::open(gateway.address());
    assert_eq!(socket.ask(head("GET", "/", super::websocket::UPGRADE)).status, 101);
    gateway.signal("-TERM");
    eventually("it is not ready any more", || client::get(gateway.admin, "/readyz").status == 503);
    assert_eq!(client::get(gateway.admin, "/healthz").status, 200);
    eventually("nobody listens", || Connection::try_open(gateway.address()).is_err());
}
