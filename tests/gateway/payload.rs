//! Responses are compressed and their members renamed and masked: whole and in parts, over HTTP/1 and HTTP/2, for curl.

use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use portcullis::parts::{Coding, CompressionLevel, Decoder, Encoder, Step};

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::{Seen, Target, answer};

const BOTH: &str = "\nlisteners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}]";

fn forwarding(target: &Target, filters: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
routes: [{{name: all, filters: [{filters}], action: {{forward: one}}}}]{BOTH}",
        target.address
    ))
}

fn document() -> String {
    let member = |at: usize| {
        format!(
            r#"{{"id":{at}, "name":"Ada","card":"411111111111{:04}","internal":{{"cost":{}}}}}"#,
            at % 9999,
            at * at % 777
        )
    };
    format!(r#"{{"items": [{}]}}"#, (0..3000).map(member).collect::<Vec<_>>().join(",\n"))
}

fn edited() -> String {
    let member = |at: usize| format!(r#"{{"id":{at}, "first":"Ada","card":"***{:04}"}}"#, at % 9999);
    format!(r#"{{"items": [{}]}}"#, (0..3000).map(member).collect::<Vec<_>>().join(",\n"))
}

/// Sends a body in chunks of so many bytes.
fn chunked(stream: &mut TcpStream, headers: &str, body: &[u8], size: usize) -> std::io::Result<()> {
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").as_bytes())?;
    for part in body.chunks(size) {
        stream.write_all(&[format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat())?;
    }
    stream.write_all(b"0\r\n\r\n")
}

/// The document: of known length at `/whole`, in chunks of so many bytes at `/parts/…`, encoded at `/encoded/…`.
fn serve(stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
    let (body, json) = (document(), "content-type: application/json\r\n");
    match seen.target.split('/').nth(1).unwrap_or_default() {
        "parts" => chunked(stream, json, body.as_bytes(), seen.target[7..].parse().expect("a size")),
        "encoded" => {
            let coding = Coding::of(&seen.target[9..]).expect("a coding");
            let mut packed = Vec::new();
            let mut encoder = Encoder::new(coding, CompressionLevel::Fast, false).expect("memory");
            encoder.push(body.as_bytes(), true, &mut packed).expect("encoded");
            chunked(stream, &format!("{json}content-encoding: {}\r\n", coding.name()), &packed, 1000)
        }
        _ => answer(stream, 200, &[("content-type", "application/json"), ("etag", "\"v1\"")], body.as_bytes()),
    }
}

/// What curl makes of a response that it decodes: the body, and what is said of it.
fn curl(gateway: &Gateway, version: &str, path: &str, accepted: &str) -> Option<(String, String)> {
    let body = tempfile::NamedTempFile::new().expect("a file");
    let output = Command::new("curl")
        .args(["-sS", "--compressed", version, "-D", "-", "-H", &format!("accept-encoding: {accepted}"), "-o"])
        .arg(body.path())
        .arg(format!("http://{}{path}", gateway.address()))
        .output()
        .ok()?;
    assert!(output.status.success(), "{version} {path} {accepted}: {}", String::from_utf8_lossy(&output.stderr));
    let head = String::from_utf8_lossy(&output.stdout).to_lowercase();
    Some((std::fs::read_to_string(body.path()).expect("the body"), head))
}

#[test]
fn curl_decodes_what_is_compressed() {
    let target = Target::new(serve);
    let gateway = forwarding(&target, "{compress: {}}");
    let wanted = document();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/whole", "/parts/100000", "/parts/700"] {
            for coding in ["gzip", "br", "zstd"] {
                let Some((body, head)) = curl(&gateway, version, path, coding) else { return };
                assert!(body == wanted, "{version} {path} {coding}");
                assert!(
                    head.contains(&format!("content-encoding: {coding}\r\n"))
                        && head.contains("vary: accept-encoding\r\n"),
                    "{head}"
                );
                assert!(!head.contains("content-length"), "{head}");
            }
            let Some((body, head)) = curl(&gateway, version, path, "identity") else { return };
            assert!(
                body == wanted && !head.contains("content-encoding") && head.contains("vary: accept-encoding\r\n"),
                "{head}"
            );
        }
    }
}

#[test]
fn edits_are_chained_and_a_coding_of_the_target_is_decoded_first() {
    let target = Target::new(serve);
    let gateway = forwarding(
        &target,
        "{compress: {}}, {rename_fields: {response: {'**.name': first}}}, \
         {mask_fields: {response: [{field: items.card, keep_last: 4}]}}, {strip_fields: {response: ['**.internal']}}",
    );
    let wanted = edited();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        for path in ["/whole", "/parts/700", "/parts/33", "/encoded/gzip", "/encoded/br", "/encoded/zstd"] {
            for coding in ["gzip", "br", "zstd", "identity"] {
                let Some((body, head)) = curl(&gateway, version, path, coding) else { return };
                assert!(body == wanted, "{version} {path} {coding}: {}", &body[..body.len().min(200)]);
                assert_eq!(head.contains("content-encoding:"), coding != "identity", "{head}");
                assert!(!head.contains("etag") || head.contains("etag: w/\"v1\"\r\n"), "{head}");
            }
        }
    }
}

#[test]
fn heads_and_confirmations_are_framed_rightly() {
    let target = Target::new(|stream, seen| match seen.headers.iter().any(|(name, _)| name == "if-none-match") {
        true => stream.write_all(b"HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n"),
        false if seen.method == "HEAD" => {
            let length = document().len();
            stream.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: text/css\r\netag: \"v1\"\r\ncontent-length: {length}\r\n\r\n"
                )
                .as_bytes(),
            )
        }
        false => answer(stream, 200, &[("content-type", "text/css"), ("etag", "\"v1\"")], document().as_bytes()),
    });
    let gateway = forwarding(&target, "{compress: {}}");
    let mut client = Connection::open(gateway.address());
    let names = ["content-encoding", "vary", "etag", "content-length", "content-type"];
    let got = client.ask(head("GET", "/", &[("accept-encoding", "br")]));
    let wanted = [Some("br"), Some("accept-encoding"), Some("W/\"v1\""), None, Some("text/css")];
    assert_eq!(names.map(|name| got.header(name)), wanted);
    assert_eq!(got.header("transfer-encoding"), Some("chunked"));
    // One connection for all: what is not framed rightly breaks the next.
    let described = client.ask(head("HEAD", "/", &[("accept-encoding", "br")]));
    assert_eq!(names.map(|name| described.header(name)), wanted);
    let confirmed = client.ask(head("GET", "/", &[("accept-encoding", "br"), ("if-none-match", "W/\"v1\"")]));
    assert_eq!(
        (confirmed.status, confirmed.header("etag"), confirmed.header("vary")),
        (304, Some("W/\"v1\""), Some("accept-encoding"))
    );
    assert_eq!(client.ask(head("GET", "/", &[("accept-encoding", "br")])).body, got.body);
    let old = Connection::open(gateway.address()).ask("GET / HTTP/1.0\r\naccept-encoding: gzip\r\n\r\n");
    assert_eq!((old.header("content-encoding"), old.header("transfer-encoding")), (Some("gzip"), None));
    assert!(decoded("gzip", &old.body) == document().as_bytes());
}

fn decoded(coding: &str, body: &[u8]) -> Vec<u8> {
    let (mut decoder, mut out) = (Decoder::of(coding).expect("a coding"), Vec::new());
    decoder.push(body, true, &mut out).expect("what was encoded");
    out
}

/// A target that sends events as it is given them, and ends with an empty one.
fn events() -> (Target, Sender<String>) {
    let (send, next): (_, Receiver<String>) = channel();
    let next = Mutex::new(next);
    let target = Target::new(move |stream, _| {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
        let next = next.lock().expect("the gate");
        while let Ok(event) = next.recv_timeout(Duration::from_secs(20)) {
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
            if event.is_empty() {
                break;
            }
        }
        Ok(())
    });
    (target, send)
}

/// Takes whole chunks out of what has come.
fn chunks(raw: &mut Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = raw.windows(2).position(|two| two == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..end]).expect("a size"), 16).expect("a size");
        if raw.len() < end + size + 4 {
            break;
        }
        out.extend_from_slice(&raw[end + 2..end + 2 + size]);
        raw.drain(..end + size + 4);
    }
    out
}

#[test]
fn an_event_can_be_decoded_before_the_next_is_sent() {
    for coding in ["gzip", "br", "zstd"] {
        let (target, send) = events();
        let gateway = forwarding(&target, "{compress: {}}");
        let mut client = Connection::open(gateway.address());
        client.send(head("GET", "/", &[("accept-encoding", coding)]));
        let (mut raw, mut decoder, mut begun) = (Vec::new(), Decoder::of(coding).expect("a coding"), false);
        for number in 0..8 {
            let event = format!("data: {{\"number\":{number}}}\n\n").repeat(1 + number * 100);
            send.send(event.clone()).expect("sent");
            let mut read = Vec::new();
            while read.len() < event.len() {
                raw.extend(client.some().expect("an event"));
                if !begun {
                    let Some(end) = raw.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
                    let head = String::from_utf8_lossy(&raw[..end]).to_lowercase();
                    assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
                    raw.drain(..end + 4);
                    begun = true;
                }
                decoder.push(&chunks(&mut raw), false, &mut read).expect("what was encoded");
            }
            assert!(read == event.as_bytes(), "{coding}, event {number}");
        }
        send.send(String::new()).expect("sent");
    }
}

#[test]
fn beyond_their_memory_responses_pass_as_they_are() {
    let (target, send) = events();
    let text = Target::fixed(200, &[("content-type", "text/plain")], &[b'.'; 4000]);
    let gateway = Gateway::start(&format!(
        "upstreams: {{events: {{targets: [\"{}\"]}}, text: {{targets: [\"{}\"]}}}}\nroutes:
  - name: events
    match: {{path: /events}}
    filters: [{{compress: {{codings: [gzip], memory: 400KiB}}}}]
    action: {{forward: events}}
  - {{name: text, filters: [{{compress: {{codings: [gzip], memory: 400KiB}}}}], action: {{forward: text}}}}",
        target.address, text.address
    ));
    let coding = |gateway: &Gateway| {
        gateway.request("GET", "/", &[("accept-encoding", "gzip")]).header("content-encoding").map(str::to_owned)
    };
    assert_eq!(coding(&gateway).as_deref(), Some("gzip"));
    let mut client = Connection::open(gateway.address());
    client.send(head("GET", "/events", &[("accept-encoding", "gzip")]));
    send.send("data: one\n\n".to_owned()).expect("sent");
    client.some().expect("an event");
    assert_eq!(coding(&gateway), None);
    send.send(String::new()).expect("sent");
    super::harness::eventually("the memory is given back", || coding(&gateway).as_deref() == Some("gzip"));
}
