//! nginx with conf/examples/from-nginx/nginx.conf, and the gateway with its counterpart: the same requests get the same
//! responses, and the targets see the same requests. What differs is listed with the reason.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::client::{Answer, Connection, get};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::{Seen, Target, answer, refused};
use super::nginx_cases::{CASES, Case, DIFFERENT_ANYWHERE, DIFFERENT_ON_ERRORS, OF_THE_GATEWAY_ALONE};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/examples/from-nginx");

/// A running nginx; it is killed with its handle.
struct Nginx {
    address: SocketAddr,
    child: Child,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns a free port of an address that nothing but this process uses: nginx cannot name the port that it was given.
fn free() -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let listener = TcpListener::bind((Ipv4Addr::new(127, 99, high, low), 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

impl Nginx {
    /// Starts it in a folder that has the example, with its ports replaced.
    #[track_caller]
    fn start(folder: &Path, targets: &[(&str, SocketAddr)]) -> Self {
        let address = free();
        let text = std::fs::read_to_string(folder.join("nginx.conf")).expect("the example");
        let text = replaced(&text, targets).replace("127.0.0.1:8080", &address.to_string()).replace("10r/m", "1r/m");
        // What it stores for a while is stored in the folder as well.
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = temporary.iter().map(|kind| format!("{kind}_temp_path {kind}_temp;\n")).collect();
        std::fs::write(folder.join("nginx.conf"), text.replacen("http {", &format!("http {{\n{temporary}"), 1))
            .expect("written");
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let log = || std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
        let child = Command::new("nginx")
            .args(["-c", "nginx.conf", "-e", "error.log", "-g", "daemon off; master_process off; error_log error.log;"])
            .arg("-p")
            .arg(folder)
            .env("PATH", path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("nginx cannot be run ({e}): run `.ci/setup clients`"));
        let mut nginx = Self { address, child };
        eventually("nginx accepts", || {
            let ended = nginx.child.try_wait().expect("a status").is_some();
            assert!(!ended, "nginx does not start: {}", log());
            TcpStream::connect(address).is_ok()
        });
        nginx
    }
}

fn replaced(text: &str, addresses: &[(&str, SocketAddr)]) -> String {
    addresses.iter().fold(text.to_owned(), |text, (written, actual)| text.replace(written, &actual.to_string()))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("the folder") {
        let path = entry.expect("an entry").path();
        let copied: PathBuf = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            std::fs::write(copied, std::fs::read(&path).expect("read")).expect("written");
        }
    }
}

/// The target of both: it responds with what it saw, and has a document, a page for what it lacks, and a WebSocket.
fn target() -> Target {
    Target::new(|stream, seen| {
        let path = seen.target.split('?').next().unwrap_or_default();
        match path {
            "/v1/document" => {
                let text = format!("{{\"words\": \"{}\"}}", "many words ".repeat(500));
                answer(stream, 200, &[("content-type", "application/json"), ("etag", "\"d\"")], text.as_bytes())
            }
            "/v1/missing" => answer(stream, 404, &[("content-type", "text/plain")], b"no such item"),
            "/v1/broken" => answer(stream, 503, &[("content-type", "text/plain")], b"the target is busy"),
            "/v1/cookies" => {
                let headers = [("set-cookie", "a=1"), ("cache-control", "no-store"), ("x-app", "v1")];
                answer(stream, 201, &headers, b"created")
            }
            "/live/socket" => socket(stream),
            _ => answer(stream, 200, &[("content-type", "application/json")], seen_as_json(seen).as_bytes()),
        }
    })
}

fn socket(stream: &mut TcpStream) -> std::io::Result<()> {
    use std::io::Write;
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Accept: x\r\n\r\n",
    )?;
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn seen_as_json(seen: &Seen) -> String {
    let headers: Vec<_> = seen.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    let body = String::from_utf8_lossy(&seen.body);
    serde_json::json!({"method": seen.method, "target": seen.target, "headers": headers, "body": body}).to_string()
}

/// A response, or what the target saw of the request, as named parts.
type Parts = BTreeMap<String, String>;

/// Sends a request; `{etag}` and `{modified}` stand for the validators of the style sheet.
fn send(case: &Case, to: SocketAddr) -> Parts {
    let sheet = get(to, "/assets/site.css");
    let of = |name: &str| sheet.header(name).unwrap_or_default().to_owned();
    let mut request = case.request.replace("{etag}", &of("etag")).replace("{modified}", &of("last-modified"));
    let host = if request.contains("\nHost: ") { "" } else { "\nHost: www.example.com" };
    let (head, body) = request.split_once("\n\n").unwrap_or((&request, ""));
    request = format!("{}\r\n\r\n{body}", format!("{head}{host}").replace('\n', "\r\n"));
    let mut connection = Connection::open(to);
    let response = connection.ask(request);
    let mut parts = parts_of(&response);
    if response.status == 101 {
        connection.send("frame");
        let mut echoed = Vec::new();
        while echoed.len() < 5 {
            echoed.extend(connection.some().expect("the frame"));
        }
        parts.insert("body".into(), String::from_utf8_lossy(&echoed).into_owned());
    }
    parts
}

fn parts_of(response: &Answer) -> Parts {
    let mut parts = Parts::from([("status".to_owned(), response.status.to_string())]);
    for (name, value) in &response.headers {
        let name = name.to_ascii_lowercase();
        let on_errors = if response.status >= 400 { DIFFERENT_ON_ERRORS } else { &[] };
        if !DIFFERENT_ANYWHERE.iter().chain(on_errors).any(|(other, _)| *other == name) {
            let value = comparable(&name, value);
            parts.entry(name).and_modify(|all| *all = format!("{all}, {value}")).or_insert(value);
        }
    }
    let mut body = response.body.clone();
    if response.header("content-encoding") == Some("gzip") && !body.is_empty() {
        body.clear();
        flate2::read::GzDecoder::new(&*response.body).read_to_end(&mut body).expect("gzip");
    }
    let seen = response.json();
    match seen["headers"].as_array() {
        Some(headers) => {
            parts.remove("content-length");
            for part in ["method", "target", "body"] {
                parts.insert(format!("seen {part}"), seen[part].as_str().unwrap_or_default().to_owned());
            }
            for header in headers {
                let name = header[0].as_str().unwrap_or_default();
                if !OF_THE_GATEWAY_ALONE.contains(&name) {
                    parts.insert(format!("seen {name}"), header[1].as_str().unwrap_or_default().to_owned());
                }
            }
        }
        None => {
            let text = String::from_utf8_lossy(&body).into_owned();
            let is_page = response.status >= 400;
            // See `content-length` in `DIFFERENT_ON_ERRORS`.
            parts.insert("body".into(), if is_page { text.trim_end_matches('\n').to_owned() } else { text });
        }
    }
    parts
}

/// Returns a value of a header without what two servers may write in their own ways.
fn comparable(name: &str, value: &str) -> String {
    match name {
        // The tags are opaque (RFC 9110, section 8.8.3): only their strength can be compared.
        "etag" if value.starts_with("W/") => "weak".to_owned(),
        "etag" => "strong".to_owned(),
        // Relative to the request, or absolute to the same server (RFC 9110, section 10.2.2).
        "location" => match value.strip_prefix("http://www.example.com") {
            Some(rest) => rest.find('/').map_or_else(String::new, |at| rest[at..].to_owned()),
            None => value.to_owned(),
        },
        // Case-insensitive (RFC 9110, section 12.5.5 and 8.3.2).
        "vary" | "connection" | "upgrade" => value.to_ascii_lowercase(),
        "content-type" => value.to_ascii_lowercase().replace("; charset=utf-8", ""),
        _ => value.to_owned(),
    }
}

fn differences(nginx: &Parts, gateway: &Parts) -> Vec<String> {
    let names: std::collections::BTreeSet<&String> = nginx.keys().chain(gateway.keys()).collect();
    names.into_iter().filter(|name| nginx.get(*name) != gateway.get(*name)).cloned().collect()
}

#[test]
fn nginx_and_its_counterpart_send_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    copy(Path::new(EXAMPLE), folder.path());
    let site = folder.path().join("site");
    std::fs::write(site.join(".env"), "secret").expect("written");
    std::fs::create_dir(site.join("empty")).expect("made");
    let (_held, gone) = refused();
    let (one, two) = (target(), target());
    let targets = [("127.0.0.1:9001", one.address), ("127.0.0.1:9002", two.address), ("127.0.0.1:9003", gone)];
    let nginx = Nginx::start(folder.path(), &targets);
    let yaml = std::fs::read_to_string(folder.path().join("portcullis.yaml")).expect("the example");
    let yaml = replaced(&yaml, &targets).replace("127.0.0.1:8080", "127.0.0.1:0").replace("10/m", "1/m");
    assert!(yaml.contains("limit: 1/m"), "a slower rate, so that a slow machine exceeds it as well");
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let mut wrong = Vec::new();
    for case in CASES {
        let (theirs, ours) = (send(case, nginx.address), send(case, gateway.address()));
        if case.status != theirs["status"] {
            wrong.push(format!("{}: nginx responds with {}", case.name, theirs["status"]));
        }
        let mut listed: Vec<&str> = case.differ.iter().map(|(part, _)| *part).collect();
        listed.sort_unstable();
        let mut found = differences(&theirs, &ours);
        if let Some((_, reason)) = case.differ.iter().find(|(part, _)| *part == "status") {
            found.retain(|part| part == "status" || part == "location");
            if !reason.starts_with(&format!("{}: ", ours["status"])) {
                wrong.push(format!("{}: the gateway responds with {}", case.name, ours["status"]));
            }
        }
        if listed.contains(&"body") {
            found.retain(|part| part != "content-length");
        }
        if found != listed {
            let of = |parts: &Parts| -> Vec<String> {
                found.iter().map(|part| format!("{part}: {:.200}", parts.get(part).map_or("-", |v| v))).collect()
            };
            wrong.push(format!(
                "{}: listed {listed:?}, found {found:?}\n  nginx   {:?}\n  gateway {:?}",
                case.name,
                of(&theirs),
                of(&ours)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(CASES.len() >= 30);
}
