//! The pump between real sockets, against the bytes that each side has sent.

#![expect(clippy::disallowed_methods, reason = "the peers have threads of their own")]

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::pump::{Pump, PumpCounts, PumpEnd, PumpLimits, Side};

const LIMITS: PumpLimits = PumpLimits {
    idle: Some(Duration::from_secs(60)),
    half_closed: Some(Duration::from_secs(60)),
    total: None,
    rates: [None; 2],
};

/// Returns both ends of a connection.
fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a socket");
    let one = TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
    (one, listener.accept().expect("a connection").0)
}

/// A pump in a thread of its own, with the ends of its client and its target.
struct Joined {
    client: TcpStream,
    target: TcpStream,
    counts: Arc<PumpCounts>,
    ended: std::thread::JoinHandle<PumpEnd>,
}

fn join(limits: PumpLimits) -> Joined {
    let ((client, inner), (outer, target)) = (connection(), connection());
    let counts = Arc::new(PumpCounts::default());
    let shared = Arc::clone(&counts);
    let ended = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let [inner, outer] = [inner, outer].map(|stream| {
                stream.set_nonblocking(true).expect("non-blocking");
                tokio::net::TcpStream::from_std(stream).expect("a stream")
            });
            Pump::new(inner.into(), outer.into(), limits, shared).run().await
        })
    });
    Joined { client, target, counts, ended }
}

/// The byte at a place of a stream.
fn octet(stream: u64, place: u64) -> u8 {
    let mixed = (place / 7 + stream).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u8 ^ (place as u8)
}

fn octets(stream: u64, from: u64, count: usize) -> Vec<u8> {
    (from..from + count as u64).map(|place| octet(stream, place)).collect()
}

/// How a side ends what it sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Fin,
    Reset,
}

/// What one side does: it sends so many bytes in parts, with pauses, and reads with pauses.
#[derive(Clone, Copy, Debug)]
struct Script {
    seed: u64,
    bytes: u64,
    ending: Ending,
    /// The longest pause of the sender and of the reader.
    pauses: [u64; 2],
}

/// One end of a connection for two threads; it is reset once both have left it after `resets` was set.
#[derive(Clone)]
struct End {
    stream: Arc<TcpStream>,
    resets: Arc<AtomicBool>,
    /// Whether the sender has met an error: the system reports it once, and the reader meets an end then.
    failed: Arc<AtomicBool>,
}

impl From<TcpStream> for End {
    fn from(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_millis(10))).expect("a time");
        Self { stream: Arc::new(stream), resets: Arc::default(), failed: Arc::default() }
    }
}

fn send(end: &End, script: Script) {
    let mut random = fastrand::Rng::with_seed(script.seed);
    let mut sent = 0;
    while sent < script.bytes {
        let most = [64, 1_500, 70_000, 400_000][random.usize(..4)];
        let part = random.u64(1..=most).min(script.bytes - sent);
        if (&*end.stream).write_all(&octets(script.seed, sent, part as usize)).is_err() {
            end.failed.store(true, Ordering::Release);
            return;
        }
        sent += part;
        if random.u32(..8) == 0 {
            std::thread::sleep(Duration::from_millis(random.u64(..=script.pauses[0])));
        }
    }
    match script.ending {
        Ending::Fin => drop(end.stream.shutdown(std::net::Shutdown::Write)),
        Ending::Reset => {
            SockRef::from(&*end.stream).set_linger(Some(Duration::ZERO)).expect("an option");
            end.resets.store(true, Ordering::Release);
        }
    }
}

/// Reads to the end, and compares with what `from` sends. Returns the number of bytes, and whether it was an orderly
/// end.
fn receive(end: &End, from: Script, seed: u64, pause: u64) -> (u64, bool) {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5a5a);
    let mut buffer = vec![0; 256 << 10];
    let mut came = 0;
    while !end.resets.load(Ordering::Acquire) {
        if random.u32(..8) == 0 {
            std::thread::sleep(Duration::from_millis(random.u64(..=pause)));
        }
        let size = [100, 4_096, buffer.len()][random.usize(..3)];
        match (&*end.stream).read(&mut buffer[..size]) {
            Ok(0) => return (came, true),
            Ok(count) => {
                assert_eq!(buffer[..count], octets(from.seed, came, count)[..], "at {came} of {from:?}");
                came += count as u64;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(_) => break,
        }
    }
    (came, false)
}

/// Plays both scripts over a pump.
fn play(scripts: [Script; 2]) {
    let joined = join(LIMITS);
    let streams = [joined.client, joined.target].map(End::from);
    let failed = [0, 1].map(|place: usize| Arc::clone(&streams[place].failed));
    let mut threads = Vec::new();
    let mut readers = Vec::new();
    for (place, stream) in streams.into_iter().enumerate() {
        let (own, other) = (scripts[place], scripts[1 - place]);
        let reading = stream.clone();
        readers.push(std::thread::spawn(move || receive(&reading, other, own.seed, own.pauses[1])));
        threads.push(std::thread::spawn(move || send(&stream, own)));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("a sender"));
    let seen: Vec<_> = readers.into_iter().map(|reader| reader.join().expect("a reader")).collect();
    let end = joined.ended.join().expect("the pump");
    let counted = [joined.counts.sent(), joined.counts.received()];
    let orderly = scripts.iter().all(|script| script.ending == Ending::Fin);
    for (place, (came, is_end)) in seen.iter().enumerate() {
        let fin = *is_end && !failed[place].load(Ordering::Acquire);
        let sender = scripts[1 - place];
        assert!(*came <= counted[place], "{came} of {} bytes; {scripts:?}", counted[place]);
        if orderly {
            assert!(fin && *came == sender.bytes, "{came} bytes, {fin}; {scripts:?}");
        }
        // An orderly end is never the end of a stream that was cut.
        assert!(!fin || *came == sender.bytes, "{came} bytes, {fin}; {scripts:?} {end:?}");
    }
    match end {
        PumpEnd::Finished(_) => assert!(orderly, "{scripts:?}"),
        PumpEnd::Reset(_) => assert!(!orderly, "{scripts:?}"),
        other => panic!("{other:?}: {scripts:?}"),
    }
}

#[test]
fn no_byte_is_lost_or_repeated_whatever_both_sides_do() {
    let rounds = if std::env::var_os("LONG_TESTS").is_some() { 2_000 } else { 60 };
    for seed in 0..rounds {
        let mut random = fastrand::Rng::with_seed(seed);
        let scripts = [0, 1].map(|place| {
            let most = [0, 3_000, 600_000, 4_000_000][random.usize(..4)];
            Script {
                seed: seed * 2 + place,
                bytes: random.u64(..=most),
                ending: if random.u32(..4) == 0 { Ending::Reset } else { Ending::Fin },
                pauses: [random.u64(..3), random.u64(..3)],
            }
        });
        play(scripts);
    }
}

/// Sends `total` bytes in, then ends that direction; as many come back after it.
fn echo_at_the_end(total: u64) {
    let joined = join(LIMITS);
    let (one, two) = (7, 11);
    let script = |seed| Script { seed, bytes: total, ending: Ending::Fin, pauses: [0, 0] };
    let [client, target] = [joined.client, joined.target].map(End::from);
    std::thread::scope(|threads| {
        threads.spawn(|| send(&client, script(one)));
        assert_eq!(receive(&target, script(one), 1, 0), (total, true));
    });
    std::thread::scope(|threads| {
        threads.spawn(|| send(&target, script(two)));
        assert_eq!(receive(&client, script(two), 1, 0), (total, true));
    });
    assert_eq!(joined.ended.join().expect("the pump"), PumpEnd::Finished(Side::Client));
    assert_eq!([joined.counts.received(), joined.counts.sent()], [total, total]);
}

#[test]
fn long_streams_pass_unchanged_with_half_close() {
    let total = if std::env::var_os("LONG_TESTS").is_some() { 10_000_000_000 } else { 64_000_000 };
    echo_at_the_end(total);
}

#[test]
fn a_reset_of_a_side_that_had_ended_its_direction_is_passed_on() {
    let mut joined = join(LIMITS);
    joined.client.shutdown(std::net::Shutdown::Write).expect("an end");
    assert_eq!(joined.target.read(&mut [0; 8]).expect("the end"), 0);
    SockRef::from(&joined.client).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(joined.client);
    assert_eq!(joined.ended.join().expect("the pump"), PumpEnd::Reset(Side::Client));
    let failed = joined.target.write_all(b"x").and_then(|()| joined.target.read(&mut [0; 8]).map(drop));
    assert!(failed.is_err());
}

#[test]
fn what_came_before_a_reset_is_delivered_first() {
    let mut joined = join(LIMITS);
    // More than the socket of the client takes while it reads nothing.
    let total: usize = 3_000_000;
    let (mut client, mut target) = (joined.client, joined.target);
    client.write_all(b"a request that is never read").expect("sent");
    let writer = std::thread::spawn(move || {
        target.write_all(&octets(3, 0, total)).expect("sent");
        // It closes with unread bytes: the system resets the connection.
        drop(target);
    });
    writer.join().expect("the target");
    joined.client = client;
    let mut came = Vec::new();
    let end = joined.client.read_to_end(&mut came);
    assert!(end.is_err(), "the reset is passed on");
    assert!(came == octets(3, 0, came.len()));
    assert_eq!(joined.ended.join().expect("the pump"), PumpEnd::Reset(Side::Target));
}

#[test]
fn times_end_a_session() {
    let short = Some(Duration::from_millis(100));
    let ended = |limits: PumpLimits, half_closed: bool| {
        let joined = join(limits);
        if half_closed {
            joined.client.shutdown(std::net::Shutdown::Write).expect("an end");
        }
        joined.ended.join().expect("the pump")
    };
    assert_eq!(ended(PumpLimits { idle: short, ..LIMITS }, false), PumpEnd::Idle);
    assert_eq!(ended(PumpLimits { total: short, ..LIMITS }, false), PumpEnd::TotalTime);
    assert_eq!(ended(PumpLimits { half_closed: short, ..LIMITS }, true), PumpEnd::HalfClosed);
}

#[test]
fn a_rate_holds_in_one_direction() {
    let rates = [Some(1_000_000), None];
    let joined = join(PumpLimits { rates, ..LIMITS });
    let (mut client, mut target) = (joined.client, joined.target);
    let begun = Instant::now();
    let writer = std::thread::spawn(move || {
        client.write_all(&octets(1, 0, 400_000)).expect("sent");
        client.shutdown(std::net::Shutdown::Write).expect("an end");
        client
    });
    let mut came = Vec::new();
    target.read_to_end(&mut came).expect("all of it");
    assert!(came == octets(1, 0, 400_000));
    // Two parts of a twentieth of a second each are free.
    assert!(begun.elapsed() >= Duration::from_millis(280), "{:?}", begun.elapsed());
    drop((target, writer.join().expect("a sender")));
    assert_eq!(joined.ended.join().expect("the pump"), PumpEnd::Finished(Side::Client));
}
