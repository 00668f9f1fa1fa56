//! Each side of the hand-over with one at the other end that does not do as it should.

use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use portcullis::parts::{Message, receive, send};
use tempfile::TempDir;

use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, Orphan, complete, run};
use super::upgrade::{PROCESS, upgrade};

/// The path of the upgrade socket.
pub fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("upgrade.sock")
}

/// One side of a hand-over, played by the test.
pub struct Impostor(pub UnixStream);

impl Impostor {
    pub fn of(gateway: &Gateway) -> Self {
        Self::on(UnixStream::connect(socket(&gateway.folder)).expect("the upgrade socket"))
    }

    pub fn on(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a time-out");
        Self(stream)
    }

    pub fn hears(&self) -> Message {
        receive(&self.0).expect("a message").0
    }

    pub fn says(&self, message: &Message) {
        send(&self.0, message, None).expect("sent");
    }

    /// Reads to the end of what is given; the states' forms are read past.
    pub fn take(&self) {
        self.take_sockets();
    }

    /// As [`Self::take`]; the listening socket that has that address.
    pub fn take_admin(&self, address: std::net::SocketAddr) -> std::net::TcpListener {
        let mut sockets = self.take_sockets();
        let place = sockets.iter().position(|socket| socket.local_addr().is_ok_and(|a| a == address));
        let admin = sockets.swap_remove(place.expect("the socket"));
        admin.set_nonblocking(false).expect("set");
        admin
    }

    fn take_sockets(&self) -> Vec<std::net::TcpListener> {
        let mut sockets = Vec::new();
        loop {
            let (message, socket) = receive(&self.0).expect("a message");
            sockets.extend(socket.map(std::net::TcpListener::from));
            match message {
                Message::State { bytes, .. } => {
                    std::io::copy(&mut std::io::Read::take(&self.0, bytes as u64), &mut std::io::sink())
                        .expect("the form");
                }
                Message::Complete => return sockets,
                Message::Socket { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn whatever_a_successor_does_the_old_process_serves() {
    let old = Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{body: old}}}}}}]{PROCESS}\nadmin: {{address: 127.0.0.1:0}}"
    ));
    let serves = || assert_eq!(old.get("/").text(), "old", "{}", old.log());
    let logged = |text: &str| eventually(text, || old.log().contains(text));

    // It speaks another version.
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 99, streams: false });
    assert!(matches!(impostor.hears(), Message::Failed { why } if why.contains("not 99")));
    serves();
    // It takes everything and ends.
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    impostor.take();
    // Meanwhile nobody else gets anything.
    let second = Impostor::of(&old);
    second.says(&Message::Take { protocol: 4, streams: false });
    assert!(matches!(second.hears(), Message::Failed { why } if why.contains("under way")));
    drop(impostor);
    logged("ended before it was ready");
    serves();
    // It says what is wrong with it.
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    impostor.take();
    impostor.says(&Message::Failed { why: "no luck".to_owned() });
    logged("reports: no luck");
    serves();
    // It is never ready.
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    impostor.take();
    logged("was not ready within");
    serves();
    drop(impostor);
    // It accepts, and ends soon after: connections that came in between were kept, not refused.
    let mut kept = Connection::open(old.address());
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "old");
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    impostor.take();
    impostor.says(&Message::Ready { takes: Vec::new(), datagrams: Vec::new() });
    impostor.take();
    let mut queued = Connection::open(old.address());
    queued.send(head("GET", "/", &[]));
    impostor.says(&Message::Serving);
    logged("this process drains, and stands by");
    eventually("its connections are told to end", || {
        let answer = kept.ask(head("GET", "/", &[]));
        assert_eq!(answer.text(), "old");
        answer.header("connection") == Some("close")
    });
    drop(impostor);
    logged("the successor ended before it had settled");
    assert_eq!(queued.receive().text(), "old");
    serves();
    assert_eq!(client::get(old.admin, "/readyz").status, 200);
    // And a real one is still welcome.
    let (_successor, _) = upgrade(&old);
}

#[test]
fn a_successor_that_ends_at_once_leaves_nothing_paused() {
    let old = Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{body: old}}}}}}]{PROCESS}\nadmin: {{address: 127.0.0.1:0}}"
    ));
    for count in 1..=20 {
        let impostor = Impostor::of(&old);
        impostor.says(&Message::Take { protocol: 4, streams: false });
        impostor.take();
        impostor.says(&Message::Ready { takes: Vec::new(), datagrams: Vec::new() });
        impostor.take();
        impostor.says(&Message::Serving);
        drop(impostor);
        assert_eq!(old.get("/").text(), "old", "{count}: {}", old.log());
        assert_eq!(client::get(old.admin, "/readyz").status, 200);
        eventually("it has come back", || old.log().matches("ended before it had settled").count() == count);
    }
}

#[test]
fn a_reload_that_is_asked_for_during_a_hand_over_comes_after_it() {
    let yaml = |body: &str| {
        format!("routes: [{{name: all, action: {{respond: {{body: {body}}}}}}}]\nadmin: {{address: 127.0.0.1:0}}")
    };
    let process = |more: &str| PROCESS.replace("upgrade_time: 1s", &format!("upgrade_time: 20s{more}"));
    for (by, more) in [("a signal", ""), ("a look at the files", ", watch: 20ms")] {
        let old = Gateway::start(&format!("{}{}", yaml("before"), process(more)));
        let impostor = Impostor::of(&old);
        impostor.says(&Message::Take { protocol: 4, streams: false });
        impostor.take();
        old.write_config(&format!("{}{}", yaml("after"), process(more)));
        if more.is_empty() {
            old.signal("-HUP");
        } else {
            eventually("the change is seen", || old.log().contains("files have changed"));
        }
        assert_eq!(old.get("/").text(), "before");
        drop(impostor);
        eventually(by, || old.get("/").text() == "after");
    }
}

#[test]
fn of_two_that_serve_the_one_that_was_given_up_goes() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let configured = main.local_addr().expect("an address");
    let yaml = format!(
        "routes: [{{name: all, action: {{respond: {{body: new}}}}}}]\nlisteners: [{{name: main, address: \"{configured}\"}}]{PROCESS}"
    );
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&yaml)).expect("written");
    let awaited = UnixListener::bind(socket(&folder)).expect("the upgrade socket");
    let mut command = Command::new(BINARY);
    command.args(["run", "--upgrade", "-c"]).arg(config);
    let predecessor = std::thread::spawn(move || {
        let heir = Impostor::on(awaited.accept().expect("a successor").0);
        assert!(matches!(heir.hears(), Message::Take { .. }));
        let message = Message::Socket { name: "main".to_owned(), configured };
        send(&heir.0, &message, Some(main.as_raw_fd())).expect("sent");
        heir.says(&Message::Complete);
        assert!(matches!(heir.hears(), Message::Ready { .. }));
        heir.says(&Message::Complete);
        assert!(matches!(heir.hears(), Message::Serving));
        (heir, main)
    });
    let mut new = Gateway::start_by(folder, command);
    let (heir, _main) = predecessor.join().expect("the predecessor");
    assert_eq!(new.get("/").text(), "new");
    heir.says(&Message::Failed { why: "was not ready within".to_owned() });
    assert_eq!(new.wait(), Some(0));
    assert!(new.log().contains("the predecessor serves again"), "{}", new.log());
}

/// A gateway that is replaced and stands by for a while, and the process that serves now.
fn replaced() -> (Gateway, std::thread::JoinHandle<(i32, String, String)>, Orphan) {
    let process = PROCESS.replace("standby_time: 300ms", "standby_time: 60s");
    let old = Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{}}}}}}]{process}\nadmin: {{address: 127.0.0.1:0}}"
    ));
    let (asking, successor) = ask(&old);
    (old, asking, successor)
}

/// `portcullis upgrade`, until the successor serves.
pub fn ask(old: &Gateway) -> (std::thread::JoinHandle<(i32, String, String)>, Orphan) {
    let config = old.config().display().to_string();
    let before = serving(old);
    let asking = std::thread::spawn(move || run(&["upgrade", "-c", &config], None));
    eventually("the successor serves", || serving(old).is_some_and(|now| Some(now) != before));
    let pid = serving(old).expect("its number");
    (asking, Orphan(pid))
}

/// The process that answers at the upgrade socket.
fn serving(gateway: &Gateway) -> Option<u32> {
    process_at(&socket(&gateway.folder))
}

pub fn process_at(path: &Path) -> Option<u32> {
    let stream = UnixStream::connect(path).ok()?;
    let peer = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials).ok()?;
    u32::try_from(peer.pid()).ok()
}

pub fn kill(signal: &str, pid: u32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().expect("kill").success());
}

#[test]
fn a_successor_that_is_told_to_end_ends_the_service_once_it_serves() {
    let (mut old, asking, successor) = replaced();
    kill("-TERM", successor.0);
    let (code, out, error) = asking.join().expect("the command");
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("was told to end, and the service with it"), "{out}");
    assert_eq!(old.wait(), Some(0));
    assert!(!old.log().contains("are cut"), "nothing was under way: {}", old.log());
    eventually("nobody listens", || Connection::try_open(old.address()).is_err());
}

#[test]
fn a_successor_that_is_told_to_end_before_it_serves_takes_nothing() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let process = PROCESS.replace("upgrade_time: 1s", "upgrade_time: 60s");
    let yaml = format!(
        "routes: [{{name: all, action: {{respond: {{body: old}}}}}}]{process}\nadmin: {{address: 127.0.0.1:0}}"
    );
    let old = Gateway::start(&yaml);
    old.write_config(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], health: {{active: {{path: /, timeout: 9s, interval: 10s}}}}}}}}\n{}",
        silent.local_addr().expect("an address"),
        yaml.replace("respond: {body: old}", "forward: one")
    ));
    let mut successor =
        Command::new(BINARY).args(["run", "--upgrade", "-q", "-c"]).arg(old.config()).spawn().expect("started");
    let _probe = silent.accept().expect("the first probe, which the start waits for");
    kill("-TERM", successor.id());
    assert_eq!(successor.wait().expect("a status").code(), Some(0));
    eventually("it is told", || old.log().contains("the successor ended before it was ready"));
    assert_eq!(old.get("/").text(), "old");
}

#[test]
fn a_successor_that_is_told_to_end_while_it_takes_over_takes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&format!("routes: [{{name: all, action: {{respond: {{}}}}}}]{PROCESS}")))
        .expect("written");
    let awaited = UnixListener::bind(socket(&folder)).expect("the upgrade socket");
    let mut successor =
        Command::new(BINARY).args(["run", "--upgrade", "-q", "-c"]).arg(config).spawn().expect("started");
    let heir = Impostor::on(awaited.accept().expect("a successor").0);
    assert!(matches!(heir.hears(), Message::Take { .. }));
    heir.says(&Message::Complete);
    assert!(matches!(heir.hears(), Message::Ready { .. }));
    kill("-TERM", successor.id());
    let heard = heir.hears();
    assert!(matches!(&heard, Message::Failed { why } if why.contains("told to end")), "{heard:?}");
    assert_eq!(successor.wait().expect("a status").code(), Some(0));
}

#[test]
fn an_old_process_that_is_told_to_end_leaves_the_service_to_its_successor() {
    let (mut old, asking, _successor) = replaced();
    old.signal("-TERM");
    let (code, out, error) = asking.join().expect("the command");
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("serves, and the old process was told to end"), "{out}");
    assert_eq!(old.wait(), Some(0));
    assert!(!old.log().contains("are cut"), "nothing was under way: {}", old.log());
    assert_eq!(old.get("/").status, 200);
}

#[test]
fn an_old_process_that_is_told_to_end_gives_nothing_any_more() {
    let process = PROCESS.replace("upgrade_time: 1s", "upgrade_time: 60s");
    let mut old = Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{}}}}}}]{process}\nadmin: {{address: 127.0.0.1:0}}"
    ));
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    impostor.take();
    old.signal("-TERM");
    assert!(matches!(impostor.hears(), Message::Failed { why } if why.contains("was told to end")));
    assert_eq!(old.wait(), Some(0));
}

#[test]
fn of_three_processes_the_last_serves() {
    let (mut old, asking, second) = replaced();
    let (waiting, third) = ask(&old);
    let (code, out, error) = asking.join().expect("the first command");
    assert!(code == 0 && out.contains("has settled"), "{out}{error}");
    assert_eq!(old.wait(), Some(0));
    kill("-KILL", second.0);
    let (code, ..) = waiting.join().expect("the second command");
    assert_eq!(code, 1, "who was asked is gone");
    assert_eq!(old.get("/").status, 200);
    assert_eq!(serving(&old), Some(third.0));
}

#[test]
fn a_successor_that_hangs_is_given_up() {
    let old = Gateway::start(&format!(
        "routes: [{{name: all, action: {{respond: {{body: old}}}}}}]{PROCESS}\nadmin: {{address: 127.0.0.1:0}}"
    ));
    // Once it serves, and before: by then it may have put its own socket in the place.
    for serves in [true, false] {
        let impostor = Impostor::of(&old);
        impostor.says(&Message::Take { protocol: 4, streams: false });
        impostor.take();
        impostor.says(&Message::Ready { takes: Vec::new(), datagrams: Vec::new() });
        impostor.take();
        if serves {
            impostor.says(&Message::Serving);
        }
        std::fs::remove_file(socket(&old.folder)).expect("removed");
        let _own = UnixListener::bind(socket(&old.folder)).expect("a socket");
        let gives_up =
            || matches!(receive(&impostor.0), Ok((Message::Failed { why }, _)) if why.contains("sent nothing for 5s"));
        eventually("it is given up", gives_up);
        assert_eq!(old.get("/").text(), "old", "{}", old.log());
        eventually("the socket is the old one's", || serving(&old) == Some(old.child.id()));
        // It had not heard of it, and takes its own socket away as it ends.
        std::fs::remove_file(socket(&old.folder)).expect("removed");
        drop(impostor);
        eventually("the socket is the old one's again", || serving(&old) == Some(old.child.id()));
    }
    let (_successor, _) = upgrade(&old);
}

#[test]
fn an_upgrade_socket_moves_with_an_upgrade() {
    let yaml = |process: &str| {
        format!("routes: [{{name: all, action: {{respond: {{}}}}}}]{process}\nadmin: {{address: 127.0.0.1:0}}")
    };
    let mut old = Gateway::start(&yaml(PROCESS));
    let elsewhere = socket(&old.folder).with_file_name("elsewhere.sock");
    old.write_config(&yaml(&PROCESS.replace("upgrade.sock", "elsewhere.sock")));
    assert_eq!(old.reload().status, 200);
    let (code, _, error) = run(&["upgrade", "-c", &old.config().display().to_string()], None);
    assert!(code == 1 && error.contains("SIGUSR2"), "{error}");
    old.signal("-USR2");
    assert_eq!(old.wait(), Some(0));
    let _successor = Orphan(process_at(&elsewhere).expect("the successor"));
    assert_eq!(old.get("/").status, 200);
    assert!(!socket(&old.folder).exists(), "nobody is there");
}
