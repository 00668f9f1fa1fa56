//! Reloads of 10,000 routes under load, and memory after 1,000 reloads.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::load::{self, Outcome, Plan};
use super::measure::{block, ground, median, plan};
use super::peers::{Running, Scenario, memory_of};

const ROUTES: usize = 10_000;
const FEW: usize = 200;
const RELOADS: usize = 1_000;
const RATE: f64 = 2_000.0;
/// What a reload is compared with: as much time before it.
const CALM: Duration = Duration::from_secs(1);
/// What follows a reload, such as letting go of what was before, is within this.
const AFTER: Duration = Duration::from_millis(200);

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
            "process: {{threads: 1}}\nlog: {{access: {{output: none}}}}\nadmin: {{address: \"{}\"}}\nupstreams: {{one: {{targets: [\"{}\"]}}}}\nlisteners: [{{name: main, address: \"{}\"}}]\nroutes:\n",
            self.admin, self.ground.origin, self.running.address
        );
        std::fs::write(&self.config, head + &text).expect("written");
    }

    /// Reloads; how long it took.
    fn reload(&self) -> Duration {
        let begun = Instant::now();
        let mut stream = std::net::TcpStream::connect(self.admin).expect("the admin listener");
        stream
            .write_all(b"POST /reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        begun.elapsed()
    }
}

/// How long each reload took, and of the undisturbed ones what was due in the second before, and during it with
/// what is left to do after it.
struct Rounds {
    times: Vec<Duration>,
    undisturbed: Vec<[Outcome; 2]>,
}

/// Time that the host took from this machine, as a count of ticks (proc(5), `steal`).
fn stolen() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    text.split_whitespace().nth(8).and_then(|ticks| ticks.parse().ok()).unwrap_or(0)
}

/// Reloads with that much time before each, until so many were undisturbed: where the host took the machine's time,
/// latencies tell of the host.
fn rounds(gateway: &Gateway<'_>, plan: &Plan, count: usize, apart: Duration) -> Rounds {
    let stop = Arc::new(AtomicBool::new(false));
    let client = std::thread::spawn({
        let plan = Plan { time: Duration::from_secs(3600), stop: Some(Arc::clone(&stop)), ..plan.clone() };
        move || block(load::run(&plan))
    });
    let (mut windows, mut times, mut disturbed) = (Vec::new(), Vec::new(), 0);
    while windows.len() < count && disturbed < 2 * count {
        gateway.write(ROUTES, windows.len() + disturbed + 1);
        std::thread::sleep(apart - CALM);
        let before = stolen();
        std::thread::sleep(CALM);
        let begun = Instant::now();
        times.push(gateway.reload());
        std::thread::sleep(AFTER);
        if stolen() == before { windows.push([begun - CALM..begun, begun..Instant::now()]) } else { disturbed += 1 }
    }
    stop.store(true, Ordering::Release);
    let outcome = client.join().expect("the client");
    assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    times.sort();
    Rounds {
        times,
        undisturbed: windows.iter().map(|windows| windows.each_ref().map(|window| outcome.within(window))).collect(),
    }
}

impl Rounds {
    fn tell(mut self, apart: Duration) {
        let (count, median_time, longest) =
            (self.times.len(), self.times[self.times.len() / 2], self.times[self.times.len() - 1]);
        println!(
            "{count} reloads of {ROUTES} routes, {apart:?} apart: median {median_time:.0?}, longest {longest:.0?}; {} undisturbed",
            self.undisturbed.len()
        );
        if self.undisturbed.is_empty() {
            return println!("  the host is busy with other things: nothing can be said of latencies");
        }
        for share in [0.5, 0.99] {
            let each: Vec<[u32; 2]> = self
                .undisturbed
                .iter_mut()
                .map(|both| both.each_mut().map(|outcome| outcome.percentile(share)))
                .collect();
            let [calm, busy] = [0, 1].map(|side| {
                let mut all = Outcome::default();
                self.undisturbed.iter().for_each(|both| all.add(both[side].clone()));
                all.percentile(share)
            });
            let ratio =
                median(&mut each.iter().map(|[calm, busy]| f64::from(*busy) / f64::from(*calm)).collect::<Vec<_>>());
            println!(
                "  p{:<3} of {RATE} requests/s: {calm} µs before, {busy} µs during all: {:.2} times; {ratio:.2} times in the median of them",
                share * 100.0,
                f64::from(busy) / f64::from(calm)
            );
        }
    }
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
    let plan = Plan { rate: Some(RATE), ..plan(Scenario::Plain, &gateway.running, folder.path(), &token) };
    // What a start costs is not what is asked for here.
    block(load::run(&Plan { time: Duration::from_secs(1), ..plan.clone() }));
    for (count, apart) in [(40, Duration::from_secs(1) + CALM), (20, Duration::from_secs(12))] {
        rounds(&gateway, &plan, count, apart).tell(apart);
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
