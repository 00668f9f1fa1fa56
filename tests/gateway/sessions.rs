//! Sessions of layer 4 over TCP: what they carry, how they end, and which target they get.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::refused;

/// A server that does the same with each connection.
pub(super) struct Server {
    pub address: SocketAddr,
    pub count: Arc<AtomicUsize>,
}

impl Server {
    pub(super) fn new(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (serve, count) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::AcqRel);
                stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(stream));
            }
        });
        Self { address, count }
    }

    /// One that says its name, and then repeats what it gets to the end.
    pub(super) fn named(name: &'static str) -> Self {
        Self::new(move |mut stream| {
            let _ = stream.write_all(name.as_bytes());
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..count]).is_err() {
                    return;
                }
            }
            let _ = stream.shutdown(Shutdown::Write);
        })
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }
}

/// A gateway with one listener, one rule and one upstream.
pub(super) fn gateway(targets: &[SocketAddr], upstream: &str, rule: &str, more: &str) -> Gateway {
    let targets: Vec<String> = targets.iter().map(|target| format!("\"{target}\"")).collect();
    Gateway::start(&yaml(&targets.join(", "), upstream, rule, more))
}

fn yaml(targets: &str, upstream: &str, rule: &str, more: &str) -> String {
    format!(
        "upstreams: {{one: {{targets: [{targets}], {upstream}}}}}\n\
         streams: [{{name: all, {rule} action: {{forward: one}}}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}]\n{more}"
    )
}

pub(super) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn connect_from(to: SocketAddr, from: [u8; 4]) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((from, 0)).into()).expect("bound");
    socket.connect(&to.into()).expect("a connection");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

pub(super) fn word(stream: &mut TcpStream) -> String {
    let mut word = [0; 3];
    stream.read_exact(&mut word).expect("a word");
    String::from_utf8_lossy(&word).into_owned()
}

/// The number of sessions that have ended with a reason.
fn ended(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("portcullis_stream_sessions_total{{listener=\"main\",reason=\"{reason}\",stream=\"all\"}}"))
}

fn ends_by_reset(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    drop(stream);
}

#[test]
fn bytes_pass_unchanged_in_both_directions_at_once_and_each_ends_by_itself() {
    let one = Server::named("one");
    let gateway = gateway(&[one.address], "", "", "");
    let mut stream = connect(gateway.address());
    let mut sending = stream.try_clone().expect("a descriptor");
    let sent: Vec<u8> = (0..20_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut came = Vec::new();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            sending.write_all(&sent).expect("sent");
            sending.shutdown(Shutdown::Write).expect("an end");
        });
        stream.read_to_end(&mut came).expect("all of it");
    });
    assert!(came.starts_with(b"one") && came[3..] == sent[..]);
    let line = &gateway.access_log(1)[0];
    for (key, value) in [
        ("client", serde_json::Value::from("127.0.0.1")),
        ("listener", "main".into()),
        ("stream", "all".into()),
        ("protocol", "TCP".into()),
        ("reason", "session_ended".into()),
        ("upstream", "one".into()),
        ("target", one.address.to_string().into()),
        ("bytes_in", 20_000_000.into()),
        ("bytes_out", 20_000_003.into()),
    ] {
        assert_eq!(line[key], value, "{key}: {line}");
    }
    assert!(line["duration_ms"].as_f64() >= line["connect_ms"].as_f64(), "{line}");
    let labels = "listener=\"main\",stream=\"all\"";
    assert_eq!(ended(&gateway, "session_ended"), 1.0);
    assert_eq!(gateway.metric(&format!("portcullis_stream_sessions_open{{{labels}}}")), 0.0);
    assert_eq!(gateway.metric(&format!("portcullis_stream_bytes_total{{direction=\"in\",{labels}}}")), 2e7);
    assert_eq!(gateway.metric(&format!("portcullis_stream_bytes_total{{direction=\"out\",{labels}}}")), 2e7 + 3.0);
    assert_eq!(gateway.metric(&format!("portcullis_stream_session_duration_seconds_count{{{labels}}}")), 1.0);
}

#[test]
fn resets_are_passed_on_in_both_directions() {
    let (seen, sees) = std::sync::mpsc::channel();
    let waits = Server::new(move |mut stream| {
        let mut first = [0];
        stream.read_exact(&mut first).expect("a byte");
        if first == *b"r" {
            stream.write_all(b"out").expect("sent");
            reset(stream);
        } else {
            let _ = seen.send(ends_by_reset(&mut stream));
        }
    });
    let gateway = gateway(&[waits.address], "", "", "");
    let mut stream = connect(gateway.address());
    stream.write_all(b"r").expect("sent");
    assert_eq!(word(&mut stream), "out");
    assert!(ends_by_reset(&mut stream));
    eventually("the end is counted", || ended(&gateway, "target_reset") == 1.0);
    let mut stream = connect(gateway.address());
    stream.write_all(b"x").expect("sent");
    eventually("the byte has gone on", || {
        let labels = "direction=\"in\",listener=\"main\",stream=\"all\"";
        gateway.metric(&format!("portcullis_stream_bytes_total{{{labels}}}")) == 2.0
    });
    reset(stream);
    assert!(sees.recv_timeout(Duration::from_secs(20)).expect("an end"));
    eventually("the end is counted", || ended(&gateway, "client_reset") == 1.0);
}

#[test]
fn the_connect_is_retried_elsewhere_and_a_client_without_a_target_is_reset() {
    let (held, down) = refused();
    let one = Server::named("one");
    let gateway = gateway(&[down, one.address], "", "", "");
    for _ in 0..4 {
        assert_eq!(word(&mut connect(gateway.address())), "one");
    }
    let lines = gateway.access_log(4);
    assert!(lines.iter().any(|line| line["tries"] == 2), "{lines:?}");
    let labels = "listener=\"main\",reason=\"connect_refused\",stream=\"all\"";
    assert!(gateway.metric(&format!("portcullis_stream_connect_failures_total{{{labels}}}")) >= 1.0);
    drop(gateway);
    let gateway = self::gateway(&[down], "", "", "");
    assert!(ends_by_reset(&mut connect(gateway.address())));
    let line = &gateway.access_log(1)[0];
    assert_eq!((&line["reason"], &line["bytes_in"]), (&"connect_refused".into(), &0.into()), "{line}");
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains(&down.to_string())), "{line}");
    drop(held);
}

#[test]
fn a_backup_takes_over_and_a_breaker_opens() {
    let (_held, down) = refused();
    let spare = Server::named("two");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{down}\"], backup: two, breaker: {{failures: 2, cool_down: 1h}}}}, \
         two: {{targets: [\"{}\"]}}, alone: {{targets: [\"{down}\"], breaker: {{failures: 2, cool_down: 1h}}, \
         retry: {{attempts: 1}}}}}}\n\
         streams: [{{name: all, listeners: [main], action: {{forward: one}}}}, \
         {{name: alone, listeners: [alone], action: {{forward: alone}}}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp}}, {{name: alone, address: 127.0.0.1:0, kind: tcp}}]\n",
        spare.address
    ));
    for _ in 0..4 {
        assert_eq!(word(&mut connect(gateway.address())), "two");
    }
    let alone = gateway.listeners.iter().find(|(name, _)| name == "alone").expect("a listener").1;
    for _ in 0..3 {
        assert!(ends_by_reset(&mut connect(alone)));
    }
    let lines = gateway.access_log(7);
    let of_alone = lines.iter().filter(|line| line["listener"] == "alone");
    let mut reasons: Vec<_> = of_alone.map(|line| line["reason"].as_str().unwrap_or_default()).collect();
    // Each worker writes its own lines.
    reasons.sort_unstable();
    assert_eq!(reasons, ["breaker_open", "connect_refused", "connect_refused"]);
}

#[test]
fn a_target_that_resets_before_it_has_sent_a_byte_has_failed() {
    let closes = Server::new(|mut stream| {
        let _ = stream.read(&mut [0; 16]);
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("set");
    });
    let gateway = gateway(&[closes.address], "health: {passive: {gateway_failures: 3}}", "", "");
    for _ in 0..3 {
        let mut stream = connect(gateway.address());
        stream.write_all(b"hello").expect("sent");
        assert!(ends_by_reset(&mut stream));
    }
    let lines = gateway.access_log(3);
    assert!(lines.iter().all(|line| line["reason"] == "target_reset"), "{lines:?}");
    assert_eq!(
        gateway.metric(&format!(
            "portcullis_target_requests_total{{outcome=\"gateway_failed\",target=\"{}\",upstream=\"one\"}}",
            closes.address
        )),
        3.0
    );
    eventually("the target is ejected", || {
        gateway.metric(&format!("portcullis_target_ejected{{target=\"{}\",upstream=\"one\"}}", closes.address)) == 1.0
    });
    // A client that only connects and leaves says nothing about the target.
    let one = Server::named("one");
    let gateway = self::gateway(&[one.address], "", "", "");
    drop(connect(gateway.address()));
    gateway.access_log(1);
    let good = "portcullis_target_requests_total{outcome=\"gateway_failed\"";
    assert_eq!(gateway.metric(&format!("{good},target=\"{}\",upstream=\"one\"}}", one.address)), 0.0);
}

#[test]
fn sessions_at_a_time_are_limited_and_queued() {
    let one = Server::named("one");
    let limits = "limits: {requests: 1, pending: 1, pending_time: 20s}";
    let gateway = gateway(&[one.address], limits, "", "");
    let mut first = connect(gateway.address());
    assert_eq!(word(&mut first), "one");
    let view = super::harness::client::get(gateway.admin, "/streams").json();
    assert_eq!((&view[0]["name"], &view[0]["listener"], &view[0]["open"]), (&"all".into(), &"main".into(), &1.into()));
    assert_eq!(view[0]["action"]["forward"], "one", "{view}");
    let mut second = connect(gateway.address());
    eventually("one waits", || gateway.metric("portcullis_upstream_requests_pending{upstream=\"one\"}") == 1.0);
    assert!(ends_by_reset(&mut connect(gateway.address())));
    assert_eq!(one.count(), 1);
    drop(first);
    assert_eq!(word(&mut second), "one");
    let lines = gateway.access_log(2);
    assert!(["overloaded", "session_ended"].iter().all(|reason| lines.iter().any(|line| line["reason"] == *reason)));
    // A queued client that leaves does not hold its place.
    let third = connect(gateway.address());
    eventually("one waits", || gateway.metric("portcullis_upstream_requests_pending{upstream=\"one\"}") == 1.0);
    reset(third);
    eventually("none waits", || gateway.metric("portcullis_upstream_requests_pending{upstream=\"one\"}") == 0.0);
    assert!(gateway.access_log(3).iter().any(|line| line["reason"] == "client_reset"));
}

#[test]
fn an_address_stays_with_its_target() {
    let servers = [Server::named("one"), Server::named("two"), Server::named("six")];
    let targets = servers.each_ref().map(|server| server.address);
    for upstream in ["balance: {hash: {by: address}}", "sticky: {address: {}}"] {
        let gateway = gateway(&targets, upstream, "", "");
        let mut seen = std::collections::HashSet::new();
        for client in 1..=20 {
            let words: Vec<String> =
                (0..3).map(|_| word(&mut connect_from(gateway.address(), [127, 0, 1, client]))).collect();
            assert!(words.iter().all(|word| *word == words[0]), "{upstream}: {words:?}");
            seen.insert(words[0].clone());
        }
        assert_eq!(seen.len(), 3, "{upstream}");
    }
}

/// Returns the timer of a connection of this host between those ports, as the system shows it: 02 is keep-alive.
fn timer(from: u16, to: u16) -> Option<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the connections");
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut own = fields.filter(|f| f.get(1).is_some_and(|a| a.ends_with(&from)) && f[2].ends_with(&to));
    own.next().map(|fields| fields[5][..2].to_owned())
}

#[test]
fn connections_come_from_the_configured_address_and_silent_peers_are_probed() {
    let (seen, peers) = std::sync::mpsc::channel();
    let one = Server::new(move |mut stream| {
        let _ = seen.send(stream.peer_addr().expect("an address"));
        let _ = stream.write_all(b"one");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for (socket, address, probed) in [
        ("", [127, 0, 0, 1], true),
        ("socket: {bind: 127.0.0.9}", [127, 0, 0, 9], true),
        ("socket: {keepalive: 0s}", [127, 0, 0, 1], false),
    ] {
        let gateway = gateway(&[one.address], socket, "", "");
        let mut stream = connect(gateway.address());
        assert_eq!(word(&mut stream), "one");
        let peer = peers.recv_timeout(Duration::from_secs(20)).expect("a connection");
        assert_eq!(peer.ip(), std::net::IpAddr::from(address), "{socket}");
        eventually("nothing is to be acknowledged", || {
            timer(peer.port(), one.address.port()).as_deref() == Some(if probed { "02" } else { "00" })
        });
    }
}

#[test]
fn silent_half_closed_and_old_sessions_end() {
    let one = Server::new(|mut stream| {
        let _ = stream.write_all(b"one");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        // It never ends its own direction.
        let _ = stream.read(&mut [0; 1]);
        std::thread::sleep(Duration::from_secs(20));
    });
    for (rule, half_closes, reason) in [
        ("idle_time: 200ms,", false, "idle_timeout"),
        ("half_closed_time: 200ms,", true, "half_closed_timeout"),
        ("total_time: 200ms,", false, "total_timeout"),
    ] {
        let gateway = gateway(&[one.address], "", rule, "");
        let mut stream = connect(gateway.address());
        assert_eq!(word(&mut stream), "one");
        if half_closes {
            stream.shutdown(Shutdown::Write).expect("an end");
        }
        let _ = stream.read_to_end(&mut Vec::new());
        assert_eq!(gateway.access_log(1)[0]["reason"], reason);
    }
}

#[test]
fn a_rate_holds_for_a_session() {
    let one = Server::named("one");
    let gateway = gateway(&[one.address], "", "rate: {sent: 1MB},", "");
    let mut stream = connect(gateway.address());
    let begun = std::time::Instant::now();
    let mut sending = stream.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        let _ = sending.write_all(&vec![7; 500_000]);
        let _ = sending.shutdown(Shutdown::Write);
    });
    let mut came = Vec::new();
    stream.read_to_end(&mut came).expect("all of it");
    assert_eq!(came.len(), 500_003);
    assert!(begun.elapsed() >= Duration::from_millis(380), "{:?}", begun.elapsed());
}

#[test]
fn sessions_outlive_reloads_and_the_removal_of_their_rule_and_end_with_the_drain() {
    let (one, two) = (Server::named("one"), Server::named("two"));
    let more = "process: {threads: 2, drain_time: 1s}\n";
    let text = |target: &Server| yaml(&format!("\"{}\"", target.address), "", "", more);
    let mut gateway = Gateway::start(&text(&one));
    let mut stream = connect(gateway.address());
    assert_eq!(word(&mut stream), "one");
    gateway.write_config(&text(&two));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(word(&mut connect(gateway.address())), "two");
    let closed = text(&two).replace("action: {forward: one}", "action: close").replace("name: all", "name: none");
    gateway.write_config(&closed);
    assert_eq!(gateway.reload().status, 200);
    assert!(ends_by_reset(&mut connect(gateway.address())));
    stream.write_all(b"abc").expect("sent");
    assert_eq!(word(&mut stream), "abc");
    gateway.signal("-TERM");
    eventually("nobody is accepted", || TcpStream::connect(gateway.address()).is_err());
    stream.write_all(b"def").expect("sent");
    assert_eq!(word(&mut stream), "def");
    assert!(ends_by_reset(&mut stream));
    assert_eq!(gateway.wait(), Some(0));
    let lines = gateway.access_log(3);
    let cut: Vec<_> = lines.iter().filter(|line| line["reason"] == "cut").collect();
    assert!(matches!(cut[..], [line] if line["stream"] == "all" && line["bytes_in"] == 6), "{lines:?}");
    assert!(lines.iter().any(|line| line["reason"] == "closed_by_rule"), "{lines:?}");
}
