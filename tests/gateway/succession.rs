//! What two processes share: whose the connections in a queue are, and whose a listener is.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::atomic::Ordering;

use portcullis::parts::Message;

use super::handover::{Impostor, ask, kill, process_at, socket};
use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, Orphan, complete, run};
use super::harness::target::Target;
use super::upgrade::PROCESS;

/// A process that stands by for as long as a test likes.
fn patient() -> String {
    PROCESS.replace("standby_time: 300ms", "standby_time: 60s")
}

#[test]
fn what_waits_at_a_full_listener_is_left_to_the_successor() {
    let target = Target::named("echo", "one");
    let yaml = |body: &str| {
        format!(
            "upstreams: {{held: {{targets: [\"{}\"]}}}}
routes: [{{name: held, match: {{path: /hold}}, action: {{forward: held}}}}, {{name: all, action: {{respond: {{body: {body}}}}}}}]
listeners: [{{name: main, address: 127.0.0.1:0, limits: {{connections: 1}}}}]
admin: {{address: 127.0.0.1:0}}{}",
            target.address,
            patient()
        )
    };
    let mut old = Gateway::start(&yaml("old"));
    let hold = |count: usize| {
        let mut connection = Connection::open(old.address());
        connection.send(head("GET", "/hold", &[]));
        eventually("the target has it", || target.requests.load(Ordering::Acquire) == count);
        connection
    };
    let mut first = hold(1);
    old.write_config(&yaml("new"));
    let (asking, _successor) = ask(&old);
    let mut second = hold(2);
    let mut queued: Vec<Connection> = (0..3).map(|_| Connection::open(old.address())).collect();
    queued.iter_mut().for_each(|connection| connection.send(head("GET", "/", &[("connection", "close")])));
    old.signal("-TERM");
    asking.join().expect("the command");
    eventually("the old process has let go", || old.log().contains("ends with its last request"));
    target.release();
    assert_eq!(first.receive().header("connection"), Some("close"));
    assert_ne!(second.receive().header("connection"), Some("close"));
    drop(second);
    for connection in &mut queued {
        assert_eq!(connection.receive().text(), "new");
    }
    assert_eq!(old.wait(), Some(0));
}

#[test]
fn a_listener_that_a_successor_drops_is_dropped_by_its_predecessor_too() {
    let yaml = |more: &str| answers("ok", more);
    let mut old = Gateway::start(&yaml(", {name: other, address: 127.0.0.1:0}"));
    let other = old.listeners[1].1;
    let (asking, _successor) = ask(&old);
    old.write_config(&yaml(""));
    assert_eq!(old.reload().status, 200);
    assert_eq!(asking.join().expect("the command").0, 0);
    eventually("nobody listens there", || Connection::try_open(other).is_err());
    assert_eq!(old.wait(), Some(0));
    // And at once it can be had again.
    old.write_config(&yaml(&format!(", {{name: other, address: \"{other}\"}}")));
    let answer = client::request(old.admin, "POST", "/reload", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(client::get(other, "/").status, 200);
}

/// A configuration that answers with that body, on `main` and on whatever else.
pub fn answers(body: &str, more: &str) -> String {
    format!(
        "routes: [{{name: all, action: {{respond: {{body: {body}}}}}}}]
listeners: [{{name: main, address: 127.0.0.1:0}}{more}]
admin: {{address: 127.0.0.1:0}}{}",
        patient()
    )
}

/// An upgrade to a configuration without the listener `other`: the old process, that listener's address, whoever asks,
/// and the successor.
pub fn drops_a_listener() -> (Gateway, std::net::SocketAddr, std::thread::JoinHandle<(i32, String, String)>, Orphan) {
    let old = Gateway::start(&answers("old", ", {name: other, address: 127.0.0.1:0}"));
    let other = old.listeners[1].1;
    old.write_config(&answers("new", ""));
    let (asking, successor) = ask(&old);
    (old, other, asking, successor)
}

/// A successor, and the predecessor that the test plays.
pub fn succeed() -> (tempfile::TempDir, Command, std::os::unix::net::UnixListener) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&format!("routes: [{{name: all, action: {{respond: {{}}}}}}]{PROCESS}")))
        .expect("written");
    let awaited = std::os::unix::net::UnixListener::bind(socket(&folder)).expect("the upgrade socket");
    let mut command = Command::new(BINARY);
    command.args(["run", "--upgrade", "-c"]).arg(config);
    (folder, command, awaited)
}

#[test]
fn a_predecessor_that_crashes_in_a_hand_over_is_succeeded() {
    let (folder, command, awaited) = succeed();
    let crashing = std::thread::spawn(move || {
        let heir = Impostor::on(awaited.accept().expect("a successor").0);
        assert!(matches!(heir.hears(), Message::Take { .. }));
        let main = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let configured = ([127, 0, 0, 1], 0).into();
        let message = Message::Socket { name: "main".to_owned(), configured };
        portcullis::parts::send(&heir.0, &message, Some(main.as_raw_fd())).expect("sent");
        heir.says(&Message::Complete);
        main.local_addr().expect("an address")
    });
    let new = Gateway::start_by(folder, command);
    assert_eq!(new.address(), crashing.join().expect("no panic"));
    assert_eq!(new.get("/").status, 200);
    assert!(new.log().contains("the predecessor is gone"), "{}", new.log());
}

#[test]
fn a_successor_of_a_process_that_says_nothing_can_be_told_to_end() {
    let (_folder, mut command, awaited) = succeed();
    let mut successor = command.spawn().expect("started");
    let silent = Impostor::on(awaited.accept().expect("a successor").0);
    assert!(matches!(silent.hears(), Message::Take { .. }));
    let begun = std::time::Instant::now();
    kill("-TERM", successor.id());
    assert_eq!(successor.wait().expect("a status").code(), Some(0));
    assert!(begun.elapsed().as_secs() < 8, "it did not wait for the other's word");
}

#[test]
fn while_a_successor_serves_operators_are_its_own() {
    let target = Target::named("echo", "one");
    let yaml = format!(
        "upstreams: {{held: {{targets: [\"{}\"]}}}}
routes: [{{name: held, action: {{forward: held}}}}]
admin: {{address: 127.0.0.1:0}}{}",
        target.address,
        patient()
    );
    let mut old = Gateway::start(&yaml);
    let mut held = Connection::open(old.address());
    held.send(head("GET", "/hold", &[]));
    eventually("the target has it", || target.requests.load(Ordering::Acquire) == 1);
    // Told to end between the successor's two words: it is not the one that is asked any more.
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    let admin = impostor.take_admin(old.admin);
    impostor.says(&Message::Ready { takes: vec![old.address()], datagrams: Vec::new() });
    impostor.take();
    old.signal("-TERM");
    eventually("it drains", || old.log().contains("draining"));
    impostor.says(&Message::Serving);
    eventually("it has let go", || old.log().contains("ends with its last request"));
    assert!(!old.log().contains("stands by"), "{}", old.log());
    let mut operator = Connection::open(old.admin);
    operator.send(head("GET", "/readyz", &[]));
    let (mut answering, _) = admin.accept().expect("the successor's turn");
    std::io::Write::write_all(&mut answering, b"HTTP/1.1 204 No Content\r\n\r\n").expect("answered");
    assert_eq!(operator.receive().status, 204);
    target.release();
    assert_eq!(held.receive().status, 200);
    assert_eq!(old.wait(), Some(0));
}

#[test]
fn signals_that_mean_something_elsewhere_end_nothing() {
    let gateway = Gateway::start("routes: [{name: all, action: {respond: {}}}]");
    gateway.signal("-QUIT");
    eventually("it is ignored", || gateway.log().contains("SIGQUIT is ignored"));
    let (code, _, error) = run(&["check", "-c", &gateway.config().display().to_string()], None);
    assert_eq!((code, error.as_str()), (0, ""));
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn what_an_upgrade_drops_is_answered_until_its_successor_has_settled() {
    let (mut old, other, asking, _successor) = drops_a_listener();
    eventually("the successor answers", || old.get("/").text() == "new");
    assert_eq!(client::get(other, "/").text(), "old");
    old.signal("-TERM");
    assert_eq!(asking.join().expect("the command").0, 0);
    assert_eq!(old.wait(), Some(0));
    assert!(Connection::try_open(other).is_err());
}

#[test]
fn an_upgrade_that_moves_a_listener_into_its_own_way_says_what_to_do() {
    let yaml = |address: &str| {
        format!(
            "routes: [{{name: all, action: {{respond: {{}}}}}}]
listeners: [{{name: main, address: \"{address}\"}}]
admin: {{address: 127.0.0.1:0}}{PROCESS}"
        )
    };
    let old = Gateway::start(&yaml("127.0.0.1:0"));
    let port = old.address().port();
    old.write_config(&yaml(&format!("127.0.0.1:{port}")));
    assert_eq!(old.reload().status, 200);
    old.write_config(&yaml(&format!("[::ffff:127.0.0.1]:{port}")));
    let (code, _, error) = run(&["upgrade", "-c", &old.config().display().to_string()], None);
    assert!(code == 1 && error.contains("reload it first, then upgrade"), "{error}");
    assert_eq!(old.reload().status, 200);
    assert_eq!(run(&["upgrade", "-c", &old.config().display().to_string()], None).0, 0);
    let _successor = Orphan(process_at(&socket(&old.folder)).expect("the successor"));
    assert_eq!(old.get("/").status, 200);
}
