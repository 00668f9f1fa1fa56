//! Reloads of 10,000 routes under load, and memory after 1,000 reloads.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::load::{self, Outcome, Plan};
use super::measure::{block, ground, median, plan};
use super::peers::{Running, Scenario, memory_of};

const ROUTES: usize = 10_000;
const FEW: usize = 200;
const RELOADS: usize = 1_000;
const RATE: f64 = 2_000.0;
const PHASE: Duration = Duration::from_secs(3);
const ROUNDS: usize = 11;

struct Gateway<'g> {
    running: Running,
    admin: std::net::SocketAddr,
    config: std::path::PathBuf,
    ground: &'g super::peers::Ground,
}

impl Gateway<'_> {
    fn write(&self, routes: usize, generation: usize) {
        let mut text: String = (0..routes)
            .map(|n| format!("  - {{name: r{n}-{generation}, match: {{path: '/repos/{{owner}}/{{repo}}/kind{n}', methods: [GET]}}, filters: [{{headers: {{request: {{set: {{x-route: r{n}}}}}}}}}], action: {{forward: one}}}}\n"))
            .collect();
        text.push_str(&format!("  - {{name: all-{generation}, action: {{forward: one}}}}\n"));
        let head = format!(
            "process: {{threads: 1}}\nlog: {{access: {{output: off}}}}\nadmin: {{address: \"{}\"}}\nupstreams: {{one: {{targets: [\"{}\"]}}}}\nlisteners: [{{name: main, address: \"{}\"}}]\nroutes:\n",
            self.admin, self.ground.origin, self.running.address
        );
        std::fs::write(&self.config, head + &text).expect("written");
    }

    /// Reloads; how long it took.
    fn reload(&self) -> Duration {
        let begun = Instant::now();
        let mut stream = std::net::TcpStream::connect(self.admin).expect("the admin listener");
        stream.write_all(b"POST /reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        begun.elapsed()
    }
}

/// Load for a while, and reloads if there is room for their times.
fn phase(gateway: &Gateway<'_>, plan: &Plan, mut times: Option<&mut Vec<Duration>>) -> Outcome {
    let client = std::thread::spawn({
        let plan = plan.clone();
        move || block(load::run(&plan))
    });
    let begun = Instant::now();
    let mut generation = 0;
    while begun.elapsed() < PHASE - Duration::from_secs(1) {
        generation += 1;
        gateway.write(ROUTES, generation);
        if let Some(times) = &mut times {
            times.push(gateway.reload());
        }
        std::thread::sleep(Duration::from_millis(400));
    }
    let outcome = client.join().expect("the client");
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    outcome
}

pub fn run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ground, _targets, token) = ground(folder.path());
    let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (address, admin, config) = (free(), free(), folder.path().join("c.yaml"));
    let stand_in = Running { child: Command::new("true").spawn().expect("a process"), address };
    let mut gateway = Gateway { running: stand_in, admin, config, ground: &ground };
    gateway.write(ROUTES, 0);
    let mut command = Command::new(&ground.portcullis);
    command.args(["run", "-q", "-c"]).arg(&gateway.config).stdout(Stdio::null());
    gateway.running = Running { child: command.spawn().expect("started"), address };
    while std::net::TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let plan = Plan { rate: Some(RATE), time: PHASE, ..plan(Scenario::Plain, &gateway.running, folder.path(), &token) };
    // What a start costs is not what is asked for here.
    block(load::run(&Plan { time: Duration::from_secs(1), ..plan.clone() }));
    let mut times = Vec::new();
    let mut rounds: Vec<[Outcome; 2]> = Vec::new();
    // By turns, so that what the machine does meanwhile meets both; the file is written in both.
    for _ in 0..ROUNDS {
        rounds.push([false, true].map(|reloads| phase(&gateway, &plan, reloads.then_some(&mut times))));
    }
    times.sort();
    println!("{ROUTES} routes: {} reloads, median {:.0?}, longest {:.0?}", times.len(), times[times.len() / 2], times[times.len() - 1]);
    for share in [0.5, 0.99, 0.999] {
        let both: Vec<[u32; 2]> = rounds.iter_mut().map(|round| round.each_mut().map(|outcome| outcome.percentile(share))).collect();
        let [calm, busy] = [0, 1].map(|side| median(&mut both.iter().map(|round| f64::from(round[side])).collect::<Vec<_>>()));
        let ratio = median(&mut both.iter().map(|[calm, busy]| f64::from(*busy) / f64::from(*calm)).collect::<Vec<_>>());
        println!(
            "  p{:<4} of {RATE} requests/s: {calm} µs without, {busy} µs with reloads, {ratio:.2} times in the median of {ROUNDS} rounds",
            share * 100.0
        );
    }
    let pid = gateway.running.child.id();
    for generation in 0..10 {
        gateway.write(FEW, generation);
        gateway.reload();
    }
    let early = memory_of(pid);
    for generation in 10..RELOADS {
        gateway.write(FEW, generation);
        gateway.reload();
    }
    // Memory that nobody has goes back after ten seconds, when there is something to do again.
    std::thread::sleep(Duration::from_secs(11));
    gateway.write(FEW, RELOADS);
    gateway.reload();
    println!("{FEW} routes: {early} KiB after 10 reloads, {} KiB after {RELOADS}", memory_of(pid));
}
