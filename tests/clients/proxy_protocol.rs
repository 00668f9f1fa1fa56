//! The PROXY protocol as HAProxy and curl send it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::programs::curl;

/// HAProxy, which is killed with its handle.
struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

fn program() -> &'static str {
    let usual = "/usr/sbin/haproxy";
    if Path::new(usual).exists() { usual } else { "haproxy" }
}

#[test]
fn haproxy_and_curl_name_the_client() {
    let gateway = Gateway::start(
        "routes: [{name: all, action: {respond: {body: \"{client} {proxy.authority|-} {proxy.unique_id|-}\"}}}]\nlisteners: \
         [{name: main, address: 127.0.0.1:0, proxy_protocol: {from: 127.0.0.0/8}, limits: {connections_per_address: 2}}]\n",
    );
    let target = gateway.address();
    let (v1, v2) = (free(), free());
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nlisten v1\n  bind {v1}\n  \
         server gateway {target} send-proxy check inter 20ms check-send-proxy\nlisten v2\n  bind {v2}\n  unique-id-format \
         id-%pid\n  server gateway {target} send-proxy-v2 proxy-v2-options crc32c,unique-id check inter 20ms \
         check-send-proxy\n"
    );
    let file = gateway.folder.path().join("haproxy.cfg");
    std::fs::write(&file, config).expect("written");
    let child = Command::new(program()).arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _haproxy = Haproxy(child.unwrap_or_else(|e| panic!("haproxy cannot be run ({e}): run `.ci/setup clients`")));
    let ask = |address: std::net::SocketAddr, own: &str, more: &[&str]| {
        let url = format!("http://{address}/");
        curl(&[&["--interface", own, url.as_str()], more].concat()).out
    };
    eventually("HAProxy forwards", || ask(v1, "127.0.0.2", &[]).starts_with("127.0.0.2 "));
    assert_eq!(ask(v1, "127.0.0.3", &[]), "127.0.0.3 - -");
    eventually("HAProxy forwards", || ask(v2, "127.0.0.2", &[]).starts_with("127.0.0.2 - id-"));
    // curl says that it is itself the proxy.
    assert_eq!(ask(target, "127.0.0.4", &["--haproxy-protocol"]), "127.0.0.4 - -");
    // The probes of both were no errors, and are counted as nobody's.
    for cause in ["proxy_header", "address"] {
        let series = format!("portcullis_connections_refused_total{{cause=\"{cause}\"}}");
        assert_eq!(gateway.metric(&series), 0.0, "{cause}");
    }
}
