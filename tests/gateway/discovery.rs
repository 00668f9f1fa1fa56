//! Targets that come and go: by a file, and by a name server.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, RData, SRV};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

/// What a name server says; `None` is that it does not answer.
type Zone = Arc<Mutex<Option<Vec<(&'static str, RData<'static>, u32)>>>>;

/// The names that a name server was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

fn count(asked: &Asked, name: &str) -> usize {
    asked.lock().expect("the names").iter().filter(|n| *n == name).count()
}

/// A name server that knows what its zone says, and remembers what it was asked for.
fn name_server(zone: &Zone) -> (SocketAddr, Asked) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let (zone, names) = (Arc::clone(zone), Asked::default());
    let told = Arc::clone(&names);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = Packet::parse(&buffer[..length]).expect("a question");
            told.lock().expect("the names").push(question.questions[0].qname.to_string());
            let Some(records) = zone.lock().expect("the zone").clone() else { continue };
            let asked = question.questions[0].clone();
            let mut reply = Packet::new_reply(question.id());
            reply.set_flags(PacketFlag::RESPONSE);
            let name = asked.qname.to_string();
            let fits = |data: &RData<'_>| {
                matches!(
                    (&asked.qtype, data),
                    (QTYPE::TYPE(TYPE::A), RData::A(_)) | (QTYPE::TYPE(TYPE::SRV), RData::SRV(_))
                )
            };
            for (owner, data, ttl) in records.iter().filter(|(owner, data, _)| *owner == name && fits(data)) {
                reply.answers.push(ResourceRecord::new(Name::new_unchecked(owner), CLASS::IN, *ttl, data.clone()));
            }
            if !records.iter().any(|(owner, ..)| *owner == name) {
                *reply.rcode_mut() = RCODE::NameError;
            }
            reply.questions.push(asked);
            let _ = socket.send_to(&reply.build_bytes_vec().expect("a reply"), from);
        }
    });
    (address, names)
}

fn a(last: u8) -> RData<'static> {
    RData::A(A { address: Ipv4Addr::new(127, 0, 0, last).into() })
}

/// Two targets on one port, at 127.0.0.1 and 127.0.0.2.
fn twins() -> (Target, Target) {
    loop {
        let one = Target::echo("one");
        let two = std::net::TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), one.address.port()));
        if let Ok(two) = two {
            return (
                one,
                Target::on(two, |stream, _| super::harness::target::answer(stream, 200, &[("x-target", "two")], b"")),
            );
        }
    }
}

fn served_by(gateway: &Gateway) -> Vec<String> {
    let mut seen: Vec<String> =
        (0..6).map(|_| gateway.get("/").header("x-target").unwrap_or("nobody").to_owned()).collect();
    seen.sort();
    seen.dedup();
    seen
}

#[test]
fn a_name_is_followed_at_its_time_and_outlives_its_server() {
    let (one, _two) = twins();
    let port = one.address.port();
    let zone: Zone = Arc::new(Mutex::new(Some(vec![("users.test", a(1), 1)])));
    let (server, asked) = name_server(&zone);
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"users.test:{port}\"]}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]\nprocess: {{threads: 1, dns_servers: [\"{server}\"]}}"
    ));
    assert_eq!(served_by(&gateway), ["one"]);
    *zone.lock().expect("the zone") = Some(vec![("users.test", a(1), 1), ("users.test", a(2), 1)]);
    eventually("the new address is known", || served_by(&gateway) == ["one", "two"]);
    *zone.lock().expect("the zone") = Some(vec![("users.test", a(2), 1)]);
    eventually("the old address is gone", || served_by(&gateway) == ["two"]);
    // The server falls silent: its last answer goes on.
    *zone.lock().expect("the zone") = None;
    let before = count(&asked, "users.test");
    eventually("it is asked in vain", || count(&asked, "users.test") > before + 3);
    assert_eq!(served_by(&gateway), ["two"]);
    // So it does when the name is no more: nothing is not what anybody wants of a name.
    *zone.lock().expect("the zone") = Some(vec![]);
    let before = count(&asked, "users.test");
    eventually("it is asked again", || count(&asked, "users.test") > before + 1);
    assert_eq!(served_by(&gateway), ["two"]);
}

#[test]
fn a_long_time_is_honoured() {
    let target = Target::echo("one");
    let port = target.address.port();
    let zone: Zone = Arc::new(Mutex::new(Some(vec![("long.test", a(1), 600), ("short.test", a(1), 1)])));
    let (server, asked) = name_server(&zone);
    let gateway = Gateway::start(&format!(
        "upstreams:\n  pool: {{targets: [\"long.test:{port}\"], resolve_interval: 100ms}}\n  other: {{targets: [\"short.test:{port}\"]}}\nroutes: [{{name: all, action: {{forward: pool}}}}]\nprocess: {{threads: 1, dns_servers: [\"{server}\"]}}"
    ));
    let before = count(&asked, "long.test");
    assert!(before > 0);
    let short = count(&asked, "short.test");
    eventually("the short one is asked for again", || count(&asked, "short.test") >= short + 4);
    assert_eq!(served_by(&gateway), ["one"]);
    assert_eq!(count(&asked, "long.test"), before, "asked again before its time");
}

#[test]
fn a_service_gives_ports_weights_and_priorities() {
    let (one, two, three) = (Target::echo("one"), Target::echo("two"), Target::echo("three"));
    let srv = |priority, weight, target: &Target| {
        let data = SRV { priority, weight, port: target.address.port(), target: Name::new_unchecked("host.test") };
        ("_http._tcp.users.test", RData::SRV(data), 1)
    };
    let zone: Zone = Arc::new(Mutex::new(Some(vec![
        srv(10, 3, &one),
        srv(10, 1, &two),
        srv(20, 1, &three),
        ("host.test", a(1), 1),
    ])));
    let (server, _) = name_server(&zone);
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{discovery: {{srv: _http._tcp.users.test}}}}}}\nroutes: [{{name: all, action: {{forward: pool}}}}]\nprocess: {{threads: 1, dns_servers: [\"{server}\"]}}"
    ));
    let count = |name: &str, of: usize| (0..of).filter(|_| gateway.get("/").header("x-target") == Some(name)).count();
    assert_eq!(count("one", 8), 6);
    assert_eq!(count("three", 8), 0);
    *zone.lock().expect("the zone") = Some(vec![srv(20, 1, &three), ("host.test", a(1), 1)]);
    eventually("the service has moved", || served_by(&gateway) == ["three"]);
}

#[test]
fn a_file_is_followed_and_a_mistake_in_it_changes_nothing() {
    let (one, two) = (Target::echo("one"), Target::echo("two"));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("targets.yaml");
    let write = |text: &str| std::fs::write(&path, text).expect("written");
    write(&format!("- {}\n", one.address));
    let gateway = Gateway::start_in(
        folder,
        "upstreams: {pool: {discovery: {file: targets.yaml}}}\nroutes: [{name: all, action: {forward: pool}}]",
        &[],
    );
    assert_eq!(served_by(&gateway), ["one"]);
    write(&format!("- {}\n- {{address: \"{}\", weight: 1}}\n", one.address, two.address));
    eventually("the second is known", || served_by(&gateway) == ["one", "two"]);
    write("- {adress: nonsense}\n");
    eventually("the mistake is told", || gateway.log().contains("expected a list of targets"));
    assert_eq!(served_by(&gateway), ["one", "two"]);
    write(&format!("- {}\n", two.address));
    eventually("the first is gone", || served_by(&gateway) == ["two"]);
}
