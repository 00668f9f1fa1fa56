//! WebSockets of other people's clients and servers: the package websockets of Python, and Chromium over HTTP/2.

use std::process::Command;

use serde_json::json;

use super::harness::gateway::Gateway;
use super::harness::target::{Target, answer};
use super::programs::{Server, run};

fn gateway(target: std::net::SocketAddr, forward: &str) -> Gateway {
    Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{target}\"]}}}}
routes: [{{name: all, action: {{forward: {{upstream: one, {forward}}}}}}}]
listeners: [{{name: main, address: 127.0.0.1:0}}]"
    ))
}

#[test]
fn messages_pass_both_ways_up_to_their_limit() {
    let server = Server::start("sockets.py", &["server"]);
    let gateway = gateway(server.address, "websocket: {max_message: 100KiB}");
    let lines = run("sockets.py", &["client", &format!("ws://{}/", gateway.address())]);
    assert_eq!(lines[0], json!({"sent": 3, "got": "ONE"}));
    assert_eq!(lines[1]["got"].as_str().map(str::len), Some(20_000));
    assert_eq!(lines[2], json!({"sent": 5, "got": "GRÖSSE"}));
    assert_eq!(lines[3], json!({"closed": 1009}));
}

#[test]
fn messages_of_a_client_become_requests_and_requests_messages_of_a_server() {
    let target = Target::new(|stream, seen| answer(stream, 200, &[("content-type", "text/plain")], &seen.body));
    let front = gateway(target.address, "translate: [{websocket_to_http: {max_message: 100KiB}}]");
    let lines = run("sockets.py", &["client", &format!("ws://{}/", front.address())]);
    assert_eq!(
        (&lines[0]["got"], &lines[2]["got"], &lines[3]["closed"]),
        (&json!("one"), &json!("größe"), &json!(1009))
    );
    let server = Server::start("sockets.py", &["server"]);
    let back = gateway(server.address, "translate: [{http_to_websocket: {}}]");
    let url = format!("http://{}/", back.address());
    let said = Command::new("curl").args(["-s", "--data-binary", "größe", &url]).output().expect("curl");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "GRÖSSE");
}

/// A page that sends a message over a WebSocket, and shows what comes back. The clock of the browser stands still while
/// it fetches.
const PAGE: &str = r#"<!doctype html><pre id="out">none</pre><script>
(async () => {
  let said = null;
  const socket = new WebSocket("wss://" + location.host + "/socket");
  socket.onopen = () => socket.send("hello");
  socket.onmessage = (message) => { said = message.data; };
  socket.onerror = () => { said = "failed"; };
  for (let tries = 0; said === null && tries < 1000; tries++) {
    await fetch("/tick?" + tries);
  }
  document.getElementById("out").textContent = said;
})();
</script>"#;

#[test]
fn a_browser_opens_its_websocket_over_http2() {
    let server = Server::start("sockets.py", &["server"]);
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("page.html"), PAGE).expect("written");
    std::fs::write(folder.path().join("tls.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("tls.key"), made.signing_key.serialize_pem()).expect("written");
    let yaml = format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}
listeners: [{{name: main, address: 127.0.0.1:0, tls: {{certificates: [{{cert: tls.pem, key: tls.key}}]}}}}]
routes:
  - {{name: socket, match: {{path: /socket}}, action: {{forward: one}}}}
  - {{name: tick, match: {{path: /tick}}, action: {{respond: {{body: ok}}}}}}
  - {{name: page, action: {{respond: {{file: page.html}}}}}}",
        server.address
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let profile = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("chromium-headless-shell");
    command.args(["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--virtual-time-budget=20000", "--dump-dom"]);
    command.arg("--ignore-certificate-errors").arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("https://localhost:{}/", gateway.address().port()));
    let shown = command.output().unwrap_or_else(|e| panic!("no browser can be run ({e}): run `.ci/setup clients`"));
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains(">HELLO</pre>"), "{text}");
    super::harness::eventually("the WebSocket is logged", || {
        let log = gateway.access_log(1);
        log.iter().any(|line| line["path"] == "/socket" && line["status"] == 101 && line["protocol"] == "HTTP/2")
    });
}
