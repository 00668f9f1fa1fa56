//! Certificates from pebble, the ACME server that Let's Encrypt has for tests.

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::client;
use super::harness::gateway::Gateway;
use super::programs::finish;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns a program of Debian's package, which is on the path or where `.ci/setup clients` unpacks it.
fn program(name: &str) -> PathBuf {
    let unpacked = Path::new(ROOT).join("target/pebble/usr/bin").join(name);
    if unpacked.exists() { unpacked } else { PathBuf::from(name) }
}

/// A process that is killed with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(command: &mut Command) -> Running {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Running(child.unwrap_or_else(|e| panic!("{command:?} cannot be run ({e}): run `.ci/setup clients`")))
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}

fn await_open(address: SocketAddr) {
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// pebble, and a name server that has 127.0.0.1 for each name.
struct Pebble {
    directory: String,
    _running: [Running; 2],
}

impl Pebble {
    /// Starts it for challenges on those ports; its own certificate is written to `pebble.pem` in the folder.
    fn start(folder: &Path, http: u16, tls: u16, validity: u32) -> Self {
        let (server, management) = (free(), free());
        let dns = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(folder.join("pebble.pem"), made.cert.pem()).expect("written");
        std::fs::write(folder.join("pebble.key"), made.signing_key.serialize_pem()).expect("written");
        let config = serde_json::json!({"pebble": {
            "listenAddress": server.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": folder.join("pebble.pem"),
            "privateKey": folder.join("pebble.key"),
            "httpPort": http,
            "tlsPort": tls,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
            "certificateValidityPeriod": validity,
        }});
        std::fs::write(folder.join("pebble.json"), config.to_string()).expect("written");
        let names = start(Command::new(program("pebble-challtestsrv")).args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-dns01",
            &dns.to_string(),
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
            "-management",
            &free().to_string(),
        ]));
        let pebble = start(
            Command::new(program("pebble"))
                .args(["-strict", "-dnsserver", &dns.to_string(), "-config"])
                .arg(folder.join("pebble.json"))
                .env("PEBBLE_VA_NOSLEEP", "1"),
        );
        await_open(server);
        Self { directory: format!("https://{server}/dir"), _running: [names, pebble] }
    }
}

/// The issuer and the serial number of the certificate that is presented for a name, whatever comes of the handshake.
fn presented(address: SocketAddr, name: &str) -> (String, String) {
    let command = format!(
        "openssl s_client -connect {address} -servername {name} </dev/null 2>/dev/null | openssl x509 -noout -issuer -serial"
    );
    let done = finish(Command::new("bash").args(["-c", &command]), b"");
    let line = |start: &str| done.out.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
    (line("issuer="), line("serial="))
}

fn await_issuer(gateway: &Gateway, name: &str, issuer: &str) -> (String, String) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let found = presented(gateway.address(), name);
        if found.0.contains(issuer) {
            return found;
        }
        assert!(Instant::now() < end, "{name} has {found:?}\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A configuration with a listener of those TLS settings, and one for HTTP.
fn yaml(tls: &str, more: &str) -> String {
    super::harness::gateway::complete(&format!(
        "listeners:\n  - {{name: secure, address: 127.0.0.1:0, tls: {{{tls}}}}}\n  - {{name: plain, address: \
         127.0.0.1:0}}\nroutes:\n  - {{name: redirect, listeners: [plain], action: {{redirect: {{to: \
         \"https://{{host}}{{path}}\"}}}}}}\n  - {{name: all, listeners: [secure], action: {{respond: {{body: \
         secure}}}}}}\n{more}"
    ))
}

fn with_files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let made = rcgen::generate_simple_self_signed(["files.test".to_owned()]).expect("a certificate");
    std::fs::write(folder.path().join("own.pem"), made.cert.pem()).expect("written");
    std::fs::write(folder.path().join("own.key"), made.signing_key.serialize_pem()).expect("written");
    folder
}

const FILES: &str = "certificates: {cert: own.pem, key: own.key}";

fn reconfigure(gateway: &Gateway, yaml: &str) {
    std::fs::write(gateway.folder.path().join("portcullis.yaml"), yaml).expect("written");
    let reloaded = gateway.reload();
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
}

fn acme(pebble: &Pebble, challenge: &str) -> String {
    format!(
        "acme: {{directory: \"{}\", ca: pebble.pem, terms_of_service_agreed: true, contact: admin@a.test, state: state, \
         challenge: {challenge}}}\n",
        pebble.directory
    )
}

#[test]
fn a_certificate_is_obtained_by_a_handshake_and_outlives_the_process() {
    let gateway = Gateway::start_in(with_files(), &yaml(FILES, ""), &[]);
    let ports = [1, 0].map(|place: usize| gateway.listeners[place].1.port());
    let pebble = Pebble::start(gateway.folder.path(), ports[0], ports[1], 100_000);
    // The challenge is met whatever clients have to present.
    let tls =
        "certificates: [{cert: own.pem, key: own.key}, {acme: [a.acme.test, b.acme.test]}], client: {ca: own.pem}";
    let text = yaml(tls, &acme(&pebble, "tls_alpn_01"));
    reconfigure(&gateway, &text);
    let (_, first) = await_issuer(&gateway, "a.acme.test", "Pebble Intermediate");
    let (_, second) = await_issuer(&gateway, "b.acme.test", "Pebble Intermediate");
    assert_eq!(first, second);
    let series =
        "portcullis_certificate_expiry_timestamp_seconds{file=\"acme:a.acme.test,b.acme.test\",listener=\"secure\"}";
    assert!(gateway.metric(series) > 1.0);
    // Nothing but the user of the gateway may read the keys.
    let state = gateway.folder.path().join("state");
    for entry in std::fs::read_dir(&state).expect("the folder") {
        use std::os::unix::fs::PermissionsExt;
        let mode = entry.expect("an entry").metadata().expect("its data").permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
    let copy = with_files();
    std::fs::create_dir(copy.path().join("state")).expect("made");
    for entry in std::fs::read_dir(&state).expect("the folder").flatten() {
        std::fs::copy(entry.path(), copy.path().join("state").join(entry.file_name())).expect("copied");
    }
    std::fs::copy(gateway.folder.path().join("pebble.pem"), copy.path().join("pebble.pem")).expect("copied");
    drop((gateway, pebble));
    // The server is gone: what was obtained is presented from the start.
    let again = Gateway::start_in(copy, &text, &[]);
    assert_eq!(presented(again.address(), "a.acme.test").1, first);
}

#[test]
fn a_certificate_is_obtained_over_http_before_every_route_and_renewed() {
    let gateway = Gateway::start_in(with_files(), &yaml(FILES, ""), &[]);
    let ports = [1, 0].map(|place: usize| gateway.listeners[place].1.port());
    let pebble = Pebble::start(gateway.folder.path(), ports[0], ports[1], 9);
    reconfigure(
        &gateway,
        &yaml("certificates: [{acme: a.acme.test}, {cert: own.pem, key: own.key}]", &acme(&pebble, "http_01")),
    );
    let (_, first) = await_issuer(&gateway, "a.acme.test", "Pebble Intermediate");
    // A token that is not the gateway's own takes its route.
    let other = client::get(gateway.listeners[1].1, "/.well-known/acme-challenge/unknown");
    assert_eq!(other.status, 308);
    let end = Instant::now() + Duration::from_secs(60);
    while presented(gateway.address(), "a.acme.test").1 == first {
        assert!(Instant::now() < end, "it is not renewed\n{}", gateway.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    // Without the server the last one stays.
    drop(pebble);
    assert!(presented(gateway.address(), "a.acme.test").0.contains("Pebble Intermediate"));
}
