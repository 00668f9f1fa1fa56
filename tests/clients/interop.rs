//! gRPC's interoperability tests over gRPC-Web and Connect, with their npm clients before a server on grpc-js.

use serde_json::{Value, json};

use super::browser::{serve, shown};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::grpc::GrpcTarget;
use super::programs::{Between, Server, run};

const SPECIAL: &str = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
const SIZES: [u32; 4] = [31415, 9, 2653, 58979];

fn gateway(target: &Server) -> Gateway {
    let translate = ", translate: [{grpc_web_to_grpc: {}}, {connect_to_grpc: {get: \
                     [grpc.testing.TestService/CacheableUnaryCall]}}]";
    Between { upstream: ", protocol: http2", forward: translate, ..Between::default() }.start(target.address)
}

#[track_caller]
fn case<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().find(|line| line["case"] == name).unwrap_or_else(|| panic!("no case {name}: {lines:?}"))
}

/// Waits until the target has that many calls that were cancelled.
#[track_caller]
fn await_cancelled(target: &Server, count: usize) {
    let cancelled = || target.lines().iter().filter(|line| line["cancelled"] == true).count();
    eventually("the calls end at the target", || cancelled() >= count);
}

#[test]
fn grpc_web_of_npm() {
    let target = Server::start("interop_server.js", &[]);
    let gateway = gateway(&target);
    for (cancelled, form) in [(1, "binary"), (2, "text")] {
        let lines = run("interop_web.js", &[&gateway.address().to_string(), form]);
        let case = |name| case(&lines, name);
        assert_eq!(
            (&case("empty_unary")["code"], &case("large_unary")["size"]),
            (&"OK".into(), &314159.into()),
            "{form}"
        );
        let streamed = case("server_streaming");
        assert_eq!((&streamed["code"], &streamed["sizes"]), (&"OK".into(), &json!(SIZES)), "{form}: {streamed}");
        assert_eq!(case("empty_stream"), &json!({"case": "empty_stream", "sizes": [], "code": "OK"}), "{form}");
        for (name, code, message) in [
            ("status_code_and_message", "UNKNOWN", "test status message"),
            ("status_of_a_stream", "UNKNOWN", "test status message"),
            ("special_status_message", "UNKNOWN", SPECIAL),
        ] {
            let line = case(name);
            assert_eq!((&line["code"], &line["message"]), (&code.into(), &message.into()), "{form}: {line}");
            assert!(line["errors"].is_null() || line["errors"] == 1, "{form}: {line}");
        }
        let custom = case("custom_metadata");
        assert_eq!(custom["metadata"]["x-grpc-test-echo-initial"], "test_initial_metadata_value", "{custom}");
        assert_eq!(custom["trailers"]["x-grpc-test-echo-trailing-bin"], "q6ur", "{form}: {custom}");
        for name in ["unimplemented_method", "unimplemented_service"] {
            assert_eq!((&case(name)["code"], &case(name)["errors"]), (&"UNIMPLEMENTED".into(), &1.into()), "{form}");
        }
        assert_eq!(case("timeout_on_sleeping_server")["code"], "DEADLINE_EXCEEDED", "{form}");
        await_cancelled(&target, cancelled);
    }
}

#[test]
fn connect_of_npm() {
    let target = Server::start("interop_server.js", &[]);
    let gateway = gateway(&target);
    for (round, kind) in [(1, "node1"), (2, "node2"), (3, "web"), (4, "grpc-web")] {
        let lines = run("interop_connect.mjs", &[&gateway.address().to_string(), kind, "proto"]);
        let case = |name| case(&lines, name);
        assert_eq!(
            (&case("empty_unary")["code"], &case("large_unary")["size"]),
            (&"OK".into(), &314159.into()),
            "{kind}"
        );
        let streamed = case("server_streaming");
        assert_eq!((&streamed["code"], &streamed["sizes"]), (&"OK".into(), &json!(SIZES)), "{kind}: {streamed}");
        let empty = case("empty_stream");
        assert_eq!((&empty["code"], &empty["sizes"]), (&"OK".into(), &json!([])), "{kind}: {empty}");
        if kind.starts_with("node") {
            assert_eq!(case("client_streaming")["size"], 74922, "{kind}: {}", case("client_streaming"));
        }
        for (name, message) in [
            ("status_code_and_message", "test status message"),
            ("status_of_a_stream", "test status message"),
            ("special_status_message", SPECIAL),
        ] {
            let line = case(name);
            assert_eq!((&line["code"], &line["message"]), (&"Unknown".into(), &message.into()), "{kind}: {line}");
        }
        let custom = case("custom_metadata");
        for name in ["initial", "streamInitial"] {
            assert_eq!(custom[name], "test_initial_metadata_value", "{kind}: {custom}");
        }
        assert_eq!(
            (&custom["trailing"], &custom["streamTrailing"]),
            (&"q6ur".into(), &"q6ur".into()),
            "{kind}: {custom}"
        );
        assert_eq!(case("cacheable_unary")["size"], 3, "{kind}: {}", case("cacheable_unary"));
        for name in ["unimplemented_method", "unimplemented_service"] {
            assert_eq!(case(name)["code"], "Unimplemented", "{kind}");
        }
        assert_eq!(case("timeout_on_sleeping_server")["code"], "DeadlineExceeded", "{kind}");
        assert_eq!(case("cancel_after_first_response")["code"], "Canceled", "{kind}");
        await_cancelled(&target, round * 2);
    }
}

/// A page with grpc-web of npm, which calls the address in its query, and shows how each call ended.
const PAGE: &str = r#"<!doctype html><pre id="out">none</pre><script>
(async () => {
  const base = "http://" + location.search.slice(1) + "/test.Service/";
  const text = (bytes) => new TextDecoder().decode(bytes);
  const client = new web.GrpcWebClientBase({format: "text"});
  const method = (name, kind) => new web.MethodDescriptor(name, kind, Object, Object,
    (value) => new TextEncoder().encode(value), text);
  const unary = (name, metadata) => new Promise((done) => client.rpcCall(base + name, "hi", metadata,
    method(name, "unary"), (error, reply) => done(error ? error.code + " " + error.message : reply)));
  const lines = [await unary("Echo", {}), await unary("Fail", {"x-mine": "1"}), await unary("Keyed/Echo", {})];
  lines.push(await new Promise((done) => {
    const call = client.serverStreaming(base + "Waits", "", {}, method("Waits", "server_streaming"));
    call.on("data", (reply) => { call.cancel(); done("first " + reply); });
    call.on("error", (error) => done("error " + error.code));
  }));
  document.getElementById("out").textContent = lines.join(", ");
})();
</script>"#;

#[test]
fn grpc_web_in_a_browser() {
    let library = std::fs::read_to_string(format!(
        "{}/target/clients/node/node_modules/grpc-web/index.js",
        env!("CARGO_MANIFEST_DIR")
    ));
    let library = library.expect("grpc-web: run `.ci/setup clients`");
    let page = PAGE.replacen("<script>", &format!("<script>(function(exports){{{library}}})(window.web={{}});"), 1);
    let target = GrpcTarget::start();
    let to = ", translate: [{grpc_web_to_grpc: {}}]";
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"], protocol: http2}}}}
filter_sets: {{pages: [{{cors: {{origins: ['*']}}}}]}}
consumers: {{a: {{credentials: [{{api_key: {{value: key-of-a}}}}]}}}}
routes:
  - {{name: keyed, match: {{path: /test.Service/Keyed/*}}, filters: [{{set: pages}}, {{api_key: {{}}}}], action: {{forward: \
         {{upstream: one{to}}}}}}}
  - {{name: all, match: {{path: /test.Service/*}}, filters: [{{set: pages}}], action: {{forward: {{upstream: one{to}}}}}}}
listeners: [{{name: main, address: 127.0.0.1:0}}]
",
        target.address
    ));
    let shown = shown(&serve(&page), &gateway);
    let keyed = "16 An API key is required: send a valid key in the header x-api-key";
    assert_eq!(shown, format!("hi, 9 no ☺, {keyed}, first before"));
    eventually("the call is cancelled", || target.cancelled.load(std::sync::atomic::Ordering::Acquire) == 1);
}
