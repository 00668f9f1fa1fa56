//! Tests of the filter alone: heads, bodies in parts, and the choice of the coding.

use super::super::test_kit::{Changed, Kit, compile, request, response};
use super::*;
use crate::rules::payload::Decoder;

const ACCEPTS: &str = "gzip, deflate, br, zstd";

fn kit(settings: &str) -> Kit {
    compile(&format!("[{{compress: {settings}}}]")).expect("filters")
}

fn get(
    kit: &mut Kit,
    method: &str,
    accepted: Option<&str>,
    status: u16,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Changed {
    let accepted: Vec<_> = accepted.map(|value| ("accept-encoding", value)).into_iter().collect();
    kit.on_request(request(&format!("{method} /"), &accepted)).expect("let in");
    kit.on_response(response(status, headers), body, 100).expect("a response")
}

fn decoded(changed: &Changed) -> Vec<u8> {
    let (mut decoder, mut out) = (Decoder::of(changed.header("content-encoding")).expect("a coding"), Vec::new());
    decoder.push(&changed.body, true, &mut out).expect("what was encoded");
    out
}

#[test]
fn the_client_chooses_by_weight_and_the_order_among_equals() {
    let body = b"{\"a\":1}".repeat(400);
    let headers = [
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", "2800"),
        ("etag", "\"1\""),
        ("accept-ranges", "bytes"),
    ];
    for (settings, accepted, wanted) in [
        ("{}", Some(ACCEPTS), "zstd"),
        ("{codings: [br, gzip]}", Some(ACCEPTS), "br"),
        ("{codings: [gzip, br]}", Some(ACCEPTS), "gzip"),
        ("{level: best}", Some("gzip;q=0.5, br;q=0.7"), "br"),
        ("{level: fast}", Some("*"), "zstd"),
        ("{}", Some("gzip;q=0"), "-"),
        ("{}", Some("identity"), "-"),
        ("{codings: [br]}", Some("gzip"), "-"),
        ("{}", None, "-"),
    ] {
        let changed = get(&mut kit(settings), "GET", accepted, 200, &headers, &body);
        assert_eq!(changed.header("content-encoding"), wanted, "{settings} {accepted:?}");
        assert_eq!(changed.header("vary"), "accept-encoding");
        if wanted == "-" {
            assert_eq!(
                [changed.header("etag"), changed.header("content-length"), changed.header("accept-ranges")],
                ["\"1\"", "2800", "bytes"]
            );
            assert!(changed.body == body);
        } else {
            assert_eq!(
                [changed.header("etag"), changed.header("content-length"), changed.header("accept-ranges")],
                ["W/\"1\"", "-", "-"]
            );
            assert!(decoded(&changed) == body && changed.body.len() < 200, "{} bytes", changed.body.len());
        }
    }
}

#[test]
fn what_stays_as_it_is() {
    let plain = [("content-type", "text/plain"), ("content-length", "4000")];
    let with = |name, value| [plain.as_slice(), &[(name, value)]].concat();
    let body = [b'.'; 4000];
    for (status, headers) in [
        (200, with("content-range", "bytes 0-3999/8000")),
        (200, with("content-encoding", "gzip")),
        (200, with("content-encoding", "identity")),
        (200, with("cache-control", "public, No-Transform")),
        (200, vec![("content-type", "image/png")]),
        (200, vec![("content-type", "application/grpc+proto")]),
        (200, vec![("content-type", "text/plain"), ("content-length", "1023")]),
        (200, vec![("content-length", "4000")]),
        (204, vec![("content-type", "text/plain")]),
    ] {
        let changed = get(&mut kit("{types: ['*+proto', text/*]}"), "GET", Some(ACCEPTS), status, &headers, &body);
        assert_eq!(changed.header("vary"), "-", "{status} {headers:?}");
        assert!(changed.body == body, "{status} {headers:?}");
        assert!(changed.header("content-encoding") != "zstd");
    }
    let mut kit = kit("{}");
    kit.on_request(request("GET /", &[("accept-encoding", ACCEPTS), ("cache-control", "no-transform")]))
        .expect("let in");
    assert_eq!(kit.on_response(response(200, &plain), &body, 100).expect("a response").header("content-encoding"), "-");
    let error = get(&mut kit, "GET", Some(ACCEPTS), 500, &plain, &body);
    assert_eq!(error.header("content-encoding"), "zstd", "errors are texts as well");
}

/// A part has the `Vary` that the whole would have (RFC 9110, section 15.3.7).
#[test]
fn a_part_varies_as_the_whole_does() {
    for (range, kind, vary) in [
        ("bytes 0-3/4000", "text/css", "accept-encoding"),
        ("bytes 0-3/*", "text/css", "accept-encoding"),
        ("bytes 0-3/51", "text/css", "-"),
        ("bytes 0-3/4000", "image/png", "-"),
    ] {
        let headers = [("content-type", kind), ("content-length", "4"), ("content-range", range), ("etag", "\"1\"")];
        let changed = get(&mut kit("{}"), "GET", Some(ACCEPTS), 206, &headers, b"body");
        let found = [changed.header("vary"), changed.header("content-encoding"), changed.header("etag")];
        assert_eq!(found, [vary, "-", "\"1\""], "{range} {kind}");
        assert!(changed.body == b"body");
    }
}

#[test]
fn types_by_pattern() {
    for (types, kind, wanted) in [
        ("[text/*]", "TEXT/HTML;charset=latin1", true),
        ("[text/*]", "texts/html", false),
        ("['*+json']", "application/problem+JSON", true),
        ("['*+json']", "application/json", false),
        ("[application/json]", "application/json", true),
        ("[application/json]", "application/jsonl", false),
        ("['*']", "image/png", true),
    ] {
        let mut kit = kit(&format!("{{types: {types}, min_size: 0B}}"));
        let changed = get(&mut kit, "GET", Some("gzip"), 200, &[("content-type", kind)], b"text");
        assert_eq!(changed.header("content-encoding") == "gzip", wanted, "{types} {kind}");
    }
    for wrong in ["text", "*/*", "*json", "te xt/*", "text/html; charset=utf-8", ""] {
        assert!(
            compile(&format!("[{{compress: {{types: ['{wrong}']}}}}]")).err().expect(wrong).contains("a media type")
        );
    }
}

#[test]
fn heads_without_bodies() {
    let headers = [("content-type", "text/css"), ("content-length", "4000"), ("etag", "\"1\""), ("vary", "Origin")];
    let head = get(&mut kit("{}"), "HEAD", Some("br"), 200, &headers, b"");
    assert_eq!(
        [head.header("content-encoding"), head.header("content-length"), head.header("etag")],
        ["br", "-", "W/\"1\""]
    );
    let vary: Vec<_> = head.head.headers.get_all("vary").iter().collect();
    assert_eq!(vary, ["Origin", "accept-encoding"]);
    assert!(head.body.is_empty());
    for (accepted, etag) in [("br", "W/\"1\""), ("identity", "\"1\"")] {
        let confirmed = get(&mut kit("{}"), "GET", Some(accepted), 304, &[("etag", "\"1\"")], b"");
        assert_eq!([confirmed.header("vary"), confirmed.header("etag")], ["accept-encoding", etag]);
        assert_eq!([confirmed.header("content-encoding"), confirmed.header("transfer-encoding")], ["-", "-"]);
    }
    let image = get(&mut kit("{}"), "GET", Some("br"), 304, &[("etag", "\"1\""), ("content-type", "image/png")], b"");
    assert_eq!([image.header("vary"), image.header("etag")], ["-", "\"1\""]);
    let known = get(
        &mut kit("{}"),
        "HEAD",
        Some("br"),
        200,
        &[("content-type", "text/css"), ("vary", "Accept-Encoding, a")],
        b"",
    );
    assert_eq!(known.head.headers.get_all("vary").iter().count(), 1);
}

#[test]
fn memory_is_bounded() {
    static IN_USE: AtomicU64 = AtomicU64::new(0);
    let first = Reserved::take(&IN_USE, 350, 400).expect("the first");
    assert!(Reserved::take(&IN_USE, 350, 400).is_none());
    drop(first);
    assert!(Reserved::take(&IN_USE, 350, 400).is_some(), "given back");
    assert_eq!(IN_USE.load(Ordering::Relaxed), 0);
    let error = compile("[{compress: {level: best, memory: 4MiB}}]").err().expect("too little");
    assert!(error.contains("memory") && error.contains("br"), "{error}");
    assert!(compile("[{compress: {codings: [gzip, gzip]}}]").is_err());
}

#[test]
fn it_comes_after_all_edits_whatever_the_order() {
    for yaml in
        ["[{compress: {}}, {strip_fields: {response: [b]}}]", "[{strip_fields: {response: [b]}}, {compress: {}}]"]
    {
        let mut kit = compile(yaml).expect("filters");
        kit.on_request(request("GET /", &[("accept-encoding", "br")])).expect("let in");
        assert!(kit.sent().headers.get("accept-encoding").is_none());
        let changed = kit
            .on_response(response(200, &[("content-type", "application/json")]), b"{\"a\":1,\"b\":2}", 3)
            .expect("JSON");
        assert_eq!(decoded(&changed), b"{\"a\":1}");
    }
}
