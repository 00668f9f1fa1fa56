//! Reload, drain, hand-over.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::harness::client::{self, Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, complete, run};
use super::harness::target::{Target, answer};

fn responding(text: &str) -> String {
    format!("routes: [{{name: all, action: {{respond: {{body: {text}}}}}}}]")
}

#[test]
fn a_reload_takes_the_new_or_keeps_the_old() {
    let gateway = Gateway::start(&responding("one"));
    let mut kept = Connection::open(gateway.address());
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "one");
    gateway.write_config(&responding("two"));
    gateway.signal("-HUP");
    eventually("the new one serves", || gateway.get("/").text() == "two");
    assert_eq!(kept.ask(head("GET", "/", &[])).text(), "two", "the connection lives and sees it");
    gateway.write_config("routes: [{name: all, acton: {}}]\nupstreams: {a: {targets: []}}");
    let refused = gateway.reload();
    assert_eq!(refused.status, 422);
    let mistakes = refused.json()["mistakes"].to_string();
    assert!(mistakes.contains("did you mean \\\"action\\\"") && mistakes.contains("upstreams.a.targets"), "{mistakes}");
    assert!(mistakes.contains("portcullis.yaml:1:"), "{mistakes}");
    assert_eq!(gateway.get("/").text(), "two");
    assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5);
    assert!((gateway.metric("portcullis_reloads_total{outcome=\"refused\"}") - 1.0).abs() < 0.1);
    let ready = client::get(gateway.admin, "/readyz");
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (200, Some(true)));
    assert!(ready.json()["last_reload"]["refused"].is_string());
}

#[test]
fn listeners_come_and_go_with_a_reload() {
    let gateway = Gateway::start(&responding("one"));
    let two = "\nlisteners: [{name: main, address: 127.0.0.1:0}, {name: other, address: 127.0.0.1:0}]";
    gateway.write_config(&(responding("two") + two));
    assert_eq!(gateway.reload().status, 200);
    eventually("the other listens", || gateway.log().contains("listener other accepts on"));
    let log = gateway.log();
    let line = log.lines().find(|l| l.contains("listener other")).expect("the line");
    let other: std::net::SocketAddr = line.rsplit(' ').next().expect("an address").parse().expect("an address");
    assert_eq!(client::get(other, "/").text(), "two");
    assert_eq!(gateway.get("/").text(), "two");
    gateway.write_config(&responding("three"));
    assert_eq!(gateway.reload().status, 200);
    eventually("the other is gone", || Connection::try_open(other).is_err());
    assert_eq!(gateway.get("/").text(), "three");
}

#[test]
fn a_listener_moves_to_an_address_that_its_own_is_in_the_way_of() {
    let gateway = Gateway::start(&responding("zero"));
    let port = gateway.address().port();
    let with = |text: &str, address: &str| {
        format!("{}\nlisteners: [{{name: main, address: \"{address}:{port}\"}}]", responding(text))
    };
    for (text, address) in [("one", "127.0.0.1"), ("two", "[::ffff:127.0.0.1]"), ("three", "127.0.0.1")] {
        gateway.write_config(&with(text, address));
        let config = gateway.config().display().to_string();
        let (code, _, error) =
            run(&["check", "--against-running", "--admin", &gateway.admin.to_string(), "-c", &config], None);
        // The system has chosen the first port, and the configuration does not know it.
        assert_eq!(code, if text == "one" { 2 } else { 0 }, "{error}");
        let answer = gateway.reload();
        assert_eq!(answer.status, 200, "{}", answer.text());
        // What the old socket had not accepted yet is reset as it makes way for the new one.
        let responds = || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect(gateway.address()).ok()?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").ok()?;
            let mut response = String::new();
            stream.read_to_string(&mut response).ok()?;
            Some(response.ends_with(text))
        };
        eventually("it answers", || responds() == Some(true));
        assert!(std::net::TcpListener::bind(gateway.address()).is_err(), "and nobody has the port by mistake");
    }
    // Two that stay are in each other's way.
    let two = format!(
        "{{name: main, address: \"127.0.0.1:{port}\"}}, {{name: other, address: \"[::ffff:127.0.0.1]:{port}\"}}"
    );
    gateway.write_config(&format!("{}\nlisteners: [{two}]", responding("four")));
    let refused = gateway.reload();
    assert!(
        refused.status == 422 && refused.text().contains("cannot listen on [::ffff:127.0.0.1]"),
        "{}",
        refused.text()
    );
    assert_eq!(gateway.get("/").text(), "three");
}

#[test]
fn a_request_under_way_when_its_listener_ends_is_the_last_of_its_connection() {
    let target = Target::named("echo", "one");
    let yaml = |more: &str| {
        format!(
            "upstreams: {{held: {{targets: [\"{}\"]}}}}
routes: [{{name: held, action: {{forward: held}}}}]
listeners: [{{name: main, address: 127.0.0.1:0}}{more}]",
            target.address
        )
    };
    let mut gateway = Gateway::start(&yaml(", {name: other, address: 127.0.0.1:0}"));
    let mut held: Vec<Connection> = gateway.listeners.iter().map(|(_, address)| Connection::open(*address)).collect();
    held.iter_mut().for_each(|connection| connection.send(head("GET", "/hold", &[])));
    eventually("the target has them", || target.requests.load(Ordering::Acquire) == 2);
    gateway.write_config(&yaml(""));
    assert_eq!(gateway.reload().status, 200);
    gateway.signal("-TERM");
    eventually("it drains", || gateway.log().contains("draining"));
    target.release();
    for connection in &mut held {
        let answer = connection.receive();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    }
    assert_eq!(gateway.wait(), Some(0));
}

#[test]
fn reloads_under_load_lose_nothing() {
    let target = Target::echo("a");
    let yaml = |n: usize| {
        let routes: Vec<String> = (0..200)
            .map(|i| format!("{{name: r{i}-{n}, match: {{path: /r{i}}}, action: {{forward: echo}}}}"))
            .collect();
        format!(
            "upstreams: {{echo: {{targets: [\"{}\"]}}}}\nroutes: [{}, {{name: all, action: {{forward: echo}}}}]",
            target.address,
            routes.join(", ")
        )
    };
    let gateway = Gateway::start(&yaml(0));
    let (stop, wrong, fine) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                while !stop.load(Ordering::Acquire) {
                    let counter = if connection.ask(head("GET", "/r7", &[])).status == 200 { &fine } else { &wrong };
                    counter.fetch_add(1, Ordering::Relaxed);
                    let new = client::get(gateway.address(), "/x").status == 200;
                    (if new { &fine } else { &wrong }).fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 1..=20 {
            gateway.write_config(&yaml(n));
            assert_eq!(gateway.reload().status, 200);
        }
        stop.store(true, Ordering::Release);
    });
    assert_eq!(wrong.into_inner(), 0);
    assert!(fine.into_inner() > 100);
}

#[test]
fn a_drain_ends_with_the_last_request() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let target = Target::new(move |stream, _| {
        let _ = gate.lock().expect("the gate").recv_timeout(Duration::from_secs(20));
        answer(stream, 200, &[], b"done")
    });
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{slow: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: slow}}}}]",
        target.address
    ));
    let address = gateway.address();
    let mut idle = Connection::open(address);
    let mut busy = Connection::open(address);
    busy.send(head("GET", "/", &[]));
    eventually("the request is under way", || target.count() == 1);
    let _ = &mut idle;
    gateway.signal("-TERM");
    eventually("no new connection is taken", || Connection::try_open(address).is_err());
    assert_eq!(gateway.child.try_wait().expect("a status"), None, "it left before the request was done");
    let done = Instant::now();
    release.send(()).expect("released");
    assert_eq!(busy.receive().text(), "done");
    assert_eq!(gateway.wait(), Some(0));
    assert!(done.elapsed() < Duration::from_secs(5), "it waited for more than the last request");
}

#[test]
fn what_a_drain_cuts_is_logged() {
    // One that never answers, and one whose answer never ends.
    let silent = Target::named("echo", "held");
    let begun = Target::new(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome")?;
        // Until it is hung up on.
        stream.read(&mut [0]).map(|_| ())
    });
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{silent: {{targets: [\"{}\"]}}, begun: {{targets: [\"{}\"]}}}}
routes: [{{name: silent, match: {{path: /hold}}, action: {{forward: silent}}}}, {{name: begun, action: {{forward: begun}}}}]
process: {{threads: 1, drain_time: 100ms}}",
        silent.address, begun.address
    ));
    let mut clients = ["/hold", "/begun"].map(|path| {
        let mut client = Connection::open(gateway.address());
        client.send(head("GET", path, &[]));
        client
    });
    eventually("both are under way", || silent.count() == 1 && begun.count() == 1);
    assert!(clients[1].some().is_ok_and(|bytes| !bytes.is_empty()));
    gateway.signal("-TERM");
    assert_eq!(gateway.wait(), Some(0));
    assert!(gateway.log().contains("still open and are cut"), "{}", gateway.log());
    let mut lines: Vec<_> =
        gateway.access_log(2).iter().map(|line| (line["path"].to_string(), line["reason"].to_string())).collect();
    lines.sort();
    assert_eq!(lines, [("\"/begun\"", "\"cut\""), ("\"/hold\"", "\"cut\"")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    silent.release();
}

#[test]
fn a_successor_takes_over_and_no_connection_is_refused() {
    let process = "\nprocess: {threads: 1, upgrade_socket: upgrade.sock, drain_time: 10s}";
    let mut old = Gateway::start(&(responding("old") + process));
    let (address, admin) = (old.address(), old.admin);
    let (stop, new) = (AtomicBool::new(false), AtomicUsize::new(0));
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    let answer = Connection::try_open(address).and_then(|mut c| {
                        c.send(head("GET", "/", &[]));
                        c.try_receive(false)
                    });
                    match answer.map(|a| a.text()).map_err(|e| e.to_string()).as_deref() {
                        Ok("new") => _ = new.fetch_add(1, Ordering::Relaxed),
                        Ok("old") => {}
                        other => wrong.lock().expect("the list").push(format!("{other:?}")),
                    }
                }
            });
        }
        let folder = tempfile::TempDir::new_in(old.folder.path()).expect("a folder");
        let socket = old.folder.path().join("upgrade.sock");
        let process = format!("\nprocess: {{threads: 1, upgrade_socket: {}, drain_time: 10s}}", socket.display());
        // One that cannot start changes nothing.
        let broken = tempfile::TempDir::new_in(old.folder.path()).expect("a folder");
        let config = broken.path().join("c.yaml");
        std::fs::write(
            &config,
            responding("broken")
                + &process
                + "\nlisteners: [{name: main, address: 127.0.0.1:0}, {name: taken, address: "
                + &admin.to_string()
                + "}]",
        )
        .expect("written");
        let (code, _, _) =
            super::harness::gateway::run(&["run", "-c", &config.display().to_string(), "--upgrade"], None);
        assert_eq!(code, 1);
        let successor = Gateway::start_in(folder, &(responding("new") + &process), &["--upgrade"]);
        assert_eq!(successor.address(), address);
        assert_eq!(successor.admin, admin);
        assert_eq!(old.wait(), Some(0));
        let before = new.load(Ordering::Relaxed);
        eventually("the successor serves", || new.load(Ordering::Relaxed) > before + 20);
        stop.store(true, Ordering::Release);
        let wrong = wrong.lock().expect("the list");
        assert!(wrong.is_empty(), "{wrong:?}\n{}", old.log());
        // The successor's own socket is there, and gone with it: the next start finds none that is dead.
        assert!(socket.exists());
        let mut successor = successor;
        successor.signal("-TERM");
        assert_eq!(successor.wait(), Some(0));
        assert!(!socket.exists());
    });
}

#[test]
fn whoever_is_in_the_queue_when_it_ends_is_served() {
    // One place, and that is in use: the second connection waits in the kernel's queue.
    let target = Target::named("echo", "one");
    let mut gateway = Gateway::start(&format!(
        "upstreams: {{held: {{targets: [\"{}\"]}}}}\nroutes: [{{name: held, match: {{path: /hold}}, action: {{forward: held}}}}, {{name: all, action: {{respond: {{body: ok}}}}}}]\nlisteners: [{{name: main, address: 127.0.0.1:0, limits: {{connections: 1}}}}]\nprocess: {{threads: 1, drain_time: 10s}}",
        target.address
    ));
    let mut first = Connection::open(gateway.address());
    first.send(head("GET", "/hold", &[]));
    eventually("the target has it", || target.count() == 1);
    let mut queued: Vec<Connection> = (0..5).map(|_| Connection::open(gateway.address())).collect();
    queued.iter_mut().for_each(|c| c.send(head("GET", "/", &[])));
    gateway.signal("-TERM");
    eventually("it drains", || gateway.log().contains("drain"));
    target.release();
    assert_eq!(first.receive().status, 200);
    for connection in &mut queued {
        let answer = connection.receive();
        assert_eq!((answer.text().as_str(), answer.header("connection")), ("ok", Some("close")));
    }
    assert_eq!(gateway.wait(), Some(0));
}

/// A file whose opening waits for as long as this lives, at most for the kernel's 45 s: it is under a lease, fcntl(2).
struct Leased(std::fs::File);

impl Leased {
    fn new(path: &std::path::Path, content: &str) -> Self {
        use nix::libc;
        use std::os::fd::AsRawFd;
        std::fs::write(path, content).expect("written");
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
        // SAFETY: numbers are passed. Whoever opens the file has SIGIO sent here, which by default ends the process.
        let leased = unsafe {
            libc::signal(libc::SIGIO, libc::SIG_IGN);
            libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
        };
        assert_eq!(leased, 0, "a lease: {}", std::io::Error::last_os_error());
        Self(file)
    }

    /// Whether somebody waits to open it.
    fn is_wanted(&self) -> bool {
        use nix::libc;
        use std::os::fd::AsRawFd;
        // SAFETY: numbers are passed.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) != libc::F_WRLCK }
    }
}

#[test]
fn a_reload_that_names_a_pipe_or_a_device_is_rejected_at_once() {
    let gateway = Gateway::start(&responding("before"));
    nix::unistd::mkfifo(&gateway.folder.path().join("slow.yaml"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    for file in ["slow.yaml", "/dev/zero"] {
        gateway.write_config(&format!("include: [{file}]\n{}", responding("never")));
        let refused = gateway.reload();
        assert!(refused.status == 422 && refused.text().contains("no regular file"), "{}", refused.text());
    }
    assert_eq!(gateway.get("/").text(), "before");
    gateway.write_config(&responding("after"));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.get("/").text(), "after");
}

#[test]
fn a_start_that_waits_for_a_file_can_be_told_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let slow = Leased::new(&folder.path().join("slow.yaml"), "routes: []");
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&format!("include: [slow.yaml]\n{}", responding("never")))).expect("written");
    let mut starting =
        std::process::Command::new(BINARY).args(["run", "-q", "-c"]).arg(&config).spawn().expect("started");
    eventually("it reads", || slow.is_wanted());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(starting.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .expect("told");
    assert_eq!(starting.wait().expect("a status").code(), Some(0));
}
