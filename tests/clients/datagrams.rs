//! Datagrams: dig with dnsmasq behind the gateway, and iperf3.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::programs::finish;

/// A program that is ended with its handle.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns an address that nothing but this process uses, with a port that is free for both transports.
fn free(last: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 97 - last, high, low);
    loop {
        let address = TcpListener::bind((ip, 0)).and_then(|tcp| tcp.local_addr()).expect("a free port");
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Starts a name server that knows one name, with its own address.
fn dnsmasq(address: SocketAddr) -> Server {
    let program = if Path::new("/usr/sbin/dnsmasq").exists() { "/usr/sbin/dnsmasq" } else { "dnsmasq" };
    let child = Command::new(program)
        .args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--bind-interfaces"])
        .args(["--user=", "--group=", "--pid-file="])
        .arg(format!("--listen-address={}", address.ip()))
        .arg(format!("--port={}", address.port()))
        .args(["--edns-packet-max=4096", "--address=/example.com/127.0.0.9"])
        .arg(format!("--address=/who.test/{}", address.ip()))
        .args([format!("--txt-record=large.test{}", format!(",{}", "x".repeat(250)).repeat(9))])
        .stderr(Stdio::null())
        .spawn()
        .expect("dnsmasq is not installed: run `.ci/setup clients`");
    Server(child)
}

fn dig(to: SocketAddr, arguments: &[&str]) -> String {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", to.ip())).args(["-p", &to.port().to_string(), "+tries=3", "+time=3"]).args(arguments);
    let done = finish(&mut command, b"");
    assert_eq!(done.code, 0, "{arguments:?}: {} {}", done.out, done.errors);
    done.out
}

#[test]
fn dig_over_udp_and_tcp_with_health_by_query() {
    let (one, two, entry) = (free(0), free(1), free(2));
    let (mut first, _second) = (dnsmasq(one), dnsmasq(two));
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/dns.yaml");
    let text = std::fs::read_to_string(example).expect("the example");
    let text = text
        .replace("127.0.0.1:5300", &entry.to_string())
        .replace("127.0.0.1:5301", &one.to_string())
        .replace("127.0.0.1:5302", &two.to_string())
        .replace("interval: 1s", "interval: 100ms");
    let gateway = Gateway::start(&text);
    let healthy = |target: SocketAddr| {
        gateway.metric(&format!("portcullis_target_healthy{{target=\"{target}\",upstream=\"resolvers\"}}")) == 1.0
    };
    eventually("both respond", || healthy(one) && healthy(two));
    let ask = |more: &[&str]| dig(entry, &[&["+short", "who.test"], more].concat()).trim().to_owned();
    let found: Vec<String> = (0..4).map(|_| ask(&[])).collect();
    for server in [one, two] {
        assert_eq!(found.iter().filter(|found| **found == server.ip().to_string()).count(), 2, "{found:?}");
    }
    assert!(ask(&["+tcp"]).starts_with("127."));
    // A response that does not fit is truncated, and asked for again over TCP.
    let large = dig(entry, &["+noedns", "large.test", "TXT"]);
    assert!(large.contains("Truncated, retrying in TCP mode") && large.contains("NOERROR"), "{large}");
    assert!(dig(entry, &["+bufsize=4096", "large.test", "TXT"]).contains("(UDP)"));
    // A server that is gone is left out.
    let _ = first.0.kill();
    let _ = first.0.wait();
    eventually("it is left out", || !healthy(one));
    for _ in 0..6 {
        assert_eq!(ask(&[]), two.ip().to_string());
    }
    eventually("every query has ended", || {
        gateway.metric("portcullis_stream_sessions_open{listener=\"dns-udp\",stream=\"queries\"}") == 0.0
    });
}

#[test]
fn iperf3_loses_nothing_in_either_direction() {
    let (server, entry) = (free(3), free(4));
    let mut command = Command::new("iperf3");
    command.args(["--server", "--bind", &server.ip().to_string(), "--port", &server.port().to_string()]);
    let child = command.stdout(Stdio::null()).spawn().expect("iperf3 is not installed: run `.ci/setup clients`");
    let _server = Server(child);
    eventually("it listens", || std::net::TcpStream::connect(server).is_ok());
    let gateway = Gateway::start(&format!(
        "listeners:\n- {{name: udp, address: \"{entry}\", kind: udp}}\n- {{name: tcp, address: \"{entry}\", kind: tcp}}\n\
         streams: [{{name: all, action: {{forward: iperf}}}}]\nupstreams: {{iperf: {{targets: [\"{server}\"]}}}}\n"
    ));
    for direction in [&[][..], &["--reverse"], &["--bidir"]] {
        let mut client = Command::new("iperf3");
        client
            .args(["--client", &entry.ip().to_string(), "--port", &entry.port().to_string(), "--udp", "--json"])
            .args(["--bitrate", "20M", "--time", "1", "--length", "1200"])
            .args(direction);
        let done = finish(&mut client, b"");
        assert_eq!(done.code, 0, "{}{}", done.out, done.errors);
        let report: serde_json::Value = serde_json::from_str(&done.out).expect("a report");
        let sum = &report["end"]["sum"];
        let (packets, lost) = (sum["packets"].as_u64().expect("a number"), sum["lost_packets"].as_u64());
        assert!(packets > 500 && lost.is_some_and(|lost| lost * 100 <= packets), "{direction:?}: {sum}");
    }
    assert_eq!(gateway.metric("portcullis_datagrams_dropped_total{listener=\"udp\",reason=\"receive_buffer\"}"), 0.0);
}
