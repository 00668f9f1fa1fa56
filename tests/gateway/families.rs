//! Names of which one family of addresses is known, and name servers that fail for the other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use portcullis::parts::{Addresses, DnsError, Family, Resolver};
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, RCODE, ResourceRecord, TYPE};

use super::harness::gateway::Gateway;
use super::harness::target::Target;

/// What a name server does with a question for one family.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answers,
    Knows,
    Fails,
    IsSilent,
}

/// What it does with questions for A and AAAA.
type Zone = Arc<Mutex<(Does, Does)>>;

fn name_server(zone: &Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    let zone = Arc::clone(zone);
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let question = Packet::parse(&buffer[..length]).expect("a question");
            let asked = question.questions[0].clone();
            let (four, six) = *zone.lock().expect("the zone");
            let (does, data) = match asked.qtype {
                QTYPE::TYPE(TYPE::A) => (four, RData::A(A { address: Ipv4Addr::LOCALHOST.into() })),
                _ => (six, RData::AAAA(AAAA { address: Ipv6Addr::LOCALHOST.into() })),
            };
            let mut reply = Packet::new_reply(question.id());
            reply.set_flags(PacketFlag::RESPONSE);
            match does {
                Does::IsSilent => continue,
                Does::Fails => *reply.rcode_mut() = RCODE::ServerFailure,
                // The name is there, and has no such record.
                Does::Knows => {}
                Does::Answers => {
                    let name = Name::new_unchecked("both.test");
                    reply.answers.push(ResourceRecord::new(name, CLASS::IN, 300, data));
                }
            }
            reply.questions.push(asked);
            let _ = socket.send_to(&reply.build_bytes_vec().expect("a reply"), from);
        }
    });
    address
}

#[test]
fn one_family_is_enough() {
    let zone = Zone::new(Mutex::new((Does::Answers, Does::Answers)));
    let resolver = Resolver::new(vec![name_server(&zone)]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ask = |does: (Does, Does)| {
        *zone.lock().expect("the zone") = does;
        let begun = Instant::now();
        let found = runtime.block_on(resolver.addresses("both.test"));
        // Two servers' worth of silence would be four seconds.
        assert!(begun.elapsed() < Duration::from_secs(3) || found.is_err(), "{does:?}: {:?}", begun.elapsed());
        found.map(|Addresses { found, fresh_for, unknown }| (found, fresh_for.as_secs(), unknown))
    };
    let (four, six) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    use Does::{Answers, Fails, IsSilent, Knows};
    assert_eq!(ask((Answers, Answers)), Ok((vec![four, six], 300, None)));
    assert_eq!(ask((Answers, Knows)), Ok((vec![four], 300, None)));
    assert_eq!(ask((Knows, Answers)), Ok((vec![six], 300, None)));
    for broken in [Fails, IsSilent] {
        assert_eq!(ask((Answers, broken)), Ok((vec![four], 10, Some(Family::V6))));
        assert_eq!(ask((broken, Answers)), Ok((vec![six], 10, Some(Family::V4))));
        assert!(matches!(ask((broken, Knows)), Err(DnsError::Failed(_))));
    }
    assert_eq!(ask((Knows, Knows)), Err(DnsError::NoName));
    assert!(matches!(ask((Fails, Fails)), Err(DnsError::Failed(_))));
}

#[test]
fn a_target_whose_aaaa_is_broken_is_reached_by_its_a() {
    let target = Target::echo("a");
    for broken in [Does::Fails, Does::IsSilent] {
        let server = name_server(&Zone::new(Mutex::new((Does::Answers, broken))));
        let gateway = Gateway::start(&format!(
            "upstreams: {{echo: {{targets: ['both.test:{}']}}}}\nroutes: [{{name: all, action: {{forward: echo}}}}]\n\
             process: {{threads: 2, drain_time: 10s, dns_servers: ['{server}']}}",
            target.address.port()
        ));
        assert_eq!(gateway.get("/").status, 200, "{broken:?}: {}", gateway.log());
    }
}
