//! What happens when something of the gateway's own gives way.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

/// How many files the process has open.
fn open_files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.child.id())).expect("its files").count()
}

fn limit_files(gateway: &Gateway, limit: &str) {
    let done = Command::new("prlimit")
        .args(["--pid", &gateway.child.id().to_string(), &format!("--nofile={limit}:")])
        .status();
    assert!(done.expect("prlimit").success());
}

#[test]
fn without_file_descriptors_it_refuses_and_recovers() {
    let target = Target::echo("a");
    let gateway = Gateway::start(&format!(
        "upstreams: {{a: {{targets: [\"{}\"], health: {{active: {{interval: 50ms, fall: 1}}, passive: {{failures: 1}}}}, breaker: {{failures: 1}}}}}}
routes: [{{name: all, action: {{forward: a}}}}, {{name: own, match: {{path: /own}}, action: {{respond: {{body: own}}}}}}]
process: {{threads: 1}}",
        target.address
    ));
    let mut one = Connection::open(gateway.address());
    let mut admin = Connection::open(gateway.admin);
    assert_eq!(one.ask(head("GET", "/own", &[])).text(), "own");
    assert_eq!(admin.ask(head("GET", "/healthz", &[])).status, 200);
    // Below what is open for certain: none can be opened any more.
    limit_files(&gateway, &(open_files(&gateway) / 2).to_string());
    // Nothing is left for a target, nor for a probe of it: neither is held against the target.
    let refused = one.ask(head("GET", "/x", &[]));
    assert_eq!(
        (refused.status, refused.reason().as_str(), refused.header("retry-after")),
        (503, "exhausted", Some("1"))
    );
    eventually("a probe could not be sent", || gateway.log().contains("keeps its health"));
    // A new connection waits in the kernel's queue; it is not refused.
    let mut waiting = Connection::open(gateway.address());
    waiting.send(head("GET", "/x", &[]));
    eventually("it cannot be accepted", || gateway.log().contains("cannot accept"));
    limit_files(&gateway, "1024");
    assert_eq!(waiting.receive().json()["served_by"], "a");
    assert_eq!(gateway.get("/x").status, 200, "{}", gateway.log());
    let series = format!("portcullis_target_healthy{{target=\"{}\",upstream=\"a\"}}", target.address);
    assert!(gateway.metric(&series) > 0.5);
}

#[test]
fn a_full_disk_costs_log_lines_and_no_request() {
    let gateway = Gateway::start(
        "routes: [{name: all, action: {respond: {body: ok}}}]\nlog: {access: {output: file, file: /dev/full}}\nprocess: {threads: 1}",
    );
    assert!((0..20).all(|_| gateway.get("/").text() == "ok"));
    eventually("the lines are counted", || gateway.metric("portcullis_log_lines_dropped_total") > 19.5);
    // It is told after it is counted.
    eventually("it is told", || gateway.log().contains("the access log cannot be written: No space left on device"));
    assert!((0..5).all(|_| gateway.get("/").text() == "ok"));
    assert_eq!(
        gateway.log().matches("the access log cannot be written").count(),
        1,
        "one line for as long as it lasts"
    );
    // A disk that is well again is used with the next reload, which opens the file anew.
    gateway.write_config("routes: [{name: all, action: {respond: {body: ok}}}]");
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.get("/last").text(), "ok");
    assert_eq!(gateway.access_log(1)[0]["path"], "/last");
    // One that cannot even be opened is a mistake, and changes nothing.
    gateway.write_config(
        "routes: [{name: all, action: {respond: {body: other}}}]\nlog: {access: {output: file, file: /proc/all.log}}",
    );
    let refused = gateway.reload();
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("the access log cannot be opened"), "{}", refused.text());
    assert_eq!(gateway.get("/").text(), "ok");
}

#[test]
fn bodies_take_no_memory_whatever_their_size() {
    let received = std::sync::Arc::new(AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&received);
    let target = Target::new(move |stream, seen| {
        counted.fetch_add(seen.body.len() as u64, Ordering::Relaxed);
        // As much back, in JSON that is looked through.
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n[")?;
        let part = [&[b'1'; 63][..], b","].concat().repeat(1024);
        for _ in 0..1_000 {
            stream.write_all(&part)?;
        }
        stream.write_all(b"0]")?;
        Err(std::io::ErrorKind::UnexpectedEof.into())
    });
    let gateway = Gateway::start(&format!(
        "upstreams: {{a: {{targets: [\"{}\"], retry: {{statuses: \"503\"}}}}}}
routes: [{{name: all, body: 200MiB, filters: [{{strip_fields: {{response: [ssn]}}}}], action: {{forward: {{upstream: a, mirror: {{upstream: a}}}}}}}}]
process: {{threads: 1}}",
        target.address
    ));
    let memory = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).expect("the status");
        let line = status.lines().find(|l| l.starts_with("VmHWM")).expect("a line").to_owned();
        line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number")
    };
    let before = memory();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut connection = Connection::open(gateway.address());
                let body = vec![b'x'; 1 << 20];
                connection.send(head(
                    "POST",
                    "/",
                    &[("content-length", &(64_u64 << 20).to_string()), ("content-type", "text/plain")],
                ));
                (0..64).for_each(|_| connection.send(&body));
                let answer = connection.receive();
                assert_eq!(answer.status, 200);
                assert!(answer.body.len() > 65_000_000 && answer.body.ends_with(b"0]"));
            });
        }
    });
    assert!(received.load(Ordering::Relaxed) >= 4 * (64 << 20));
    // Four times 128 MiB went through.
    let grown = memory() - before;
    assert!(grown < 24 * 1024, "{grown} KiB more at the peak");
}
