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

/// nginx, which is killed with its handle.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts nginx, which responds with the client of a PROXY header.
fn nginx(folder: &Path, address: std::net::SocketAddr) -> Nginx {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String = temporary.iter().map(|kind| format!("{kind}_temp_path {kind}_temp;\n")).collect();
    let config = format!(
        "events {{}}\nhttp {{\n{temporary}access_log off;\nserver {{\nlisten {address} proxy_protocol;\nlocation / {{\n\
         default_type text/plain;\nreturn 200 \"$proxy_protocol_addr $proxy_protocol_server_port\";\n}}\n}}\n}}\n"
    );
    std::fs::write(folder.join("nginx.conf"), config).expect("written");
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    let settings = "daemon off; master_process off; error_log error.log; pid nginx.pid;";
    let child = Command::new("nginx")
        .args(["-c", "nginx.conf", "-e", "error.log", "-g", settings, "-p"])
        .arg(folder)
        .env("PATH", path)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Nginx(child.unwrap_or_else(|e| panic!("nginx cannot be run ({e}): run `.ci/setup clients`")))
}

#[test]
fn haproxy_and_nginx_are_told_the_client() {
    let folder = tempfile::tempdir().expect("a folder");
    let (haproxy, nginx_address) = (free(), free());
    let config = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nfrontend f\n  bind \
         {haproxy} accept-proxy\n  http-request return status 200 content-type text/plain lf-string \"%ci %[dst_port] \
         %[fc_pp_authority] %[fc_pp_unique_id]\"\n"
    );
    let file = folder.path().join("haproxy.cfg");
    std::fs::write(&file, config).expect("written");
    let child = Command::new(program()).arg("-f").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let _haproxy = Haproxy(child.unwrap_or_else(|e| panic!("haproxy cannot be run ({e}): run `.ci/setup clients`")));
    let _nginx = nginx(folder.path(), nginx_address);
    let v2 = "{version: v2, values: [authority, unique_id, tls, checksum]}";
    let upstream = |name: &str, target: std::net::SocketAddr, header: &str| {
        format!(
            "  {name}: {{targets: [\"{target}\"], proxy_protocol: {header}, health: {{active: {{path: /, interval: 50ms}}}}}}\n"
        )
    };
    let upstreams = [
        upstream("haproxy1", haproxy, "v1"),
        upstream("haproxy2", haproxy, v2),
        upstream("nginx1", nginx_address, "v1"),
        upstream("nginx2", nginx_address, v2),
    ];
    let names = ["haproxy1", "haproxy2", "nginx1", "nginx2"];
    let routes: String = names
        .iter()
        .map(|name| format!("  - {{name: {name}, match: {{path: /{name}}}, action: {{forward: {name}}}}}\n"))
        .collect();
    let gateway = Gateway::start(&format!(
        "listeners:\n  - {{name: main, address: 127.0.0.1:0}}\n  - {{name: stream, address: 127.0.0.1:0, kind: \
         tcp}}\nupstreams:\n{}routes:\n{routes}streams: [{{name: all, action: {{forward: haproxy2}}}}]\n",
        upstreams.concat()
    ));
    let (http, stream) = (gateway.listeners[0].1, gateway.listeners[1].1);
    let ask = |address: std::net::SocketAddr, path: &str| {
        let url = format!("http://{address}/{path}");
        curl(&["--interface", "127.0.0.5", "--header", "host: a.test", &url]).out
    };
    for name in names {
        let healthy = format!("127.0.0.5 {}", http.port());
        eventually(name, || ask(http, name).starts_with(&healthy));
    }
    let of_http = ask(http, "haproxy2");
    let mut parts = of_http.split(' ').skip(2);
    assert_eq!(parts.next(), Some("a.test"), "{of_http}");
    assert!(parts.next().is_some_and(|id| id.len() == 36), "{of_http}");
    assert!(ask(stream, "").starts_with(&format!("127.0.0.5 {}", stream.port())));
    // The probes were neither errors nor requests of clients.
    for name in names {
        let series = format!("portcullis_upstream_targets_eligible{{upstream=\"{name}\"}}");
        assert_eq!(gateway.metric(&series), 1.0, "{name}");
    }
}
