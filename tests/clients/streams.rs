//! Programs of other people through the gateway at layer 4: Redis and iperf3.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use super::harness::eventually;
use super::harness::gateway::Gateway;

/// A server that is killed with its handle.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a free port of an address that nothing but this process uses: the servers cannot name the port that they
/// were given.
fn free() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 98, high, low), 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

/// Starts a server, and waits until it accepts connections.
#[track_caller]
fn start(program: &str, arguments: &[&str], address: SocketAddr) -> Program {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().unwrap_or_else(|e| panic!("{program} cannot be run ({e}): run `.ci/setup clients`"));
    let program = Program(child);
    eventually("the server accepts connections", || TcpStream::connect(address).is_ok());
    program
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let out = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let out = out.unwrap_or_else(|e| panic!("{program} cannot be run ({e}): run `.ci/setup clients`"));
    let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{program} {arguments:?}: {text}{errors}");
    text.into_owned()
}

fn gateway(target: SocketAddr) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{target}\"]}}}}\nstreams: [{{name: all, action: {{forward: one}}}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}]\n"
    ))
}

#[test]
fn redis_serves_through_the_gateway() {
    let address = free();
    let folder = tempfile::tempdir().expect("a folder");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let folder = folder.path().to_str().expect("a path");
    let settings = ["--bind", &host, "--port", &port, "--save", "", "--dir", folder];
    let _server = start("redis-server", &settings, address);
    let gateway = gateway(address);
    let (host, port) = (gateway.address().ip().to_string(), gateway.address().port().to_string());
    let ask = |words: &[&str]| run("redis-cli", &[&["-h", &host, "-p", &port][..], words].concat());
    assert_eq!(ask(&["ping"]).trim(), "PONG");
    assert_eq!(ask(&["set", "key", &"x".repeat(100_000)]).trim(), "OK");
    assert_eq!(ask(&["strlen", "key"]).trim(), "100000");
    assert_eq!(ask(&["get", "key"]).trim().len(), 100_000);
    // Many requests at a time on many connections, each with its response.
    let benchmark = ["-h", &host, "-p", &port, "-q", "-n", "5000", "-c", "20", "-P", "16", "-t", "set,get,lrange_100"];
    let text = run("redis-benchmark", &benchmark);
    assert_eq!(text.matches("requests per second").count(), 4, "{text}");
    assert!(gateway.access_log(4).iter().all(|line| line["reason"] != "target_closed_early"));
}

#[test]
fn iperf3_streams_in_both_directions() {
    let address = free();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let _server = start("iperf3", &["-s", "-B", &host, "-p", &port], address);
    let gateway = gateway(address);
    let (host, port) = (gateway.address().ip().to_string(), gateway.address().port().to_string());
    // Not --bidir: it takes for granted that the server accepts connections in the order in which the client opens
    // them, which a balancer does not promise.
    for more in [&[][..], &["-R"], &["-P", "3"]] {
        let text = run("iperf3", &[&["-c", &host, "-p", &port, "-n", "50M", "-J"][..], more].concat());
        let result: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        // What is on its way when the sender is done is not counted by the receiver, which learns of the end over
        // another connection.
        let (error, sums) = (&result["error"], ["sum_sent", "sum_received"]);
        let [sent, received] = sums.map(|sum| result["end"][sum]["bytes"].as_u64().unwrap_or_default());
        assert!(error.is_null() && sent >= 50 << 20 && received > 1 << 20, "{more:?}: {error} {sent} {received}");
    }
}
