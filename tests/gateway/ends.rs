//! How a process ends that is not alone: with one that stands by, one that never came, and readers that do not read.

use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use portcullis::parts::Message;

use super::handover::{Impostor, process_at, socket};
use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, Orphan, complete, run};
use super::succession::{answers, drops_a_listener, succeed};
use super::upgrade::PROCESS;

const ROUTE: &str = "routes: [{name: all, action: {respond: {body: ok}}}]\nadmin: {address: 127.0.0.1:0}";

fn ask_in_the_queue(gateway: std::net::SocketAddr) -> Connection {
    let mut connection = Connection::open(gateway);
    connection.send(head("GET", "/", &[("connection", "close")]));
    connection
}

#[test]
fn what_waits_for_a_successor_that_never_serves_is_answered_by_a_process_that_ends() {
    let mut old = Gateway::start(&format!("{ROUTE}{PROCESS}"));
    let impostor = Impostor::of(&old);
    impostor.says(&Message::Take { protocol: 4, streams: false });
    impostor.take();
    impostor.says(&Message::Ready { takes: vec![old.address()], datagrams: Vec::new() });
    impostor.take();
    let mut queued: Vec<Connection> = (0..3).map(|_| ask_in_the_queue(old.address())).collect();
    old.signal("-TERM");
    eventually("it drains", || old.log().contains("draining"));
    drop(impostor);
    for connection in &mut queued {
        assert_eq!(connection.receive().text(), "ok");
    }
    assert_eq!(old.wait(), Some(0));
}

#[test]
fn a_process_that_ends_serves_what_comes_until_its_predecessor_has_left() {
    let (folder, command, awaited) = succeed();
    let predecessor = std::thread::spawn(move || {
        let heir = Impostor::on(awaited.accept().expect("a successor").0);
        assert!(matches!(heir.hears(), Message::Take { .. }));
        let main = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let message = Message::Socket { name: "main".to_owned(), configured: ([127, 0, 0, 1], 0).into() };
        portcullis::parts::send(&heir.0, &message, Some(main.as_raw_fd())).expect("sent");
        heir.says(&Message::Complete);
        assert!(
            matches!(heir.hears(), Message::Ready { takes, .. } if takes == [main.local_addr().expect("an address")])
        );
        heir.says(&Message::Complete);
        assert!(matches!(heir.hears(), Message::Serving));
        (heir, main)
    });
    let mut new = Gateway::start_by(folder, command);
    let (heir, main) = predecessor.join().expect("no panic");
    new.signal("-TERM");
    while !matches!(heir.hears(), Message::Settled { ends: true }) {}
    eventually("it drains", || new.log().contains("draining"));
    let mut late = ask_in_the_queue(new.address());
    drop(main);
    heir.says(&Message::Left);
    assert_eq!(late.receive().status, 200);
    assert_eq!(new.wait(), Some(0));
}

#[test]
fn an_upgrade_and_an_end_wait_for_nobody_who_reads_a_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("portcullis.yaml");
    let yaml = format!("{ROUTE}{PROCESS}\nlog: {{access: {{output: stderr}}}}");
    std::fs::write(&config, complete(&yaml)).expect("written");
    let mut old =
        Command::new(BINARY).args(["run", "-c"]).arg(&config).stderr(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(old.stderr.take().expect("its log")).lines().map_while(Result::ok);
    let accepts = lines.find(|line| line.contains(" accepts on ")).expect("a listener");
    let address = accepts.rsplit(' ').next().and_then(|a| a.parse().ok()).expect("an address");
    lines.find(|line| line.ends_with("ready")).expect("it is ready");
    // From here on nobody reads: a pipe has room for 64 KiB.
    let mut connection = Connection::open(address);
    (0..600).for_each(|_| assert_eq!(connection.ask(head("GET", "/", &[])).status, 200));
    let (code, out, error) = run(&["upgrade", "-c", &config.display().to_string()], None);
    assert_eq!(code, 0, "{out}{error}");
    let new = Orphan(process_at(&socket(&folder)).expect("the successor"));
    eventually("the old process ends", || old.try_wait().expect("a status").is_some());
    assert_eq!(client::get(address, "/").text(), "ok");
    super::handover::kill("-TERM", new.0);
    eventually("nobody listens", || Connection::try_open(address).is_err());
    eventually("it ends", || !std::path::Path::new(&format!("/proc/{}/fd", new.0)).exists() || is_zombie(new.0));
}

/// Whether a process has ended and nobody has asked how.
fn is_zombie(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_process_that_was_told_to_end_is_succeeded_by_nobody() {
    let (folder, command, awaited) = succeed();
    let predecessor = std::thread::spawn(move || {
        let heir = Impostor::on(awaited.accept().expect("a successor").0);
        heir.hears();
        heir.says(&Message::Complete);
        heir.hears();
        heir.says(&Message::Complete);
        heir.hears();
        heir
    });
    let mut new = Gateway::start_by(folder, command);
    let heir = predecessor.join().expect("no panic");
    // It waits for a predecessor that does not leave, and is told to end meanwhile.
    let third = Impostor::of(&new);
    third.says(&Message::Take { protocol: 4, streams: false });
    while !matches!(heir.hears(), Message::Settled { ends: false }) {}
    new.signal("-TERM");
    eventually("it drains", || new.log().contains("draining"));
    assert_eq!(new.get("/").status, 200, "it is there until its predecessor has left");
    heir.says(&Message::Left);
    assert!(matches!(third.hears(), Message::Failed { why } if why.contains("was told to end")));
    assert_eq!(new.wait(), Some(0));
}

#[test]
fn a_start_that_fails_waits_for_no_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), "routes: [{nam: x}]").expect("written");
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).expect("a small one");
    std::io::Write::write_all(&mut writer, &[b'x'; 4096]).expect("it is full");
    let mut start = Command::new(BINARY);
    let mut start =
        start.args(["run", "-c", "c.yaml"]).current_dir(folder.path()).stderr(writer).spawn().expect("started");
    eventually("it ends", || start.try_wait().expect("a status").is_some());
    assert_eq!(start.wait().expect("a status").code(), Some(2));
}

#[test]
fn what_an_upgrade_has_dropped_can_be_had_again_at_once() {
    let (mut old, other, asking, _successor) = drops_a_listener();
    old.write_config(&answers("new", &format!(", {{name: other, address: \"{other}\"}}")));
    let answer = client::request(old.admin, "POST", "/reload", &[]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(client::get(other, "/").text(), "new");
    assert_eq!(asking.join().expect("the command").0, 0);
    assert_eq!(old.wait(), Some(0));
}

#[test]
fn an_upgrade_socket_takes_the_place_of_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().join("upgrade.sock");
    std::fs::write(&there, "precious").expect("written");
    std::fs::write(folder.path().join("portcullis.yaml"), complete(&format!("{ROUTE}{PROCESS}"))).expect("written");
    for command in ["check", "run"] {
        let (code, _, error) = run(&[command, "-c", "portcullis.yaml"], Some(folder.path()));
        assert!(code == 2 && error.contains("upgrade.sock is there already, and is no socket"), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&there).expect("still there"), "precious");
    std::fs::remove_file(&there).expect("removed");

    let mut first = Gateway::start_in(folder, &format!("{ROUTE}{PROCESS}"), &[]);
    let config = first.config().display().to_string();
    let (code, _, error) = run(&["run", "-c", &config], None);
    assert!(
        code == 1 && error.contains(&format!("process {} awaits its successor there", first.child.id())),
        "{error}"
    );
    // Somebody cleans up.
    std::fs::remove_file(socket(&first.folder)).expect("removed");
    let (code, _, error) = run(&["upgrade", "-c", &config], None);
    assert!(code == 1 && error.contains("send it SIGUSR2"), "{error}");
    first.signal("-USR2");
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    let successor = Orphan(process_at(&socket(&first.folder)).expect("the successor"));
    assert_ne!(successor.0, first.child.id());
    assert_eq!(first.get("/").text(), "ok");
}

#[test]
fn an_upgrade_follows_the_link_that_it_was_called_by() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("portcullis");
    std::os::unix::fs::symlink(BINARY, &link).expect("a link");
    std::fs::write(folder.path().join("portcullis.yaml"), complete(&format!("{ROUTE}{PROCESS}"))).expect("written");
    let mut command = Command::new(&link);
    command.args(["run", "-c"]).arg(folder.path().join("portcullis.yaml"));
    let mut old = Gateway::start_by(folder, command);
    let newer = old.folder.path().join("newer");
    std::fs::copy(BINARY, &newer).expect("a copy");
    std::fs::remove_file(&link).expect("removed");
    std::os::unix::fs::symlink(&newer, &link).expect("another link");
    let (code, _, error) = run(&["upgrade", "-c", &old.config().display().to_string()], None);
    assert_eq!(code, 0, "{error}");
    let successor = Orphan(process_at(&socket(&old.folder)).expect("the successor"));
    assert_eq!(
        std::fs::read_link(format!("/proc/{}/exe", successor.0)).expect("its binary"),
        newer.canonicalize().expect("the copy")
    );
    assert_eq!(old.wait(), Some(0));
}

#[test]
fn a_command_whose_words_nobody_reads_has_done_its_work() {
    let gateway = Gateway::start(ROUTE);
    let config = gateway.config().display().to_string();
    let admin = gateway.admin.to_string();
    for command in
        [vec!["check"], vec!["diff", "--admin", &admin], vec!["reload", "--admin", &admin], vec!["explain", "GET", "/"]]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut process = Command::new(BINARY);
        let status = process.args(&command).args(["-c", &config]).stdout(writer).status().expect("started");
        assert_eq!(status.code(), Some(0), "{command:?}");
    }
}
