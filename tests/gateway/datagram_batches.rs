//! Many datagrams at a time, over sockets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::datagrams::{UdpTarget, client, config, start};
use super::harness::eventually;
use super::harness::gateway::Gateway;

/// QUIC, for one, is sent so (UDP_SEGMENT), and read so (UDP_GRO).
#[test]
fn datagrams_that_are_sent_at_a_time_arrive_one_by_one() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let in_segments = |socket: &UdpSocket| {
        nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::UdpGsoSegment, &1_000).expect("set");
    };
    in_segments(&socket);
    // Each third datagram makes the target send eight.
    let target = UdpTarget::on(
        socket,
        Box::new(|bytes| if bytes[0] % 3 == 0 { vec![vec![bytes[0]; 7_500]] } else { vec![vec![bytes[0]]] }),
    );
    for (address, rule) in [
        ("127.0.0.1", ""),
        ("0.0.0.0", ""),
        ("127.0.0.1", ", datagrams: {per_datagram: true}"),
        ("127.0.0.1", ", datagrams: {amplification: 8}"),
    ] {
        let yaml = config("", rule, &[target.address], "");
        let gateway = Gateway::start(&yaml.replace("127.0.0.1:0, kind", &format!("{address}:0, kind")));
        let socket = client(SocketAddr::from(([127, 0, 0, 1], gateway.address().port())));
        in_segments(&socket);
        target.seen.lock().expect("seen").clear();
        for round in 0..5_u8 {
            let bytes: Vec<u8> = (0..12_u8).flat_map(|number| [number + 12 * round; 1_000]).collect();
            socket.send(&bytes[..11_500]).expect("sent");
            let mut lengths = std::collections::BTreeMap::<u8, Vec<usize>>::new();
            let mut buffer = [0; 2_000];
            for _ in 0..4 * 8 + 8 {
                let length = socket.recv(&mut buffer).expect("a response");
                assert!(buffer[..length].iter().all(|byte| *byte == buffer[0]));
                lengths.entry(buffer[0]).or_default().push(length);
            }
            for (number, lengths) in lengths {
                let expected = if number % 3 == 0 { [vec![1_000; 7], vec![500]].concat() } else { vec![1] };
                assert_eq!(lengths, expected, "{number}");
            }
        }
        let seen: Vec<(u8, usize)> =
            target.seen.lock().expect("seen").iter().map(|(_, bytes)| (bytes[0], bytes.len())).collect();
        let length = |number| if number % 12 == 11 { 500 } else { 1_000 };
        assert_eq!(seen, (0..60_u8).map(|number| (number, length(number))).collect::<Vec<_>>());
        let series = |direction| format!("portcullis_datagrams_total{{direction=\"{direction}\",listener=\"dns\"}}");
        // They are counted once they have been sent, and so perhaps after they have arrived.
        eventually("all are counted", || {
            (gateway.metric(&series("in")), gateway.metric(&series("out"))) == (60.0, 200.0)
        });
        assert_eq!(target.sources().len(), 1);
    }
}

#[test]
fn a_flow_that_floods_does_not_starve_others() {
    let target = UdpTarget::echo("a");
    let gateway = start("", "", &[target.address], "");
    let (flood, stop) = (client(gateway.address()), Arc::new(AtomicBool::new(false)));
    let (stopped, sent) = (Arc::clone(&stop), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&sent);
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Acquire) {
            let _ = flood.send(&[b'x'; 500]);
            count.fetch_add(1, Ordering::Release);
        }
    });
    eventually("it floods", || sent.load(Ordering::Acquire) > 1_000);
    let socket = client(gateway.address());
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("set");
    let mut got = 0;
    eventually("a client gets its responses", || {
        socket.send(b"y").expect("sent");
        got += usize::from(socket.recv(&mut [0; 10]).is_ok());
        got >= 20
    });
    stop.store(true, Ordering::Release);
    thread.join().expect("ended");
}
