//! gRPC as grpcio and grpc-js speak it: calls of every kind through the gateway, and what these clients read
//! of its rejections.

use std::net::SocketAddr;

use base64::Engine;
use serde_json::Value;

use super::harness::gateway::Gateway;
use super::harness::target::refused;
use super::programs::{Between, Server, field, run, run_one};

const CONSUMERS: &str = "consumers: {a: {credentials: [{api_key: {value: key-of-a}}]}}";
const CALLS: &[&str] = &["unary", "server_stream", "client_stream", "bidi"];

fn grpc_gateway(target: SocketAddr) -> Gateway {
    Between { upstream: ", protocol: http2", ..Between::default() }.start(target)
}

fn by_call<'a>(lines: &'a [Value], call: &str) -> &'a Value {
    lines.iter().find(|l| l["call"] == call).unwrap_or_else(|| panic!("no call {call}: {lines:?}"))
}

/// Asserts what both clients say of a call of each kind with messages of that size.
#[track_caller]
fn assert_code(gateway: &Gateway, size: &str, code: &str) {
    let address = gateway.address().to_string();
    for client in ["grpc_client.py", "grpc_client.js"] {
        let lines = run(client, &["rejections", &address, size]);
        for call in CALLS {
            let line = by_call(&lines, call);
            assert_eq!(line["code"], code, "{client}: {line}");
            assert!(line["details"].as_str().is_some_and(|d| !d.is_empty()), "{client}: {line}");
        }
    }
}

#[test]
fn calls_of_every_kind() {
    let target = Server::start("grpc_server.py", &[]);
    let gateway = grpc_gateway(target.address);
    for client in ["grpc_client.py", "grpc_client.js"] {
        let lines = run(client, &["works", &gateway.address().to_string()]);
        let call = |name: &str| by_call(&lines, name);
        for name in ["unary", "server_stream", "client_stream", "bidi", "large", "empty"] {
            assert_eq!(call(name)["code"], "OK", "{client}: {:?}", call(name));
        }
        assert_eq!(call("unary")["reply"], "reply:hello");
        let trailing = call("unary")["trailing"].to_string();
        assert!(trailing.contains("x-trailer") && trailing.contains("x-bin-bin"), "{client}: {trailing}");
        assert_eq!(call("server_stream")["replies"], serde_json::json!(["part 0", "part 1", "part 2"]));
        assert_eq!(call("client_stream")["reply"], "a|b|c");
        assert_eq!(call("bidi")["replies"], serde_json::json!(["reply:0", "reply:1", "reply:2", "reply:3", "reply:4"]));
        assert_eq!(call("large")["length"], 3_000_006);
        assert_eq!(call("status")["code"], "FAILED_PRECONDITION");
        assert_eq!(call("status")["details"], "as told: ümlaut");
        assert_eq!(call("deadline")["code"], "DEADLINE_EXCEEDED");
        assert_eq!(call("cancelled")["code"], "CANCELLED");
        let waited = target.await_line("the deadline comes with the call", |l| l["length"] == 4);
        assert!(waited["remaining"].as_f64().is_some_and(|s| s <= 0.5), "{waited}");
    }
    // Both of the calls that waited, and both of the streams that were cancelled, ended at the target.
    let ended = |method: &str| target.lines().iter().filter(|l| l["method"] == method && l["ended"] == true).count();
    super::harness::eventually("calls end at the target", || ended("unary") >= 2 && ended("server_stream") >= 6);
}

#[test]
fn no_target_is_unavailable() {
    let (_held, address) = refused();
    assert_code(&grpc_gateway(address), "5", "UNAVAILABLE");
}

#[test]
fn no_key_is_unauthenticated() {
    let target = Server::start("grpc_server.py", &[]);
    let gateway = Between {
        upstream: ", protocol: http2",
        route: ", filters: [{api_key: {}}]",
        rest: CONSUMERS,
        ..Between::default()
    };
    let gateway = gateway.start(target.address);
    assert_code(&gateway, "5", "UNAUTHENTICATED");
    let lines = run("grpc_client.py", &["rejections", &gateway.address().to_string(), "1", "x-api-key: key-of-a"]);
    assert_eq!(by_call(&lines, "unary")["reply"], "reply:m", "{lines:?}");
}

#[test]
fn a_limit_used_up_is_resource_exhausted() {
    let target = Server::start("grpc_server.py", &[]);
    let limit = ", filters: [{rate_limit: {limit: 1/h, by: address}}]";
    let gateway = Between { upstream: ", protocol: http2", route: limit, ..Between::default() }.start(target.address);
    run("h2_client.py", &["get", &gateway.address().to_string(), "/"]);
    assert_code(&gateway, "5", "RESOURCE_EXHAUSTED");
}

#[test]
fn no_route_is_unimplemented() {
    let target = Server::start("grpc_server.py", &[]);
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], protocol: http2}}}}\nroutes: [{{name: all, match: {{path: /other.Service/*}}, action: {{forward: one}}}}]\n\
         listeners: [{{name: main, address: \"127.0.0.1:0\", protocols: [http1, http2]}}]",
        target.address
    ));
    assert_code(&gateway, "5", "UNIMPLEMENTED");
}

#[test]
fn a_body_too_large_is_resource_exhausted() {
    let target = Server::start("grpc_server.py", &[]);
    let gateway =
        Between { upstream: ", protocol: http2", route: ", body: 10KiB", ..Between::default() }.start(target.address);
    assert_code(&gateway, "200000", "RESOURCE_EXHAUSTED");
    let lines = run("grpc_client.py", &["rejections", &gateway.address().to_string(), "1"]);
    assert_eq!(by_call(&lines, "unary")["code"], "OK", "{lines:?}");
}

/// A gateway that rejects, and what its target is.
struct Rejecting {
    gateway: Gateway,
    http: u16,
    grpc: &'static str,
    _target: (Option<Server>, Option<socket2::Socket>),
}

/// Gateways that reject without a look at the body.
fn rejecting() -> Vec<Rejecting> {
    let (held, away) = refused();
    let keyed = Between {
        upstream: ", protocol: http2",
        route: ", filters: [{api_key: {}}]",
        rest: CONSUMERS,
        ..Between::default()
    };
    vec![
        Rejecting { gateway: keyed.start(away), http: 401, grpc: "16", _target: (None, None) },
        Rejecting { gateway: grpc_gateway(away), http: 502, grpc: "14", _target: (None, Some(held)) },
    ]
}

/// A gateway that rejects because of the length of the body.
fn rejecting_bodies() -> Rejecting {
    let target = Server::start("grpc_server.py", &[]);
    let small = Between { upstream: ", protocol: http2", route: ", body: 1KiB", ..Between::default() };
    Rejecting { gateway: small.start(target.address), http: 413, grpc: "8", _target: (Some(target), None) }
}

/// Trailers-Only is one HEADERS frame with END_STREAM (gRPC over HTTP/2, "Responses"), and nothing else.
#[test]
fn trailers_only_is_one_frame() {
    for Rejecting { gateway, grpc: status, _target, .. } in rejecting().into_iter().chain([rejecting_bodies()]) {
        for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            let size = if status == "8" { "200000" } else { "5" };
            let line =
                run_one("h2_client.py", &["grpc", &gateway.address().to_string(), "/test.Echo/Unary", kind, size]);
            let frames: Vec<&str> =
                line["frames"].as_array().expect("frames").iter().filter_map(Value::as_str).collect();
            // What is not read of the request may be stopped behind the response (RFC 9113 §8.1).
            let right = [&["HEADERS+END_STREAM"][..], &["HEADERS+END_STREAM", "RST_STREAM(0)"][..]].contains(&&*frames);
            assert!(right, "{status}: {line}");
            assert_eq!((field(&line, "grpc-status"), &line["status"]), (vec![status], &200.into()), "{line}");
            assert_eq!(field(&line, "content-type"), ["application/grpc"], "{line}");
        }
    }
}

/// gRPC-Web clients read the status from the body: a frame of the type 0x80, in base64 for the text form.
#[test]
fn grpc_web_has_its_own_framing() {
    for Rejecting { gateway, grpc: status, _target, .. } in rejecting() {
        let address = gateway.address().to_string();
        for kind in [
            "application/grpc-web",
            "application/grpc-web+proto",
            "application/grpc-web-text",
            "application/grpc-web-text+proto",
        ] {
            let line = run_one("h2_client.py", &["grpc", &address, "/test.Echo/Unary", kind, "5"]);
            assert_web(&line, kind, status);
        }
        // Over HTTP/1.1, as browsers behind older proxies do.
        let line = run_one(
            "httpx_client.py",
            &["call_web", "http1", &address, "/test.Echo/Unary", "application/grpc-web+proto"],
        );
        assert_web(&line, "application/grpc-web+proto", status);
    }
}

#[track_caller]
fn assert_web(line: &Value, kind: &str, status: &str) {
    assert_eq!(line["status"], 200, "{kind}: {line}");
    let content_type = field(line, "content-type");
    let text = kind.contains("-text");
    let family = if text { "application/grpc-web-text" } else { "application/grpc-web" };
    assert!(content_type.len() == 1 && content_type[0].starts_with(family), "{kind}: {line}");
    // Each character is a byte.
    let body: Vec<u8> =
        line["body"].as_str().expect("a body").chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect();
    let body = if text { base64::engine::general_purpose::STANDARD.decode(body).expect("base64") } else { body };
    assert!(body.len() > 5 && body[0] == 0x80, "{kind}: {line}");
    let length = u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize;
    assert_eq!(length, body.len() - 5, "{kind}: {line}");
    let trailers = String::from_utf8(body[5..].to_vec()).expect("text");
    assert!(
        trailers.to_ascii_lowercase().replace(' ', "").contains(&format!("grpc-status:{status}\r\n")),
        "{kind}: {trailers:?}"
    );
}

#[test]
fn what_only_begins_like_grpc_is_http() {
    for Rejecting { gateway, http, _target, .. } in rejecting() {
        for kind in ["application/grpcfoo", "application/grpc.example", "application/json"] {
            let line =
                run_one("h2_client.py", &["grpc", &gateway.address().to_string(), "/test.Echo/Unary", kind, "5"]);
            assert_eq!(
                (&line["status"], field(&line, "content-type")),
                (&http.into(), vec!["application/problem+json"]),
                "{kind}: {line}"
            );
            assert_eq!(field(&line, "grpc-status"), Vec::<&str>::new(), "{kind}: {line}");
            assert!(line["ended"] == true && line["reset"].is_null(), "{kind}: {line}");
        }
    }
}
