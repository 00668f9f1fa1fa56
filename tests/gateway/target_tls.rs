//! Certificates of targets: those that are their own authority, why one is not accepted, and systems without any.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::harness::client;
use super::harness::eventually;
use super::harness::gateway::{BINARY, Gateway, complete, run};
use super::tls::{tls_target, write};

/// A server of OpenSSL's; it is killed with its handle.
struct Server(Child, std::net::SocketAddr);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(folder: &std::path::Path, arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).current_dir(folder).output().expect("openssl is needed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn server(folder: &std::path::Path, name: &str) -> Server {
    let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", &cert, "-key", &key]);
    let mut child =
        command.current_dir(folder).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("openssl is needed");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("ACCEPT")).expect("its address");
    std::thread::spawn(move || lines.for_each(drop));
    let address = line.rsplit(' ').next().and_then(|a| a.parse().ok()).expect("an address");
    Server(child, address)
}

/// What `openssl req -x509` makes by default: it is marked as an authority.
fn own(folder: &std::path::Path, name: &str) -> (String, String) {
    let (cert, key) = (format!("{name}.pem"), format!("{name}.key"));
    openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-out",
            &cert,
            "-keyout",
            &key,
        ],
    );
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).expect("the file");
    (read(&cert), read(&key))
}

/// An authority for a name, with what `change` makes of it.
fn authority(change: impl FnOnce(&mut CertificateParams)) -> (CertificateParams, KeyPair) {
    let mut params = CertificateParams::new(["localhost".to_owned()]).expect("names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    change(&mut params);
    (params, KeyPair::generate().expect("a key"))
}

fn routes(names: &[&str]) -> String {
    let route = |name: &&str| format!("  - {{name: {name}, match: {{path: /{name}}}, action: {{forward: {name}}}}}\n");
    format!("routes:\n{}", names.iter().map(route).collect::<String>())
}

#[test]
fn a_certificate_that_is_its_own_authority_is_accepted_as_openssl_does() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = own(folder.path(), "own");
    let good = server(folder.path(), "own");
    // OpenSSL's server talks to one client at a time.
    let (rust, bad) = (tls_target(&pair), tls_target(&own(folder.path(), "impostor")));
    let tls = "tls: {ca: own.pem, name: localhost}";
    let yaml = format!(
        "upstreams:\n  openssl: {{targets: ['{good}'], {tls}}}\n  by-ip: {{targets: ['{good}'], tls: {{ca: own.pem}}}}\n  \
         rust: {{targets: ['{rust}'], {tls}}}\n  hedged: {{targets: ['{rust}'], {tls}, retry: {{hedge_after: 10s}}}}\n  \
         probed: {{targets: ['{rust}'], {tls}, health: {{active: {{path: /, interval: 1h, fall: 1}}}}}}\n  \
         connected: {{targets: ['{rust}'], {tls}, health: {{active: {{interval: 1h, fall: 1}}}}}}\n  \
         name: {{targets: ['{good}'], tls: {{ca: own.pem, name: else.test}}}}\n  impostor: {{targets: ['{bad}'], {tls}}}\n  \
         impostor-hedged: {{targets: ['{bad}'], {tls}, retry: {{hedge_after: 10s}}}}\n  \
         impostor-probed: {{targets: ['{bad}'], {tls}, health: {{active: {{interval: 1h, fall: 1}}}}}}\n{}",
        routes(&["openssl", "by-ip", "rust", "hedged", "probed", "connected", "name", "impostor", "impostor-hedged"]),
        good = good.1,
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for name in ["openssl", "by-ip", "rust", "hedged", "probed", "connected"] {
        let response = gateway.get(&format!("/{name}"));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
    }
    for name in ["name", "impostor", "impostor-hedged"] {
        let response = gateway.get(&format!("/{name}"));
        assert_eq!((response.status, response.reason().as_str()), (502, "target_tls"), "{name}");
    }
    let upgrade = client::head(
        "GET",
        "/impostor",
        &[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "a2V5"),
            ("sec-websocket-version", "13"),
        ],
    );
    assert_eq!(client::Connection::open(gateway.address()).ask(upgrade).reason(), "target_tls");
    let upstreams = client::get(gateway.admin, "/upstreams").json();
    let health = |name: &str| {
        let all = upstreams.as_array().expect("a list");
        all.iter().find(|u| u["name"] == name).expect("it")["targets"][0]["health"].to_string()
    };
    assert!(health("connected").contains("\"healthy\"") && health("probed").contains("\"healthy\""), "{upstreams}");
    assert!(health("impostor-probed").contains("certificate"), "{}", health("impostor-probed"));
    let log = gateway.access_log(10);
    let detail =
        |route: &str| log.iter().find(|l| l["route"] == route).map(|l| l["detail"].to_string()).expect("a line");
    assert!(detail("name").contains("not valid for name"), "{}", detail("name"));
    assert!(detail("impostor").contains("TLS: "), "{}", detail("impostor"));
}

#[test]
fn an_authority_that_has_a_name_still_issues_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let (params, key) = authority(|_| {});
    let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let leaf_key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(["target.test".to_owned()])
        .expect("names")
        .signed_by(&leaf_key, &issuer)
        .expect("a certificate");
    std::fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("written");
    let target = tls_target(&(leaf.pem(), leaf_key.serialize_pem()));
    let yaml = format!(
        "upstreams:\n  right: {{targets: ['{target}'], tls: {{ca: ca.pem, name: target.test}}}}\n  \
         name: {{targets: ['{target}'], tls: {{ca: ca.pem, name: localhost}}}}\n{}",
        routes(&["right", "name"])
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    // The second is over what is known of the first.
    for _ in 0..2 {
        assert_eq!(gateway.get("/right").status, 200, "{}", gateway.get("/right").text());
    }
    assert_eq!(gateway.get("/name").reason(), "target_tls");
}

#[test]
fn the_log_and_the_view_say_why_tls_failed() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = |change: &dyn Fn(&mut CertificateParams)| {
        let (mut params, key) = authority(|_| {});
        params.is_ca = IsCa::NoCa;
        change(&mut params);
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    };
    let expired = make(&|params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.distinguished_name.push(rcgen::DnType::CommonName, "expired");
    });
    let right = make(&|_| {});
    write(folder.path(), "expired", &expired);
    write(folder.path(), "right", &right);
    let (own_params, own_key) = authority(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let own_expired = own_params.self_signed(&own_key).expect("a certificate");
    write(folder.path(), "own-expired", &(own_expired.pem(), own_key.serialize_pem()));
    let old = tls_target(&(own_expired.pem(), own_key.serialize_pem()));
    let (late, good) = (tls_target(&expired), tls_target(&right));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let plain = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        listener
            .incoming()
            .flatten()
            .for_each(|mut stream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
    });
    let upstream = |name: &str, address: &str, ca: &str, host: &str| {
        let probe = "health: {active: {interval: 1h, fall: 1}, panic_threshold: 100}";
        format!("  {name}: {{targets: ['{address}'], tls: {{ca: {ca}.pem, name: {host}}}, {probe}}}\n")
    };
    let cases = [
        ("expired", late.to_string(), "expired", "localhost", "expired"),
        ("own-expired", old.to_string(), "own-expired", "localhost", "valid from"),
        ("issuer", good.to_string(), "expired", "localhost", "UnknownIssuer"),
        ("name", good.to_string(), "right", "else.test", "not valid for name"),
        ("protocol", plain.to_string(), "right", "localhost", "corrupt message"),
    ];
    let upstreams: String =
        cases.iter().map(|(name, address, ca, host, _)| upstream(name, address, ca, host)).collect();
    let yaml = format!("upstreams:\n{upstreams}{}", routes(&cases.each_ref().map(|case| case.0)));
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for (name, ..) in &cases {
        assert_eq!(gateway.get(&format!("/{name}")).reason(), "target_tls", "{name}");
    }
    let log = gateway.access_log(cases.len());
    let view = client::get(gateway.admin, "/upstreams").json();
    for (name, _, _, _, why) in &cases {
        let detail = log.iter().find(|l| l["route"] == *name).map(|l| l["detail"].to_string()).expect("a line");
        assert!(
            detail.contains("TLS: ") && detail.contains(why) && !detail.contains("local address"),
            "{name}: {detail}"
        );
        let target = view.as_array().and_then(|all| all.iter().find(|u| u["name"] == *name)).expect("it")["targets"][0]
            .to_string();
        assert!(target.contains(why) && !target.contains("local address"), "{name}: {target}");
    }
}

#[test]
fn without_certificates_of_the_system_only_what_needs_them_fails() {
    let folder = tempfile::tempdir().expect("a folder");
    let pair = own(folder.path(), "own");
    let target = tls_target(&pair);
    let yaml = format!(
        "upstreams:\n  unverified: {{targets: ['{target}'], tls: {{verify: false}}}}\n  own: {{targets: ['{target}'], tls: {{ca: own.pem, name: localhost}}}}\n  \
         system: {{targets: ['{target}'], tls: {{name: localhost}}}}\n{}  - {{name: plain, action: {{respond: {{body: ok}}}}}}\n",
        routes(&["unverified", "own", "system"])
    );
    let config = folder.path().join("portcullis.yaml");
    std::fs::write(&config, complete(&yaml)).expect("written");
    std::fs::write(folder.path().join("odd.pem"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .expect("written");
    // Nothing at all, and a store of which nothing can be used.
    for file in ["/nonexistent/ca.pem", "odd.pem"] {
        let mut command = Command::new(BINARY);
        command
            .args(["run", "-c"])
            .arg(&config)
            .env("SSL_CERT_FILE", folder.path().join(file))
            .env("SSL_CERT_DIR", "/nonexistent");
        let copy = tempfile::tempdir().expect("a folder");
        let gateway = Gateway::start_by(copy, command);
        assert_eq!(gateway.get("/").text(), "ok");
        assert_eq!(gateway.get("/unverified").status, 200, "{}", gateway.get("/unverified").text());
        assert_eq!(gateway.get("/own").status, 200);
        assert_eq!(gateway.get("/system").reason(), "target_tls");
        eventually("the warning is logged", || {
            gateway.log().contains("upstreams.system.tls: the system has no CA certificates")
        });
        assert!(!gateway.log().contains("upstreams.own.tls"), "{}", gateway.log());
        let log = || std::fs::read_to_string(folder.path().join("access.log")).unwrap_or_default();
        eventually("the reason is logged", || log().contains("TLS: invalid peer certificate"));
    }
    // On this machine, which has some or has none.
    let (code, _, told) = run(&["check", "-c", &config.display().to_string()], None);
    assert_eq!(code, 0, "{told}");
}

/// Streams of one connection must not go out beside the one that finds it wrong.
#[test]
fn over_http2_too_and_for_every_stream() {
    let folder = tempfile::tempdir().expect("a folder");
    own(folder.path(), "own");
    own(folder.path(), "impostor");
    let read = |file: &str| std::fs::read(folder.path().join(file)).expect("the file");
    let target = |name: &str| {
        let place = tempfile::tempdir().expect("a folder");
        for kind in ["pem", "key"] {
            std::fs::write(place.path().join(format!("tls.{kind}")), read(&format!("{name}.{kind}"))).expect("written");
        }
        let listener = "{name: main, address: '127.0.0.1:0', tls: {certificates: [{cert: tls.pem, key: tls.key}]}}";
        let yaml = format!("listeners: [{listener}]\nroutes: [{{name: a, action: {{respond: {{body: {name}}}}}}}]");
        Gateway::start_in(place, &yaml, &[])
    };
    let (good, bad) = (target("own"), target("impostor"));
    let tls = "tls: {ca: own.pem, name: localhost}";
    let yaml = format!(
        "upstreams:\n  http2: {{targets: ['{good}'], protocol: http2, {tls}}}\n  auto: {{targets: ['{good}'], protocol: auto, {tls}}}\n  \
         impostor: {{targets: ['{bad}'], protocol: http2, {tls}}}\n{}",
        routes(&["http2", "auto", "impostor"]),
        good = good.address(),
        bad = bad.address(),
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for name in ["http2", "auto", "http2"] {
        assert_eq!(gateway.get(&format!("/{name}")).text(), "own", "{name}");
    }
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| (0..5).map(|_| gateway.get("/impostor").reason()).collect::<Vec<_>>()))
            .collect();
        for client in clients {
            assert_eq!(client.join().expect("responses"), ["target_tls"; 5]);
        }
    });
    assert_eq!(bad.metric("portcullis_requests_total{route=\"a\",status=\"2xx\"}"), 0.0, "nothing was sent");
}
