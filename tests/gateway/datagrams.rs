//! Flows of datagrams, over sockets.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::harness::eventually;
use super::harness::gateway::Gateway;

/// What a target does with a datagram: its responses.
type Behaviour = dyn Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync;

/// A target for datagrams; it stops with its handle.
pub struct UdpTarget {
    pub address: SocketAddr,
    /// The datagrams that have come, each with its source.
    pub seen: Arc<Mutex<Vec<(SocketAddr, Vec<u8>)>>>,
    /// Whether it responds.
    pub responds: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl UdpTarget {
    pub fn new(behaviour: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::on(UdpSocket::bind("127.0.0.1:0").expect("a port"), Box::new(behaviour))
    }

    /// A target that sends each datagram back behind its name.
    pub fn echo(name: &'static str) -> Self {
        Self::new(move |bytes| vec![[name.as_bytes(), b":", bytes].concat()])
    }

    pub fn on(socket: UdpSocket, behaviour: Box<Behaviour>) -> Self {
        let address = socket.local_addr().expect("an address");
        socket.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
        let (stop, responds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stopped, may, all) = (Arc::clone(&stop), Arc::clone(&responds), Arc::clone(&seen));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Acquire) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
                all.lock().expect("seen").push((peer, buffer[..length].to_vec()));
                if may.load(Ordering::Acquire) {
                    for response in behaviour(&buffer[..length]) {
                        let _ = socket.send_to(&response, peer);
                    }
                }
            }
        });
        Self { address, seen, responds, stop, thread: Some(thread) }
    }

    pub fn sources(&self) -> BTreeSet<SocketAddr> {
        self.seen.lock().expect("seen").iter().map(|(from, _)| *from).collect()
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("seen").len()
    }
}

impl Drop for UdpTarget {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// A client, whose socket takes datagrams of that address alone.
pub fn client(to: SocketAddr) -> UdpSocket {
    let from = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
    let socket = UdpSocket::bind(from).expect("a port");
    socket.connect(to).expect("connected");
    socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    socket
}

pub fn receive(socket: &UdpSocket) -> String {
    let mut buffer = vec![0; 65_536];
    let length = socket.recv(&mut buffer).expect("a response");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

pub fn ask(socket: &UdpSocket, text: &str) -> String {
    socket.send(text.as_bytes()).expect("sent");
    receive(socket)
}

/// Whether nothing more has come.
fn is_silent(socket: &UdpSocket) -> bool {
    socket.set_nonblocking(true).expect("set");
    let silent = socket.recv(&mut [0; 2_000]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    socket.set_nonblocking(false).expect("set");
    silent
}

/// A gateway with one listener and one rule with these keys, and an upstream of these targets with these keys.
pub fn start(listener: &str, rule: &str, targets: &[SocketAddr], upstream: &str) -> Gateway {
    Gateway::start(&config(listener, rule, targets, upstream))
}

pub fn config(listener: &str, rule: &str, targets: &[SocketAddr], upstream: &str) -> String {
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    format!(
        "listeners: [{{name: dns, address: 127.0.0.1:0, kind: udp{listener}}}]\nstreams: [{{name: all, action: {{forward: \
         pool}}{rule}}}]\nupstreams: {{pool: {{targets: [{}]{upstream}}}}}\n",
        targets.join(", ")
    )
}

fn dropped(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("portcullis_datagrams_dropped_total{{listener=\"dns\",reason=\"{reason}\"}}"))
}

fn ended(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("portcullis_stream_sessions_total{{listener=\"dns\",reason=\"{reason}\",stream=\"all\"}}"))
}

fn open(gateway: &Gateway) -> f64 {
    gateway.metric("portcullis_stream_sessions_open{listener=\"dns\",stream=\"all\"}")
}

#[test]
fn responses_reach_their_clients_and_a_client_keeps_its_target() {
    let targets = ["a", "b", "c"].map(UdpTarget::echo);
    let gateway = start("", "", &targets.each_ref().map(|target| target.address), "");
    let clients: Vec<UdpSocket> = (0..100).map(|_| client(gateway.address())).collect();
    let mut names = Vec::new();
    for round in 0..3 {
        for (number, socket) in clients.iter().enumerate() {
            socket.send(format!("{number} {round}").as_bytes()).expect("sent");
        }
        for (number, socket) in clients.iter().enumerate() {
            let text = receive(socket);
            let (name, rest) = text.split_once(':').expect("a name");
            assert_eq!(rest, format!("{number} {round}"));
            match names.get(number) {
                None => names.push(name.to_owned()),
                Some(before) => assert_eq!(before, name),
            }
        }
    }
    for target in &targets {
        assert!(target.sources().len() > 20, "{names:?}");
    }
    assert_eq!(open(&gateway), 100.0);
    assert_eq!(gateway.metric("portcullis_datagrams_total{direction=\"in\",listener=\"dns\"}"), 300.0);
    assert_eq!(gateway.metric("portcullis_datagrams_total{direction=\"out\",listener=\"dns\"}"), 300.0);
    let bytes = (0..100).map(|number: usize| 3 * (number.to_string().len() + 2)).sum::<usize>() as f64;
    let passed = |direction: &str| {
        gateway.metric(&format!(
            "portcullis_stream_bytes_total{{direction=\"{direction}\",listener=\"dns\",stream=\"all\"}}"
        ))
    };
    assert_eq!((passed("in"), passed("out")), (bytes, bytes + 600.0));
}

#[test]
fn responses_come_from_the_address_that_was_asked() {
    let target = UdpTarget::echo("a");
    for (address, to) in
        [("0.0.0.0", "127.0.0.2"), ("0.0.0.0", "127.0.0.77"), ("'[::]'", "127.0.0.3"), ("'[::]'", "[::1]")]
    {
        if to == "[::1]" && UdpSocket::bind("[::1]:0").is_err() {
            continue;
        }
        let yaml = config("", "", &[target.address], "").replace("127.0.0.1:0, kind", &format!("{address}:0, kind"));
        let gateway = Gateway::start(&yaml.replace("'[::]':0", "'[::]:0'"));
        let to: SocketAddr = format!("{to}:{}", gateway.address().port()).parse().expect("an address");
        // The socket of the client takes nothing of another address.
        assert_eq!(ask(&client(to), "x"), "a:x", "{address} {to}");
    }
}

#[test]
fn a_refused_datagram_goes_to_another_target() {
    let target = UdpTarget::echo("a");
    let held = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let closed = held.local_addr().expect("an address");
    drop(held);
    let gateway = start("", "", &[closed, target.address], "");
    for _ in 0..10 {
        assert_eq!(ask(&client(gateway.address()), "x"), "a:x");
    }
    let failed =
        format!("portcullis_target_requests_total{{outcome=\"gateway_failed\",target=\"{closed}\",upstream=\"pool\"}}");
    assert!(gateway.metric(&failed) >= 4.0);
    let good =
        format!("portcullis_target_requests_total{{outcome=\"good\",target=\"{}\",upstream=\"pool\"}}", target.address);
    assert_eq!(gateway.metric(&good), 10.0);
}

#[test]
fn a_target_that_refuses_is_ejected_and_ends_its_flows() {
    let target = UdpTarget::echo("a");
    let gateway = start("", "", &[target.address], ", health: {passive: {failures: 2, gateway_failures: 2}}");
    let sockets: Vec<UdpSocket> = (0..3).map(|_| client(gateway.address())).collect();
    sockets.iter().for_each(|socket| assert_eq!(ask(socket, "x"), "a:x"));
    let address = target.address;
    drop(target);
    // What comes now is refused, whether the error is found at once or later.
    for socket in &sockets {
        eventually("its flow ends", || {
            let _ = socket.send(b"y");
            dropped(&gateway, "no_target") > 0.0 || ended(&gateway, "connect_refused") >= 3.0
        });
    }
    eventually("it is ejected", || {
        sockets.iter().for_each(|socket| _ = socket.send(b"y"));
        gateway.metric(&format!("portcullis_target_ejected{{target=\"{address}\",upstream=\"pool\"}}")) == 1.0
    });
    eventually("datagrams are dropped", || {
        let _ = sockets[0].send(b"z");
        dropped(&gateway, "no_target") > 0.0
    });
    eventually("nothing is left at the gate", || {
        gateway.metric("portcullis_upstream_requests_in_flight{upstream=\"pool\"}") == 0.0
    });
}

#[test]
fn an_idle_flow_ends_and_the_next_datagram_begins_another() {
    let target = UdpTarget::echo("a");
    let gateway = start("", ", idle_time: 200ms", &[target.address], "");
    let socket = client(gateway.address());
    assert_eq!(ask(&socket, "x"), "a:x");
    eventually("it ends", || ended(&gateway, "idle_timeout") == 1.0 && open(&gateway) == 0.0);
    assert_eq!(ask(&socket, "y"), "a:y");
    assert_eq!(target.sources().len(), 2);
    let line = &gateway.access_log(1)[0];
    assert_eq!(line["protocol"], "UDP");
    assert_eq!(line["stream"], "all");
    assert_eq!((&line["reason"], &line["client"]), (&"idle_timeout".into(), &"127.0.0.1".into()));
    assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&1.into(), &3.into()));
    assert_eq!((&line["datagrams_in"], &line["datagrams_out"]), (&1.into(), &1.into()));
    assert_eq!(line["target"], target.address.to_string());
    assert!(line["duration_ms"].as_f64().expect("a number") >= 200.0);
}

#[test]
fn a_flow_lasts_no_longer_than_it_may() {
    let target = UdpTarget::echo("a");
    let gateway = start("", ", total_time: 300ms", &[target.address], "");
    let socket = client(gateway.address());
    eventually("it ends", || {
        assert!(ask(&socket, "x").starts_with("a:"));
        ended(&gateway, "total_timeout") == 1.0
    });
}

#[test]
fn one_request_and_one_response_are_a_flow() {
    let targets = ["a", "b"].map(UdpTarget::echo);
    let addresses = targets.each_ref().map(|target| target.address);
    let gateway = start("", ", datagrams: {requests: 1, responses: 1}", &addresses, "");
    let socket = client(gateway.address());
    // Several are under way at a time, as those of a resolver for both address families.
    for number in 0..10 {
        socket.send(number.to_string().as_bytes()).expect("sent");
    }
    let all: BTreeSet<String> = (0..10).map(|_| receive(&socket)).collect();
    let numbers: BTreeSet<&str> = all.iter().filter_map(|text| text.split(':').nth(1)).collect();
    assert_eq!(numbers.len(), 10, "{all:?}");
    assert_eq!(targets.each_ref().map(UdpTarget::count), [5, 5]);
    eventually("all have ended", || ended(&gateway, "session_ended") == 10.0 && open(&gateway) == 0.0);
}

#[test]
fn responses_are_counted_for_each_request() {
    let target = UdpTarget::new(|bytes| vec![bytes.to_vec(), bytes.to_vec(), b"never".to_vec()]);
    let gateway = start("", ", datagrams: {responses: 2}", &[target.address], "");
    let socket = client(gateway.address());
    for round in 0..3 {
        let text = round.to_string();
        assert_eq!([ask(&socket, &text), receive(&socket)], [text.clone(), text]);
        eventually("it ends", || ended(&gateway, "session_ended") == f64::from(round + 1));
    }
    assert!(is_silent(&socket));
}

#[test]
fn a_target_without_a_response_has_not_failed() {
    let target = UdpTarget::echo("a");
    target.responds.store(false, Ordering::Release);
    let gateway = start("", ", idle_time: 100ms, datagrams: {responses: 1}", &[target.address], "");
    client(gateway.address()).send(b"x").expect("sent");
    eventually("it ends", || ended(&gateway, "target_timeout") == 1.0);
    // Anybody can send what a target discards.
    let series = format!(
        "portcullis_target_requests_total{{outcome=\"timed_out\",target=\"{}\",upstream=\"pool\"}}",
        target.address
    );
    assert_eq!(gateway.metric(&series), 0.0);
}

#[test]
fn each_datagram_may_be_balanced_by_itself() {
    let targets = ["a", "b", "c"].map(UdpTarget::echo);
    let addresses = targets.each_ref().map(|target| target.address);
    let gateway = start("", ", datagrams: {per_datagram: true}", &addresses, "");
    let sockets: Vec<UdpSocket> = (0..4).map(|_| client(gateway.address())).collect();
    for number in 0..30 {
        let socket = &sockets[number % 4];
        let text = ask(socket, &number.to_string());
        assert_eq!(text.split(':').nth(1), Some(number.to_string().as_str()));
    }
    assert_eq!(targets.each_ref().map(UdpTarget::count), [10, 10, 10]);
    assert_eq!(open(&gateway), 4.0);
}

#[test]
fn clients_are_hashed_by_their_address() {
    let targets = ["a", "b", "c"].map(UdpTarget::echo);
    let addresses = targets.each_ref().map(|target| target.address);
    let gateway = start("", "", &addresses, ", balance: {hash: {by: address}}");
    let names: BTreeSet<String> = (0..20).map(|_| ask(&client(gateway.address()), "x")).collect();
    assert_eq!(names.len(), 1, "{names:?}");
}

#[test]
fn a_full_table_drops_new_flows_and_keeps_the_old_ones() {
    let target = UdpTarget::echo("a");
    let gateway = start(", limits: {connections: 3, connections_per_address: 3}", "", &[target.address], "");
    let old: Vec<UdpSocket> = (0..3).map(|_| client(gateway.address())).collect();
    old.iter().for_each(|socket| assert_eq!(ask(socket, "x"), "a:x"));
    let new = client(gateway.address());
    new.send(b"y").expect("sent");
    eventually("it is dropped", || dropped(&gateway, "flows") == 1.0);
    old.iter().for_each(|socket| assert_eq!(ask(socket, "z"), "a:z"));
    assert!(is_silent(&new));
    // Of one client.
    let gateway = start(", limits: {connections: 30, connections_per_address: 2}", "", &[target.address], "");
    let old: Vec<UdpSocket> = (0..2).map(|_| client(gateway.address())).collect();
    old.iter().for_each(|socket| assert_eq!(ask(socket, "x"), "a:x"));
    client(gateway.address()).send(b"y").expect("sent");
    eventually("it is dropped", || dropped(&gateway, "client_flows") == 1.0);
    let other = UdpSocket::bind("127.0.0.9:0").expect("a port");
    other.connect(gateway.address()).expect("connected");
    other.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
    assert_eq!(ask(&other, "x"), "a:x");
}

#[test]
fn rates_bound_datagrams_and_new_flows() {
    let target = UdpTarget::echo("a");
    let gateway = start(", limits: {new_connections: 2/h}", "", &[target.address], "");
    let old: Vec<UdpSocket> = (0..2).map(|_| client(gateway.address())).collect();
    old.iter().for_each(|socket| assert_eq!(ask(socket, "x"), "a:x"));
    client(gateway.address()).send(b"y").expect("sent");
    eventually("it is dropped", || dropped(&gateway, "new_flows") == 1.0);
    old.iter().for_each(|socket| assert_eq!(ask(socket, "x"), "a:x"));
    let gateway = start(", limits: {datagrams: 5/h}", "", &[target.address], "");
    let socket = client(gateway.address());
    (0..5).for_each(|_| assert_eq!(ask(&socket, "x"), "a:x"));
    socket.send(b"y").expect("sent");
    eventually("it is dropped", || dropped(&gateway, "rate") == 1.0);
}

#[test]
fn a_client_is_not_flooded_however_often_it_sends() {
    let target = UdpTarget::new(|bytes| vec![vec![b'.'; 10], vec![b'!'; bytes.len() * 20]]);
    let gateway = start("", ", datagrams: {amplification: 3}", &[target.address], "");
    let socket = client(gateway.address());
    assert_eq!(ask(&socket, "0123456789"), "..........");
    eventually("the second response is dropped", || dropped(&gateway, "amplification") == 1.0);
    assert!(is_silent(&socket));
    assert_eq!(ask(&socket, "0123456789"), "..........");
    eventually("another one is dropped", || dropped(&gateway, "amplification") == 2.0);
    assert!(is_silent(&socket));
}

#[test]
fn a_rule_may_drop_datagrams_and_the_best_one_counts() {
    let target = UdpTarget::echo("a");
    let gateway = Gateway::start(&format!(
        "listeners: [{{name: dns, address: 127.0.0.1:0, kind: udp}}]\nstreams:\n- {{name: denied, match: {{client: \
         [127.0.0.8/32]}}, action: close}}\n- {{name: all, action: {{forward: pool}}}}\nupstreams: {{pool: {{targets: \
         [\"{}\"]}}}}\n",
        target.address
    ));
    let denied = UdpSocket::bind("127.0.0.8:0").expect("a port");
    denied.send_to(b"x", gateway.address()).expect("sent");
    eventually("it is dropped", || dropped(&gateway, "closed") == 1.0);
    assert_eq!(ask(&client(gateway.address()), "x"), "a:x");
    assert_eq!(target.count(), 1);
}

#[test]
fn flows_live_through_reloads_until_their_rule_is_removed() {
    let (target, other) = (UdpTarget::echo("a"), UdpTarget::echo("b"));
    let yaml = config("", "", &[target.address], "");
    let gateway = Gateway::start(&yaml);
    let socket = client(gateway.address());
    assert_eq!(ask(&socket, "x"), "a:x");
    // Another target, other times, another rule: the flow goes on, with its socket.
    let more = config("", ", idle_time: 20s", &[target.address, other.address], "");
    gateway.write_config(
        &more.replace("streams: [", "streams: [{name: more, match: {client: 10.0.0.0/8}, action: close}, "),
    );
    assert_eq!(gateway.reload().status, 200);
    for _ in 0..5 {
        assert_eq!(ask(&socket, "y"), "a:y");
    }
    assert_eq!((target.sources().len(), open(&gateway)), (1, 1.0));
    // Its target is removed.
    gateway.write_config(&config("", "", &[other.address], ""));
    assert_eq!(gateway.reload().status, 200);
    eventually("it ends", || ended(&gateway, "target_unhealthy") == 1.0);
    assert_eq!(ask(&socket, "z"), "b:z");
    // Its rule is removed.
    gateway.write_config(&config("", "", &[target.address], "").replace("name: all", "name: new"));
    assert_eq!(gateway.reload().status, 200);
    eventually("it ends", || {
        gateway.access_log(2).iter().any(|line| line["reason"] == "rule_removed" && line["stream"] == "all")
    });
    assert_eq!(ask(&socket, "z"), "a:z");
    // Its listener is removed.
    gateway.write_config(&format!(
        "{}\nroutes: []\n",
        config("", "", &[target.address], "").replace("name: dns", "name: other")
    ));
    assert_eq!(gateway.reload().status, 200);
    eventually("it ends", || gateway.access_log(3).iter().filter(|line| line["reason"] == "rule_removed").count() == 2);
    eventually("the socket is closed", || {
        let _ = socket.send(b"x");
        socket.recv(&mut [0; 10]).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_draining_process_serves_present_flows_alone() {
    let target = UdpTarget::echo("a");
    let mut gateway = start("", "", &[target.address], "");
    let (socket, new) = (client(gateway.address()), client(gateway.address()));
    assert_eq!(ask(&socket, "x"), "a:x");
    gateway.signal("-TERM");
    eventually("it drains", || gateway.log().contains("draining"));
    new.send(b"x").expect("sent");
    for _ in 0..10 {
        assert_eq!(ask(&socket, "y"), "a:y");
    }
    assert!(is_silent(&new));
    // A quiet flow does not hold the process for its idle time.
    assert_eq!(gateway.wait(), Some(0));
    let lines = gateway.access_log(1);
    assert_eq!((&lines[0]["reason"], &lines[0]["datagrams_in"]), (&"idle_timeout".into(), &11.into()));
}
