//! Sessions of layer 4 whose TLS ends at the gateway or begins there, and those behind a PROXY header.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::sessions::{Server, connect, word};

/// A certificate for those names, with its key, in PEM; it is its own authority.
fn certificate(names: &[&str]) -> (String, String) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn write(folder: &std::path::Path, name: &str, pair: &(String, String)) {
    std::fs::write(folder.join(format!("{name}.pem")), &pair.0).expect("written");
    std::fs::write(folder.join(format!("{name}.key")), &pair.1).expect("written");
}

fn connect_tls(to: SocketAddr, name: &str, trusted: &str) -> StreamOwned<ClientConnection, TcpStream> {
    portcullis::parts::install_provider();
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut trusted.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("an authority");
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).expect("a client"), connect(to))
}

/// A server that speaks TLS, says its name and the name that was requested, and repeats what it gets to the end.
fn tls_server(pair: &(String, String)) -> Server {
    portcullis::parts::install_provider();
    let chain: Vec<_> = rustls_pemfile::certs(&mut pair.0.as_bytes()).map(|c| c.expect("a certificate")).collect();
    let key = rustls_pemfile::private_key(&mut pair.1.as_bytes()).expect("PEM").expect("a key");
    let config = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair"));
    Server::new(move |stream| {
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).expect("a server"), stream);
        if stream.write_all(b"tls").is_err() {
            return;
        }
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if stream.write_all(&buffer[..count]).is_err() {
                return;
            }
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
        let _ = stream.sock.shutdown(Shutdown::Write);
    })
}

#[test]
fn tls_ends_at_the_gateway_with_half_close() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = certificate(&["db.example"]);
    write(folder.path(), "own", &own);
    let one = Server::named("one");
    let yaml = format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nstreams: [{{name: all, action: {{forward: one}}}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, limits: {{header_time: 300ms, hello_time: 200ms}}, \
         tls: {{certificates: [{{cert: own.pem, key: own.key}}]}}}}]\n",
        one.address
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    let mut stream = connect_tls(gateway.address(), "db.example", &own.0);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut came = vec![0; sent.len() + 3];
    for (place, part) in sent.chunks(30_000).enumerate() {
        stream.write_all(part).expect("sent");
        let (from, extra) = (place * 30_000, if place == 0 { 0 } else { 3 });
        stream.read_exact(&mut came[from + extra..from + part.len() + 3]).expect("an echo");
    }
    stream.conn.send_close_notify();
    stream.flush().expect("sent");
    stream.sock.shutdown(Shutdown::Write).expect("an end");
    // The end comes back as an orderly end of TLS.
    assert_eq!(stream.read(&mut [0; 8]).expect("an end with its alert"), 0);
    assert!(came.starts_with(b"one") && came[3..] == sent[..]);
    let line = &gateway.access_log(1)[0];
    for (key, value) in [
        ("tls", serde_json::Value::from("1.3")),
        ("server_name", "db.example".into()),
        ("reason", "session_ended".into()),
        ("bytes_in", 3_000_000.into()),
        ("bytes_out", 3_000_003.into()),
    ] {
        assert_eq!(line[key], value, "{key}: {line}");
    }
    // A handshake that does not come is not waited for.
    let mut silent = connect(gateway.address());
    assert_eq!(silent.read(&mut [0; 8]).expect("an end"), 0);
    let refused = "portcullis_connections_refused_total{cause=\"tls_timeout\"}";
    eventually("it is counted", || gateway.metric(refused) == 1.0);
    assert_eq!(one.count.load(std::sync::atomic::Ordering::Acquire), 1);
}

#[test]
fn tls_begins_at_the_gateway_and_targets_are_verified() {
    let folder = tempfile::tempdir().expect("a folder");
    let (right, other) = (certificate(&["target.example", "127.0.0.1"]), certificate(&["other.example"]));
    write(folder.path(), "right", &right);
    let (good, bad) = (tls_server(&right), tls_server(&other));
    let cases = [
        ("by-name", &good, "ca: right.pem, name: target.example", true),
        ("by-address", &good, "ca: right.pem", true),
        ("of-system", &good, "", false),
        ("wrong-name", &good, "ca: right.pem, name: else.example", false),
        ("impostor", &bad, "ca: right.pem, name: target.example", false),
        ("anything", &bad, "verify: false", true),
    ];
    let all = |make: &dyn Fn(&(&str, &Server, &str, bool)) -> String| cases.iter().map(make).collect::<String>();
    let yaml = format!(
        "upstreams:\n{}streams:\n{}listeners:\n{}",
        all(&|(name, server, tls, _)| format!("  {name}: {{targets: [\"{}\"], tls: {{{tls}}}}}\n", server.address)),
        all(&|(name, ..)| format!("  - {{name: {name}, listeners: [{name}], action: {{forward: {name}}}}}\n")),
        all(&|(name, ..)| format!("  - {{name: {name}, address: 127.0.0.1:0, kind: tcp}}\n")),
    );
    let gateway = Gateway::start_in(folder, &yaml, &[]);
    for (name, _, _, works) in cases {
        let address = gateway.listeners.iter().find(|(known, _)| known == name).expect("a listener").1;
        let mut stream = connect(address);
        if works {
            assert_eq!(word(&mut stream), "tls", "{name}");
            stream.write_all(b"abc").expect("sent");
            assert_eq!(word(&mut stream), "abc", "{name}");
            stream.shutdown(Shutdown::Write).expect("an end");
        }
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).is_ok(), works, "{name}");
    }
    let lines = gateway.access_log(cases.len());
    for (name, _, _, works) in cases {
        let line = lines.iter().find(|line| line["stream"] == name).expect("a line");
        assert_eq!(line["reason"], if works { "session_ended" } else { "target_tls" }, "{line}");
    }
}

#[test]
fn a_proxy_header_names_the_client() {
    let servers = [Server::named("one"), Server::named("two"), Server::named("six")];
    let targets = servers.each_ref().map(|server| format!("\"{}\"", server.address)).join(", ");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [{targets}], balance: {{hash: {{by: address}}}}}}}}\n\
         streams: [{{name: all, action: {{forward: one}}}}, {{name: none, match: {{client: 203.0.113.0/24}}, action: close}}]\n\
         listeners: [{{name: main, address: 127.0.0.1:0, kind: tcp, proxy_protocol: {{from: 127.0.0.1}}}}]\n"
    ));
    let mut seen = std::collections::HashSet::new();
    for client in 1..=20 {
        let words: Vec<String> = (0..2)
            .map(|_| {
                let mut stream = connect(gateway.address());
                let header = format!("PROXY TCP4 192.0.2.{client} 198.51.100.2 4096 443\r\nx");
                stream.write_all(header.as_bytes()).expect("sent");
                word(&mut stream)
            })
            .collect();
        assert_eq!(words[0], words[1]);
        seen.insert(words[0].clone());
    }
    assert_eq!(seen.len(), 3);
    let mut stream = connect(gateway.address());
    stream.write_all(b"PROXY TCP4 203.0.113.7 198.51.100.2 4096 443\r\n").expect("sent");
    assert!(stream.read(&mut [0; 8]).is_err());
    let lines = gateway.access_log(41);
    assert!(lines.iter().any(|line| line["client"] == "203.0.113.7" && line["reason"] == "closed_by_rule"));
    assert!(lines.iter().any(|line| line["client"] == "192.0.2.20" && line["bytes_in"] == 1));
}
