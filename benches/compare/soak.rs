//! Upgrades and reloads under a load that does not wait: not one request may be lost.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::load::{self, Plan, Protocol};
use super::measure::{binary, block, ground};
use super::peers::{Running, Scenario};

const RELOADS: usize = 200;
const UPGRADES: usize = 20;
const WEBSOCKETS: usize = 500;

struct Gateway {
    config: std::path::PathBuf,
    /// The first process; later ones are its successors'.
    first: Child,
    last: u32,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.last.to_string()).status();
        let _ = self.first.wait();
    }
}

impl Gateway {
    fn command(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(binary("portcullis"))
            .args(arguments)
            .arg("-c")
            .arg(&self.config)
            .output()
            .expect("the command");
        (
            output.status.success(),
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        )
    }
}

fn write(config: &Path, address: &str, admin: &str, origin: &str, generation: usize) {
    let routes: String = (0..100)
        .map(|n| {
            format!(
                "  - {{name: r{n}-{generation}, match: {{path: /r{n}/{generation}/*}}, action: {{forward: one}}}}\n"
            )
        })
        .collect();
    let text = format!(
        "process: {{threads: 1, upgrade_socket: upgrade.sock, standby_time: 500ms, websocket_time: 1s}}
log: {{access: {{output: none}}}}
admin: {{address: \"{admin}\"}}
upstreams: {{one: {{targets: [\"{origin}\"]}}, g{generation}: {{targets: [\"{origin}\"]}}}}
listeners: [{{name: main, address: \"{address}\", protocols: [http1, http2]}}]
routes:
{routes}  - {{name: limited, match: {{path: /limited}}, filters: [{{rate_limit: {{limit: 1000/h, by: address}}}}], action: {{respond: {{body: ok}}}}}}
  - {{name: all{generation}, action: {{forward: one}}}}\n"
    );
    std::fs::write(config, text).expect("written");
}

fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").to_string()
}

pub fn run(options: &[&str]) {
    let rate: f64 = options.first().and_then(|o| o.parse().ok()).unwrap_or(3_000.0);
    let runs: usize = options.get(1).and_then(|o| o.parse().ok()).unwrap_or(3);
    for number in 1..=runs {
        let lost = one(number, rate);
        if lost {
            std::process::exit(1);
        }
    }
}

fn one(number: usize, rate: f64) -> bool {
    let folder = tempfile::tempdir().expect("a folder");
    let (ground, targets, token) = ground(folder.path());
    let origin = &targets[0];
    let (address, admin, config) = (free(), free(), folder.path().join("portcullis.yaml"));
    write(&config, &address, &admin, &origin.address.to_string(), 0);
    let log = std::fs::File::create(folder.path().join("log")).expect("a log");
    let first = Command::new(&ground.portcullis)
        .args(["run", "-c"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("started");
    let mut gateway = Gateway { last: first.id(), config, first };
    while std::net::TcpStream::connect(&address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let stand_in = Running {
        child: Command::new("true").spawn().expect("a process"),
        address: address.parse().expect("an address"),
    };
    let base = super::measure::plan(Scenario::Plain, &stand_in, folder.path(), &token);
    let (stop, phase) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = [Protocol::Http1, Protocol::Http2, Protocol::Fresh]
        .into_iter()
        .map(|protocol| {
            let connections = if protocol == Protocol::Http2 { 8 } else { 64 };
            let (rate, time, stop) = (Some(rate / 3.0), Duration::from_secs(3600), Some(Arc::clone(&stop)));
            let plan = Plan { protocol, rate, time, connections, stop, ..base.clone() };
            std::thread::spawn(move || block(load::run(&plan)))
        })
        .collect();
    let sockets = {
        let (plan, phase) = (base.clone(), Arc::clone(&phase));
        std::thread::spawn(move || hold_websockets(&plan, phase))
    };
    std::thread::sleep(Duration::from_secs(1));
    let begun = Instant::now();
    for reload in 1..=RELOADS {
        write(&gateway.config, &address, &admin, &origin.address.to_string(), reload);
        let (fine, said) = gateway.command(&["reload"]);
        assert!(fine, "reload {reload}: {said}");
    }
    let reloads = begun.elapsed();
    phase.store(1, Ordering::Release);
    let lost_sockets = sockets.join().expect("the WebSockets");
    let spend = |count: usize| (0..count).filter(|_| limited(&address)).count();
    let mut admitted = spend(400);
    for upgrade in 1..=UPGRADES {
        let (fine, said) = gateway.command(&["upgrade"]);
        assert!(fine, "upgrade {upgrade}: {said}");
        gateway.last =
            said.lines().find_map(|l| l.strip_prefix("process ")?.split(' ').next()?.parse().ok()).expect("a process");
        admitted += spend(20);
    }
    admitted += spend(400);
    stop.store(true, Ordering::Release);
    let mut lost = lost_sockets > 0;
    println!(
        "run {number}: {RELOADS} reloads in {:.1} s, {UPGRADES} upgrades, {:.0} s in all",
        reloads.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    for (client, name) in clients.into_iter().zip(["HTTP/1.1", "HTTP/2", "new connections"]) {
        let mut outcome = client.join().expect("a client");
        lost |= !outcome.failed.is_empty();
        print_outcome(name, &mut outcome);
    }
    println!(
        "  HTTP/2 requests that crossed a GOAWAY and were sent again: {}",
        load::CROSSED.swap(0, Ordering::Relaxed)
    );
    println!("  WebSockets       {WEBSOCKETS} held through the reloads, lost: {lost_sockets}");
    // 1,000 at once and one in each 3.6 s.
    let most = 1_000 + begun.elapsed().as_secs() as usize / 3 + 1;
    lost |= !(1_000..=most).contains(&admitted);
    println!("  rate limit       {admitted} admitted of a limit of 1,000 an hour, across {UPGRADES} upgrades");
    lost
}

/// Holds WebSockets until the next phase, and returns how many were lost.
fn hold_websockets(plan: &Plan, phase: Arc<AtomicUsize>) -> usize {
    let over = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&over);
    std::thread::spawn(move || {
        while phase.load(Ordering::Acquire) == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        told.store(true, Ordering::Release);
    });
    block(load::websockets(plan, WEBSOCKETS, over))
}

fn print_outcome(name: &str, outcome: &mut load::Outcome) {
    let (p50, p99, p999) = (outcome.percentile(0.5), outcome.percentile(0.99), outcome.percentile(0.999));
    println!(
        "  {name:16} {:7} answered, lost: {:?}; p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs",
        outcome.fine, outcome.failed
    );
}

/// One request at a limit.
fn limited(address: &str) -> bool {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("a connection");
    stream.write_all(b"GET /limited HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text.starts_with("HTTP/1.1 200")
}
