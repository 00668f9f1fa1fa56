//! Answers of targets that are not as they say, or say it in another way.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::harness::client::{Connection, head};
use super::harness::gateway::Gateway;
use super::harness::target::Target;

/// A gateway that removes `ssn` from what this target answers.
fn stripping(answer: Vec<u8>, retry: &str) -> (Target, Gateway) {
    let target = Target::raw(answer.leak());
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"]{retry}}}}}\nroutes: [{{name: all, filters: [{{strip_fields: {{response: [\"**.ssn\"]}}}}], action: {{forward: pool}}}}]",
        target.address
    ));
    (target, gateway)
}

fn answer(headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn packed(text: &[u8], level: u32) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::new(level));
    gzip.write_all(text).expect("gzip");
    gzip.finish().expect("gzip")
}

/// Everything that comes of one request, to the end of the connection.
fn all_of(gateway: &Gateway) -> String {
    let mut connection = Connection::open(gateway.address());
    connection.send(head("GET", "/", &[("connection", "close")]));
    String::from_utf8_lossy(&connection.rest()).into_owned()
}

const GZIPPED: &str = "content-type: application/json\r\ncontent-encoding: gzip\r\n";

#[test]
fn what_is_packed_is_unpacked_and_stripped() {
    let two = [packed(b"{\"ssn\":1,", 6), packed(b"\"a\":2}", 6)].concat();
    let (_target, gateway) = stripping(answer(GZIPPED, &two), "");
    let text = all_of(&gateway);
    assert!(
        text.starts_with("HTTP/1.1 200") && text.contains("{\"a\":2}") && !text.contains("content-encoding"),
        "{text}"
    );
}

#[test]
fn what_is_packed_and_damaged_is_broken_off() {
    let document: String = (0..20_000).map(|i| format!("{{\"k\":{i},\"ssn\":\"SECRET-{i}\"}}\n")).collect();
    for level in [0, 6] {
        let whole = packed(document.as_bytes(), level);
        let (mut checksum, mut middle) = (whole.clone(), whole.clone());
        let end = whole.len();
        checksum[end - 8] ^= 0xff;
        middle[end / 2..end / 2 + 8].fill(0xff);
        let cut = whole[..end - 4].to_vec();
        for (what, body) in [("checksum", checksum), ("middle", middle), ("cut", cut)] {
            let (_target, gateway) = stripping(answer(GZIPPED, &body), "");
            let text = all_of(&gateway);
            assert!(!text.contains("SECRET"), "{what} at level {level}: a secret came through");
            assert!(!text.ends_with("0\r\n\r\n"), "{what} at level {level}: it looks whole");
            assert_eq!(gateway.access_log(1)[0]["reason"], "response_opaque", "{what} at level {level}");
        }
    }
}

#[test]
fn what_may_be_read_as_json_is_stripped_and_nothing_else_is_touched() {
    let json = "{\"ssn\":1,\"a\":2}";
    for kind in [
        "",
        "content-type: text/plain\r\ncontent-type: application/json\r\n",
        "content-type: text/plain, application/json\r\n",
    ] {
        let (_target, gateway) = stripping(answer(kind, json.as_bytes()), "");
        let text = all_of(&gateway);
        assert!(text.contains("{\"a\":2}") && !text.contains("ssn"), "{kind}: {text}");
    }
    for kind in [
        "text/x-json",
        "application/geo+json-seq; a=b",
        "Application/Problem+JSON",
        "",
        "; application/json",
        "\"application/json\"",
        "application/json charset=utf-8",
        "json",
        "application/ndjson",
        "application/x-jsonlines",
    ] {
        let (_target, gateway) = stripping(answer(&format!("content-type: {kind}\r\n"), json.as_bytes()), "");
        let text = all_of(&gateway);
        assert!(text.starts_with("HTTP/1.1 200") && !text.contains("ssn"), "{kind}: {text}");
    }
    for kind in
        ["application/json; charset=utf-16", "application/json\r\ncontent-type: application/json; charset=utf-7"]
    {
        let (_target, gateway) = stripping(answer(&format!("content-type: {kind}\r\n"), json.as_bytes()), "");
        let text = all_of(&gateway);
        assert!(text.starts_with("HTTP/1.1 502") && text.contains("response_opaque"), "{kind}: {text}");
    }
    let packed = packed(b"{\"ssn\":1}", 6);
    let (_target, gateway) = stripping(answer("content-type: text/plain\r\ncontent-encoding: gzip\r\n", &packed), "");
    let mut connection = Connection::open(gateway.address());
    let came = connection.ask(head("GET", "/", &[]));
    assert_eq!((came.header("content-encoding"), came.body.as_slice()), (Some("gzip"), packed.as_slice()));
}

#[test]
fn an_answer_whose_end_nobody_knows_is_refused() {
    let switched = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\nhello".into();
    let chunked = "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".into();
    let hedged = ", retry: {hedge_after: 1s}";
    let framed = |head: &str| format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n5\r\nhello\r\n0\r\n\r\n").into_bytes();
    for (bytes, retry) in [
        (switched, ""),
        (chunked, ""),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(), hedged),
        (framed("transfer-encoding: deflate, chunked"), ""),
        (framed("transfer-encoding: deflate, chunked"), hedged),
        (framed("transfer-encoding: identity"), ""),
        (framed("transfer-encoding: chunked\r\ntransfer-encoding: gzip"), ""),
        (framed("content-length: 5, 5"), ""),
        (framed("content-length: 5, 5"), hedged),
    ] {
        let (_target, gateway) = stripping(bytes, retry);
        let text = all_of(&gateway);
        assert!(
            text.starts_with("HTTP/1.1 502") && text.contains("target_protocol") && !text.contains("hello"),
            "{text}"
        );
    }
}

#[test]
fn an_answer_goes_out_in_the_version_that_is_spoken_and_204_without_a_length() {
    for retry in ["", ", retry: {hedge_after: 1s}"] {
        let (_target, gateway) =
            stripping("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello".into(), retry);
        let text = all_of(&gateway);
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("hello"), "{text}");
        let (_target, gateway) = stripping("HTTP/1.1 204 No Content\r\ncontent-length: 6\r\n\r\n".into(), retry);
        let text = all_of(&gateway);
        assert!(text.starts_with("HTTP/1.1 204") && !text.to_lowercase().contains("content-length"), "{text}");
    }
}

#[test]
fn a_hedged_request_is_mirrored_once() {
    let (target, copies) = (Target::echo("a"), Target::echo("b"));
    let gateway = Gateway::start(&format!(
        "upstreams: {{pool: {{targets: [\"{}\"], retry: {{hedge_after: 1s}}}}, copies: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: {{upstream: pool, mirror: {{upstream: copies}}}}}}}}]",
        target.address, copies.address
    ));
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 200);
    }
    super::harness::eventually("all copies are there", || copies.count() == 5);
    assert_eq!(target.count(), 5);
}
