//! Upgrades under open sessions and flows of layer 4: they go on in the successor, and no byte and no datagram is lost.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portcullis::parts::{Message, receive};

use super::datagrams::UdpTarget;
use super::handover::Impostor;
use super::harness::eventually;
use super::harness::gateway::{Gateway, Orphan};
use super::sessions::{Server, connect, word};
use super::upgrade::upgrade;

const PROCESS: &str = "process: {threads: 2, upgrade_socket: upgrade.sock, drain_time: 20s, standby_time: 100ms, \
                       upgrade_time: 5s}\nadmin: {address: 127.0.0.1:0}\n";

/// A gateway with a listener for sessions and one for datagrams.
fn gateway(tcp: SocketAddr, udp: SocketAddr, rule: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{tcp: {{targets: [\"{tcp}\"]}}, udp: {{targets: [\"{udp}\"]}}}}\n\
         streams:\n\
         - {{name: sessions, listeners: [tcp], action: {{forward: tcp}}}}\n\
         - {{name: flows, listeners: [udp], {rule} action: {{forward: udp}}}}\n\
         listeners:\n\
         - {{name: tcp, address: 127.0.0.1:0, kind: tcp}}\n\
         - {{name: udp, address: 127.0.0.1:0, kind: udp}}\n{PROCESS}"
    ))
}

fn address(gateway: &Gateway, name: &str) -> SocketAddr {
    gateway.listeners.iter().find(|(own, _)| own == name).expect("the listener").1
}

/// A client with one flow.
struct Flow {
    socket: UdpSocket,
    count: u32,
}

impl Flow {
    fn new(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(to).expect("an address");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        Self { socket, count: 0 }
    }

    /// Sends a datagram, and receives what the target sends back.
    fn ask(&mut self) {
        self.count += 1;
        let sent = format!("{} {}", self.socket.local_addr().expect("an address"), self.count);
        self.socket.send(sent.as_bytes()).expect("sent");
        let mut buffer = [0; 200];
        let length = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("datagram {sent} is lost: {error}"));
        assert_eq!(String::from_utf8_lossy(&buffer[..length]), format!("udp:{sent}"));
    }
}

/// Sends a part and receives it again.
fn echo(stream: &mut TcpStream, part: &[u8]) {
    stream.write_all(part).expect("sent");
    let mut back = vec![0; part.len()];
    stream.read_exact(&mut back).unwrap_or_else(|error| panic!("a session is cut: {error}"));
    assert_eq!(back, part);
}

/// Streams numbered bytes through a session until it is told to stop, reads slowly, and checks every byte and the end.
fn stream_through(stream: TcpStream, stop: &AtomicBool) -> u64 {
    let mut reader = stream.try_clone().expect("a copy");
    let byte = |place: u64| (place * 7 + place / 251) as u8;
    std::thread::scope(|scope| {
        let mut writer = stream;
        let sent = scope.spawn(move || {
            let mut place = 0_u64;
            while !stop.load(Ordering::Acquire) {
                let part: Vec<u8> = (place..place + 32_000).map(byte).collect();
                writer.write_all(&part).expect("sent");
                place += part.len() as u64;
            }
            writer.shutdown(std::net::Shutdown::Write).expect("ended");
            place
        });
        let (mut buffer, mut place) = (vec![0; 100_000], 0_u64);
        loop {
            let count = reader.read(&mut buffer).unwrap_or_else(|error| panic!("cut after {place} bytes: {error}"));
            if count == 0 {
                break;
            }
            let wrong = buffer[..count].iter().zip(place..).find(|(got, at)| **got != byte(*at));
            assert!(wrong.is_none(), "another byte at {wrong:?}");
            place += count as u64;
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(sent.join().expect("no panic"), place);
        place
    })
}

#[test]
fn sessions_and_flows_go_on_through_upgrades() {
    let (tcp, udp) = (Server::named("tcp"), UdpTarget::echo("udp"));
    let mut first = gateway(tcp.address, udp.address, "");
    let (to_tcp, to_udp) = (address(&first, "tcp"), address(&first, "udp"));
    let mut sessions: Vec<TcpStream> = (0..40).map(|_| connect(to_tcp)).collect();
    sessions.iter_mut().for_each(|session| assert_eq!(word(session), "tcp"));
    let mut flows: Vec<Flow> = (0..300).map(|_| Flow::new(to_udp)).collect();
    flows.iter_mut().for_each(Flow::ask);
    let streaming: Vec<TcpStream> = (0..3).map(|_| connect(to_tcp)).collect();
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let orphans: Vec<Orphan> = std::thread::scope(|scope| {
        let steady = scope.spawn(|| {
            let mut rounds = 0_usize;
            while !stop.load(Ordering::Acquire) {
                sessions.iter_mut().for_each(|session| echo(session, &[rounds as u8; 500]));
                flows.iter_mut().for_each(Flow::ask);
                rounds += 1;
            }
            rounds
        });
        let bulk: Vec<_> = streaming
            .into_iter()
            .map(|mut session| {
                scope.spawn(|| {
                    assert_eq!(word(&mut session), "tcp");
                    stream_through(session, &done)
                })
            })
            .collect();
        let orphans = (0..4).map(|_| upgrade(&first).0).collect();
        // The first process has nothing left to wait for: what does not move is over.
        stop.store(true, Ordering::Release);
        done.store(true, Ordering::Release);
        assert!(steady.join().expect("no session is cut and no datagram lost") > 4);
        bulk.into_iter().for_each(|one| assert!(one.join().expect("every byte") > 1_000_000));
        orphans
    });
    assert_eq!(first.wait(), Some(0), "{}", first.log());
    assert_eq!(tcp.count.load(Ordering::Acquire), 43, "each session has had one connection to its target");
    assert_eq!(udp.sources().len(), 300, "each flow has had one socket");
    // The last process counts them, and writes the line of each.
    let open = |stream: &str, listener: &str| {
        first.metric(&format!("portcullis_stream_sessions_open{{listener=\"{listener}\",stream=\"{stream}\"}}"))
    };
    assert!((open("flows", "udp") - 300.0).abs() < 0.5);
    eventually("the streaming sessions are over", || (open("sessions", "tcp") - 40.0).abs() < 0.5);
    sessions.iter_mut().for_each(|session| echo(session, b"still"));
    drop(sessions);
    eventually("they are over", || open("sessions", "tcp") < 0.5);
    let lines = first.access_log(43);
    let of_sessions: Vec<_> = lines.iter().filter(|line| line["stream"] == "sessions").collect();
    assert_eq!(of_sessions.len(), 43);
    for line in &of_sessions {
        // What they carried in all processes.
        assert_eq!(line["bytes_out"].as_u64().expect("a number"), line["bytes_in"].as_u64().expect("a number") + 3);
        assert!(line["duration_ms"].as_f64().expect("a number") > 400.0, "{line}");
    }
    drop(orphans);
}

#[test]
fn a_successor_that_fails_leaves_every_session_and_flow_with_the_old_process() {
    let (tcp, udp) = (Server::named("tcp"), UdpTarget::echo("udp"));
    let old = gateway(tcp.address, udp.address, "");
    let (to_tcp, to_udp) = (address(&old, "tcp"), address(&old, "udp"));
    let mut session = connect(to_tcp);
    assert_eq!(word(&mut session), "tcp");
    let mut flows: Vec<Flow> = (0..20).map(|_| Flow::new(to_udp)).collect();
    flows.iter_mut().for_each(Flow::ask);
    for (streams, serves) in [(true, false), (true, true), (false, false)] {
        let successor = Impostor::of(&old);
        successor.says(&Message::Take { protocol: 4, streams });
        successor.take();
        successor.says(&Message::Ready { takes: vec![to_tcp], datagrams: vec![to_udp] });
        let mut given = Vec::new();
        loop {
            match receive(&successor.0).expect("a message").0 {
                Message::State { bytes, .. } => drop(form(&successor, bytes)),
                Message::Streams { kind, bytes, .. } => {
                    let form: serde_json::Value = serde_json::from_slice(&form(&successor, bytes)).expect("JSON");
                    given.push((kind, form["listener"].clone(), form["flows"].as_array().expect("a list").len()));
                }
                Message::Complete => break,
                other => panic!("{other:?}"),
            }
        }
        // One that does not ask for them gets none, and nobody is in the way of their responses.
        let wanted = if streams { vec![("flows".to_owned(), "udp".into(), 20)] } else { Vec::new() };
        assert_eq!(given, wanted);
        if serves {
            successor.says(&Message::Serving);
            eventually("it stands by", || old.log().contains("stands by until it has settled"));
            echo(&mut session, b"no session has moved yet");
        }
        drop(successor);
        flows.iter_mut().for_each(Flow::ask);
        echo(&mut session, b"as before");
    }
    assert_eq!(udp.sources().len(), 20);
    assert_eq!(tcp.count.load(Ordering::Acquire), 1);
}

fn form(successor: &Impostor, bytes: usize) -> Vec<u8> {
    let mut form = vec![0; bytes];
    (&successor.0).read_exact(&mut form).expect("the form");
    form
}

#[test]
fn what_a_successor_has_no_rule_for_stays_in_the_old_process() {
    let (tcp, udp) = (Server::named("tcp"), UdpTarget::echo("udp"));
    let mut old = gateway(tcp.address, udp.address, "");
    let mut session = connect(address(&old, "tcp"));
    assert_eq!(word(&mut session), "tcp");
    let yaml = std::fs::read_to_string(old.config()).expect("the file");
    std::fs::write(old.config(), yaml.replace("name: sessions", "name: others")).expect("written");
    let (_successor, _) = upgrade(&old);
    eventually("it stays", || old.log().contains("0 sessions go on in the successor, 1 here"));
    (0..5).for_each(|_| echo(&mut session, b"here"));
    let mut new = connect(address(&old, "tcp"));
    assert_eq!(word(&mut new), "tcp");
    drop(session);
    assert_eq!(old.wait(), Some(0));
    echo(&mut new, b"there");
}
