//! Measuring: rounds in which every peer has its turn, so that what the machine does meanwhile meets all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::load::{self, Plan, Protocol};
use super::peers::{Ground, PEERS, Peer, Running, SCENARIOS, Scenario};

/// Requests a second at which CPU time is measured, and new connections where each has a handshake.
const FIXED: f64 = 4_000.0;
const HANDSHAKES: f64 = 400.0;

const CONNECTIONS: usize = 64;
const IDLE: usize = 10_000;
/// Connections that have come and gone before memory is looked at.
const FIRST: usize = 16;

pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a path");
    let examples = own.parent().expect("a folder");
    let beside = examples.join(name);
    if beside.exists() { beside } else { examples.parent().expect("a folder").join(name) }
}

/// This process, and what it starts from now on, on the second core.
pub fn pin() {
    let done = Command::new("taskset").args(["-cp", "1", &std::process::id().to_string()]).output().expect("taskset");
    assert!(done.status.success(), "two cores are needed");
}

pub fn block<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Where benches/compare/pgo.sh puts what it builds.
fn profiled() -> PathBuf {
    PathBuf::from("target/pgo/portcullis")
}

/// Keys, certificates and the target.
pub fn ground(folder: &Path) -> (Ground, [Running; 2], String) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    write("cert.pem", &made.cert.pem());
    write("cert.key", &made.signing_key.serialize_pem());
    write("both.pem", &format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem()));
    let openssl = |arguments: &[&str]| {
        let done = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl");
        assert!(done.status.success(), "openssl {arguments:?}");
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    openssl(&["genrsa", "-out", "key.pem", "2048"]);
    openssl(&["rsa", "-in", "key.pem", "-pubout", "-out", "pub.pem"]);
    let modulus = openssl(&["rsa", "-in", "key.pem", "-noout", "-modulus"]);
    let hex = modulus.trim().trim_start_matches("Modulus=").as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a digit") as u8;
    let modulus: Vec<u8> = hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    let claims = json!({"sub": "ada", "exp": 4_102_444_800_u64});
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(&std::fs::read(folder.join("key.pem")).expect("the key"))
        .expect("a key");
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::RS256), &claims, &key)
        .expect("a token");
    let target = |words: &[&str]| {
        let address = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        let child = Command::new(binary("origin")).arg(address.to_string()).args(words).spawn().expect("the target");
        Running { child, address }
    };
    let targets = [target(&[]), target(&["json"])];
    let binaries = std::env::var_os("PEERS").map_or_else(|| PathBuf::from("target/peers"), PathBuf::from);
    let ground = Ground {
        folder: folder.to_owned(),
        origin: targets[0].address,
        json: targets[1].address,
        binaries,
        portcullis: std::env::var_os("PORTCULLIS").map_or_else(|| binary("portcullis"), PathBuf::from),
        profiled: profiled(),
        bare: binary("bare"),
        modulus: base64(&modulus),
    };
    (ground, targets, token)
}

/// A client that trusts any certificate of ours: what is measured is the server.
pub fn client(folder: &Path, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    portcullis::parts::install_provider();
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(folder.join("cert.pem")).expect("the certificate");
    for certificate in rustls_pemfile::certs(&mut pem.as_slice()) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

pub fn plan(scenario: Scenario, running: &Running, folder: &Path, token: &str) -> Plan {
    let protocol = match scenario {
        Scenario::Handshakes => Protocol::Fresh,
        Scenario::Http2 => Protocol::Http2,
        _ => Protocol::Http1,
    };
    let headers = match scenario {
        Scenario::ApiKey => vec![("x-api-key".to_owned(), Ground::keys().nth(500).expect("a key"))],
        Scenario::Jwt | Scenario::Full => vec![("authorization".to_owned(), format!("Bearer {token}"))],
        _ => Vec::new(),
    };
    let edited = scenario == Scenario::Headers;
    let alpn: &[u8] = if scenario == Scenario::Http2 { b"h2" } else { b"http/1.1" };
    Plan {
        address: running.address,
        path: if scenario == Scenario::Routes { "/kind500/x".to_owned() } else { "/x".to_owned() },
        headers,
        protocol,
        tls: scenario.is_tls().then(|| client(folder, alpn)),
        connections: CONNECTIONS,
        rate: None,
        time: Duration::from_secs(1),
        body: (scenario != Scenario::Strip).then_some(1024),
        has: if edited { vec!["x-frame-options: deny\r\n"] } else { Vec::new() },
        lacks: if edited { vec!["x-internal: 1"] } else { Vec::new() },
        stop: None,
    }
}

/// That a peer refuses what it is to refuse: nobody wins by skipping work.
fn verify(peer: Peer, scenario: Scenario, plan: &Plan) {
    let wrong = match scenario {
        Scenario::ApiKey => ("x-api-key", "key-of-nobody".to_owned()),
        Scenario::Jwt | Scenario::Full => {
            let token = plan.headers[0].1.clone();
            let (rest, signature) = token.rsplit_once('.').expect("a token");
            // Another signature, whatever this one begins with.
            let other = if signature.starts_with('A') { 'B' } else { 'A' };
            ("authorization", format!("{rest}.{other}{}", &signature[1..]))
        }
        _ => return,
    };
    let mut plan = plan.clone();
    plan.headers = vec![(wrong.0.to_owned(), wrong.1)];
    (plan.connections, plan.rate, plan.time) = (1, Some(20.0), Duration::from_millis(200));
    let outcome = block(load::run(&plan));
    let refused = outcome.failed.keys().all(|why| why.contains("401") || why.contains("403"));
    assert!(outcome.fine == 0 && refused && !outcome.failed.is_empty(), "{} lets anybody in: {outcome:?}", peer.name());
}

/// Waits until it answers as planned: Traefik accepts connections before it knows its routes.
fn wait_until_served(peer: Peer, plan: &Plan) {
    let mut plan = plan.clone();
    (plan.connections, plan.rate, plan.time) = (1, Some(20.0), Duration::from_millis(200));
    let served = || {
        let outcome = block(load::run(&plan));
        outcome.fine > 0 && outcome.failed.is_empty()
    };
    assert!((0..50).any(|_| served()), "{} does not answer", peer.name());
}

fn measured(peer: Peer, scenario: Scenario, plan: &Plan) -> load::Outcome {
    let outcome = block(load::run(plan));
    assert!(outcome.failed.is_empty(), "{}, {}: {:?}", peer.name(), scenario.name(), outcome.failed);
    outcome
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn selected(options: &[&str]) -> (Vec<Peer>, Vec<Scenario>) {
    let place = options.iter().position(|o| *o == "--only");
    let words: Vec<String> =
        place.and_then(|p| options.get(p + 1)).map_or_else(Vec::new, |w| w.split(',').map(str::to_lowercase).collect());
    let named = |name: String| words.is_empty() || words.contains(&name.to_lowercase());
    let there: Vec<Peer> = PEERS.into_iter().filter(|p| *p != Peer::Profiled || profiled().exists()).collect();
    let peers: Vec<Peer> = there.iter().copied().filter(|p| named(format!("{p:?}"))).collect();
    let scenarios: Vec<Scenario> = SCENARIOS.into_iter().filter(|s| named(format!("{s:?}"))).collect();
    (if peers.is_empty() { there } else { peers }, if scenarios.is_empty() { SCENARIOS.to_vec() } else { scenarios })
}

/// Prints what the results depend on: the machine, the commit, and how long each measurement takes.
fn print_conditions(cores: usize, seconds: Duration, rounds: u64) {
    let text = |command: &str, arguments: &[&str]| {
        let output = Command::new(command).args(arguments).output().ok();
        output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .map(|l| l.trim_start_matches([':', '\t', ' ']).to_owned());
    println!(
        "{}",
        json!({"at": text("date", &["-u", "+%F %H:%M"]), "commit": text("git", &["rev-parse", "--short", "HEAD"]),
        "cpu": cpu, "cores": cores.to_string(), "kernel": text("uname", &["-r"]),
        "seconds": seconds.as_secs(), "rounds": rounds})
    );
}

pub fn run(options: &[&str]) {
    let number = |place: usize, default: u64| options.get(place).and_then(|o| o.parse().ok()).unwrap_or(default);
    let (seconds, rounds) = (Duration::from_secs(number(0, 3)), number(1, 3));
    let (peers, scenarios) = selected(options);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    pin();
    let folder = tempfile::tempdir().expect("a folder");
    let (ground, _targets, token) = ground(folder.path());
    print_conditions(cores, seconds, rounds);
    for scenario in scenarios {
        let running: BTreeMap<Peer, Running> =
            peers.iter().filter(|p| p.can(scenario)).map(|peer| (*peer, ground.start(*peer, scenario))).collect();
        let plans: BTreeMap<Peer, Plan> =
            running.iter().map(|(peer, running)| (*peer, plan(scenario, running, folder.path(), &token))).collect();
        let mut cpu: BTreeMap<Peer, Vec<f64>> = BTreeMap::new();
        for (peer, plan) in &plans {
            wait_until_served(*peer, plan);
            verify(*peer, scenario, plan);
            let mut warm = plan.clone();
            warm.rate = Some(HANDSHAKES);
            measured(*peer, scenario, &warm);
        }
        let fixed = if scenario == Scenario::Handshakes { HANDSHAKES } else { FIXED };
        for _ in 0..rounds {
            for (peer, plan) in &plans {
                let mut plan = plan.clone();
                (plan.rate, plan.time) = (Some(fixed), seconds);
                let before = running[peer].cpu();
                let outcome = measured(*peer, scenario, &plan);
                cpu.entry(*peer).or_default().push((running[peer].cpu() - before) as f64 / 1e3 / outcome.fine as f64);
            }
        }
        for (peer, plan) in &plans {
            let mut plan = plan.clone();
            plan.time = seconds;
            let most = measured(*peer, scenario, &plan).rate();
            plan.rate = Some(most / 2.0);
            let mut half = measured(*peer, scenario, &plan);
            let mut values = cpu.remove(peer).expect("values");
            println!(
                "{}",
                json!({"scenario": format!("{scenario:?}"), "peer": format!("{peer:?}"),
                "cpu_us": values, "cpu_us_median": median(&mut values), "rate": most.round(),
                "p50_us": half.percentile(0.5), "p99_us": half.percentile(0.99), "p999_us": half.percentile(0.999)})
            );
        }
    }
    if options.contains(&"--no-memory") {
        return;
    }
    for peer in peers {
        measure_memory(peer, &ground, folder.path(), &token);
    }
}

/// Prints the memory of a peer with and without idle connections.
fn measure_memory(peer: Peer, ground: &Ground, folder: &Path, token: &str) {
    let running = ground.start(peer, Scenario::Plain);
    let plan = plan(Scenario::Plain, &running, folder, token);
    wait_until_served(peer, &plan);
    // What is touched by the first requests, code and each worker's memory, is no matter of how many connections there
    // are.
    drop(block(load::idle(&plan, FIRST)));
    std::thread::sleep(Duration::from_secs(1));
    let empty = running.memory();
    let (full, _kept) = block(async {
        let kept = load::idle(&plan, IDLE).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        (running.memory(), kept)
    });
    println!(
        "{}",
        json!({"memory": format!("{peer:?}"), "empty_kib": empty, "connections": IDLE, "full_kib": full,
        "bytes_per_connection": (full.saturating_sub(empty)) * 1024 / IDLE as u64})
    );
}
