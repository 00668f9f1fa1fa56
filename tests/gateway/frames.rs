//! HTTP/2 frames that no client of good will sends: what has to end a stream or a connection, and what must not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::harness::client::Connection;
use super::harness::gateway::Gateway;
use super::harness::target::Target;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const PROTOCOL_ERROR: u32 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection on which frames are written as they are.
struct Raw(TcpStream);

/// What has come: kind, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

impl Raw {
    fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("set");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("sent");
        let mut raw = Self(stream);
        raw.send(4, 0, 0, &[]);
        raw
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // The gateway may have closed by now, which the next read finds.
        let _ = self.0.write_all(&frame);
    }

    fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The first frame of that kind.
    #[track_caller]
    fn await_frame(&mut self, kind: u8) -> Frame {
        loop {
            match self.frame() {
                Some(frame) if frame.0 == kind => return frame,
                Some(_) => {}
                None => panic!("the connection ended without a frame of kind {kind}"),
            }
        }
    }

    #[track_caller]
    fn await_goaway(&mut self) -> u32 {
        let (.., payload) = self.await_frame(GOAWAY);
        u32::from_be_bytes(payload[4..8].try_into().expect("four bytes"))
    }
}

fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        out.push(u8::try_from(text.len()).expect("a short text"));
        out.extend_from_slice(text.as_bytes());
    }
    out
}

/// The fields of a request to `path`, with more of them.
fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "localhost"), (":path", path)];
    pseudo.iter().chain(more).flat_map(|(name, value)| field(name, value)).collect()
}

fn gateway(target: &Target) -> Gateway {
    Gateway::start(&format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http2]}}]\nupstreams: {{one: {{targets: [\"{}\"]}}}}\n\
         routes: [{{name: all, match: {{path: /*}}, action: {{forward: one}}}}]",
        target.address
    ))
}

#[test]
fn a_request_may_have_256_fields_and_no_more() {
    let target = Target::echo("one");
    let gateway = gateway(&target);
    let mut raw = Raw::open(gateway.address());
    // By index 16 of the static table, "accept-encoding: gzip, deflate": one octet a field.
    let with = |fields: usize| [request("GET", "/", &[]), vec![0x90; fields]].concat();
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &with(200));
    assert_eq!(raw.await_frame(HEADERS).2, 1);
    raw.send(HEADERS, END_STREAM | END_HEADERS, 3, &with(1_900));
    assert_eq!(raw.await_goaway(), ENHANCE_YOUR_CALM);
    assert_eq!(target.count(), 1);
}

#[test]
fn frames_that_are_no_work_end_the_connection_when_there_are_too_many() {
    let target = Target::echo("one");
    let gateway = gateway(&target);
    let mut raw = Raw::open(gateway.address());
    let mut other = raw.0.try_clone().map(Raw).expect("a second handle");
    let sending = std::thread::spawn(move || (0..200_000).for_each(|_| other.send(PING, 1, 0, &[0; 8])));
    assert_eq!(raw.await_goaway(), ENHANCE_YOUR_CALM);
    drop(raw.0.shutdown(std::net::Shutdown::Both));
    sending.join().expect("it ends");
    // Others are served.
    let mut raw = Raw::open(gateway.address());
    raw.send(HEADERS, END_STREAM | END_HEADERS, 1, &request("GET", "/", &[]));
    assert_eq!(raw.await_frame(HEADERS).2, 1);
}

#[test]
fn what_is_malformed_is_reset_and_not_forwarded() {
    let target = Target::echo("one");
    let gateway = gateway(&target);
    let mut raw = Raw::open(gateway.address());
    let length = |length: &str| request("POST", "/", &[("content-length", length)]);
    for (stream, head, body) in
        [(1, length("0"), &b"hello"[..]), (3, length("9"), b"hello"), (5, length("2"), b"hello")]
    {
        raw.send(HEADERS, END_HEADERS, stream, &head);
        raw.send(DATA, END_STREAM, stream, body);
        let (_, _, reset, reason) = raw.await_frame(RST_STREAM);
        assert_eq!((reset, reason), (stream, PROTOCOL_ERROR.to_be_bytes().to_vec()));
    }
    raw.send(HEADERS, END_HEADERS, 7, &length("5"));
    raw.send(DATA, END_STREAM, 7, b"hello");
    assert_eq!(raw.await_frame(HEADERS).2, 7);
    assert_eq!(target.count(), 1);
}

#[test]
fn a_pseudo_header_is_no_trailer() {
    let target = Target::echo("one");
    let gateway = gateway(&target);
    let mut raw = Raw::open(gateway.address());
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[]));
    raw.send(DATA, 0, 1, b"hello");
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, &field(":path", "/admin"));
    assert_eq!(raw.await_goaway(), PROTOCOL_ERROR);
}

#[test]
fn a_connection_has_a_budget_of_malformed_requests() {
    let target = Target::echo("one");
    let gateway = gateway(&target);
    let mut raw = Raw::open(gateway.address());
    for stream in (1..200).step_by(2) {
        raw.send(HEADERS, END_HEADERS, stream, &request("POST", "/", &[("content-length", "0")]));
        raw.send(DATA, END_STREAM, stream, b"hello");
        if stream < 199 {
            assert_eq!(raw.await_frame(RST_STREAM).2, stream);
        }
    }
    assert_eq!(raw.await_goaway(), ENHANCE_YOUR_CALM);
    assert_eq!(target.count(), 0);
}

/// An HTTP/2 target whose response, and the reset behind it, come in one part.
fn resetting_target(length: Option<&'static str>, body: &'static [u8], code: u8) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut raw = Raw(stream);
            let mut preface = [0; 24];
            if raw.0.read_exact(&mut preface).is_err() {
                continue;
            }
            raw.send(4, 0, 0, &[]);
            while let Some((kind, _, id, _)) = raw.frame() {
                if kind == HEADERS {
                    let length = length.map(|length| field("content-length", length)).unwrap_or_default();
                    let head = [field(":status", "200"), length].concat();
                    let mut whole = Vec::new();
                    let reset = [0, 0, 0, code];
                    for (kind, flags, payload) in
                        [(HEADERS, END_HEADERS, &head[..]), (DATA, 0, body), (RST_STREAM, 0, &reset)]
                    {
                        whole.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
                        whole.extend([kind, flags]);
                        whole.extend(id.to_be_bytes());
                        whole.extend_from_slice(payload);
                    }
                    let _ = raw.0.write_all(&whole);
                }
            }
        }
    });
    address
}

#[test]
fn a_reset_without_an_error_is_the_end_of_a_response() {
    for (length, code, whole) in [(Some("5"), 0, true), (None, 0, true), (Some("9"), 0, false), (None, 2, false)] {
        let target = resetting_target(length, b"hello", code);
        let gateway = Gateway::start(&format!(
            "upstreams: {{one: {{protocol: http2, targets: [\"{target}\"], retry: {{attempts: 1}}}}}}\n\
             routes: [{{name: all, match: {{path: /*}}, action: {{forward: one}}}}]"
        ));
        let mut connection = Connection::open(gateway.address());
        connection.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
        let got = connection.try_receive(false);
        assert_eq!(got.is_ok_and(|answer| answer.body == b"hello"), whole, "{length:?} {code}");
        let reason = if whole { "forwarded" } else { "target_reset" };
        assert_eq!(gateway.access_log(1)[0]["reason"], reason, "{length:?} {code}");
    }
}

#[test]
fn a_length_that_is_given_twice_is_not_forwarded() {
    let target = Target::echo("one");
    let gateway = gateway(&target);
    let mut raw = Raw::open(gateway.address());
    raw.send(HEADERS, END_HEADERS, 1, &request("POST", "/", &[("content-length", "5"), ("content-length", "5")]));
    raw.send(DATA, END_STREAM, 1, b"hello");
    assert_eq!(raw.await_frame(HEADERS).2, 1);
    assert_eq!(target.count(), 0);
    assert_eq!(gateway.access_log(1)[0]["reason"], "bad_request");
}

/// Frames in place of a response to that stream: kind, stream, payload.
type Refusal = fn(u32) -> Vec<(u8, u32, Vec<u8>)>;

/// An HTTP/2 target that ends its first stream with these frames, and answers all others.
fn refusing_target(frames: Refusal) -> (SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let counted = std::sync::Arc::clone(&counted);
            std::thread::spawn(move || {
                let mut raw = Raw(stream);
                let mut preface = [0; 24];
                if raw.0.read_exact(&mut preface).is_err() {
                    return;
                }
                raw.send(4, 0, 0, &[]);
                while let Some((kind, flags, id, _)) = raw.frame() {
                    match kind {
                        HEADERS if counted.fetch_add(1, Ordering::AcqRel) == 0 => {
                            frames(id).iter().for_each(|(kind, stream, payload)| raw.send(*kind, 0, *stream, payload));
                        }
                        HEADERS | DATA if flags & END_STREAM != 0 => {
                            raw.send(HEADERS, END_HEADERS | END_STREAM, id, &field(":status", "200"));
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    (address, count)
}

#[test]
fn what_a_target_has_not_processed_is_sent_again_whatever_it_is() {
    let goaway = |_| vec![(GOAWAY, 0, vec![0; 8])];
    let refused = |id| vec![(RST_STREAM, id, vec![0, 0, 0, 7])];
    let internal = |id| vec![(RST_STREAM, id, vec![0, 0, 0, 2])];
    let cases: [(Refusal, u16, usize); 3] = [(goaway, 200, 2), (refused, 200, 2), (internal, 502, 1)];
    for (frames, status, requests) in cases {
        let (target, count) = refusing_target(frames);
        let gateway = Gateway::start(&format!(
            "upstreams: {{one: {{protocol: http2, targets: [\"{target}\"]}}}}\n\
             routes: [{{name: all, match: {{path: /*}}, action: {{forward: one}}}}]"
        ));
        let mut connection = Connection::open(gateway.address());
        let answer = connection.ask("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello");
        assert_eq!((answer.status, count.load(std::sync::atomic::Ordering::Acquire)), (status, requests));
    }
}

#[test]
fn clients_of_http_1_0_get_no_chunks_of_http2_targets() {
    let target = resetting_target(None, b"hello", 0);
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{protocol: http2, targets: [\"{target}\"]}}}}\n\
         routes: [{{name: all, match: {{path: /*}}, action: {{forward: one}}}}]"
    ));
    let mut connection = Connection::open(gateway.address());
    connection.send("GET / HTTP/1.0\r\nhost: localhost\r\n\r\n");
    let whole = String::from_utf8(connection.rest()).expect("text").to_ascii_lowercase();
    assert!(!whole.contains("transfer-encoding") && whole.ends_with("\r\n\r\nhello"), "{whole}");
}
