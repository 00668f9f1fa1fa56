//! Connecting to targets that do not answer, and to targets again.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use super::harness::client::{Connection, head};
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, complete};
use super::harness::target::Target;

/// A socket whose queue is full: what else connects to it gets no answer.
pub struct Silent {
    pub address: SocketAddr,
    _socket: socket2::Socket,
    _queued: Vec<TcpStream>,
}

impl Silent {
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        socket.listen(0).expect("it listens");
        let address = socket.local_addr().expect("an address").as_socket().expect("an address");
        let mut queued = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            queued.push(stream);
        }
        Self { address, _socket: socket, _queued: queued }
    }
}

fn config(address: SocketAddr, upstream: &str) -> String {
    format!(
        "upstreams: {{one: {{targets: [\"{address}\"]{upstream}}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]"
    )
}

/// Sockets of the gateway that are being connected to that address.
fn connecting(to: SocketAddr) -> usize {
    let port = format!(":{:04X}", to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the table");
    let is_one = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        fields.next().is_some_and(|remote| remote.ends_with(&port)) && fields.next() == Some("02")
    };
    table.lines().filter(is_one).count()
}

#[test]
fn who_leaves_ends_the_connect() {
    let silent = Silent::new();
    let gateway = Gateway::start(&config(silent.address, ", timeouts: {connect: 1m}, retry: {attempts: 3}"));
    let before = connecting(silent.address);
    let clients: Vec<Connection> = (0..20)
        .map(|_| {
            let mut client = Connection::open(gateway.address());
            client.send(head("GET", "/", &[]));
            client
        })
        .collect();
    eventually("all connect", || connecting(silent.address) == before + 20);
    drop(clients);
    eventually("none connects any more", || connecting(silent.address) == before);
    for line in gateway.access_log(20) {
        assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some("client_gone"), Some(499)), "{line}");
        assert!(line["tries"].is_null() || line["tries"] == 1, "{line}");
    }
}

#[test]
fn who_resets_a_stream_ends_its_connect() {
    let silent = Silent::new();
    let listeners = "\nlisteners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}]";
    let gateway =
        Gateway::start(&(config(silent.address, ", timeouts: {connect: 1m}, retry: {attempts: 3}") + listeners));
    let before = connecting(silent.address);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut answers = Vec::new();
        for _ in 0..20 {
            client = client.ready().await.expect("ready");
            let request = http::Request::get(format!("http://{}/", gateway.address())).body(()).expect("a request");
            answers.push(client.send_request(request, true).expect("sent"));
        }
        while connecting(silent.address) < before + 20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        answers.iter_mut().for_each(|(_, send)| send.send_reset(h2::Reason::CANCEL));
        while connecting(silent.address) > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(gateway.access_log(20).iter().all(|line| line["reason"] == "client_gone"));
}

#[test]
fn who_leaves_ends_a_handshake() {
    // Somebody who accepts, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let gateway = Gateway::start(&config(address, ", timeouts: {connect: 1m}, tls: {verify: false}"));
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/", &[]));
    let (mut target, _) = listener.accept().expect("a connection");
    target.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    drop(client);
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut target, &mut all).expect("the end of the connection");
    assert_eq!(gateway.access_log(1)[0]["reason"], "client_gone");
}

#[test]
fn who_leaves_ends_a_pause_between_tries() {
    let target = Target::named("503", "a");
    let retry = ", retry: {attempts: 3, statuses: \"503\", backoff: 1m, backoff_max: 1m}";
    let gateway = Gateway::start(&config(target.address, retry));
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/", &[]));
    eventually("it was tried", || target.count() == 1);
    client.stream.shutdown(Shutdown::Both).expect("closed");
    let line = &gateway.access_log(1)[0];
    assert_eq!((line["reason"].as_str(), target.count()), (Some("client_gone"), 1), "{line}");
}

#[test]
fn sockets_on_their_way_to_a_target_are_bounded() {
    const MOST: usize = 256;
    let silent = Silent::new();
    let gateway = Gateway::start(&config(silent.address, ", timeouts: {connect: 1m}"));
    let before = connecting(silent.address);
    let clients: Vec<Connection> = (0..MOST + 20)
        .map(|_| {
            let mut client = Connection::open(gateway.address());
            client.send(head("GET", "/", &[]));
            client
        })
        .collect();
    eventually("as many as may connect", || connecting(silent.address) == before + MOST);
    eventually("all have come", || gateway.metric("portcullis_connections_total") >= (MOST + 20) as f64);
    assert_eq!(connecting(silent.address), before + MOST);
    drop(clients);
    eventually("none connects any more", || connecting(silent.address) == before);
}

#[test]
fn the_last_descriptors_are_for_clients_and_operators() {
    let silent = Silent::new();
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("portcullis.yaml");
    let text = config_of_two(silent.address);
    std::fs::write(&config, complete(&text)).expect("written");
    let mut command = Command::new("prlimit");
    command.args(["--nofile=200:200", BINARY, "run", "-c"]).arg(&config);
    let gateway = Gateway::start_by(folder, command);
    let mut clients: Vec<Connection> = (0..90)
        .map(|_| {
            let mut client = Connection::open(gateway.address());
            client.send(head("GET", "/silent", &[]));
            client
        })
        .collect();
    // Some get no socket, and the others wait: what is left serves who comes now.
    eventually("some were rejected", || gateway.ended("exhausted") > 0.5);
    assert_eq!(gateway.get("/fixed").text(), "fine");
    let is_rejected = |client: &mut Connection| {
        client.stream.set_nonblocking(true).expect("set");
        client.try_receive(false).is_ok_and(|answer| answer.status == 503 && answer.reason() == "exhausted")
    };
    assert!(clients.iter_mut().any(is_rejected));
}

fn config_of_two(address: SocketAddr) -> String {
    format!(
        "upstreams: {{one: {{targets: [\"{address}\"], timeouts: {{connect: 1m}}}}}}
routes:
  - {{name: fixed, match: {{path: /fixed}}, action: {{respond: {{body: fine}}}}}}
  - {{name: silent, action: {{forward: one}}}}"
    )
}

#[test]
fn connections_are_kept_whichever_protocols_a_listener_speaks() {
    for protocols in ["[http1]", "[http1, http2]"] {
        let target = Target::echo("a");
        let listeners = format!("\nlisteners: [{{name: main, address: 127.0.0.1:0, protocols: {protocols}}}]");
        let gateway = Gateway::start(&(config(target.address, "") + &listeners));
        for _ in 0..150 {
            assert_eq!(gateway.get("/").status, 200);
        }
        let made = gateway.metric("portcullis_upstream_connections_total{upstream=\"one\"}");
        println!("{protocols}: {made}");
        assert!(made < 4.5, "{protocols}: {made} connections for 150 requests");
    }
}
